"""``hpcreco simulate icecube``: pulses shards from a seed alone."""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcreco import config, filewise, shards
from hpcreco.experiments.icecube import arrays
from hpcreco.experiments.icecube import detector as _detector
from hpcreco.experiments.icecube.detector import Detector
from hpcreco.experiments.icecube.pulses import PULSES
from hpcreco.experiments.icecube.simulation import event, hypothesis
from hpcreco.experiments.icecube.simulation.presets import PRESETS, Preset
from hpcreco.experiments.icecube.simulation.settings import VERSION, Settings
from hpcreco.experiments.icecube.simulation.streams import EventKey

SEED_NAME = "smeared"  # of the start values: the truth, moved a little

EPILOG = """\
examples:
  hpcreco simulate icecube --preset tiny --seed 1 --out pulses
  mpiexec -n 4 hpcreco simulate icecube --preset hex86 --seed 2 --out pulses
  hpcreco simulate icecube --preset tiny -n 100 --seed 3 --out test --detector hex19x20 \\
      --set hypothesis.energy=[1e4,1e5] --set readout.charge=spe
  hpcreco simulate icecube --preset full --dry-run --seed 4 --out pulses

The same seed gives the same events, however many ranks make them and in whatever order. Run the command again after
an interruption: finished files are kept. --first-file continues a sample with new events.
"""


class SimulationError(ValueError):
    """Options that do not fit together."""

    exit_code = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the verb."""
    parser.description = "Make synthetic events with analytic truth: pulses, dead times, start values."
    parser.epilog = EPILOG
    listing = "; ".join(f"{name}: {preset.summary}" for name, preset in PRESETS.items())
    parser.add_argument("--preset", choices=PRESETS, default="tiny", help=f"{listing} (default tiny)")
    parser.add_argument(
        "--seed", type=_seed, required=True, metavar="N", help="all randomness follows from it"
    )
    parser.add_argument("--out", "-o", type=Path, required=True, metavar="DIR", help="folder of the shards")
    change = parser.add_argument_group("change the preset")
    change.add_argument("-n", "--events", type=filewise.positive, metavar="N", help="how many events")
    change.add_argument("--per-file", type=filewise.positive, metavar="N", help="events per file")
    change.add_argument("--first-file", type=int, default=0, metavar="I", help="number of the first file")
    change.add_argument("--detector", metavar="NAME", help="hex86, hex<strings>x<doms>, or a file")
    change.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a constant, e.g. ice.scattering=25"
    )
    filewise.add_filewise_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Simulate what the options ask for; exit code of `filewise.run`."""
    batches = {batch.name: batch for batch in plan(args)}
    jobs = [batch.job(args.out) for batch in batches.values()]
    return filewise.run(
        jobs,
        lambda job: batches[job.key].write(job.outputs[0]),
        finished=_unfinished_reason,
        title=f"simulate icecube {args.preset}",
        report=args.out / "simulate.json",
        **filewise.options(args),
    )


def plan(args: argparse.Namespace) -> list[Batch]:
    """The files that the options ask for."""
    preset = PRESETS[args.preset]
    settings = changed(preset, args.set)
    array = arrays.named(args.detector or preset.detector)
    events = args.events or preset.events
    per_file = min(args.per_file or preset.per_file, events)
    if args.first_file < 0:
        raise SimulationError(f"--first-file {args.first_file}: files are numbered from 0")
    batches = []
    for done in range(0, events, per_file):
        number = args.first_file + done // per_file
        first = number * per_file
        batches.append(Batch(args.seed, number, first, min(per_file, events - done), settings, array))
    return batches


def changed(preset: Preset, assignments: list[str]) -> Settings:
    """The preset's settings after ``--set``."""
    raw = config.override(preset.settings.model_dump(), assignments)
    return config.build(Settings, raw, "--set")


@dataclass(frozen=True)
class Batch:
    """The `count` events from `first` on: one file."""

    seed: int
    number: int
    first: int
    count: int
    settings: Settings
    detector: Detector

    @property
    def name(self) -> str:
        return f"pulses-{self.number:05d}.h5"

    @property
    def fingerprint(self) -> str:
        """Digest of everything that decides the content."""
        content = [
            VERSION,
            self.seed,
            self.first,
            self.count,
            self.settings.model_dump(),
            self.detector.sha256,
        ]
        return filewise.fingerprint(content)

    def job(self, out: Path) -> filewise.Job:
        """The file-wise job that makes the file in the folder `out`."""
        return filewise.Job(self.name, (), (out / self.name,), self.fingerprint, self.count)

    def write(self, path: Path) -> dict[str, Any]:
        """Simulate and write; returns numbers for the run report."""
        kind = self.settings.hypothesis
        columns = {
            "event/parameters": hypothesis.parameter_names(kind),
            "seeds/values": tuple(f"{SEED_NAME}/{name}" for name in hypothesis.seed_names(kind)),
        }
        totals: Counter[str] = Counter()
        with shards.ShardWriter(path, PULSES, self.attributes(), columns) as writer:
            for number in range(self.first, self.first + self.count):
                record = event.simulate(EventKey(self.seed, number), self.settings, self.detector)
                writer.append(number, record.tables())
                totals.update({"pulses": len(record.pulses), **record.numbers})
            for name in ("merged_doms", "removed_pulses"):
                writer.set_attribute(name, totals[name])
        _detector.write(self.detector, path.parent)
        return {"events": self.count, **totals}

    def attributes(self) -> dict[str, Any]:
        return {
            "detector_sha256": self.detector.sha256,
            "detector_shape": self.detector.shape,
            "detector": self.detector.name,
            "generator": {"version": VERSION, **self.settings.model_dump(mode="json")},
            "seed": self.seed,
            "fingerprint": self.fingerprint,
        }


def _unfinished_reason(job: filewise.Job) -> str | None:
    """Why a file has to be made, None when it is there and was made with the same settings."""
    path = job.outputs[0]
    reason = filewise.unfinished(path, "fingerprint", job.fingerprint)
    if reason:
        return reason
    with shards.Shard(path) as shard:
        detector = _detector.file_name(shard.attributes["detector_sha256"])
    return None if (path.parent / detector).is_file() else "missing: the detector beside it"


def _seed(text: str) -> int:
    value = int(text)
    if not 0 <= value < 2**63:
        raise argparse.ArgumentTypeError(f"{text} should be from 0 to 2**63 - 1")
    return value
