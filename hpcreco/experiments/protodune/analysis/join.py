"""Scores of yinf files joined with the xy shards they were made from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpcreco.experiments.protodune import EXPERIMENT
from hpcreco.experiments.protodune.analysis.cut import Cut, Label
from hpcreco.experiments.protodune.analysis.sample import ScoredEvent
from hpcreco.shards import Shard
from hpcreco.shards.reader import check_identity
from hpcreco.yinf import YinfError, check_match

_EPOCH = re.compile(r"^epoch(\d+)-.*yinf")
_SOLVED = re.compile(r"^(?:epoch(\d+)-)?.*_solved\b")


class JoinError(RuntimeError):
    """yinf files, or the xy shards they belong to, cannot be found or do not fit each other."""

    exit_code = 1


@dataclass(frozen=True)
class Truth:
    """What is true in one event: the label of each candidate (N,), and all true voxels (M, 3) with charge (M,).

    `coords` is None where the file lists no truth beside the candidates' labels.
    """

    labels: np.ndarray
    coords: np.ndarray | None
    charge: np.ndarray | None


def find_yinf(run: Path) -> dict[int, list[Path]]:
    """The yinf files anywhere under `run` (a folder, or one file), by epoch; sorted.

    If there are none, the files that `hpcreco solve` made; those of true cells belong to no epoch and get 0.
    """
    files = [run] if run.is_file() else sorted(run.rglob("*.h5"))
    for pattern in (_EPOCH, _SOLVED):
        found: dict[int, list[Path]] = {}
        for path in files:
            match = pattern.match(path.name)
            if match:
                found.setdefault(int(match[1] or 0), []).append(path)
        if found:
            return found
    return {}


def find_xy(yinf: Shard, folders: Iterable[Path] = ()) -> Path:
    """The xy shard a yinf file names: in `folders` if given, where it was, or beside the yinf file.

    Raises JoinError.
    """
    recorded = Path(yinf.attributes["xy_file" if is_solved(yinf) else "input_file"])
    places = [*(folder / recorded.name for folder in folders), recorded, yinf.path.parent / recorded.name]
    for place in places:
        if place.is_file():
            return place
    raise JoinError(
        f"{yinf.path} was made from {recorded}, which is not there any more; name its folder with --xy DIR"
    )


def is_solved(made: Shard) -> bool:
    """Is this what `hpcreco solve` made?"""
    return str(made.attributes["format"]).endswith("/solved")


def label_of(xy: Shard) -> Label | None:
    """What the labels are; None for data without truth."""
    if not xy.has("voxels", "labels"):
        return None
    return Label.of(xy.attributes["y_type"], xy.columns("voxels", "labels")[0])


def read_truth(xy: Shard, event: int) -> Truth | None:
    """The truth of one event, None for data without."""
    if not xy.has("voxels", "labels"):
        return None
    labels = xy.read(event, "voxels", ["labels"])["labels"][:, 0]
    if not xy.has("truth"):
        return Truth(labels, None, None)
    table = xy.read(event, "truth", ["coords", "values"])
    return Truth(labels, table["coords"], table["values"][:, 0])


def read_scores(yinf: Shard, event: int) -> np.ndarray:
    """(N,) predicted probability of each candidate."""
    return yinf.read(event, "voxels", ["probability"])["probability"].reshape(-1)


def scored_events(yinf: Shard, xy: Shard, cut: Cut) -> Iterator[ScoredEvent]:
    """The events of a pair of files that `opened` has checked, with true = label above `cut`."""
    label = label_of(xy)
    least = cut.against(label) if label else 0.0
    for event, event_id in enumerate(xy.event_ids):
        features = xy.read(event, "voxels", ["features"])["features"]
        scores, truth = read_scores(yinf, event), read_truth(xy, event)
        key = f"{xy.path.stem}:{event_id}"
        if truth is None:
            yield ScoredEvent(key, scores, features)
        else:
            yield _with_truth(key, scores, features, truth, least)


def _with_truth(
    key: str, scores: np.ndarray, features: np.ndarray, truth: Truth, least: float
) -> ScoredEvent:
    is_true = truth.labels > least
    if truth.charge is None:
        return ScoredEvent(key, scores, features, is_true, truth.labels)
    above = truth.charge > least
    # labels are the truth of the candidates' voxels, so what they do not account for is at no candidate
    missed = max(int(above.sum()) - int(is_true.sum()), 0)
    charge = max(
        float(truth.charge[above].sum(dtype=np.float64) - truth.labels[is_true].sum(dtype=np.float64)), 0.0
    )
    return ScoredEvent(key, scores, features, is_true, truth.labels, missed, charge)


@contextmanager
def opened(path: Path, folders: Sequence[Path] = ()) -> Iterator[tuple[Shard, Shard]]:
    """A yinf or solved file and its xy shard, opened and known to belong together.

    Raises YinfError, naming both, if they do not.
    """
    with (
        Shard(path) as yinf,
        Shard(find_xy(yinf, folders), EXPERIMENT.schema("xy")) as xy,
    ):
        if is_solved(yinf):
            check_identity(path, yinf.attributes, EXPERIMENT.schema("solved"))
            if yinf.attributes["xy_digest"] != xy.digest:
                raise YinfError(f"{path} was made from another {xy.path}; run `hpcreco solve` again")
            yield yinf, xy
            return
        check_identity(path, yinf.attributes, EXPERIMENT.schema("yinf"))
        check_match(yinf, xy)
        if not np.array_equal(yinf.rows("voxels"), xy.rows("voxels")):
            raise JoinError(
                f"{yinf.path} and {xy.path} have different numbers of voxels; run `hpcreco infer` again"
            )
        yield yinf, xy
