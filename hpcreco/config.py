"""Configuration: YAML files -> the typed `Run` that the core works with.

`load` reads a file and whatever it extends, applies ``--set`` overrides and expands variables; the result is still in
the experiment's own dialect. Each experiment's `normalise` turns it into a `Run`.
"""

from __future__ import annotations

import difflib
import logging
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    model_validator,
)

LOG = logging.getLogger("hpcreco")


class ConfigError(ValueError):
    """A config file, a key in it, or an override is wrong."""

    exit_code = 2


# ---------------------------------------------------------------------------------------------- reading YAML


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key defined twice and reads 1e-4 as the number it is."""


def _mapping(loader: _Loader, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in seen:
            raise ConfigError(
                f"{key_node.start_mark.name}, line {key_node.start_mark.line + 1}: key {key!r} is defined twice"
            )
        seen.add(key)
    return dict(yaml.SafeLoader.construct_mapping(loader, node, deep=True))


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def parse(text: str, source: str) -> dict[str, Any]:
    """Parse YAML `text`; `source` is named in errors."""
    loader = _Loader(text)
    loader.name = source
    try:
        raw = loader.get_single_data()
    except yaml.YAMLError as error:
        raise ConfigError(f"{source} is not valid YAML: {error}") from error
    finally:
        loader.dispose()
    if not isinstance(raw, dict):
        raise ConfigError(f"{source} should hold keys and values, found {type(raw).__name__}")
    return raw


def shipped_configs() -> Path:
    """The folder of configs that come with hpcreco: inside an installed wheel, or beside the package in a checkout."""
    package = Path(__file__).parent
    installed = package / "_configs"
    return installed if installed.is_dir() else package.parent / "configs"


def find(name: str) -> Path:
    """A config file: a path, or the name of a shipped one such as ``protodune/ghost3d_tiny`` or ``ghost3d_tiny``."""
    path = Path(name)
    if path.is_file():
        return path
    folder = shipped_configs()
    stem = name.removesuffix(".yaml")
    known = {str(p.relative_to(folder).with_suffix("")): p for p in sorted(folder.rglob("*.yaml"))}
    matches = [p for key, p in known.items() if key == stem or key.rpartition("/")[2] == stem]
    if len(matches) == 1:
        return matches[0]
    close = nearest(stem.rpartition("/")[2], [key.rpartition("/")[2] for key in known])
    hint = f"; did you mean {close!r}?" if close else ""
    raise ConfigError(
        f"there is no config {name!r}, neither as a file nor among the shipped ones (`hpcreco config list`){hint}"
    )


def read(path: Path) -> dict[str, Any]:
    """The mapping in `path`, merged over the files its ``extends:`` names (relative to it, or shipped).

    The files that ``include:`` names are joined to it, each key in one of them only.
    """
    return _read(path, ())


def _read(path: Path, chain: tuple[Path, ...]) -> dict[str, Any]:
    path = path.resolve()
    if path in chain:
        raise ConfigError(f"{path} extends itself through " + " -> ".join(str(p.name) for p in chain))
    try:
        text = path.read_text()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    raw = parse(text, str(path))
    merged: dict[str, Any] = {}
    for base in _listed(raw.pop("extends", [])):
        merged = merge(merged, _read(_beside(path, base), (*chain, path)))
    for part in _listed(raw.pop("include", [])):
        raw = _joined(raw, _read(_beside(path, part), (*chain, path)), f"{path.name} and {part}")
    return merge(merged, raw)


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _beside(path: Path, name: str) -> Path:
    """The file `name` in the folder of `path`, or the shipped config of that name."""
    beside = path.parent / name
    return beside if beside.is_file() else find(name)


def _joined(one: Mapping[str, Any], other: Mapping[str, Any], files: str, where: str = "") -> dict[str, Any]:
    """The keys of both; one that both define is an error, a mapping in both is joined."""
    out = dict(one)
    for key, value in other.items():
        if key not in out:
            out[key] = value
        elif isinstance(value, Mapping) and isinstance(out[key], Mapping):
            out[key] = _joined(out[key], value, files, f"{where}{key}.")
        else:
            raise ConfigError(
                f"{files} both define {where}{key}; leave it in one, or use `extends:` to override"
            )
    return out


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid over `base`: mappings merge key by key, everything else replaces."""
    out = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(out.get(key), Mapping)
        out[key] = merge(out[key], value) if both else value
    return out


def override(raw: dict[str, Any], assignments: Iterable[str]) -> dict[str, Any]:
    """Apply ``a.b=c`` assignments (values in YAML) to a raw config; missing mappings on the way are made."""
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ConfigError(f"--set {text!r}: write it as key.subkey=value")
        try:
            parsed = yaml.load(value, Loader=_Loader)  # noqa: S506  (_Loader is a SafeLoader)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {text!r}: the value is not valid YAML: {error}") from error
        change: Any = parsed
        for part in reversed(name.split(".")):
            change = {part: change}
        raw = merge(raw, change)
    return raw


