"""``hpcreco convert``: legacy files <-> hpcreco's own, and detector or Geant4 files -> parsed."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcreco import filewise, shards
from hpcreco.experiments.protodune import names
from hpcreco.experiments.protodune.geometry import REAL_TPCS

KINDS = ("parsed", "xy", "yinf", "frames", "depos", "reader")

EPILOG = """\
what is converted is recognised by its name:
  *.h5                    ours -> legacy: parsed and xy files to .npz, yinf files to .npy (never a pickle)
  *_<product>-TPC1.npz    legacy -> ours: wire, hit, energy, depo, depoElectron, spacepoint, wirecell, xy, mcparticle;
                          calo, calonosce, mcbeamcosmic and what else is pickled with --allow-pickle
  epoch*_yinf-TPC1.npy    legacy -> ours; the xy shard it belongs to must be in the folder --xy
  *.tar.bz2               wire-cell frame archive of real data -> wire file with its bad channels
  *.zip, depo *.npz       Bee or wire-cell energy deposits -> drift -> wires: wire and depoElectron files

examples:
  hpcreco convert parsed -o legacy                           a folder, all files in it
  hpcreco convert legacy -o parsed
  hpcreco convert batch0-reco_Mu_001_xy-TPC1.npz -o xy --allow-pickle
  hpcreco convert frames-anode1.tar.bz2 -o real              then: hpcreco tile -i real -o xy -t 2 --y-type none
                                                             --dead-channels recorded
  hpcreco convert pion.zip -o public --event-type Pion --tpc 1
  hpcreco convert muon-depos.npz -o public --event-type Mu --tpc 2 --shift 0 100 -2400
  hpcreco convert protodune mine.root -o parsed --reader mymodule:read --event-type Mu --index 3 --tpc 1
                                                             any other format, by a function of yours; how to write it:
                                                             python -c "help('hpcreco.experiments.protodune.readers')"
