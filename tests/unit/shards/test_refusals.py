"""Whatever does not fit is refused, by file and field, and leaves nothing behind."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpcreco import shards


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.h5"


def refused(path, toy, *words, events=None, **arguments):
    """Writing fails with a ShardError that has the words; the folder is as empty as before."""
    with pytest.raises(shards.ShardError) as caught:
        toy.write(path, events if events is not None else toy.events([2]), **arguments)
    for word in (str(path), *words):
        assert word in str(caught.value)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("features", np.array([[1, np.nan]] * 2, "f4"), ["points/features", "2 NaN"]),
        ("features", np.array([[1, 1e300]] * 2), ["points/features", "NaN or infinite"]),
        ("features", np.zeros((2, 3), "f4"), ["points/features", "V, X"]),
        ("coords", np.zeros((2, 4), "i4"), ["points/coords", "x, y, z"]),
        ("coords", np.zeros((2, 3)), ["points/coords", "int32", "float64"]),
        ("coords", np.full((2, 3), 2**31), ["points/coords", "outside int32"]),
        ("tick", np.array([1, -1]), ["points/tick", "outside uint16"]),
        ("tick", np.zeros((2, 1), "u2"), ["points/tick", "1 dimension"]),
        ("tick", np.zeros(3, "u2"), ["points", "different numbers of rows"]),
        ("colour", np.zeros(2), ["points/colour", "not part of"]),
    ],
)
def test_values_that_do_not_fit(path, toy, field, value, words):
    event = toy.event(0, 2)
    event["points"][field] = value
    refused(path, toy, *words, events=[event])


def test_events_that_differ_in_what_they_have(path, toy):
    without = toy.event(0, 2)
    del without["truth"]
    refused(path, toy, "event 1", "truth", events=[toy.event(0, 2), without])
    refused(path, toy, "event 1", "truth", events=[without, toy.event(0, 2)])
    required = toy.event(0, 2)
    del required["points"]["tick"]
    refused(path, toy, "points/tick", "missing", events=[required])


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"tpc": None}, ["tpc", "missing"]),
        ({"tpc": [1.5]}, ["tpc", "int"]),
        ({"tpc": "15"}, ["tpc", "list"]),
        ({"threshold": "low"}, ["threshold", "float"]),
        ({"threshold": True}, ["threshold", "float"]),
        ({"options": {1, 2}}, ["options", "JSON"]),
        ({"colour": 1}, ["colour", "not part of"]),
    ],
)
def test_attributes_that_do_not_fit(path, toy, attributes, words):
    refused(path, toy, *words, attributes=attributes)


def test_unknown_columns_and_compression(path, toy):
    refused(path, toy, "zip", compression="zip")
    with pytest.raises(shards.ShardError, match="points/coords"):
        shards.ShardWriter(path, toy.schema, toy.attributes, {"points/coords": ("z", "y", "x")})
    with pytest.raises(shards.ShardError, match="points/colour"):
        shards.ShardWriter(path, toy.schema, toy.attributes, {"points/colour": ("r",)})


def write_and_raise(path, toy, error):
    with shards.ShardWriter(path, toy.schema, toy.attributes) as writer:
        writer.append(0, toy.event(9, 200_000))
        raise error


@pytest.mark.parametrize("error", [KeyError("x"), KeyboardInterrupt()])
def test_an_exception_leaves_the_old_file(path, toy, error):
    digest = toy.write(path, toy.events([3]))
    with pytest.raises(type(error)):
        write_and_raise(path, toy, error)
    assert shards.Shard(path).digest == digest
    assert list(path.parent.iterdir()) == [path]


def test_a_killed_writer_leaves_no_file_and_its_temporary_is_removed(path, toy):
    code = (
        "import os, sys, signal\n"
        "from hpcreco.shards import *\n"
        "schema = Schema('hpcreco/toy/a', 1, (Table('t', (Field('v', 'float64'),)),))\n"
        "with ShardWriter(sys.argv[1], schema, {}) as writer:\n"
        "    writer.append(0, {'t': {'v': [1.0] * 200000}})\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert ended.returncode == -signal.SIGKILL
    left = list(path.parent.iterdir())
    assert len(left) == 1
    assert left[0] != path
    with shards.atomic(path.with_name("b.h5")) as alive:
        alive.write_text("in work")
        assert shards.remove_dead([path, path.with_name("b.h5")]) == left
        assert alive.exists()
    assert [item.name for item in path.parent.iterdir()] == ["b.h5"]


FULL_DISK = """
import os, sys
from pathlib import Path
import numpy as np
from hpcreco import shards
folder, compression, events = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
schema = shards.Schema("hpcreco/toy/a", 1, (shards.Table("t", (shards.Field("v", "float64"),)),))
for attempt in range(2):
    try:
        with shards.ShardWriter(folder / "full.h5", schema, {}, compression=compression) as writer:
            for number in range(events):
                writer.append(number, {"t": {"v": np.random.default_rng(number).random(60_000)}})
    except shards.ShardError as error:
        print(error)
try:
    shards.write_artefact(folder / "full.h5", schema, {}, {"a": np.zeros(events * 60_000)})
except shards.ShardError as error:
    print(error)
with shards.ShardWriter(folder / "small.h5", schema, {}) as writer:  # the process has not suffered
    writer.append(0, {"t": {"v": [1.0]}})
