"""``hpcreco simulate protodune``: parsed files (wire, depo, depoElectron, mcbeamcosmic) from seeds alone."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from hpcreco import filewise
from hpcreco.experiments.protodune import geometry
from hpcreco.experiments.protodune.geometry import N_CHANNELS, REAL_TPCS, Geometry, seeing_tpcs
from hpcreco.experiments.protodune.simulation import generator
from hpcreco.experiments.protodune.simulation.chain import Settings
from hpcreco.experiments.protodune.simulation.files import Batch
from hpcreco.experiments.protodune.simulation.presets import PRESETS, Sample

EPILOG = """\
examples:
  hpcreco simulate protodune --preset tiny --seed 1 --out parsed
  mpiexec -n 4 hpcreco simulate protodune --preset small --seed 2 --out parsed
  hpcreco simulate protodune --preset small --types Electron --files 20 --events 10 --seed 3 --out electrons
  hpcreco simulate protodune --preset full --dry-run --seed 4 --out parsed
  hpcreco simulate protodune --preset small --geometry wires:two_faces --tpcs 0 1 --seed 5 --out other_detector

production, one line per sample; --types, --tpcs, --files and --first-index say which part:
  hpcreco submit simulate --array 0-31 -t 120 -- protodune --preset full --seed 4 --out parsed --types BeamCosmic
  hpcreco submit simulate --array 0-7 -t 60 -- protodune --preset full --seed 4 --out parsed --types Electron
  hpcreco submit simulate --array 0-7 -t 60 -- protodune --preset full --seed 4 --out parsed --types Mu Pion

The same seed gives the same files, however many ranks make them and in whatever order. Run the command again
after an interruption: finished files are kept. --first-index continues a sample with new events.
"""


class SimulationError(ValueError):
    """Options that do not fit together."""

    exit_code = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the verb."""
    parser.description = (
        "Make synthetic ProtoDUNE events: tracks and showers drifted to the wires, with truth."
    )
    parser.epilog = EPILOG
    listing = "; ".join(f"{name}: {preset.summary}" for name, preset in PRESETS.items())
    parser.add_argument("--preset", choices=PRESETS, default="tiny", help=f"{listing} (default tiny)")
    parser.add_argument("--seed", type=int, required=True, metavar="N", help="all randomness follows from it")
    parser.add_argument(
        "--out", "-o", type=Path, required=True, metavar="DIR", help="folder of the parsed files"
    )
    change = parser.add_argument_group("change the preset")
    change.add_argument(
        "--types", nargs="+", choices=generator.KINDS, metavar="TYPE", help=f"of {generator.KINDS}"
    )
    change.add_argument("--files", type=filewise.positive, metavar="N", help="files per event type")
    change.add_argument("--events", type=filewise.positive, metavar="N", help="events per file")
    change.add_argument("--first-index", type=int, metavar="I", help="number of the first file")
    change.add_argument(
        "--tpcs", nargs="+", type=int, metavar="T", help=f"of {REAL_TPCS}, or those of --geometry"
    )
    change.add_argument(
        "--geometry",
        default="pdsp",
        help="pdsp, larsoft:<wire dump>, wires:<another detector> or saved:<file> (default: %(default)s)",
    )
    change.add_argument("--no-noise", action="store_true", help="waveforms without electronics noise")
    change.add_argument(
        "--dead-fraction", type=float, metavar="F", help="share of dead channels, e.g. 0.003 (none)"
    )
    change.add_argument(
        "--energy", action="store_true", help="also write the legacy energy product, 3 x the energy"
    )
    change.add_argument(
        "--hit",
        action="store_true",
        help="also write the hit product: the waveforms rebuilt from Gaussian hits",
    )
    change.add_argument(
        "--npz", action="store_true", help="also write legacy npz files, into the folder DIR/npz"
    )
    filewise.add_filewise_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Simulate what the options ask for; exit code of `filewise.run`."""
    layout = geometry.load(args.geometry)
    _check_geometry(layout, args)
    settings = _settings(args)
    batches = {}
    for sample in samples(args):
        for index in range(sample.first_index, sample.first_index + sample.files):
            for tpc in sample.tpcs:
                batch = Batch(args.seed, sample.event_type, index, tpc, sample.events, settings, layout)
                batches[batch.key] = (batch, batch.job(args.out, args.energy, args.npz, args.hit))
    return filewise.run(
        [job for _, job in batches.values()],
        lambda job: batches[job.key][0].write(job.outputs),
        finished=_unfinished_reason,
        title=f"simulate protodune {args.preset}",
        report=args.out / "simulate.json",
        **filewise.options(args),
    )


def samples(args: argparse.Namespace) -> list[Sample]:
    """The preset's samples after the options changed them."""
    preset = PRESETS[args.preset]
    by_type = {sample.event_type: sample for sample in preset.samples}
    chosen = []
    for event_type in args.types or by_type:
        if event_type not in by_type and preset.settings.crop is not None:
            raise SimulationError(
                f"the {args.preset} preset has {', '.join(by_type)} only; use --preset small"
            )
        sample = by_type.get(event_type, replace(preset.samples[0], event_type=event_type))
        changes: dict[str, Any] = {
            "files": args.files,
            "events": args.events,
            "first_index": args.first_index,
            "tpcs": tuple(args.tpcs) if args.tpcs else None,
        }
        chosen.append(
            replace(sample, **{name: value for name, value in changes.items() if value is not None})
        )
    return chosen


def _check_geometry(layout: Geometry, args: argparse.Namespace) -> None:
    """Refuse TPCs that see nothing, and detectors that the preset's box or the readout do not fit."""
    seeing = seeing_tpcs(layout)
    for tpc in {tpc for sample in samples(args) for tpc in sample.tpcs}:
        if tpc not in seeing:
            raise SimulationError(
                f"--tpcs: no charge drifts to TPC {tpc} of {layout.name}; choose from {', '.join(map(str, seeing))}"
            )
        crop = PRESETS[args.preset].settings.crop
        face = layout.face(tpc)
        if crop is not None and not all(
            high <= top - low
            for high, top, low in zip(crop.high[1:], face.r_max[1:], face.r_min[1:], strict=True)
        ):
            raise SimulationError(
                f"the box of the {args.preset} preset does not fit into {layout.name}; use --preset small"
            )
        most = max(int(plane.channels.max()) for plane in face.planes)
        if most >= N_CHANNELS:
            raise SimulationError(f"{layout.name} has channel {most}; wire files have {N_CHANNELS} per APA")


def _settings(args: argparse.Namespace) -> Settings:
    settings = PRESETS[args.preset].settings
    signals = settings.signals
    if args.no_noise:
        signals = replace(signals, noise_induction=0.0, noise_collection=0.0)
    if args.dead_fraction is not None:
        if not 0.0 <= args.dead_fraction <= 1.0:
            raise SimulationError(f"--dead-fraction {args.dead_fraction}: expected a number between 0 and 1")
        signals = replace(signals, dead_fraction=args.dead_fraction)
    return replace(settings, signals=signals)


def _unfinished_reason(job: filewise.Job) -> str | None:
    """Why a job has to be done, None when all its files are there and were made with the same settings."""
    for path in job.outputs:
        if path.suffix != ".h5":
            reason = None if path.is_file() else "missing"
        else:
            reason = filewise.unfinished(path, "fingerprint", job.fingerprint)
        if reason:
            return reason
    return None