"""


class ConvertError(ValueError):
    """A file or option that convert cannot use."""

    exit_code = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the verb."""
    parser.description = "Convert files both ways between the original program's formats and hpcreco's."
    parser.epilog = EPILOG
    parser.add_argument("inputs", nargs="+", type=Path, metavar="FILE", help="files, or folders of them")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR", help="folder of the results")
    parser.add_argument("--kind", choices=KINDS, help="what the inputs are, if their names do not say it")
    parser.add_argument(
        "--allow-pickle", action="store_true", help="read legacy pickles; only of files you trust"
    )
    parser.add_argument(
        "--xy", type=Path, metavar="DIR", help="where the xy shards of yinf files are (beside them)"
    )
    parser.add_argument(
        "--y-type",
        choices=names.TRUTH_PRODUCTS,
        default="depoElectron",
        help="labels of legacy xy (default %(default)s)",
    )
    parser.add_argument(
        "--reader", metavar="MODULE:FUNCTION", help="a function of yours that yields the events of each input"
    )
    parser.add_argument(
        "--geometry", default="pdsp", help="with --reader: recorded in the files (default: %(default)s)"
    )
    naming = parser.add_argument_group("frames, deposits, and files with a reader")
    naming.add_argument(
        "--event-type", choices=names.EVENT_TYPES, help="in the new name (protoDUNE, BeamCosmic)"
    )
    naming.add_argument("--index", type=int, help="in the new name (event number of a frame, 1 for deposits)")
    naming.add_argument("--tpc", type=int, choices=range(12), metavar="T", help="TPC to simulate (default 1)")
    naming.add_argument("--tag", help="frames to take (default: the first that starts with gauss)")
    naming.add_argument(
        "--shift", type=float, nargs=3, default=(0.0, 0.0, 0.0), metavar="MM", help="move deposits"
    )
    naming.add_argument("--seed", type=int, default=1, help="of diffusion and noise (default %(default)s)")
    naming.add_argument("--no-noise", action="store_true", help="no electronics noise on deposits' signals")
    filewise.add_filewise_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Convert all inputs; exit code of `filewise.run`."""
    planned = (_task(path, args) for path in _files(args.inputs))
    tasks = [task for task in planned if task is not None]
    if not tasks:
        raise ConvertError(
            f"nothing to convert in {', '.join(map(str, args.inputs))}; see hpcreco convert --help"
        )
    by_key = {task.job.key: task for task in tasks}

    def work(job: filewise.Job) -> None:
        by_key[job.key].convert()

    return filewise.run(
        [task.job for task in tasks],
        work,
        finished=_unfinished_reason,
        title="convert",
        report=args.out / "convert.json",
        **filewise.options(args),
    )


@dataclass(frozen=True)
class Task:
    """One input file and the function that converts it."""

    job: filewise.Job
    convert: Callable[[], None]


def kind_of(path: Path) -> str | None:
    """What a file is, by its name; None when convert has nothing to do with it."""
    from hpcreco.experiments.protodune.imports import frames

    name = names.parse(path)
    if frames.is_frame_archive(path):
        return "frames"
    if path.suffix == ".zip":
        return "depos"
    if path.suffix not in (".h5", ".npz", ".npy"):
        return None
    if name is None:
        return "depos" if path.suffix == ".npz" else None
    if name.product in ("xy", "yinf"):
        return name.product
    return "parsed" if _is_parsed(name.product) else None


def _is_parsed(product: str) -> bool:
    from hpcreco.experiments.protodune import parsed
    from hpcreco.experiments.protodune.parsed import objects

    return product in (*parsed.WAVEFORM_PRODUCTS, *parsed.VALUE_COLUMNS, *objects.SCHEMAS)


def _files(inputs: Iterable[Path]) -> list[Path]:
    files = []
    for path in inputs:
        if not path.exists():
            raise ConvertError(f"{path}: no such file or folder")
        if path.is_dir():
            files += sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
        else:
            files.append(path)
    return files


def _task(path: Path, args: argparse.Namespace) -> Task | None:
    kind = "reader" if args.reader else args.kind or kind_of(path)
    if kind is None:
        return None
    makers = {
        "parsed": _parsed,
        "xy": _xy,
        "yinf": _yinf,
        "frames": _frames,
        "depos": _depos,
        "reader": _reader,
    }
    outputs, convert = makers[kind](path, args)
    if path in outputs:
        raise ConvertError(f"{path}: would overwrite itself; give another folder with -o")
    return Task(
        filewise.Job(str(path), (path,), tuple(outputs), _fingerprint(path, args), path.stat().st_size),
        convert,
    )


Plan = tuple[list[Path], Callable[[], None]]


def _parsed(path: Path, args: argparse.Namespace) -> Plan:
    from hpcreco.experiments.protodune.parsed import npz, objects

    container = objects if names.require(path).product in objects.SCHEMAS else npz
    if path.suffix == ".h5":
        legacy = args.out / path.with_suffix(".npz").name
        return [legacy], lambda: container.export_npz(path, legacy)
    ours = args.out / path.with_suffix(".h5").name
    extra = {"fingerprint": _fingerprint(path, args), "generator": "npz", "source": [str(path)]}
    return [ours], lambda: container.import_npz(path, ours, extra, args.allow_pickle)


def _xy(path: Path, args: argparse.Namespace) -> Plan:
    from hpcreco.experiments.protodune import legacy

    if path.suffix == ".h5":
        target = args.out / path.with_suffix(".npz").name
        return [target], lambda: legacy.export_xy(path, target)
    ours = args.out / path.with_suffix(".h5").name
    return [ours], lambda: legacy.import_xy(path, ours, args.allow_pickle, args.y_type)


def _yinf(path: Path, args: argparse.Namespace) -> Plan:
    from hpcreco.experiments.protodune import legacy

    if path.suffix == ".h5":
        target = args.out / path.with_suffix(".npy").name
        return [target], lambda: legacy.export_yinf(path, target)
    ours = args.out / path.with_suffix(".h5").name
    folder = args.xy or path.parent
    return [ours], lambda: legacy.import_yinf(path, ours, legacy.xy_of_yinf(path, folder))


def _frames(path: Path, args: argparse.Namespace) -> Plan:
    from hpcreco.experiments.protodune import imports
    from hpcreco.experiments.protodune.imports import frames

    apa, event = frames.identity(path)
    index = event if args.index is None else args.index
    target = args.out / names.compose(args.event_type or "protoDUNE", index, "wire", frames.tpc_of_apa(apa))
    return [target], lambda: imports.write_frames(path, target, args.tag, _fingerprint(path, args))


def _depos(path: Path, args: argparse.Namespace) -> Plan:
    from hpcreco.experiments.protodune import imports

    tpc = REAL_TPCS[0] if args.tpc is None else args.tpc
    index = 1 if args.index is None else args.index
    targets = [
        args.out / names.compose(args.event_type or "BeamCosmic", index, product, tpc)
        for product in ("wire", "depo", "depoElectron")
    ]
    options = imports.DepoOptions(tuple(args.shift), args.seed, not args.no_noise)
    return targets, lambda: imports.write_depos(path, targets, options, _fingerprint(path, args))


def _reader(path: Path, args: argparse.Namespace) -> Plan:
    from hpcreco.experiments.protodune import geometry, readers

    if not args.reader:
        raise ConvertError("--kind reader: name the function with --reader MODULE:FUNCTION")
    reader, detector = readers.find(args.reader), geometry.load(args.geometry)
    known = names.parse(path)
    event_type = args.event_type or (known.event_type if known else "BeamCosmic")
    index = args.index if args.index is not None else (known.index if known else 1)
    named = known.tpc if known and known.tpc is not None else REAL_TPCS[0]
    tpc = detector.face(named if args.tpc is None else args.tpc).tpc
    targets = [
        args.out / names.compose(event_type, index, product, tpc) for product in readers.products(reader)
    ]
    return targets, lambda: readers.write(reader, path, targets, detector, _fingerprint(path, args))


def _fingerprint(path: Path, args: argparse.Namespace) -> str:
    """Digest of what the result depends on: the input and the options that change it."""
    stat = path.stat()
    options = [args.tag, list(args.shift), args.seed, args.no_noise, args.y_type]
    if args.reader:
        options += [args.reader, args.geometry]
    content: list[Any] = [path.name, stat.st_size, stat.st_mtime_ns, options]
    return filewise.fingerprint(content)


def _unfinished_reason(job: filewise.Job) -> str | None:
    newest = max(path.stat().st_mtime_ns for path in job.inputs)
    for path in job.outputs:
        if not path.is_file():
            return "missing"
        if path.stat().st_mtime_ns < newest:
            return "stale: older than its input"
        if path.suffix == ".h5":
            try:
                with shards.Shard(path) as shard:
                    recorded = shard.attributes.get("fingerprint", job.fingerprint)
            except shards.ShardError as error:
                return f"broken: {error}"
            if recorded != job.fingerprint:
                return "stale: made with other options or from another input"
    return None
