"""Read one event of ProtoDUNE files into what a display shows."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hpcreco.experiments.protodune import EXPERIMENT, labels
from hpcreco.experiments.protodune.analysis.cut import Cut
from hpcreco.experiments.protodune.analysis.join import label_of, opened, read_truth
from hpcreco.experiments.protodune.display import parsed_files
from hpcreco.experiments.protodune.display.borders import borders_of
from hpcreco.experiments.protodune.display.events import position
from hpcreco.experiments.protodune.display.scene import DisplayError, Scene, WireImage
from hpcreco.shards import Shard

Event = Scene | WireImage


@dataclass(frozen=True)
class Wanted:
    """Which event, and how to read it.

    event_id : its number in the parsed file; None: the first one of the first file
    cut : voxels with a label above it are true; by default above the threshold of the run, or 0
    xy_folders : where the xy files of yinf files are, if they were moved
    """

    event_id: int | None = None
    cut: Cut | None = None
    xy_folders: Sequence[Path] = ()


def load(path: Path, wanted: Wanted = Wanted()) -> Event:
    """The wanted event of one file. Raises DisplayError."""
    return load_together([path], wanted)[0]


def load_together(paths: Sequence[Path], wanted: Wanted = Wanted()) -> list[Event]:
    """The same event of several files, in their order; parsed truth and references on the grid of the xy files.

    Raises DisplayError, naming the files, when they lack the event or do not belong together.
    """
    products = {path: product_of(path) for path in paths}
    wanted = Wanted(_event_id(paths[0], products[paths[0]], wanted), wanted.cut, wanted.xy_folders)
    scenes = {path: _from_shard(path, products[path], wanted) for path in paths if products[path] != "parsed"}
    check_together(scenes)
    reference = next(iter(scenes.values()), None)
    cell = reference.cell if reference else None
    parsed = {
        path: parsed_files.read(path, wanted.event_id, wanted.cut, cell)
        for path in paths
        if products[path] == "parsed"
    }
    events = [scenes[path] if path in scenes else parsed[path] for path in paths]
    names = distinct_names(paths)
    return [replace(e, title=f"{name}, event {e.event_id}") for e, name in zip(events, names, strict=True)]


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """The files' names; of equal ones in several folders, behind the first folder in which they differ."""
    stems = [path.stem for path in paths]
    if len(set(stems)) == len(set(paths)):
        return stems
    whole = [path.absolute() for path in paths]
    depth = len(Path(os.path.commonpath(whole)).parts)
    return [
        f"{path.parts[depth]}: {stem}" if stems.count(stem) > 1 and depth < len(path.parts) - 1 else stem
        for path, stem in zip(whole, stems, strict=True)
    ]


def product_of(path: Path) -> str:
    """What a file holds, by its content; "parsed" for waveforms, truth and legacy npz files."""
    if not path.is_file():
        raise DisplayError(f"there is no file {path}")
    if path.suffix == ".npz":
        return "parsed"
    with Shard(path) as shard:
        name = str(shard.attributes["format"])
    experiment, _, product = name.removeprefix("hpcreco/").partition("/")
    if experiment != EXPERIMENT.name or product not in KNOWN:
        raise DisplayError(f"{path} is a {name} file; what can be displayed: {', '.join(KNOWN)}")
    return KNOWN[product]


KNOWN = {product: product for product in ("xy", "pixel", "yinf", "solved")} | {
    "wire": "parsed",
    "truth": "parsed",
}
"""What can be displayed: the product in a file's format, and which way it is read."""


def check_together(scenes: dict[Path, Scene]) -> None:
    """Refuse voxels of different xy files: their rows and cells mean different things."""
    if not scenes:
        return
    first, *others = scenes
    for other in others:
        a, b = scenes[first], scenes[other]
        if a.source and b.source and a.source != b.source:
            raise DisplayError(
                f"{first} and {other} do not belong to the same xy file (digests {a.source[:12]} and "
                f"{b.source[:12]}); only results for the same xy file can be compared"
            )
        if not np.allclose(a.cell, b.cell) or a.tpcs != b.tpcs:
            raise DisplayError(
                f"{first} has cells of {_mm(a.cell)} mm in TPC {_list(a.tpcs)}, {other} of {_mm(b.cell)} mm in TPC "
                f"{_list(b.tpcs)}; only results in the same frame can be compared"
            )


def _mm(cell: Sequence[float]) -> str:
    return " x ".join(f"{length:g}" for length in cell)


def _list(tpcs: Sequence[int]) -> str:
    return ", ".join(map(str, tpcs)) or "?"


