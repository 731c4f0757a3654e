"""Mask a charge network's output by a deghosting network's: no electrons where no charge is believed to be.

CHARGE are yinf files of a charge network, --ghosts those of a deghosting network for the same xy files. Writes yinf
files of the same names and rows in which voxels with P < --threshold have charge 0.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpcreco import filewise
from hpcreco.filewise import Job, add_filewise_arguments
from hpcreco.shards import Shard, ShardWriter

EPILOG = """\
examples:
  hpcreco protodune mask runs/charge/inference --ghosts runs/ghost3d/inference -o masked
  hpcreco protodune mask runs/charge/inference/epoch36-*.h5 --ghosts runs/ghost3d/inference/epoch24-*.h5 -o masked
  hpcreco protodune mask runs/charge/inference --ghosts runs/ghost3d/inference -o masked --threshold 0.5

Of a folder, the files of its last epoch are taken. Files are paired by the digest of the xy file they were made from.
"""


class MaskError(ValueError):
    """Options of mask that do not fit the files."""

    exit_code = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.epilog = EPILOG
    add = parser.add_argument
    add("charge", nargs="+", type=Path, metavar="CHARGE", help="yinf files in electrons, or a folder of them")
    add(
        "--ghosts",
        nargs="+",
        type=Path,
        required=True,
        metavar="GHOST",
        help="yinf files of probabilities, or a folder of them",
    )
    add("-o", "--output", type=Path, required=True, metavar="MASKED", help="folder for the masked files")
    add(
        "--threshold",
        type=float,
        default=0.35,
        metavar="P",
        help="least probability that keeps its charge (default: %(default)s)",
    )
    add_filewise_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Mask what is not finished; exit code 0, or 1 when a file failed."""
    from hpcreco import collective
    from hpcreco.experiments.protodune import masking

    ranks = collective.connect()

    def plan() -> list[tuple[Path, Path | None]]:
        pairs = masking.partners(last_epoch(args.charge), last_epoch(args.ghosts))
        taken = {path.resolve() for pair in pairs for path in pair if path is not None}
        if any((args.output / charge.name).resolve() in taken for charge, _ in pairs):
            raise MaskError(f"-o {args.output}: would overwrite its own input; choose another folder")
        return pairs

    pairs = collective.on_root(ranks.rank, ranks.broadcast, plan)
    jobs = [_job(charge, ghost, args.output, args.threshold) for charge, ghost in pairs]
    return filewise.run(
        jobs,
        lambda job: _write(job, args.threshold),
        finished=_unfinished,
        title="mask",
        report=args.output / "mask.json",
        collective=ranks,
        **filewise.options(args),
    )


def last_epoch(paths: Sequence[Path]) -> list[Path]:
    """The yinf files that are named, and of every folder those of its last epoch. Raises MaskError."""
    from hpcreco.experiments.protodune.analysis.join import find_yinf

    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise MaskError(f"{path}: no such file or folder")
        by_epoch = find_yinf(path)
        if path.is_dir() and not by_epoch:
            raise MaskError(
                f"{path} holds no yinf files (epoch<e>-..._yinf....h5); run `hpcreco infer` first"
            )
        found += [path] if path.is_file() else by_epoch[max(by_epoch)]
    return found


def _digest(path: Path) -> str:
    with Shard(path) as shard:
        return shard.digest


def _job(charge: Path, ghost: Path | None, folder: Path, threshold: float) -> Job:
    inputs = (charge,) if ghost is None else (charge, ghost)
    recipe = " ".join([*map(_digest, inputs), repr(threshold)])
    fingerprint = hashlib.sha256(recipe.encode()).hexdigest()
    return Job(
        charge.name, inputs, (folder / charge.name,), fingerprint, sum(p.stat().st_size for p in inputs)
    )


def _unfinished(job: Job) -> str | None:
    """Why the masked file has to be made (again), or None."""
    otherwise = "stale: made from other files, or with another threshold"
    return filewise.unfinished(job.outputs[0], "mask_recipe", job.fingerprint, otherwise)


def _write(job: Job, threshold: float) -> dict[str, Any]:
    from hpcreco.experiments.protodune import masking
    from hpcreco.experiments.protodune.yinf import YINF

    if len(job.inputs) < 2:
        raise MaskError(f"{job.inputs[0]}: no file of --ghosts is of the same xy file")
    with masking.paired(*job.inputs) as (charge, ghost):
        attributes = {
            **{a.name: charge.attributes[a.name] for a in YINF.attributes if a.name in charge.attributes},
            "charge_digest": charge.digest,
            "mask_digest": ghost.digest,
            "mask_threshold": threshold,
            "mask_recipe": job.fingerprint,
        }
        attributes.pop("sums", None)  # they are of the charge before it was masked
        kept = before = after = 0.0
        with ShardWriter(job.outputs[0], YINF, attributes) as writer:
            for event, number in enumerate(charge.event_ids.tolist()):
                rows = charge.read(event, "voxels")
                before += float(rows["charge"].sum(dtype=float))
                rows["charge"] = masking.read_masked(charge, ghost, event, threshold)
                after += float(rows["charge"].sum(dtype=float))
                kept += int(masking.at_least(masking.read_column(ghost, event), threshold).sum())
                writer.append(number, {"voxels": rows})
        return {"events": charge.n_events, "voxels kept": int(kept), "charge": after, "charge before": before}
