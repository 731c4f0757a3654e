"""``hpcreco convert icecube``: other programs' events -> pulses shards."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hpcreco import filewise, shards
from hpcreco.experiments.icecube import arrays
from hpcreco.experiments.icecube import detector as _detector
from hpcreco.experiments.icecube.detector import Detector
from hpcreco.experiments.icecube.imports.events import Imported, Options, RawEvent
from hpcreco.experiments.icecube.pulses import PULSES, EventRecord, bright_doms, in_gap, merged

KINDS = ("tables", "text", "graphnet", "prometheus")
VERSION = 1  # raise when the same input gives other shards: finished files become stale

EPILOG = """\
what is converted is recognised by its content:
  *.hdf5, *.h5     tables of the original package, a row per pulse (Run, Event, ..., string, om, time, charge)
  *.txt            one real event: time, charge, om, string
  *.db             sqlite: graphnet's IceCube events, or Prometheus events
  *.parquet        Prometheus photons

examples:
  hpcreco convert icecube events/*.hdf5 -o pulses --detector detector_config.txt,icecube86.parquet
  hpcreco convert icecube Ernie.txt -o real --detector detector_config.txt,icecube86.parquet --exclude-bright
  hpcreco convert icecube events.db -o small         a Prometheus array can be inferred

The readout window is not part of these files: it is taken from the first pulse to the last and --buffer around them,
or is --window for all events.
"""


class ConvertError(ValueError):
    """A file or option that convert cannot use."""

    exit_code = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the verb."""
    parser.description = "Convert events of other programs to pulses shards."
    parser.epilog = EPILOG
    parser.add_argument("inputs", nargs="+", type=Path, metavar="FILE", help="files, or folders of them")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR", help="folder of the shards")
    parser.add_argument(
        "--detector",
        metavar="FILE",
        help="geometry: a file, two files joined by a comma, or a name such as hex86",
    )
    parser.add_argument("--kind", choices=KINDS, help="what the inputs are, if their content does not say it")
    window = parser.add_argument_group("readout window")
    window.add_argument(
        "--window", type=float, nargs=2, metavar="NS", help="start and end, the same for all events"
    )
    window.add_argument(
        "--buffer", type=float, default=100.0, metavar="NS", help="around the pulses (default 100)"
    )
    parser.add_argument(
        "--exclude-bright", action="store_true", help="exclude DOMs with most of an event's charge"
    )
    parser.add_argument("--keep-duplicates", action="store_true", help="keep rows that occur several times")
    tables = parser.add_argument_group(
        "tables", "chosen by their columns where these flags are not given; '' for none"
    )
    tables.add_argument("--pulse-key", metavar="TABLE", help="the pulses")
    tables.add_argument("--label-key", metavar="TABLE", help="the truth")
    tables.add_argument("--seed-keys", nargs="*", metavar="TABLE", help="start values")
    tables.add_argument("--exclusion-keys", nargs="*", metavar="TABLE", help="excluded DOMs")
    tables.add_argument(
        "--gap-key", metavar="TABLE", help="dead time windows: `time` their start, `width` their end"
    )
    filewise.add_filewise_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Convert all inputs; exit code of `filewise.run`."""
    if args.window and args.window[0] >= args.window[1]:
        raise ConvertError(f"--window {args.window[0]:g} {args.window[1]:g}: the start should come first")
    if not args.window and args.buffer <= 0:
        raise ConvertError("--buffer should be above 0: one pulse alone would leave an empty window")
    detector = arrays.named(args.detector) if args.detector else None
    jobs = [_job(path, args, detector) for path in _files(args.inputs)]
    return filewise.run(
        jobs,
        lambda job: convert(job.inputs[0], job.outputs[0], args, detector, job.fingerprint),
        finished=_unfinished_reason,
        title="convert icecube",
        report=args.out / "convert.json",
        **filewise.options(args),
    )


def _files(inputs: Iterable[Path]) -> list[Path]:
    files = []
    for path in inputs:
        if not path.exists():
            raise ConvertError(f"{path}: no such file or folder")
        files += [p for p in sorted(path.iterdir()) if kind_of(p)] if path.is_dir() else [path]
    if not files:
        raise ConvertError(
            f"nothing to convert in {', '.join(map(str, inputs))}; see hpcreco convert icecube --help"
        )
    return files


def kind_of(path: Path) -> str | None:
    """What a file is; None when convert has nothing to do with it."""
    if not path.is_file() or path.name.startswith("."):
        return None
    if path.suffix in (".hdf5", ".h5", ".hd5"):
        return None if shards.identify(path) else "tables"
    if path.suffix in (".db", ".sqlite", ".sqlite3"):
        from hpcreco.experiments.icecube.imports import graphnet, prometheus, sqlite

        tables = sqlite.tables(path)
        if prometheus.is_prometheus(tables):
            return "prometheus"
        return "graphnet" if graphnet.is_graphnet(tables) else None
    return {".txt": "text", ".parquet": "prometheus"}.get(path.suffix)


def _job(path: Path, args: argparse.Namespace, detector: Detector | None) -> filewise.Job:
    stat = path.stat()
    options = {k: v for k, v in sorted(vars(args).items()) if k in _MEANINGFUL}
    content = [VERSION, path.name, stat.st_size, stat.st_mtime_ns, options, detector and detector.sha256]
    fingerprint = filewise.fingerprint(content)
    return filewise.Job(str(path), (path,), (args.out / f"pulses-{path.stem}.h5",), fingerprint, stat.st_size)


_MEANINGFUL = (
    "kind", "window", "buffer", "exclude_bright", "keep_duplicates", "pulse_key", "label_key", "seed_keys",
    "exclusion_keys", "gap_key",
)  # fmt: skip


def read(path: Path, kind: str | None, detector: Detector | None, options: Options) -> Imported:
    """All events of a file."""
    kind = kind or kind_of(path)
    if kind is None:
        raise ConvertError(f"{path}: not recognised; say what it is with --kind ({', '.join(KINDS)})")
    if kind == "prometheus":
        from hpcreco.experiments.icecube.imports import prometheus

        reader = prometheus.read_parquet if path.suffix == ".parquet" else prometheus.read_sqlite
        return reader(path, detector, options)
    if detector is None:
        raise ConvertError(
            f"{path}: where its DOMs hang is not part of the file; give --detector detector_config.txt or the like"
        )
    if kind == "tables":
        from hpcreco.experiments.icecube.imports import tables

        return tables.read(path, detector, options)
    if kind == "graphnet":
        from hpcreco.experiments.icecube.imports import graphnet

        return graphnet.read(path, detector, options)
    from hpcreco.experiments.icecube.imports import text

    return text.read(path, detector, options)


def convert(
    source: Path, path: Path, args: argparse.Namespace, detector: Detector | None, fingerprint: str = ""
) -> dict[str, Any]:
    """Write the shard of one file; returns numbers for the run report."""
    options = Options(
        pulses=args.pulse_key,
        labels=args.label_key,
        seeds=None if args.seed_keys is None else tuple(filter(None, args.seed_keys)),
        excluded=None if args.exclusion_keys is None else tuple(filter(None, args.exclusion_keys)),
        gaps=args.gap_key,
        keep_duplicates=args.keep_duplicates,
    )
    found = read(source, args.kind, detector, options)
    records = [
        record(event, found.detector, args.window, args.buffer, args.exclude_bright) for event in found.events
    ]
    totals: Counter[str] = Counter()
    for item in records:
        totals.update({"pulses": len(item.pulses), **item.numbers})
    attributes = {
        "detector_sha256": found.detector.sha256,
        "detector_shape": found.detector.shape,
        "detector": found.detector.name,
        "generator": {"import": found.kind, "window": args.window, "buffer": args.buffer},
        "removed_pulses": totals["removed_pulses"],
        "duplicate_rows": found.duplicates,
        "fingerprint": fingerprint,
        "source_files": [str(source)],
    }
    with shards.ShardWriter(path, PULSES, attributes, _columns(found.events)) as writer:
        for number, item in enumerate(records):
            writer.append(number, item.tables())
    _detector.write(found.detector, path.parent)
    if found.duplicates:
        what = "kept" if args.keep_duplicates else "dropped"
        print(f"{source}: {found.duplicates} rows occur more than once; {what}", flush=True)
    if found.unlabelled:
        print(f"{source}: {found.unlabelled} event(s) without truth dropped", flush=True)
    return {"events": len(records), "duplicates": found.duplicates, "unlabelled": found.unlabelled, **totals}


def _columns(events: Sequence[RawEvent]) -> dict[str, tuple[str, ...]]:
    if not events:
        return {}
    first = events[0]
    columns = {}
    if first.labels:
        columns["event/parameters"] = tuple(first.labels)
    if first.seeds:
        columns["seeds/values"] = tuple(f"{s}/{name}" for s, values in first.seeds.items() for name in values)
    return columns


def record(
    event: RawEvent,
    detector: Detector,
    window: Sequence[float] | None,
    buffer: float,
    exclude_bright: bool,
) -> EventRecord:
    """The event as it is stored: sorted, without what lies outside the window or in dead time."""
    pulses = event.pulses.sorted()
    if window is None:
        first, last = (pulses.time.min(), pulses.time.max()) if len(pulses) else (0.0, 0.0)
        window = (float(first) - buffer, float(last) + buffer)
    start, stop = (float(edge) for edge in np.float32(window))
    gaps = merged(event.gaps, (start, stop))
    inside = (pulses.time >= start) & (pulses.time <= stop)
    kept = pulses[inside & ~in_gap(pulses.time, pulses.dom, gaps)]
    excluded = detector.flat_dead.copy()
    excluded[event.excluded] = True
    if exclude_bright:
        excluded[bright_doms(kept, detector.n_doms)] = True
    return EventRecord(
        pulses=kept,
        gaps=gaps,
        excluded=np.flatnonzero(excluded).astype(np.int32),
        window=(start, stop),
        ids=event.ids,
        parameters=np.array(list(event.labels.values())) if event.labels else None,
        seeds=np.array([v for seed in event.seeds.values() for v in seed.values()]) if event.seeds else None,
        numbers={"removed_pulses": len(pulses) - len(kept)},
    )


def _unfinished_reason(job: filewise.Job) -> str | None:
    otherwise = "stale: made with other options or from another input"
    return filewise.unfinished(job.outputs[0], "fingerprint", job.fingerprint, otherwise)