assert shards.validate(folder / "small.h5", schema) == []
"""


@pytest.mark.parametrize("events", [2, 12])  # the disk is full at the end, and on the way
@pytest.mark.parametrize("compression", ["default", "none"])
def test_a_full_disk_is_an_error_of_one_file(tmp_path, compression, events, full_disk):
    folder, prepare = full_disk
    arguments = [sys.executable, "-c", FULL_DISK, str(folder), compression, str(events)]
    ended = subprocess.run(arguments, preexec_fn=prepare, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    lines = ended.stdout.splitlines()
    assert len(lines) == 3
    assert all(line.startswith(f"{folder / 'full.h5'}: cannot be written") for line in lines)
    assert sorted(item.name for item in folder.iterdir()) == ["small.h5"]


def _limit_file_size():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (800_000, 800_000))


@pytest.fixture(params=["tmpfs", "file size limit"])
def full_disk(request, tmp_path):
    """A folder that takes 800 kB: a small tmpfs where we may mount one, else and also a limit on file sizes."""
    if request.param == "file size limit":
        yield tmp_path, _limit_file_size
        return
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=800k", "tmpfs", str(tmp_path)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a small tmpfs")
    yield tmp_path, None
    subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.99])
def test_truncated_files(path, toy, share):
    toy.write(path, toy.events([5000, 20]))
    os.truncate(path, int(path.stat().st_size * share))
    with pytest.raises(shards.ShardError, match="truncated"):
        shards.Shard(path)
    assert len(shards.validate(path)) == 1
    assert str(path) in shards.validate(path)[0]


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    place=st.floats(0, 1, exclude_max=True),
    bits=st.integers(1, 255),
    compression=st.sampled_from(["default", "none"]),
)
def test_damage_is_found_or_harmless(tmp_path_factory, toy, place, bits, compression):
    """One changed byte anywhere: validate names it, or the content is still what was written. Nothing else."""
    path = tmp_path_factory.getbasetemp() / f"damaged-{compression}.h5"
    events = toy.events([500, 0, 20])
    toy.write(path, events, compression=compression)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= bits
    path.write_bytes(content)
    problems = shards.validate(path, toy.schema)
    if not problems:
        with shards.Shard(path, toy.schema) as shard:
            for number, event in enumerate(events):
                toy.assert_event(shard, number, event)


def test_files_that_are_something_else(path, toy):
    with pytest.raises(shards.ShardError, match="no such file"):
        shards.Shard(path)
    path.write_text("hello")
    with pytest.raises(shards.ShardError, match="not a readable HDF5"):
        shards.Shard(path)
    assert shards.identify(path) is None
    with h5py.File(path, "w") as file:
        file["x"] = [1]
    with pytest.raises(shards.ShardError, match="without hpcreco's `format`"):
        shards.Shard(path)
    assert shards.identify(path) is None


def edit(path, change):
    with h5py.File(path, "r+") as file:
        change(file)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f.attrs.__setitem__("complete", 0), ["incomplete"]),
        (lambda f: f.attrs.__setitem__("version", 2), ["version 2", "expected 3"]),
        (
            lambda f: f.attrs.__setitem__("format", "hpcreco/toy/lines"),
            ["hpcreco/toy/lines", "expected hpcreco/toy/points"],
        ),
        (lambda f: f.attrs.__delitem__("tpc"), ["tpc", "missing"]),
        (lambda f: f["points"].__delitem__("tick"), ["points/tick", "missing"]),
        (lambda f: f.__delitem__("beam"), ["beam/momentum", "missing"]),
    ],
)
def test_files_that_are_refused_on_opening(path, toy, change, words):
    toy.write(path, toy.events([4, 2]))
    edit(path, change)
    with pytest.raises(shards.ShardError) as caught:
        shards.Shard(path, toy.schema)
    for word in (str(path), *words):
        assert word in str(caught.value)
    assert shards.validate(path, toy.schema) == [str(caught.value)]


def replaced(name, values):
    def change(file):
        del file[name]
        file[name] = values

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (replaced("points/offsets", [0, 4]), ["points/offsets", "1 events", "has 2"]),
        (replaced("points/offsets", [0, 7, 6]), ["points/offsets", "never fall"]),
        (replaced("points/offsets", [0, 4, 7]), ["points/", "6 rows", "need 7"]),
        (replaced("truth/pdg", np.zeros(9, "i4")), ["truth/pdg", "9 rows"]),
        (replaced("points/tick", np.zeros(6, "i8")), ["points/tick", "uint16"]),
        (replaced("points/features", np.full((6, 2), np.nan, "f4")), ["points/features", "12 NaN"]),
        (replaced("points/tick", np.full(6, 7, "u2")), ["content_digest"]),
        (lambda f: f["points"].__setitem__("colour", np.zeros(6)), ["points/colour", "not part of"]),
        (lambda f: f.attrs.__setitem__("threshold", 0.5), ["content_digest"]),
        (replaced("events/id", np.arange(3)), ["points/offsets", "2 events", "has 3"]),
    ],
)
def test_validate_names_what_is_wrong(path, toy, change, words):
    toy.write(path, toy.events([4, 2]))
    assert shards.validate(path, toy.schema) == []
    edit(path, change)
    problems = "\n".join(shards.validate(path, toy.schema))
    for word in (str(path), *words):
        assert word in problems


def test_events_outside_the_shard(path, toy):
    toy.write(path, toy.events([4, 2]))
    with shards.Shard(path) as shard:
        for event in (-1, 2):
            with pytest.raises(shards.ShardError, match=r"has 0\.\.1"):
                shard.read(event, "points")
        with pytest.raises(shards.ShardError, match="points/colour"):
            shard.read(0, "points", ["colour"])


def test_a_read_only_folder_can_be_read(path, toy):
    toy.write(path, toy.events([4]))
    Path(path).chmod(0o444)
    path.parent.chmod(0o555)
    try:
        assert shards.validate(path, toy.schema) == []
    finally:
        path.parent.chmod(0o755)
