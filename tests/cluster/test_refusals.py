"""What cannot work is refused in one sentence: by the ranks, or before it is queued."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.mark.parametrize(("mpi", "says"), [("none", "MPI sees 1"), ("pmix", "speaks PMIx")])
@pytest.mark.parametrize("verb", ["tile", "train"])
def test_a_wrong_mpi_is_one_sentence_from_one_rank(cluster, toy, mpi, says, verb):
    arguments = {
        "tile": ["-i", cluster.folder, "-o", cluster.folder / "never", "-t", "1"],
        "train": [toy.config, f"--set=output_dir={cluster.folder / 'never'}"],
    }[verb]
    ended = cluster.run("srun", "-N", "5", "-K", f"--mpi={mpi}", "hpcreco", verb, *arguments, check=False)
    if "Couldn't load specified plugin" in ended.stderr:
        pytest.skip(f"needs Slurm's {mpi} plugin and its library (Debian: libpmix-dev)")
    said = [line for line in ended.stderr.splitlines() if not line.startswith(("srun:", "slurmstepd"))]
    assert len(said) == 1, ended.stderr
    assert said[0].startswith("hpcreco: error: the launcher (srun) promised 5 processes but ")
    assert says in said[0]
    assert "srun --mpi=pmi2" in said[0]
    assert ended.returncode == 1
    assert not (cluster.folder / "never").exists()


def test_a_mistake_of_rank_0_ends_all_ranks(cluster):
    """Rank 0 alone looks for the files; the others wait for what it found."""
    tile = ("hpcreco", "tile", "-i", cluster.folder / "logs", "-o", cluster.folder / "never", "-t", "1")
    ended = cluster.run("srun", "-N", "3", "-K", *tile, check=False)
    assert ended.returncode == 2, ended
    assert ended.stderr.count("hpcreco: error:") == 1


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--site", "perlmuter"], "did you mean 'perlmutter'"),
        (["--container", "./absent.sif"], "there is no such image"),
        (["-t", "1"], "is warned 120 s before its end"),
        (["--array", "0-3"], "train is one job"),
    ],
)
def test_what_cannot_run_is_refused_before_it_is_queued(cluster, toy, flags, says):
    words = ("train", toy.config, *flags, "--sbatch=--job-name=refused")
    ended = cluster.run("hpcreco", "submit", *words, check=False)
    assert ended.returncode == 2
    assert says in ended.stderr
    assert "\njob " not in ended.stdout
    assert not cluster.run("squeue", "--noheader", "--name=refused").stdout
