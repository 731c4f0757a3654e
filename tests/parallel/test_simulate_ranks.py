"""Simulation under real MPI ranks gives the files that one process gives."""

import pytest

from hpcreco import shards


def digests(folder):
    found = {}
    for path in sorted(folder.glob("*.h5")):
        with shards.Shard(path) as shard:
            found[path.name] = shard.digest
    return found


@pytest.mark.mpi
def test_files_do_not_depend_on_the_ranks(mpiexec, tmp_path):
    options = ["-m", "hpcreco", "simulate", "protodune", "--preset", "tiny", "--files", 4, "--seed", 9]
    for ranks, more in ((1, ()), (3, ("--schedule", "dynamic"))):
        mpiexec(ranks, [*options, *more, "--out", tmp_path / str(ranks)])
    alone, shared = digests(tmp_path / "1"), digests(tmp_path / "3")
    assert len(alone) == 16
    assert shared == alone
