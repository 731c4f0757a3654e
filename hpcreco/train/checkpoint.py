"""Checkpoints: one file each, written atomically, verified by a digest of its content, loadable without pickled code.

``checkpoints/checkpoint_<epoch>.pth.tar`` is written after an epoch; a save in mid-epoch is called
``checkpoint_<epoch>-<step>.pth.tar``. The text files ``latest`` and ``best`` name one of them.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

FORMAT = "hpcreco/checkpoint"
VERSION = 1

_NAME = re.compile(r"^checkpoint_(\d+)(?:-(\d+))?\.pth\.tar$")


class CheckpointError(RuntimeError):
    """A checkpoint is missing, damaged or does not fit."""

    exit_code = 1


class Found(NamedTuple):
    """A checkpoint file; `step` is None when it was written at the end of `epoch`."""

    path: Path
    epoch: int
    step: int | None

    @property
    def order(self) -> tuple[int, float]:
        """Sorts checkpoints by progress: an epoch's end comes after every step in it."""
        return (self.epoch, float("inf") if self.step is None else self.step)


def folder(output_dir: Path) -> Path:
    """Where the checkpoints of a run lie."""
    return output_dir / "checkpoints"


def name(epoch: int, step: int | None = None) -> str:
    """File name after `epoch`, or within it at global `step`."""
    return f"checkpoint_{epoch:03d}.pth.tar" if step is None else f"checkpoint_{epoch:03d}-{step:08d}.pth.tar"


def found(output_dir: Path) -> list[Found]:
    """The checkpoints of a run in order of progress."""
    out = []
    for path in folder(output_dir).glob("checkpoint_*.pth.tar"):
        match = _NAME.match(path.name)
        if match:
            out.append(Found(path, int(match[1]), int(match[2]) if match[2] else None))
    return sorted(out, key=lambda item: item.order)


# ---------------------------------------------------------------------------------------------- content


def digest(value: Any) -> str:
    """sha256 of nested dicts, lists, numbers, texts and tensors; tensors count by dtype, shape and bytes."""
    hasher = hashlib.sha256()
    _feed(hasher, value)
    return hasher.hexdigest()


