"""Sources on disk: a folder per source, its bases in sub-folders of the same form, so that each loads alone.

::

    model/
      configuration.yaml     class, config, names of parameters, digests of all below, who made it when
      weights.pt             tensors of this source without its bases
      data_trafo/trafo.h5    its transformation
      detector-<digest>.h5   the detector it was made for
      noise/ cascade/ ...    its bases

Nothing of a folder is ever taken in part: what is missing, changed, or too much is an error.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

import hpcreco
from hpcreco.experiments.icecube import detector as detectors
from hpcreco.experiments.icecube import trafo as trafos
from hpcreco.experiments.icecube.detector import Detector
from hpcreco.experiments.icecube.sources.configured import ConfiguredSource, resolve
from hpcreco.experiments.icecube.trafo import Transformation

FORMAT, VERSION = "hpcreco/icecube/component", "1.0"
CONFIGURATION, WEIGHTS, TRAFO = "configuration.yaml", "weights.pt", "data_trafo"
_BASES = "bases."


class ComponentError(RuntimeError):
    """A saved source is damaged, incomplete, or not for this detector or version."""

    exit_code = 1


def save(
    source: ConfiguredSource,
    folder: str | os.PathLike[str],
    provenance: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write `source` as a folder, which appears complete or not at all; returns its path.

    provenance: plain values for configuration.yaml, such as the training's config. Raises ComponentError where the
    folder exists, unless `overwrite`.
    """
    folder = Path(folder)
    if folder.exists() and not overwrite:
        raise ComponentError(f"{folder} exists; name another folder, or overwrite it on purpose")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        _write(source, temporary, _plain(dict(provenance or {})))
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def load(
    folder: str | os.PathLike[str],
    detector: Detector | None = None,
    allow_geometry_mismatch: bool = False,
) -> ConfiguredSource:
    """The source of a folder, ready to use (in evaluation mode), with everything checked.

    detector: the one it is to be used with; by default its own. Raises ComponentError.
    """
    folder = Path(folder)
    record = configuration(folder)
    own = detectors.read(_inside(folder, detectors.file_name(record["detector_sha256"])))
    if detector is not None and detector.sha256 != own.sha256:
        if not allow_geometry_mismatch or detector.shape != own.shape:
            raise ComponentError(
                f"{folder} is for another detector ({own.sha256[:12]}, {own.shape[0]} strings of {own.shape[1]} DOMs) "
                f"than the data ({detector.sha256[:12]}, {detector.shape[0]} of {detector.shape[1]})"
            )
        own = detector
    bases = {}
    for name, digest in record["bases"].items():
        inner = _inside(folder, name)
        if configuration(inner)["digest"] != digest:
            raise ComponentError(
                f"{inner} is not the base that {folder} was saved with; restore the whole folder"
            )
        bases[name] = load(inner, own, allow_geometry_mismatch)
    cls = resolve(record["class"], str(folder / CONFIGURATION))
    source = cls(record["config"], own, _read_trafo(folder, record), bases)
    _read_weights(source, folder, record)
    return source.eval()


