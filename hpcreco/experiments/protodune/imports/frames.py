"""Frame archives of the wire-cell toolkit: deconvolved waveforms of a real detector, one APA per archive.

A tar (bz2, gz or plain) of ``.npy`` members, per event number and tag: ``frame_<tag>_<event>`` (channels, ticks)
in electrons per tick, ``channels_<tag>_<event>`` offline channel numbers, ``tickinfo_<tag>_<event>`` (start time,
tick in ns, first tick), and ``chanmask_bad_<event>`` rows (channel, first tick, end tick), which may list channels
of other APAs too.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpcreco.experiments.protodune.geometry import N_CHANNELS, REAL_TPCS, SAMPLING_RATE
from hpcreco.experiments.protodune.parsed import Waveforms

TICK_NS = 1000.0 / SAMPLING_RATE
TICK_BLOCK = 8  # the readout length is rounded up to a multiple of this, so that it can be downsampled
_MEMBER = re.compile(r"(?P<what>frame|channels|tickinfo|chanmask)_(?P<tag>[^_]+)_(?P<event>\d+)\.npy$")


class FrameError(RuntimeError):
    """An archive that is not what this reader knows."""

    exit_code = 1


@dataclass(frozen=True)
class Frame:
    """One event of one APA in local channel numbers."""

    event: int
    apa: int
    n_ticks: int
    waveforms: Waveforms
    bad_channels: np.ndarray  # int32, local, sorted

    @property
    def tpc(self) -> int:
        """The TPC of this APA that sees drifting charge."""
        return tpc_of_apa(self.apa)


def tpc_of_apa(apa: int) -> int:
    """The TPC of an APA that sees drifting charge."""
    return next(tpc for tpc in REAL_TPCS if tpc // 2 == apa)


def is_frame_archive(path: Path) -> bool:
    """True for names like ``x.tar``, ``x.tar.bz2``, ``x.tgz``."""
    return ".tar" in path.suffixes or path.suffix == ".tgz"


def identity(path: Path) -> tuple[int, int]:
    """APA and first event number of an archive."""
    members = _load(path, only="channels")
    if not members:
        raise FrameError(f"{path}: holds no channels_<tag>_<event>.npy; expected a wire-cell frame archive")
    (_, _, event), channels = min(members.items(), key=lambda item: item[0][2])
    return int(channels.min()) // N_CHANNELS, event


def read_frames(path: Path, tag: str | None = None) -> list[Frame]:
    """All events of an archive, in event order. `tag` defaults to the (first) one that starts with gauss.

    Raises FrameError for a broken archive, an unknown tag, another tick length or channels of several APAs.
    """
    members = _load(path)
    known = sorted({t for what, t, _ in members if what == "frame"})
    if tag is None:
        tag = next((t for t in known if t.startswith("gauss")), known[0] if known else None)
    if tag not in known:
        raise FrameError(
            f"{path}: no frames with tag {tag!r}; it holds {', '.join(known) or 'no frames at all'}"
        )
    events = sorted(event for what, t, event in members if what == "frame" and t == tag)
    return [_frame(path, members, tag, event) for event in events]


def _load(path: Path, only: str | None = None) -> dict[tuple[str, str, int], np.ndarray]:
    members: dict[tuple[str, str, int], np.ndarray] = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                match = _MEMBER.search(member.name)
                if match is None or only not in (None, match["what"]):
                    continue
                stream = archive.extractfile(member)
                if stream is not None:
                    array = np.load(io.BytesIO(stream.read()), allow_pickle=False)
                    members[match["what"], match["tag"], int(match["event"])] = array
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise FrameError(
            f"{path}: not a readable frame archive ({error}); expected a tar of .npy files"
        ) from error
    return members


def _frame(path: Path, members: dict[tuple[str, str, int], np.ndarray], tag: str, event: int) -> Frame:
    for what in ("channels", "tickinfo"):
        if (what, tag, event) not in members:
            raise FrameError(f"{path}: event {event} has no {what}_{tag}_{event}.npy")
    charge, channels = members["frame", tag, event], members["channels", tag, event].astype(np.int64)
    _, tick_ns, first_tick = members["tickinfo", tag, event]
    if charge.ndim != 2 or charge.shape[0] != len(channels):
        raise FrameError(f"{path}: event {event}: frame of shape {charge.shape} for {len(channels)} channels")
    if tick_ns != TICK_NS:
        raise FrameError(f"{path}: event {event}: ticks of {tick_ns} ns, expected {TICK_NS}")
    apa = int(channels.min()) // N_CHANNELS
    if int(channels.max()) // N_CHANNELS != apa or apa not in {tpc // 2 for tpc in REAL_TPCS}:
        raise FrameError(
            f"{path}: event {event}: channels {channels.min()} to {channels.max()} are not those of one APA of 0 to 5"
        )
    row, column = np.nonzero(charge)
    tick, local = column + int(first_tick), channels[row] - apa * N_CHANNELS
    order = np.lexsort((local, tick))
    waveforms = Waveforms(tick[order], local[order], charge[row, column][order].astype(np.float32))
    end = charge.shape[1] + int(first_tick)
    n_ticks = -(-end // TICK_BLOCK) * TICK_BLOCK
    bad = local_bad_channels(members.get(("chanmask", "bad", event), np.zeros((0, 3))), apa)
    return Frame(event, apa, n_ticks, waveforms, bad)


def local_bad_channels(mask: np.ndarray | Sequence[Sequence[int]], apa: int) -> np.ndarray:
    """Sorted local numbers of the masked channels of one APA; a mask of a part of the readout counts in full.

    `mask` has rows (offline channel, first tick, end tick).
    """
    rows = np.asarray(mask, dtype=np.int64).reshape(-1, 3)
    local = rows[rows[:, 2] > rows[:, 1], 0] - apa * N_CHANNELS
    return np.unique(local[(local >= 0) & (local < N_CHANNELS)]).astype(np.int32)
