"""``hpcreco icecube export``: trained networks as a folder that reconstructs anywhere.

DIR/models_0000 holds the hypothesis, component by component, each of which loads alone; several CONFIGs become an
ensemble models_0000, models_0001, ... whose losses add up. Every component carries the configs of all calls of `train`
that made it. DIR/reco_config.yaml says how to reconstruct (-r, or the first CONFIG), DIR/model_card.json what is in it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from hpcreco import __version__, config, experiment
from hpcreco.config import Run
from hpcreco.experiments.icecube.settings import settings_of

if TYPE_CHECKING:
    from hpcreco.experiments.icecube.sources.configured import ConfiguredSource

EPILOG = """\
examples:
  hpcreco icecube export cascade_tiny -o export/cascade_tiny
  hpcreco icecube export first.yaml second.yaml -o export/ensemble
  hpcreco icecube export my.yaml -o export/mine -r reconstruct.yaml --checkpoint best
"""

RECO_CONFIG, MODEL_CARD = "reco_config.yaml", "model_card.json"


class ExportError(RuntimeError):
    """Nothing to export, or something is in the way."""

    exit_code = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the verb."""
    parser.epilog = EPILOG
    parser.add_argument(
        "configs", nargs="+", metavar="CONFIG", help="the configs of the runs, files or shipped names"
    )
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument(
        "-r", "--reco", metavar="CONFIG", help="how to reconstruct (default: the first CONFIG)"
    )
    parser.add_argument(
        "--checkpoint",
        default="last",
        metavar="EPOCH|best",
        help="which checkpoint of each run (default: the last)",
    )
    parser.add_argument(
        "--set", metavar="a.b=c", action="append", default=[], help="override a key of all configs"
    )
    parser.add_argument("--lenient", action="store_true", help="unknown keys warn instead of failing")
    parser.add_argument("--force", action="store_true", help="replace DIR if it exists")


def run(args: argparse.Namespace) -> int:
    """Write the export; returns the exit code."""
    out: Path = args.out
    if out.exists() and not args.force:
        raise ExportError(f"{out} exists; choose another folder, or replace it with --force")
    raws = [config.load(name, args.set) for name in args.configs]
    runs = [_normalised(raw, args.lenient) for raw in raws]
    reco = config.load(args.reco, args.set) if args.reco else raws[0]
    _normalised(reco, args.lenient)  # what cannot be read here cannot be read there
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        temporary.mkdir(parents=True)
        cards = _write_models(runs, temporary, args.checkpoint)
        (temporary / RECO_CONFIG).write_text(yaml.safe_dump(reco, sort_keys=False, allow_unicode=True))
        card = {"software": f"hpcreco {__version__}", "models": cards}
        (temporary / MODEL_CARD).write_text(json.dumps(card, indent=2) + "\n")
        if out.exists():
            shutil.rmtree(out)
        temporary.replace(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for number, card in enumerate(cards):
        print(
            f"{out}/models_{number:04d}: {card['name']}, {card['weights']:,} weights after {card['steps']:,} steps"
        )
    return 0


def _normalised(raw: Mapping[str, Any], lenient: bool) -> Run:
    found = experiment.recognise(raw)
    if found.name != "icecube":
        raise ExportError(f"a config of {found.name}; `hpcreco icecube export` takes configs of icecube")
    return found.load("normalise")(raw, lenient)  # type: ignore[no-any-return]


def _write_models(runs: Sequence[Run], folder: Path, which: str) -> list[dict[str, Any]]:
    from hpcreco.experiments.icecube import components

    cards: list[dict[str, Any]] = []
    for number, run in enumerate(runs):
        source, steps = trained(run, which)
        if cards and list(source.parameter_names) != cards[0]["parameters"]:
            raise ExportError(
                f"{settings_of(run).unique_name} has the parameters {', '.join(source.parameter_names)}, "
                f"{cards[0]['name']} has {', '.join(cards[0]['parameters'])}; an ensemble has the same"
            )
        model = folder / f"models_{number:04d}"
        components.save(source, model, provenance(run, steps))
        cards.append(_card(run, source, steps, components.configuration(model)["digest"]))
    return cards


def trained(run: Run, which: str = "last") -> tuple[ConfiguredSource, int]:
    """The hypothesis of a run with the weights of its checkpoint, and the steps that made it.

    A hypothesis that is only put together from loaded parts needs no checkpoint.
    """
    from hpcreco.experiments.icecube.sources.configured import ConfiguredSource
    from hpcreco.experiments.icecube.task import build_model
    from hpcreco.train import checkpoint

    network = build_model(run)
    source = network.likelihood.source
    assert isinstance(source, ConfiguredSource)
    if not checkpoint.found(run.output_dir):
        if _only_loaded(settings_of(run).model):
            return source.eval(), 0
        raise ExportError(f"{checkpoint.folder(run.output_dir)} holds no checkpoint; train first")
    if which == "last":
        found = checkpoint.load_latest(run.output_dir)
        assert found is not None
        path, content = found[0].path, found[1]
    else:
        path = checkpoint.resolve(f"{run.output_dir}@{which}")
        content = checkpoint.load(path)
    checkpoint.load_into(network, content["model"], source=str(path))
    return source.eval(), int(content["progress"]["step"])


def _only_loaded(model: Mapping[str, Any]) -> bool:
    """Does every part of the hypothesis come from a `load_dir`?"""
    bases = model.get("multi_source_bases", {})
    return bool(model.get("load_dir")) or (bool(bases) and all(_only_loaded(base) for base in bases.values()))


def provenance(run: Run, steps: int) -> dict[str, Any]:
    """The config of every call of `train`, in order, and what loaded parts were trained with."""
    folder = run.output_dir / "configs"
    calls = sorted((p for p in folder.glob("*.yaml") if p.stem.isdigit()), key=lambda p: int(p.stem))
    return {
        "unique_name": settings_of(run).unique_name,
        "steps": steps,
        "training": [yaml.safe_load(path.read_text()) for path in calls],
        "loaded": _loaded(settings_of(run).model),
    }


def _loaded(model: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Provenance of every part with a `load_dir`, by its path in the hypothesis."""
    from hpcreco.experiments.icecube import components

    found: dict[str, Any] = {}
    if model.get("load_dir"):
        record = components.configuration(model["load_dir"])
        return {path: {"digest": record["digest"], "provenance": record["provenance"]}}
    for name, base in model.get("multi_source_bases", {}).items():
        found |= _loaded(base, f"{path}/{name}" if path else name)
    return found


def _card(run: Run, source: ConfiguredSource, steps: int, digest: str) -> dict[str, Any]:
    trafo = source.trafo
    ranges = {}
    if trafo is not None:
        low, high = (trafo.inverse(_like(trafo.mean, edge)) for edge in (-2.0, 2.0))
        ranges = {
            name: [round(float(a), 6), round(float(b), 6)]
            for name, a, b in zip(trafo.names, low, high, strict=True)
        }
    return {
        "name": settings_of(run).unique_name,
        "parameters": list(source.parameter_names),
        "range_of_training": ranges,  # two widths to both sides of the mean
        "detector": {
            "name": source.detector.name,
            "sha256": source.detector.sha256,
            "shape": list(source.detector.shape),
        },
        "weights": sum(p.numel() for p in source.parameters()),
        "steps": steps,
        "losses": [term.model_dump(exclude_defaults=True) for term in settings_of(run).losses],
        "digest": digest,
    }


def _like(mean: Any, value: float) -> Any:
    import torch

    return torch.full((len(mean),), value, dtype=torch.float64)
