"""Checkpoints written beside the training: it goes on with the next step while a thread writes the last state."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from pathlib import Path
from typing import Any

from torch import Tensor

from hpcreco.parallel.timeline import OFF, Timeline
from hpcreco.train import checkpoint

LOG = logging.getLogger("hpcreco")


class CheckpointWriter:
    """Writes the checkpoints of one run, one after another; `latest`, `best` and pruning follow each complete file.

    `save` returns when it has copied the state; the one before must be on disk by then. What goes wrong in the thread
    (`CheckpointError`) is raised by the next call of `save`, `check` or `finish`.
    """

    def __init__(self, output_dir: Path, keep: int | None, timeline: Timeline = OFF) -> None:
        self._output_dir, self._keep, self._timeline = output_dir, keep, timeline
        self._threads = ThreadPoolExecutor(1, "hpcreco-checkpoint")
        self._writing: Future[None] | None = None

    def save(self, name: str, payload: Mapping[str, Any], best: bool) -> None:
        """Have `payload` written as checkpoint `name`, and as the best so far."""
        self.finish()
        kept = snapshot(payload)
        self._writing = self._threads.submit(
            self._write, checkpoint.folder(self._output_dir) / name, kept, best
        )

    def check(self) -> None:
        """Raise what went wrong in a write that has ended."""
        if self._writing is not None and self._writing.done():
            self.finish()

    def finish(self) -> None:
        """Return when all that was to be saved is on disk."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def close(self) -> None:
        """Wait for the write under way; should it fail, say so: another error may be on its way."""
        self._threads.shutdown()
        error = self._writing.exception() if self._writing is not None else None
        if error is not None:
            LOG.error("%s", error)

    def _write(self, path: Path, payload: Mapping[str, Any], best: bool) -> None:
        with self._timeline.span("write checkpoint"):
            checkpoint.save(path, payload)
            checkpoint.point(self._output_dir, "latest", path)
            if best:
                checkpoint.point(self._output_dir, "best", path)
            checkpoint.prune(self._output_dir, self._keep)


def snapshot(value: Any) -> Any:
    """A copy of nested dicts, lists and tuples that no later step changes; tensors on the CPU, tied ones still tied."""
    return _copy(value, {})


def _copy(value: Any, copied: dict[tuple[Any, ...], Tensor]) -> Any:
    if isinstance(value, Tensor):
        key = (value.data_ptr(), value.dtype, value.shape, value.stride(), value.device)
        if key not in copied or not value.numel():
            copied[key] = value.detach().to("cpu", copy=True)
        return copied[key].detach()
    if isinstance(value, dict):
        same = copy(value)  # an ordered dict of a module's state brings its versions along
        same.update({key: _copy(item, copied) for key, item in value.items()})
        return same
    if isinstance(value, (list, tuple)):
        items = [_copy(item, copied) for item in value]
        return items if isinstance(value, list) else tuple(items)
    return value
