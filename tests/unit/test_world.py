"""The promised world, from each launcher's variables."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcreco.world import World, WorldError, detect, only_pmix, workers

ranks = st.integers(1, 64).flatmap(lambda size: st.tuples(st.integers(0, size - 1), st.just(size)))


def slurm(rank: int, size: int) -> dict[str, str]:
    return {
        "SLURM_NTASKS": "999",
        "SLURM_STEP_NUM_TASKS": str(size),
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": "1",
        "SLURM_NODEID": "2",
        "SLURM_STEP_TASKS_PER_NODE": "4(x2),3",
    }


def hydra(rank: int, size: int) -> dict[str, str]:
    return {"PMI_RANK": str(rank), "PMI_SIZE": str(size), "MPI_LOCALRANKID": "0", "MPI_LOCALNRANKS": "2"}


def open_mpi(rank: int, size: int) -> dict[str, str]:
    return {
        "OMPI_COMM_WORLD_RANK": str(rank),
        "OMPI_COMM_WORLD_SIZE": str(size),
        "OMPI_COMM_WORLD_LOCAL_RANK": "0",
        "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    }


def torchrun(rank: int, size: int) -> dict[str, str]:
    return {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}


def test_nothing_in_the_environment_is_one_process():
    assert detect({}) == World(0, 1, 0, 1, "none")


def test_slurm_ntasks_outside_a_step_promises_nothing():
    assert detect({"SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_JOB_ID": "1"}).size == 1


@given(ranks)
def test_each_launcher_is_read_from_its_own_variables(rank_size):
    rank, size = rank_size
    assert detect(hydra(rank, size)) == World(rank, size, 0, 2, "mpiexec")
    assert detect(open_mpi(rank, size)) == World(rank, size, 0, 2, "mpiexec")
    assert detect(torchrun(rank, size)) == World(rank, size, 0, 2, "torchrun")
    assert detect(slurm(rank, size)) == World(rank, size, 1, 3, "srun")


@given(ranks, ranks, ranks, ranks)
def test_the_first_promise_counts(pmi, ompi, torch, step):
    makers = [(hydra, pmi), (open_mpi, ompi), (torchrun, torch), (slurm, step)]
    environ: dict[str, str] = {}
    for maker, rank_size in reversed(makers):  # add the stronger promise to the weaker ones
        environ |= maker(*rank_size)
        found = detect(environ)
        assert (found.rank, found.size) == rank_size


def test_hydra_started_by_slurm_is_not_taken_for_its_proxy():
    """mpiexec in an allocation runs one proxy per node with srun, whose variables its ranks inherit."""
    found = detect(slurm(1, 2) | hydra(3, 8))
    assert found == World(3, 8, 0, 2, "mpiexec")


def test_pmi2_under_srun_takes_the_place_on_the_node_from_slurm():
    found = detect(slurm(5, 11) | {"PMI_RANK": "5", "PMI_SIZE": "11"})
    assert found == World(5, 11, 1, 3, "srun")


def test_world_size_exported_by_a_job_script_takes_the_rank_from_the_step():
    assert detect(slurm(5, 11) | {"WORLD_SIZE": "11"}) == World(5, 11, 1, 3, "srun")


def test_pmix_counts_where_nothing_older_is_offered():
    pmix = slurm(1, 2) | {"PMIX_RANK": "1"}
    assert only_pmix(pmix)
    assert not only_pmix(pmix | {"PMI_RANK": "1", "PMI_SIZE": "2"})
    assert not only_pmix(slurm(1, 2) | {"PMIX_MCA_gds": "hash"})  # a setting that a site recommends


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"WORLD_SIZE": "4"}, "RANK"),
        ({"PMI_SIZE": "4"}, "PMI_RANK"),
        ({"PMI_SIZE": "four", "PMI_RANK": "0"}, "PMI_SIZE"),
        ({"PMI_SIZE": "4", "PMI_RANK": "4"}, "rank 4 of 4"),
    ],
)
def test_contradictions_are_named(environ, named):
    with pytest.raises(WorldError, match=named):
        detect(environ)


@given(
    size=st.integers(1, 5),
    count=st.integers(1, 6),
    first=st.integers(0, 9),
    step=st.integers(1, 4),
)
def test_array_tasks_and_ranks_number_all_workers_once(size, count, first, step):
    found = []
    for task in range(first, first + count * step, step):
        array = {
            "SLURM_ARRAY_TASK_ID": str(task),
            "SLURM_ARRAY_TASK_COUNT": str(count),
            "SLURM_ARRAY_TASK_MIN": str(first),
            "SLURM_ARRAY_TASK_MAX": str(first + (count - 1) * step),
            "SLURM_ARRAY_TASK_STEP": str(step),
        }
        found += [workers(array | hydra(rank, size)) for rank in range(size)]
    assert [worker.index for worker in found] == list(range(size * count))
    assert {worker.count for worker in found} == {size * count}


def test_an_irregular_array_is_refused():
    """--array=1,2,5 has no numbering 0..2 that every task could know: files would be lost."""
    array = {"SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_MAX": "5"}
    for task in ("1", "2", "5"):
        with pytest.raises(WorldError, match="--array=0-7"):
            workers(array | {"SLURM_ARRAY_TASK_ID": task, "SLURM_ARRAY_TASK_STEP": "1"})
