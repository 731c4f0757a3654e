import io
import tarfile

import numpy as np
import pytest

from hpcreco.experiments.protodune import geometry, parsed
from hpcreco.experiments.protodune.imports import frames, write_frames
from hpcreco.experiments.protodune.tiling.tiler import Tiler, TilingOptions


def archive(path, **members):
    """A frame archive of members given as arrays."""
    with tarfile.open(path, "w:bz2") as tar:
        for name, array in members.items():
            stream = io.BytesIO()
            np.save(stream, array)
            info = tarfile.TarInfo(f"{name}.npy")
            info.size = len(stream.getvalue())
            tar.addfile(info, io.BytesIO(stream.getvalue()))
    return path


def members(event, charge, **changes):
    content = {
        f"frame_gauss1_{event}": charge,
        f"channels_gauss1_{event}": np.arange(2560, 2560 + len(charge)),
        f"tickinfo_gauss1_{event}": np.array([0.0, 500.0, 3.0]),
        f"chanmask_bad_{event}": np.array(
            [[2577, 0, 21], [5119, 0, 21], [2600, 5, 5], [2297, 0, 21], [9988, 0, 21]]
        ),
    }
    return content | changes


def test_channels_ticks_and_bad_channels_become_local(tmp_path):
    charge = np.zeros((2560, 21), np.float32)
    charge[7, 4], charge[2100, 20], charge[8, 4] = 5.0, 6.0, 7.0
    other = members(12, np.zeros((2560, 21), np.float32))
    path = archive(
        tmp_path / "x.tar.bz2", **members(5, charge), **other, frame_wiener1_5=charge, note=np.zeros(3)
    )
    assert frames.identity(path) == (1, 5)
    first, second = frames.read_frames(path)
    assert (first.event, first.apa, first.tpc, second.event) == (5, 1, 2, 12)
    assert first.n_ticks == 24  # 3 + 21, and a multiple of 8
    assert first.waveforms.tick.tolist() == [7, 7, 23]
    assert first.waveforms.channel.tolist() == [7, 8, 2100]
    assert first.waveforms.value.tolist() == [5.0, 7.0, 6.0]
    assert first.bad_channels.tolist() == [17, 2559]  # not the unmasked 2600, nor channels of other APAs

    wire = tmp_path / "reco_protoDUNE_005_wire-TPC2.h5"
    write_frames(path, wire, None, "fingerprint")
    with parsed.open_parsed(wire) as file:
        assert file.event_ids.tolist() == [5, 12]
        assert file.attributes["dead_channels"] == [17, 2559]
        np.testing.assert_array_equal(file.waveform(0).channel, [7, 8, 2100])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tickinfo_gauss1_5": np.array([0.0, 512.0, 0.0])}, "512"),
        ({"channels_gauss1_5": np.arange(2000, 4560)}, "one APA"),
        ({"channels_gauss1_5": np.arange(100)}, "100 channels"),
        ({"frame_other_5": np.zeros((1, 1)), "frame_gauss1_5": None}, "channels_other"),
    ],
)
def test_frames_that_do_not_fit_are_refused(tmp_path, change, message):
    content = {k: v for k, v in members(5, np.zeros((2560, 8)), **change).items() if v is not None}
    path = archive(tmp_path / "x.tar.bz2", **content)
    with pytest.raises(frames.FrameError, match=message) as error:
        frames.read_frames(path)
    assert str(path) in str(error.value)


def test_broken_archives_and_unknown_tags(tmp_path):
    path = archive(tmp_path / "x.tar.bz2", **members(5, np.zeros((2560, 8))))
    with pytest.raises(frames.FrameError, match="gauss1"):
        frames.read_frames(path, "raw")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(frames.FrameError, match="not a readable"):
        frames.read_frames(path)


@pytest.fixture(scope="module")
def real_frame(public_data):
    path = public_data / "protodune/protodunehd-sp/protodunehd-sp-frames-anode1-ticks0-4000.tar.bz2"
    return frames.read_frames(path)[0]


def test_the_real_event(real_frame):
    assert (real_frame.event, real_frame.apa, real_frame.tpc, real_frame.n_ticks) == (40896, 1, 2, 4000)
    tick, channel, value = real_frame.waveforms
    assert len(tick) == 238_311 and value.min() > 0
    sums = np.histogram(channel, [0, 800, 1600, 2080, 2560], weights=value.astype(float))[0]
    np.testing.assert_allclose(sums, [1.767e8, 1.549e8, 1.685e8, 1.46e6], rtol=2e-3)
    assert len(real_frame.bad_channels) == 15  # of the 41 in the whole detector


def test_the_real_event_is_tiled_with_its_bad_channels_dead(real_frame):
    face = geometry.load().face(real_frame.tpc)
    assert face.face == 1
    plain = Tiler(face, n_ticks=real_frame.n_ticks).tile(*real_frame.waveforms)
    dead = TilingOptions(dead_channels=tuple(real_frame.bad_channels.tolist()))
    tiles = Tiler(face, dead, n_ticks=real_frame.n_ticks).tile(*real_frame.waveforms)
    found, without = (set(map(tuple, t.coords.tolist())) for t in (tiles, plain))
    assert without < found
    # all planes see the same charge: the shares agree to about 10 %
    charge = tiles.features.sum(axis=0)
    assert charge.max() / charge.min() < 1.2
