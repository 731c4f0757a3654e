"""Joining TPCs under real MPI ranks gives the files that one process gives, bit by bit."""

import pytest

from hpcreco import shards
from hpcreco.experiments.protodune import geometry, names, parsed


@pytest.mark.mpi
def test_files_do_not_depend_on_the_ranks(mpiexec, tmp_path):
    digest = geometry.load().digest
    for index in range(5):
        for tpc in (1, 5, 9):
            attributes = {
                "event_type": "Mu", "index": index, "product": "depoElectron", "tpc": tpc, "geometry": "pdsp",
                "geometry_digest": digest, "generator": "test",
            }  # fmt: skip
            path = tmp_path / "parsed" / names.compose("Mu", index, "depoElectron", tpc)
            with parsed.truth_writer(path, attributes) as writer:
                for event in range(3):
                    parsed.append_truth(writer, event, [[index, tpc, event], [9, 8, 7]], [1.5 * tpc, 2.0])
    options = ["-m", "hpcreco", "join-tpcs", "-i", tmp_path / "parsed", "--product", "depoElectron"]
    for ranks in (1, 2):
        mpiexec(ranks, [*options, "-o", tmp_path / str(ranks)])
    alone, shared = (
        {path.name: shards.Shard(path).digest for path in sorted((tmp_path / str(ranks)).glob("*.h5"))}
        for ranks in (1, 2)
    )
    assert len(alone) == 5
    assert shared == alone