def _event_id(path: Path, product: str, wanted: Wanted) -> int:
    """The number of the wanted event in the first file."""
    if product == "parsed":
        return parsed_files.event_id(path, wanted.event_id)
    with Shard(path) as shard:
        return int(shard.event_ids[position(shard.event_ids, wanted.event_id, path)])


def _from_shard(path: Path, product: str, wanted: Wanted) -> Scene:
    if product == "yinf":
        with opened(path, wanted.xy_folders) as (yinf, xy):
            own = wanted.cut or Cut(float(yinf.attributes.get("threshold") or 0.0))
            return _scene(xy, yinf, position(xy.event_ids, wanted.event_id, path), own)
    if product == "solved":
        return _solved(path, wanted)
    with Shard(path, EXPERIMENT.schema(product)) as xy:
        return _scene(xy, None, position(xy.event_ids, wanted.event_id, path), wanted.cut or Cut(0.0))


def _scene(xy: Shard, yinf: Shard | None, event: int, cut: Cut) -> Scene:
    voxels = xy.read(event, "voxels", ["coords", "features"])
    known: dict[str, Any] = {**_predictions(yinf, event), **_truth(xy, event, voxels["coords"], cut)}
    attributes = xy.attributes
    event_id, tpcs = int(xy.event_ids[event]), tuple(int(t) for t in attributes["tpc"])
    features = voxels["features"]
    return Scene(
        title=f"{(yinf or xy).path.stem}, event {event_id}",
        event_id=event_id,
        cell=_triple(attributes["voxel_size_mm"]),
        candidates=voxels["coords"],
        charge=np.maximum(features, 0).mean(1) if features.size else np.zeros(len(features)),
        # the readout frame of one TPC starts at its anode and the corner of its box
        origin=_triple(attributes["frame_origin_mm"]) if len(tpcs) > 1 else (0.0, 0.0, 0.0),
        tpcs=tpcs,
        borders=borders_of(attributes),
        source=xy.digest,
        **known,
    )


def _solved(path: Path, wanted: Wanted) -> Scene:
    """Cells with their solved charge; the truth is that of the xy file, if it is still there."""
    with Shard(path) as solved:
        event = position(solved.event_ids, wanted.event_id, path)
        event_id, voxels, attributes = (
            int(solved.event_ids[event]),
            solved.read(event, "voxels"),
            solved.attributes,
        )
    tpcs = tuple(int(t) for t in attributes["tpc"])
    scene = Scene(
        title=f"{path.stem}, event {event_id}",
        event_id=event_id,
        cell=_triple(attributes["voxel_size_mm"]),
        candidates=voxels["coords"],
        charge=voxels["charge"],
        predicted=voxels["charge"],
        origin=_triple(attributes["frame_origin_mm"]) if len(tpcs) > 1 else (0.0, 0.0, 0.0),
        tpcs=tpcs,
        borders=borders_of(attributes),
        source=attributes["xy_digest"],
        found_only=True,
    )
    recorded = Path(attributes["xy_file"])
    places = [
        *(folder / recorded.name for folder in wanted.xy_folders),
        recorded,
        path.parent / recorded.name,
    ]
    for place in places:
        if place.is_file():
            with Shard(place, EXPERIMENT.schema("xy")) as xy:
                if xy.digest == scene.source:
                    known = _scene(xy, None, position(xy.event_ids, event_id, place), wanted.cut or Cut(0.0))
                    return scene.with_truth_of(known) if known.has_truth else scene
    return scene


def _predictions(yinf: Shard | None, event: int) -> dict[str, np.ndarray]:
    """What the yinf file says: scores or electrons, by its kind."""
    if yinf is None:
        return {}
    name, column = {"probability": ("scores", "probability"), "electrons": ("predicted", "charge")}.get(
        yinf.attributes["kind"], ("", "")
    )
    if not name:
        raise DisplayError(
            f"{yinf.path} is of kind {yinf.attributes['kind']!r}; known: probability, electrons"
        )
    return {name: yinf.read(event, "voxels", [column])[column].reshape(-1)}


def _truth(xy: Shard, event: int, candidates: np.ndarray, cut: Cut) -> dict[str, Any]:
    truth, label = read_truth(xy, event), label_of(xy)
    if truth is None or label is None:
        return {}
    least = cut.against(label)
    known = {"is_true": truth.labels > least, "true_charge": truth.labels, "truth_unit": label.unit}
    if truth.coords is not None and truth.charge is not None:
        above = truth.charge > least
        lost = above & labels.missed(labels.CoarseTruth(truth.coords, truth.charge), candidates)
        known |= {"missed": truth.coords[lost], "missed_charge": truth.charge[lost]}
    return known


def _triple(values: Sequence[float]) -> tuple[float, float, float]:
    x, y, z = (float(v) for v in values)
    return x, y, z
