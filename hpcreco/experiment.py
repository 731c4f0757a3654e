"""What the core knows of an experiment: one torch-free value, found by name.

The other half of the seam, the `Task`, needs torch and is looked up through `Experiment.task` only when a network
is really built. The core never imports an experiment by name; it asks here.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class ExperimentError(ValueError):
    """An experiment, or something it should provide, does not exist."""

    exit_code = 2


@dataclass(frozen=True)
class Experiment:
    """The torch-free half of the seam.

    Every text of the form ``module:NAME`` is imported only when it is used.
    """

    name: str
    #: dialect: raw mapping, lenient flag -> `hpcreco.config.Run`
    normalise: str
    #: (run, part) -> list of shard paths, part in {"train", "validation"}; None when the config names no such part.
    #: Where events are made and not read: an index of them, from `hpcreco.shards.made`
    files: str
    #: (run, index) -> float64 (n_events,) cost of each event (voxels, hits, pulses)
    cost: str
    #: the torch half: a `hpcreco.train.task.Task`, or a function of the run that gives one
    task: str
    #: does this raw config, which lacks `experiment:`, belong to this experiment?
    recognises: Callable[[Mapping[str, Any]], bool] = lambda raw: False
    #: does this file, which hpcreco did not write, look like one that the experiment reads? By its name alone
    claims: Callable[[Path], bool] = lambda path: False
    #: verb -> module with add_arguments(parser) and run(args)
    verbs: Mapping[str, str] = field(default_factory=dict)
    #: product -> "module:SCHEMA"
    schemas: Mapping[str, str] = field(default_factory=dict)
    #: product -> "module:function", path -> problems of a file that its schema cannot see; for `hpcreco validate`
    checks: Mapping[str, str] = field(default_factory=dict)
    #: scripts of the original program: a `hpcreco.legacy.Wrappers`, or nothing
    legacy: str = ""
    #: one line for --help
    summary: str = ""

    def load(self, what: str) -> Any:
        """Import the object that the attribute `what` names, e.g. ``load("task")``."""
        return load(getattr(self, what))

    def task_of(self, run: Any) -> Any:
        """The `hpcreco.train.task.Task` of a run."""
        found = self.load("task")
        return found(run) if callable(found) else found

    def schema(self, product: str) -> Any:
        """The `hpcreco.shards.Schema` of `product`; `ExperimentError` names the known ones."""
        if product not in self.schemas:
            known = ", ".join(sorted(self.schemas)) or "none"
            raise ExperimentError(f"{self.name} has no product {product!r}; it knows: {known}")
        return load(self.schemas[product])


def load(name: str) -> Any:
    """Import ``module:NAME``; `ExperimentError` when either does not exist."""
    module_name, _, attribute = name.partition(":")
    if not attribute:
        raise ExperimentError(f"{name!r} should be written module:Name, e.g. mypackage.models:MyNet")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and module_name.startswith(error.name):
            raise ExperimentError(f"{name}: there is no module {error.name!r} on the Python path") from error
        raise
    if not hasattr(module, attribute):
        raise ExperimentError(f"{name}: module {module_name} has no {attribute!r}")
    return getattr(module, attribute)


def installed() -> list[Experiment]:
    """The experiments that ship with hpcreco, in alphabetical order."""
    package = importlib.import_module("hpcreco.experiments")
    names = sorted(m.name for m in pkgutil.iter_modules(package.__path__) if m.ispkg)
    return [find(name) for name in names]


def find(name: str) -> Experiment:
    """The experiment `name`: one that ships with hpcreco, or ``module:EXPERIMENT`` of the user's own."""
    if ":" in name:
        found = load(name)
    else:
        try:
            module = importlib.import_module(f"hpcreco.experiments.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"hpcreco.experiments.{name}":
                raise
            known = ", ".join(e.name for e in installed())
            raise ExperimentError(f"there is no experiment {name!r}; installed: {known}") from error
        found = module.EXPERIMENT
    if not isinstance(found, Experiment):
        raise ExperimentError(f"{name} is a {type(found).__name__}, not an Experiment")
    return found


def recognise(raw: Mapping[str, Any]) -> Experiment:
    """The experiment of a raw config: its `experiment:` key, or the one whose dialect it is written in."""
    if "experiment" in raw:
        return find(str(raw["experiment"]))
    matches = [e for e in installed() if e.recognises(raw)]
    if len(matches) == 1:
        return matches[0]
    known = ", ".join(e.name for e in installed())
    found = (
        "several experiments claim it: " + ", ".join(e.name for e in matches) if matches else "none claims it"
    )
    raise ExperimentError(
        f"the config has no `experiment:` key and {found}; add `experiment:` with one of: {known}"
    )


def of_format(format_name: str) -> tuple[Experiment, str]:
    """Experiment and product of a file's ``hpcreco/<experiment>/<product>`` attribute."""
    parts = format_name.split("/")
    if len(parts) != 3 or parts[0] != "hpcreco":
        raise ExperimentError(f"format {format_name!r} is not hpcreco/<experiment>/<product>")
    return find(parts[1]), parts[2]


def of_paths(paths: Iterable[Path]) -> Experiment:
    """The experiment that the first recognisable path belongs to.

    Paths are hpcreco's files, folders of runs, foreign files that one experiment claims, or folders of these.
    """
    seen = []
    for path in paths:
        seen.append(str(path))
        found = of_file(path) if path.is_file() else _of_folder(path)
        if found is not None:
            return found
    known = ", ".join(e.name for e in installed())
    raise ExperimentError(
        f"cannot tell the experiment from {' '.join(seen) or 'nothing'}; name it first: {known}"
    )


def of_file(path: Path) -> Experiment | None:
    """The experiment of one file: of its format if it is ours, else the one that claims it; None when nobody does."""
    from hpcreco import shards

    identity = shards.identify(path)
    if identity is not None:
        return of_format(identity[0])[0]
    claiming = [e for e in installed() if e.claims(path)]
    if len(claiming) > 1:
        raise ExperimentError(
            f"{path}: several experiments read files with such a name; name yours first: "
            + ", ".join(e.name for e in claiming)
        )
    return claiming[0] if claiming else None


def _of_folder(folder: Path) -> Experiment | None:
    """The experiment of a run's folder, or of the first recognisable file in another folder."""
    name = _experiment_of_run(folder)
    if name:
        return find(name)
    if not folder.is_dir():
        return None
    files = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    return next((found for found in map(of_file, files) if found is not None), None)


def _experiment_of_run(folder: Path) -> str | None:
    configs = sorted((folder / "configs").glob("*.yaml"), key=lambda p: p.stat().st_mtime)
    if not configs:
        return None
    import yaml

    return str(yaml.safe_load(configs[-1].read_text()).get("experiment", "")) or None