def configuration(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of a folder's configuration.yaml. Raises ComponentError where it is missing, changed or too new."""
    path = Path(folder) / CONFIGURATION
    if not path.is_file():
        raise ComponentError(f"{folder}: no {CONFIGURATION}, so no saved source")
    try:
        record = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ComponentError(f"{path}: not YAML ({error})") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ComponentError(f"{path}: format should be {FORMAT}")
    if version(record.get("format_version")) > version(VERSION):
        raise ComponentError(
            f"{path}: written by a newer hpcreco ({record.get('software_version')}, format "
            f"{record['format_version']}, this one reads up to {VERSION}); install that one"
        )
    if record.get("digest") != _digest(record):
        raise ComponentError(f"{path}: changed after it was written; restore it or export the model again")
    return record


def version(text: Any) -> tuple[int, ...]:
    """A version as numbers, so that 1.10 is newer than 1.9. Raises ComponentError for what is none."""
    parts = str(text).split(".")
    if not all(part.isdecimal() for part in parts):
        raise ComponentError(f"version {text!r} should be numbers between dots")
    return tuple(map(int, parts))


def _write(source: ConfiguredSource, folder: Path, provenance: Mapping[str, Any]) -> str:
    """Write one level and those below; returns the digest of the configuration."""
    folder.mkdir(parents=True)
    bases = getattr(source, "bases", {})
    digests = {name: _write(base, folder / name, provenance) for name, base in bases.items()}
    weights = own_tensors(source)
    torch.save(weights, folder / WEIGHTS)
    detectors.write(source.detector, folder)
    trafo = None
    if source.trafo is not None:
        (folder / TRAFO).mkdir()
        trafos.write(folder / TRAFO / trafos.FILE, source.trafo)
        trafo = _file_digest(folder / TRAFO / trafos.FILE)
    record = {
        "format": FORMAT,
        "format_version": VERSION,
        "class": _class_name(source),
        "config": _plain(source.settings.model_dump()),
        "parameter_names": list(source.parameter_names),
        "bases": digests,
        "detector_sha256": source.detector.sha256,
        "trafo_sha256": trafo,
        "weights_sha256": _file_digest(folder / WEIGHTS),
        "check_values": {name: float(value.double().mean()) for name, value in weights.items()},
        "software_version": hpcreco.__version__,
        "commit": commit(),
        "created_utc": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "provenance": dict(provenance),
    }
    record["digest"] = _digest(record)
    (folder / CONFIGURATION).write_text(yaml.safe_dump(record, sort_keys=False, allow_unicode=True))
    return str(record["digest"])


def own_tensors(source: ConfiguredSource) -> dict[str, Tensor]:
    """Weights and buffers of a source without its bases."""
    return {
        name: value.detach().cpu().contiguous()
        for name, value in source.state_dict().items()
        if not name.startswith(_BASES)
    }


def _read_weights(source: ConfiguredSource, folder: Path, record: Mapping[str, Any]) -> None:
    path = _inside(folder, WEIGHTS)
    if _file_digest(path) != record["weights_sha256"]:
        raise ComponentError(f"{path}: changed after it was written; restore it or export the model again")
    weights = torch.load(path, map_location="cpu", weights_only=True)
    wanted = set(own_tensors(source))
    missing, unexpected = sorted(wanted - set(weights)), sorted(set(weights) - wanted)
    if missing or unexpected:
        raise ComponentError(
            f"{path}: missing {', '.join(missing) or 'nothing'}, unexpected {', '.join(unexpected) or 'nothing'}"
        )
    for name, value in weights.items():
        expected = record["check_values"][name]
        if not torch.isclose(
            value.double().mean(), torch.tensor(expected, dtype=torch.float64), equal_nan=True
        ):
            raise ComponentError(f"{path}: the mean of {name} is not the {expected} that {CONFIGURATION} has")
    try:
        source.load_state_dict({**source.state_dict(), **weights}, strict=True, assign=True)
    except RuntimeError as error:
        raise ComponentError(f"{path}: {error}") from error


def _read_trafo(folder: Path, record: Mapping[str, Any]) -> Transformation | None:
    if record["trafo_sha256"] is None:
        return None
    path = _inside(folder / TRAFO, trafos.FILE)
    if _file_digest(path) != record["trafo_sha256"]:
        raise ComponentError(f"{path}: not the transformation that the model was saved with")
    return trafos.read(path)


def _inside(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.exists():
        raise ComponentError(f"{folder}: {name} is missing; copy the whole folder, or export the model again")
    return path


def _class_name(source: ConfiguredSource) -> str:
    name = type(source).__name__
    from hpcreco.experiments.icecube.aliases import SOURCES

    return name if name in SOURCES else f"{type(source).__module__}:{name}"


def _file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _digest(record: Mapping[str, Any]) -> str:
    """Of everything in a configuration but the digest itself."""
    content = {key: value for key, value in record.items() if key != "digest"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _plain(value: Any) -> Any:
    """Only what YAML and JSON both have."""
    return json.loads(json.dumps(value, default=str))


def commit() -> str:
    """The commit of hpcreco's source, with a + when it was changed since; empty where there is no checkout."""
    folder = Path(hpcreco.__file__).parent

    def git(*arguments: str) -> str:
        run = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
        return run.stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "-uno", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return ""