# ---------------------------------------------------------------------------------------------- variables

_ENVIRONMENT = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_PLACEHOLDER = re.compile(r"(?<!\$)\{(\w+)\}")


def expand(raw: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Replace ``{key}`` by the top-level scalar `key`, and ``$NAME`` or ``${NAME}`` by the environment's."""
    scalars = {key: str(value) for key, value in raw.items() if isinstance(value, (str, int, float))}

    def text(value: str, where: str) -> str:
        def environment(match: re.Match[str]) -> str:
            name = match[1] or match[2]
            if name not in environ:
                raise ConfigError(
                    f"{where}: the environment variable {name} is not set; export {name}=... or give --set {where}=..."
                )
            return environ[name]

        for _ in range(8):  # a placeholder may stand for text with a placeholder
            replaced = _PLACEHOLDER.sub(lambda m: scalars.get(m[1], m[0]), value)
            if replaced == value:
                break
            value = replaced
        return _ENVIRONMENT.sub(environment, value)

    def walk(value: Any, where: str) -> Any:
        if isinstance(value, str):
            return text(value, where)
        if isinstance(value, Mapping):
            return {key: walk(item, f"{where}.{key}" if where else str(key)) for key, item in value.items()}
        if isinstance(value, list):
            return [walk(item, where) for item in value]
        return value

    return dict(walk(raw, ""))


def load(name: str, assignments: Sequence[str] = ()) -> dict[str, Any]:
    """The raw config `name` (path or shipped) with overrides applied and variables expanded."""
    return expand(override(read(find(name)), assignments))


# ---------------------------------------------------------------------------------------------- typed configs


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name`, if any is like it."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return matches[0] if matches else None


class Strict(BaseModel):
    """A config section in which an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _keys_at(model: type[BaseModel], location: Sequence[Any]) -> list[str]:
    """Field names allowed beside the last element of a validation error's location."""
    current: Any = model
    for part in location[:-1]:
        fields = getattr(current, "model_fields", {})
        if part not in fields:
            continue
        annotation = fields[part].annotation
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        current = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), current)
    return list(getattr(current, "model_fields", {}))


def build(model: type[BaseModel], raw: Mapping[str, Any], where: str = "", lenient: bool = False) -> Any:
    """`raw` as a `model`; every problem is listed with its key, and an unknown key with its nearest valid one.

    lenient: unknown keys are left out with a warning.
    """
    while True:
        try:
            return model.model_validate(dict(raw))
        except ValidationError as error:
            unknown = [item["loc"] for item in error.errors() if item["type"] == "extra_forbidden"]
            if not (lenient and unknown):
                raise ConfigError("; ".join(_problems(model, error, where))) from error
            for location in unknown:
                LOG.warning("%s: unknown key, left out", _key(where, location))
                raw = _without(raw, location)


def _problems(model: type[BaseModel], error: ValidationError, where: str) -> list[str]:
    problems = []
    for item in error.errors():
        key = _key(where, item["loc"])
        if item["type"] == "extra_forbidden":
            close = nearest(str(item["loc"][-1]), _keys_at(model, item["loc"]))
            problems.append(f"{key}: unknown key" + (f"; did you mean {close!r}?" if close else ""))
        elif not item["loc"]:  # keys that do not go together; the message names them
            problems.append(f"{where}: " * bool(where) + item["msg"].removeprefix("Value error, "))
        else:
            problems.append(f"{key}: {item['msg'].removeprefix('Value error, ')} (found {item['input']!r})")
    return problems


def _key(where: str, location: Sequence[Any]) -> str:
    return ".".join([*([where] if where else []), *(str(part) for part in location)])


def _without(raw: Any, location: Sequence[Any]) -> Any:
    head, *rest = location
    if isinstance(raw, list):
        return [_without(item, rest) if number == head else item for number, item in enumerate(raw)]
    if not rest:
        return {key: value for key, value in raw.items() if key != head}
    return {key: _without(value, rest) if key == head else value for key, value in raw.items()}


class Cadence(Strict):
    """How often: ``every`` so many ``unit``s. Written ``{every: 2, unit: epochs}`` or ``2 epochs``."""

    every: float = Field(gt=0)
    unit: Literal["steps", "epochs", "seconds"] = "epochs"

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return {"every": value}
        if isinstance(value, str):
            number, _, unit = value.strip().partition(" ")
            unit = unit.strip() or "epochs"
            return {"every": float(number), "unit": unit if unit.endswith("s") else unit + "s"}
        return value


class Steps(Strict):
    """How events become global steps.

    files: one shard per rank and step (the legacy batch_size of 1); events: `size` events per step; cost: events up to
    a summed cost of `size` per step, and with `rank_size` packed into parts of that cost, which even out the ranks. The
    last two do not depend on the number of ranks. A rank's share is cut into micro-batches of at most `micro_cost`.
    """

    mode: Literal["files", "events", "cost"] = "files"
    size: float = Field(default=1, gt=0)
    rank_size: float | None = Field(default=None, gt=0)
    micro_cost: float = Field(default=math.inf, gt=0)


def within_budget(rank_budget: float | None, info: ValidationInfo) -> float | None:
    """Validates the field `rank_budget` of a dialect, which cuts its `cost_budget`, declared before, into parts."""
    if rank_budget is None:
        return None
    budget = info.data.get("cost_budget")
    if budget is None:
        raise ValueError("it is a rank's part of a step of cost_budget; give that too")
    if rank_budget > budget:
        raise ValueError(f"a rank's part of a step cannot exceed the step's cost_budget of {budget:g}")
    return rank_budget


class Loading(Strict):
    """Reader threads per rank, steps read ahead, and a folder on each node's own storage to copy the shards to."""

    workers: int = Field(default=1, ge=1)
    prefetch: int = Field(default=2, ge=1)
    stage: Path | None = None


class Store(Strict):
    """Write yinf shards of every n-th validation shard after every n-th epoch into output_dir/outdir."""

    every_epochs: int = Field(default=1, ge=1)
    every_samples: int = Field(default=1, ge=1)
    outdir: str = "inference"


class EarlyStop(Strict):
    """Stop when the monitored column has not improved by `min_delta` for `patience` validations."""

    patience: int = Field(ge=1)
    min_delta: float = Field(default=0.0, ge=0)


class Parallel(Strict):
    """How ranks work together.

    timeout: seconds without progress after which the watchdog ends the job. bucket_mb: gradients are summed over ranks
    in pieces of so many MB; overlap: while backward still computes the next ones. compression: gradients travel as
    float32 (none) or as 16 bits each (fp16: 11 bits of precision; bf16: 8, not with Horovod).
    sync_batch_norm: batch statistics are those of all ranks.
    """

    timeout: float = Field(default=1800.0, gt=0)
    bucket_mb: float = Field(default=1.0, gt=0)
    overlap: bool = True
    compression: Literal["none", "fp16", "bf16"] = "none"
    sync_batch_norm: bool = False


class Run(Strict):
    """Everything the core needs to train or infer; an experiment's own settings ride along in `settings`."""

    experiment: str
    output_dir: Path
    settings: SerializeAsAny[BaseModel]
    trains: bool = True  # False: the config names no training data, so `train --resume` infers
    seed: int = 0
    epochs: int | None = Field(default=None, ge=0)
    iterations: int | None = Field(default=None, ge=0)
    steps: Steps = Steps()
    loading: Loading = Loading()
    save: Cadence = Cadence(every=1)
    validate_every: Cadence = Cadence(every=1)
    validation_events: int | None = Field(default=None, ge=1)  # spread evenly over all; None: every one
    report: Cadence = Cadence(every=30, unit="seconds")
    store: Store | None = None
    start_epoch: int | None = Field(default=None, ge=0)
    resume: Literal["auto"] | None = None  # what `train` does without --resume
    init_from: str | None = None
    transfer: bool = False
    keep_checkpoints: int | None = Field(default=None, ge=1)
    early_stop: EarlyStop | None = None
    grad_clip: float | None = Field(default=None, gt=0)
    amp: bool = False
    precision: Literal["float32", "float64"] = "float32"
    backend: str | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = Field(default=None, ge=1)
    parallel: Parallel = Parallel()
    rank_files: bool = False
    tensorboard: bool = False
    notes: tuple[str, ...] = ()  # what the user should know of this config: logged at the start

    @model_validator(mode="after")
    def _ends_somehow(self) -> Run:
        if self.epochs is not None and self.iterations is not None:
            raise ValueError("give epochs or iterations, not both")
        if self.precision == "float64" and self.parallel.compression != "none":
            raise ValueError(
                "parallel.compression sends 16 bits of each gradient: choose none, or precision float32"
            )
        return self

    def identity(self) -> dict[str, Any]:
        """What must not change between a checkpoint and its continuation, as plain JSON values."""
        names = ("experiment", "seed", "settings", "steps", "grad_clip", "amp", "precision")
        dumped = self.model_dump(mode="json", include=set(names))
        ignored = getattr(self.settings, "not_identity", ())
        dumped["settings"] = {k: v for k, v in dumped["settings"].items() if k not in ignored}
        return dumped


def differences(old: Any, new: Any, where: str = "") -> list[str]:
    """Keys at which two plain configs differ, as ``key: old -> new``."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        out = []
        for key in sorted({*old, *new}, key=str):
            out += differences(old.get(key), new.get(key), f"{where}.{key}" if where else str(key))
        return out
    return [] if old == new else [f"{where}: {old!r} -> {new!r}"]
