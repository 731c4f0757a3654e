"""IceCube from seeds to a report, link by link, with the commands a user types and real MPI ranks."""

from __future__ import annotations

import pytest
from small_icecube import assignments, flags, simulate

from hpcreco import shards
from hpcreco.experiments.icecube.yinf import LOSSES, YINF

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def chain(tmp_path_factory, mpiexec):
    """A folder in which the commands run, and how to run one."""
    folder = tmp_path_factory.mktemp("chain")
    simulate(folder)

    def run(ranks, *arguments):
        return mpiexec(ranks, ["-m", "hpcreco", *arguments], cwd=folder, check=True)

    return folder, run


def test_the_chain_from_events_to_a_report(chain):
    folder, run = chain
    changes = flags(assignments(folder, folder / "run"))
    run(2, "icecube", "trafo", "cascade_tiny", *changes)
    run(2, "train", "cascade_tiny", *changes)
    run(1, "icecube", "export", "cascade_tiny", *changes, "-o", "export")
    run(1, "infer", "cascade_tiny", *changes)
    (losses,) = (folder / "run/inference").glob("*.h5")
    with shards.Shard(losses, LOSSES) as shard:
        assert shard.n_events == 16
    events = ["-i", "pulses/pulses-00002.h5", "-o", "reco", "--seed", "smeared", "--events", "0:4"]
    run(2, "icecube", "reconstruct", "export", *events)
    (fits,) = (folder / "reco").glob("*.h5")
    with shards.Shard(fits, YINF) as shard:
        fit = shard.read_events(0, shard.n_events, "fit")
        assert (fit["loss"] <= fit["seed_loss"]).all()
    run(1, "report", "reco", "--no-pictures")
    assert (folder / "reco/report/report.txt").is_file()
    for name, data, kind in (
        ("starting_cascades_tiny", "pairs", "cascade"),
        ("track_tiny", "tracks", "track"),
    ):
        base = "model_settings.multi_source_bases"
        multi = {
            "output_dir": folder / name,
            "data_trafo_settings.model_dir": folder / name / "trafo",
            "training_settings.num_training_iterations": 2,
            "data_iterator_settings.training.input_data": folder / data / "pulses-00000.h5",
            "data_iterator_settings.validation.input_data": folder / data / "pulses-00001.h5",
            f"{base}.noise.load_dir": folder / "export/models_0000/noise",
            f"{base}.{kind}.multi_source_bases.cascade.load_dir": folder / "export/models_0000/cascade",
        }
        arguments = flags([f"{key}={value}" for key, value in multi.items()])
        run(1, "icecube", "trafo", name, *arguments)
        run(1, "icecube", "export", name, *arguments, "-o", f"composed/{name}")  # as it is put together
        run(2, "train", name, *arguments)
        run(1, "icecube", "export", name, *arguments, "-o", f"export_{name}")
