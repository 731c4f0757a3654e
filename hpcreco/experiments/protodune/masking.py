"""Charge where a network says that there is any: one network's electrons, masked by another's probability.

Both are yinf files of the same xy file, row by row in its order, so that the mask needs no look-up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from hpcreco.experiments.protodune import EXPERIMENT
from hpcreco.experiments.protodune.voxels import at_least
from hpcreco.shards import Shard
from hpcreco.yinf import YinfError

THRESHOLD = 0.35  # the original's working point
COLUMN = {"probability": "probability", "electrons": "charge"}


def masked(charge: np.ndarray, probability: np.ndarray, threshold: float = THRESHOLD) -> np.ndarray:
    """Charge (N,) of the voxels with probability (N,) >= threshold, 0 for the others."""
    return np.where(at_least(probability, threshold), charge, charge.dtype.type(0))


def read_masked(charge: Shard, ghost: Shard, event: int, threshold: float = THRESHOLD) -> np.ndarray:
    """Masked charge (N,) of one event of a pair that `paired` or `check_pair` has checked."""
    return masked(read_column(charge, event), read_column(ghost, event), threshold)


def read_column(yinf: Shard, event: int) -> np.ndarray:
    """(N,) what a network said of every candidate of an event: probability, or electrons."""
    column = COLUMN[yinf.attributes["kind"]]
    return yinf.read(event, "voxels", [column])[column].reshape(-1)


@contextmanager
def paired(charge: Path, ghost: Path) -> Iterator[tuple[Shard, Shard]]:
    """A charge and a probability yinf file, opened and known to be of the same xy file. Raises YinfError."""
    with ExitStack() as stack:
        pair = tuple(stack.enter_context(Shard(path, EXPERIMENT.schema("yinf"))) for path in (charge, ghost))
        check_pair(*pair)
        yield pair[0], pair[1]


def check_pair(charge: Shard, ghost: Shard) -> None:
    """Raises YinfError, naming the file, unless one holds electrons, the other probabilities, both of one xy file."""
    for yinf, kind in ((charge, "electrons"), (ghost, "probability")):
        found = yinf.attributes["kind"]
        if found != kind or not yinf.has("voxels", COLUMN[kind]):
            raise YinfError(f"{yinf.path}: holds {found}, expected {kind}; exchange the files?")
    if charge.attributes["input_digest"] != ghost.attributes["input_digest"]:
        raise YinfError(
            f"{charge.path} and {ghost.path} were made from different xy files (digests "
            f"{charge.attributes['input_digest'][:12]} and {ghost.attributes['input_digest'][:12]}); run "
            "`hpcreco infer` of both networks on the same files"
        )
    if not np.array_equal(charge.rows("voxels"), ghost.rows("voxels")):
        raise YinfError(
            f"{charge.path} and {ghost.path} have different numbers of voxels; run `hpcreco infer` again"
        )


def partners(charges: Iterable[Path], ghosts: Iterable[Path]) -> list[tuple[Path, Path | None]]:
    """Each charge file with the ghost file of the same xy file, None where there is none.

    Raises YinfError when two ghost files are of one xy file, as those of two epochs are.
    """
    of_input: dict[str, Path] = {}
    for path in ghosts:
        digest = _input(path)
        if digest in of_input:
            raise YinfError(f"{of_input[digest]} and {path} are of the same xy file; give one of them")
        of_input[digest] = path
    return [(path, of_input.get(_input(path))) for path in charges]


def _input(path: Path) -> str:
    with Shard(path) as yinf:
        if "input_digest" not in yinf.attributes:
            raise YinfError(f"{path}: not a yinf file")
        return yinf.attributes["input_digest"]
