"""Run a trained network over shards: one yinf file per shard, rows aligned with the shard's.

CONFIG is the config the network was trained with, or one like it that names other data (ghost_inf); the checkpoint is
taken from its output_dir. Runs alone, under mpiexec -n P, under srun, or as Slurm array tasks: files are shared
out, finished ones skipped, stale or broken ones made again, and one bad file fails alone.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcreco import experiment, filewise, shards, yinf
from hpcreco.config import ConfigError, Run
from hpcreco.config_arguments import add_config_arguments, load_run
from hpcreco.world import detect

if TYPE_CHECKING:
    from torch import nn

    from hpcreco.train.task import Task

EPILOG = """\
examples:
  hpcreco infer ghost_inf_tiny
  mpiexec -n 4 hpcreco infer ghost3d_tiny --resume 12
  srun -N 5 hpcreco infer configs/protodune/ghost_inf.yaml
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.epilog = EPILOG
    add_config_arguments(parser)
    parser.add_argument(
        "--resume",
        nargs="?",
        const="last",
        metavar="EPOCH|best",
        help="which checkpoint (default: the config's start_epoch, or the last)",
    )
    parser.add_argument(
        "-o", "--out", type=Path, help="where the yinf files go (default: output_dir/inference)"
    )
    filewise.add_filewise_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Infer as the flags say."""
    settings, found = load_run(args)
    return infer(settings, found, which=args.resume, out=args.out, **filewise.options(args))


def infer(
    run: Run,
    found: experiment.Experiment,
    *,
    which: str | int | None = None,
    out: Path | None = None,
    **options: Any,
) -> int:
    """Write yinf files of all shards of the config's validation part; returns the exit code."""
    inputs = _Inputs.of(found.load("files")(run, "validation"))
    if inputs is None:
        raise ConfigError("the config names no files to infer on (data.inference_i)")
    path, content = _checkpoint(run, which)
    folder = out or run.output_dir / (run.store.outdir if run.store else "inference")
    if detect().rank == 0:
        for note in run.notes:
            print(note)
    epoch = _epoch(content)
    digest = _digest(content)
    jobs = [inputs.job(source, folder / yinf.file_name(epoch, source), digest) for source in inputs.paths]
    worker = _Worker(run, found, inputs, path, content)
    return filewise.run(
        jobs,
        worker.infer_file,
        finished=lambda job: inputs.unfinished(job, digest),
        title="infer",
        report=folder / "infer_report.json",
        **options,
    )


def _checkpoint(run: Run, which: str | int | None) -> tuple[Path, dict[str, Any]]:
    from hpcreco.train import checkpoint

    if which is None or which == "last":
        which = run.start_epoch
    if which is None:
        latest = checkpoint.load_latest(run.output_dir)
        if latest is None:
            raise checkpoint.CheckpointError(
                f"{checkpoint.folder(run.output_dir)} holds no checkpoint; train first"
            )
        return latest[0].path, latest[1]
    path = checkpoint.resolve(f"{run.output_dir}@{which}")
    return path, checkpoint.load(path)


def _epoch(content: dict[str, Any]) -> int:
    """The last epoch that has contributed to the checkpoint."""
    progress = content["progress"]
    return int(progress["epoch"] if progress["epoch_steps"] else progress["epoch"] - 1)


def _digest(content: dict[str, Any]) -> str:
    """Digest of the weights alone: the same for yinf files written while training."""
    from hpcreco.train import checkpoint

    return checkpoint.digest(content["model"])


@dataclass(frozen=True)
class _Inputs:
    """The shards to infer on, or the names that stand for them where events are made."""

    paths: tuple[Path, ...]
    made: shards.Index | None = None

    @classmethod
    def of(cls, files: Sequence[Path] | shards.Index | None) -> _Inputs | None:
        """What an experiment's `files` has found."""
        if isinstance(files, shards.Index):
            return cls(tuple(map(Path, files.paths)), files)
        return None if files is None else cls(tuple(files))

    def opened(self, source: Path) -> tuple[shards.Index, int]:
        """An index and the number of `source` in it."""
        if self.made is not None:
            return self.made, self.paths.index(source)
        return shards.index([source]), 0

    def job(self, source: Path, target: Path, checkpoint_digest: str) -> filewise.Job:
        """`target` is to be made of `source`."""
        fingerprint = hashlib.sha256(f"{checkpoint_digest} {self._digest(source)}".encode()).hexdigest()
        size = source.stat().st_size if self.made is None else 0
        return filewise.Job(source.name, (source,), (target,), fingerprint, size)

    def unfinished(self, job: filewise.Job, checkpoint_digest: str) -> str | None:
        """Why the job's yinf file has to be made (again), or None."""
        target, source = job.outputs[0], job.inputs[0]
        if not target.exists():
            return "missing"
        try:
            with shards.Shard(target) as there:
                if there.attributes["checkpoint_digest"] != checkpoint_digest:
                    return "stale: made with another checkpoint"
                if there.attributes["input_digest"] != self._digest(source):
                    return "stale: the input was made again"
        except (shards.ShardError, KeyError) as error:
            return f"broken: {error}"
        return None

    def _digest(self, source: Path) -> str:
        if self.made is not None:
            return self.made.digests[self.paths.index(source)]
        with shards.Shard(source) as shard:
            return shard.digest


class _Worker:
    """Infers file after file with one model, which is built when the first file comes."""

    def __init__(
        self, run: Run, found: experiment.Experiment, inputs: _Inputs, path: Path, content: dict[str, Any]
    ) -> None:
        self._run, self._found, self._inputs = run, found, inputs
        self._path, self._content = path, content
        self._model: nn.Module | None = None

    def infer_file(self, job: filewise.Job) -> dict[str, Any]:
        """Write the yinf file of one shard."""
        import numpy as np

        from hpcreco.data.dataset import EventDataset
        from hpcreco.train import evaluation
        from hpcreco.train.predictions import Made, YinfWriter
        from hpcreco.train.session import Part

        task: Task = self._found.task_of(self._run)
        model = self._built(task)
        index, number = self._inputs.opened(job.inputs[0])
        costs = np.asarray(self._found.load("cost")(self._run, index), np.float64)
        part = Part(index, costs, EventDataset(index, task.read(self._run, False), self._run.seed))
        budget = self._run.steps.micro_cost
        work = evaluation.shares(part, [number], budget if np.isfinite(budget) else None)
        made = Made(
            _epoch(self._content),
            int(self._content["progress"]["step"]),
            str(self._path),
            _digest(self._content),
        )
        with YinfWriter(task, self._run, model, index, number, job.outputs[0], made) as writer:
            evaluation.evaluate(
                task, self._run, model, part, work, next(model.parameters()).device, writer.take
            )
        own = slice(index.first[number], index.first[number + 1])
        return {"events": len(index.event_ids[own]), "cost": float(costs[own].sum())}

    def _built(self, task: Task) -> nn.Module:
        if self._model is None:
            import torch

            from hpcreco.parallel import node
            from hpcreco.train import checkpoint

            wanted = None if self._run.device == "auto" else self._run.device
            model = task.model(self._run)
            checkpoint.load_into(model, self._content["model"], source=str(self._path))
            model = model.double() if self._run.precision == "float64" else model
            self._model = model.to(
                node.choose_device(detect(), wanted) if wanted != "cpu" else torch.device("cpu")
            )
        return self._model
