"""``hpcreco icecube trafo``: statistics of the true parameters, from which a network's inputs are scaled.

Reads the events that the config's `trafo` iterator names (those of `training` without one), at most `num_batches`
batches of them, and writes DIR/trafo.h5, where DIR is data_trafo_settings.model_dir. The result does not depend on the
number of ranks.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hpcreco import shards
from hpcreco.config import ConfigError, Run
from hpcreco.config_arguments import add_config_arguments, load_run
from hpcreco.experiments.icecube import files
from hpcreco.experiments.icecube.pulses import PULSES
from hpcreco.experiments.icecube.settings import Trafo, settings_of
from hpcreco.world import detect

if TYPE_CHECKING:
    from hpcreco.experiments.icecube.trafo import Transformation

LOG = logging.getLogger("hpcreco")

EPILOG = """\
examples:
  hpcreco icecube trafo cascade_tiny
  mpiexec -n 4 hpcreco icecube trafo my.yaml
  hpcreco icecube trafo my.yaml --overwrite
"""


class TrafoExistsError(RuntimeError):
    """A transformation that trained networks may depend on would be replaced."""

    exit_code = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the verb."""
    parser.epilog = EPILOG
    add_config_arguments(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace a transformation that exists")


def run(args: argparse.Namespace) -> int:
    """Make the transformation that the config describes."""
    settings, _ = load_run(args)
    return create(settings, overwrite=args.overwrite)


def create(run: Run, overwrite: bool = False) -> int:
    """Read, add up over ranks, write on rank 0; returns the exit code."""
    from hpcreco import collective
    from hpcreco.experiments.icecube import trafo

    wanted = settings_of(run).trafo
    ranks = collective.connect(detect())

    def look() -> tuple[list[Path], np.ndarray, tuple[str, ...]]:
        _refuse(wanted.path, overwrite)
        paths = files.find(run, "trafo") or files.find(run, "train")
        if not paths:
            raise ConfigError(f"{files.KEYS['trafo']} and {files.KEYS['train']}: neither names shards")
        return paths, shards.index(paths).first, _names(paths)

    paths, first, names = collective.on_root(ranks.rank, ranks.broadcast, look)
    events = chosen(int(first[-1]), wanted.events)
    mine = np.array_split(events, ranks.size)[ranks.rank]
    prefix = settings_of(run).reading.shift_to_maximum
    moments = trafo.Moments(flags(wanted.log, names), names)
    failure: Exception | None = None
    try:
        for values in _parameters(paths, first, mine, names, prefix):
            moments.add(values)
    except Exception as error:  # noqa: BLE001  (raised on every rank, so that none waits for this one)
        failure = error
    failures = ranks.broadcast(ranks.gather(failure))
    _raise_first(failures, ranks.rank)
    moments = moments.combined(ranks)

    def write() -> None:
        wanted.path.parent.mkdir(parents=True, exist_ok=True)
        made = moments.transformation(wanted.epsilon)
        trafo.write(wanted.path, made, moments.count, {"files": [str(path) for path in paths]})
        _tell(wanted, made, moments.count, moments.skipped)

    collective.on_root(ranks.rank, ranks.broadcast, write)
    return 0


def chosen(total: int, wanted: int | None) -> np.ndarray:
    """Numbers of the events to look at: all, or `wanted` of them spread evenly. Warns when there are not as many."""
    if wanted is None or wanted >= total:
        if wanted is not None and wanted > total:
            LOG.warning("num_batches asks for %d events, the data have %d; all are used", wanted, total)
        return np.arange(total)
    return np.arange(wanted) * total // wanted


def flags(log: Sequence[bool], names: Sequence[str]) -> list[bool]:
    """Which parameters are taken as logarithms; the last flag is repeated for the names that follow."""
    given = list(log) or [False]
    if len(given) > len(names):
        raise ConfigError(
            f"data_handler_settings.label_settings.trafo_log: {len(given)} flags for {len(names)} parameters: "
            + ", ".join(names)
        )
    return given + [given[-1]] * (len(names) - len(given))


def _refuse(path: Path, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise TrafoExistsError(
            f"{path} exists, and networks may have been trained with it; --overwrite replaces it, another "
            "data_trafo_settings.model_dir keeps it"
        )


def _names(paths: Sequence[Path]) -> tuple[str, ...]:
    """Names of the parameters, the same in all shards."""
    names: tuple[str, ...] | None = None
    for path in paths:
        with shards.Shard(path, PULSES) as shard:
            if not shard.has("event", "parameters"):
                raise ConfigError(f"{path}: holds no true parameters to take statistics of")
            found = tuple(shard.columns("event", "parameters"))
        if names is not None and found != names:
            raise ConfigError(
                f"{path} has the parameters {', '.join(found)}, {paths[0]} has {', '.join(names)}"
            )
        names = found
    assert names is not None
    return names


def _parameters(
    paths: Sequence[Path], first: np.ndarray, events: np.ndarray, names: tuple[str, ...], prefix: str | None
) -> Iterator[np.ndarray]:
    """(b, p) float64 of the `events`, shard by shard."""
    for number, path in enumerate(paths):
        here = events[(events >= first[number]) & (events < first[number + 1])] - first[number]
        if not len(here):
            continue
        with shards.Shard(path, PULSES) as shard:
            values = shard.read_events(0, shard.n_events, "event", ("parameters",))["parameters"][here]
        if prefix is not None:
            from hpcreco.experiments.icecube import dataset

            values = np.concatenate([dataset.shifted(row[None], names, prefix) for row in values])
        yield values.astype(np.float64)


def _raise_first(failures: Sequence[Exception | None], rank: int) -> None:
    """The first rank's error, on every rank; said by that rank alone."""
    for number, failure in enumerate(failures):
        if failure is not None:
            vars(failure).update(everywhere=True, quiet=rank != number)
            raise failure


def _tell(wanted: Trafo, made: Transformation, count: int, skipped: int) -> None:
    print(
        f"{wanted.path}: {count} events"
        + (f", {skipped} with values that are not finite left out" if skipped else "")
    )
    for name, mean, std, log in zip(made.names, made.mean, made.std, made.log, strict=True):
        print(f"  {name:24s} {'ln(1 + x)' if log else 'x':9s} {mean:12.5g} +- {std:.5g}")