def _feed(hasher: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        array = value.detach().cpu().contiguous()
        hasher.update(f"t{array.dtype}{tuple(array.shape)}".encode())
        hasher.update(memoryview(array.reshape(-1).view(torch.uint8).numpy()) if array.numel() else b"")
    elif isinstance(value, Mapping):
        hasher.update(f"d{len(value)}".encode())
        for key in sorted(value, key=repr):
            _feed(hasher, key)
            _feed(hasher, value[key])
    elif isinstance(value, (list, tuple)):
        hasher.update(f"l{len(value)}".encode())
        for item in value:
            _feed(hasher, item)
    elif isinstance(value, float):
        hasher.update(b"f" + struct.pack("<d", value))
    else:
        hasher.update(f"{type(value).__name__}{value!r}".encode())


def save(path: Path, payload: Mapping[str, Any]) -> str:
    """Write `payload` with its digest to `path`, complete or not at all; returns the digest.

    Raises `CheckpointError` (disk full, no permission); an earlier file of that name then stays as it was.
    """
    content = {"format": FORMAT, "version": VERSION, **payload}
    content["digest"] = digest(content)
    temporary = path.with_name(f".{path.name}.part-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as stream:
            torch.save(content, stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch reports a failed write as RuntimeError
        with suppress(OSError):
            temporary.unlink()
        raise CheckpointError(
            f"cannot write {path}: {error}; free some space or change output_dir"
        ) from error
    return str(content["digest"])


def load(path: Path) -> dict[str, Any]:
    """Read and verify a checkpoint, tensors on the CPU; `CheckpointError` when it is missing or damaged."""
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, unpickling and I/O errors alike mean that the file is not usable
        raise CheckpointError(
            f"{path} cannot be read ({error}); it is damaged, resume from an earlier one"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not an hpcreco checkpoint")
    if content["version"] > VERSION:
        raise CheckpointError(
            f"{path} was written by a newer hpcreco (checkpoint version {content['version']})"
        )
    expected = content.pop("digest", None)
    if digest(content) != expected:
        raise CheckpointError(
            f"{path} is damaged: its content does not match its digest; resume from an earlier one"
        )
    return {**content, "digest": expected}


# ---------------------------------------------------------------------------------------------- a run's checkpoints


def point(output_dir: Path, pointer: str, target: Path) -> None:
    """Let `latest` or `best` name `target`."""
    path = folder(output_dir) / pointer
    temporary = path.with_name(f".{pointer}.part-{os.getpid()}")
    temporary.write_text(target.name + "\n")
    os.replace(temporary, path)


def pointed(output_dir: Path, pointer: str) -> Path | None:
    """What `latest` or `best` names, if it exists."""
    path = folder(output_dir) / pointer
    target = folder(output_dir) / path.read_text().strip() if path.is_file() else None
    return target if target is not None and target.is_file() else None


def of_epoch(output_dir: Path, epoch: int) -> Path:
    """The checkpoint written after `epoch`; `CheckpointError` lists the epochs there are."""
    there = found(output_dir)
    for item in there:
        if item.epoch == epoch and item.step is None:
            return item.path
    known = ", ".join(str(item.epoch) for item in there if item.step is None) or "none"
    raise CheckpointError(f"{folder(output_dir)} has no checkpoint of epoch {epoch}; epochs there: {known}")


def load_latest(output_dir: Path, notice: Any = print) -> tuple[Found, dict[str, Any]] | None:
    """The most advanced checkpoint that is whole; damaged ones are passed over with a notice. None without any."""
    problems = []
    for item in reversed(found(output_dir)):
        try:
            return item, load(item.path)
        except CheckpointError as error:
            problems.append(str(error))
            notice(f"passed over: {error}")
    if problems:
        raise CheckpointError(f"no checkpoint in {folder(output_dir)} is whole: " + "; ".join(problems))
    return None


def resolve(spec: str) -> Path:
    """A checkpoint of another run: ``RUN``, ``RUN@7``, ``RUN@best`` or a file's path."""
    run, _, which = spec.partition("@")
    path = Path(run)
    if path.is_file():
        return path
    if which and which not in ("best", "latest"):
        if not which.isdigit():
            raise CheckpointError(f"{spec}: after @ write an epoch number, best or latest")
        return of_epoch(path, int(which))
    target = pointed(path, which or "latest")
    if target is None:
        raise CheckpointError(f"{spec}: {folder(path)} has no {which or 'latest'} checkpoint")
    return target


def prune(output_dir: Path, keep: int | None) -> None:
    """Delete superseded mid-epoch checkpoints and, with `keep`, all but the last `keep` epochs and the best."""
    there = found(output_dir)
    best = pointed(output_dir, "best")
    last = there[-1] if there else None
    ends = [item for item in there if item.step is None]
    old = ends[:-keep] if keep else []
    for item in [i for i in there if i.step is not None] + old:
        if item != last and item.path != best:
            item.path.unlink(missing_ok=True)


# ---------------------------------------------------------------------------------------------- subtrees of a model


def export(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries below dotted module path `prefix`, with the prefix removed."""
    head = prefix + "." if prefix else ""
    return {key[len(head) :]: value for key, value in state.items() if key.startswith(head)}


class Match(NamedTuple):
    """How the entries of a model and of an offered state go together, by name and shape; all sorted.

    fitting: in both. fresh: the model's alone. unused: offered alone. reshaped: in both, of another shape.
    """

    fitting: list[str]
    fresh: list[str]
    unused: list[str]
    reshaped: list[str]

    def __str__(self) -> str:
        return "; ".join(
            [f"{len(self.fitting)} tensors taken"]
            + [
                f"{what}: {', '.join(names)}"
                for what, names in (
                    ("as initialised", self.fresh),
                    ("offered and not used", self.unused),
                    ("of another shape, as initialised", self.reshaped),
                )
                if names
            ]
        )


def match(wanted: Mapping[str, Tensor], offered: Mapping[str, Tensor]) -> Match:
    """Compare a model's state with an offered one."""
    both = sorted(set(wanted) & set(offered))
    return Match(
        [name for name in both if wanted[name].shape == offered[name].shape],
        sorted(set(wanted) - set(offered)),
        sorted(set(offered) - set(wanted)),
        [name for name in both if wanted[name].shape != offered[name].shape],
    )


def load_into(
    model: nn.Module,
    state: Mapping[str, Tensor],
    *,
    source: str,
    from_: str = "",
    to: str = "",
    strict: bool = True,
) -> list[str]:
    """Load the subtree `from_` of `state` into the subtree `to` of `model`.

    Returns the names that did not match (absent on either side, or of another shape). `CheckpointError` when strict
    and any does not match, or when none does; `source` is named in it.
    """
    target = model.get_submodule(to) if to else model
    offered = export(state, from_)
    wanted = target.state_dict()
    matched = match(wanted, offered)
    fitting = {name: offered[name] for name in matched.fitting}
    unmatched = sorted([*matched.fresh, *matched.unused, *matched.reshaped])
    if strict and unmatched:
        raise CheckpointError(f"{source} does not fit the model: {_shorten(unmatched)}")
    if not fitting:
        raise CheckpointError(f"{source}: nothing in it matches the model (from {from_ or 'the root'!r})")
    target.load_state_dict(fitting, strict=False)
    return unmatched


def _shorten(names: Sequence[str], limit: int = 6) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
