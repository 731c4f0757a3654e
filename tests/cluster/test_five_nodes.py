"""Five nodes make what one process makes."""

from __future__ import annotations

import json

import pytest

from hpcreco import parallel, shards

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def digests(folder) -> dict[str, str]:
    made = {}
    for path in folder.glob("*.h5"):
        with shards.Shard(path) as shard:
            made[path.name] = shard.digest
    return made


def test_tile_as_an_array_and_as_one_job_of_five_nodes_makes_the_same_files(cluster, parsed):
    flags = ("-i", parsed, "-t", "1")
    array = cluster.submit("tile", "--array", "0-3", "--", *flags, "-o", cluster.folder / "xy-array")
    five = cluster.submit("tile", "-N", "5", "--", *flags, "-o", cluster.folder / "xy-five")
    cluster.run("hpcreco", "tile", *flags, "-o", cluster.folder / "xy-one")
    cluster.ended(five)
    for task in range(4):
        cluster.ended(f"{array}_{task}")
    expected = digests(cluster.folder / "xy-one")
    assert len(expected) == 12
    assert digests(cluster.folder / "xy-five") == expected
    assert digests(cluster.folder / "xy-array") == expected
    report = json.loads((cluster.folder / "xy-five" / "tile-TPC1.json").read_text())
    assert {job["worker"] for job in report["jobs"]} == set(range(5))


@pytest.mark.parametrize("backend", ["horovod", "ddp"])
def test_training_on_five_nodes_equals_training_on_one(toy, backend):
    if backend == "horovod" and not parallel.horovod_works():
        pytest.skip("needs Horovod (tools/setup builds it where there is a compiler)")
    name = f"five-{backend}"
    sets = (*toy.sets(name), f"--backend={backend}")
    job = toy.cluster.submit("train", toy.config, "-N", "5", "--", *sets)
    toy.cluster.ended(job)
    assert f"5 rank(s) on {backend}" in (toy.folder(name) / "train.log").read_text()
    (attempt,) = toy.attempts(name)
    assert attempt.ranks == 5
    toy.equals_straight(name)
