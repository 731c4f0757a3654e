"""Read one event of any ProtoDUNE file into what a display shows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hpcreco.experiments.protodune import EXPERIMENT, geometry, labels
from hpcreco.experiments.protodune.analysis.cut import Cut, Label
from hpcreco.experiments.protodune.analysis.join import label_of, opened, read_scores, read_truth
from hpcreco.experiments.protodune.display.scene import DisplayError, Scene, WireImage
from hpcreco.experiments.protodune.parsed import WAVEFORM_PRODUCTS, Parsed, open_parsed
from hpcreco.shards import Shard


def load(
    path: Path, event_id: int | None, cut: Cut | None, xy_folders: Sequence[Path] = ()
) -> Scene | WireImage:
    """Event `event_id` (its number in the parsed file; None: the first one) of an xy, yinf, wire or truth file.

    Voxels with a label above `cut` are true; by default above the threshold of the run, or 0. Raises DisplayError.
    """
    if not path.is_file():
        raise DisplayError(f"there is no file {path}")
    product = _product(path)
    if product == "xy":
        with Shard(path, EXPERIMENT.schema("xy")) as xy:
            return _scene(xy, None, position(xy.event_ids, event_id, path), cut or Cut(0.0))
    if product == "yinf":
        with opened(path, xy_folders) as (yinf, xy):
            own = cut or Cut(float(yinf.attributes.get("threshold") or 0.0))
            return _scene(xy, yinf, position(xy.event_ids, event_id, path), own)
    return _parsed(path, event_id, cut)


def _product(path: Path) -> str:
    """What a file holds, by its content; legacy npz files are parsed ones."""
    if path.suffix == ".npz":
        return "parsed"
    with Shard(path) as shard:
        name = str(shard.attributes["format"])
    experiment, _, product = name.removeprefix("hpcreco/").partition("/")
    if experiment != EXPERIMENT.name or product not in EXPERIMENT.schemas:
        raise DisplayError(f"{path} is a {name} file; what can be displayed: {', '.join(EXPERIMENT.schemas)}")
    return product


def position(event_ids: Iterable[int], event_id: int | None, path: Path) -> int:
    """Where event `event_id` stands in the file. Raises DisplayError naming the events that are there."""
    known = [int(i) for i in event_ids]
    if not known:
        raise DisplayError(f"{path} holds no events")
    if event_id is None:
        return 0
    if event_id not in known:
        shown = ", ".join(map(str, known[:12])) + (f", ... ({len(known)} events)" if len(known) > 12 else "")
        raise DisplayError(f"{path} has no event {event_id}; it has {shown}")
    return known.index(event_id)


def _scene(xy: Shard, yinf: Shard | None, event: int, cut: Cut) -> Scene:
    voxels = xy.read(event, "voxels", ["coords", "features"])
    truth, label = read_truth(xy, event), label_of(xy)
    known: dict[str, Any] = {}
    if truth is not None and label is not None:
        least = cut.against(label)
        known = {"is_true": truth.labels > least, "true_charge": truth.labels, "truth_unit": label.unit}
        if truth.coords is not None and truth.charge is not None:
            above = truth.charge > least
            lost = above & labels.missed(labels.CoarseTruth(truth.coords, truth.charge), voxels["coords"])
            known |= {"missed": truth.coords[lost], "missed_charge": truth.charge[lost]}
    attributes = xy.attributes
    event_id = int(xy.event_ids[event])
    return Scene(
        title=f"{(yinf or xy).path.stem}, event {event_id}",
        event_id=event_id,
        cell=_triple(attributes["voxel_size_mm"]),
        candidates=voxels["coords"],
        charge=np.maximum(voxels["features"], 0).mean(1)
        if voxels["features"].size
        else np.zeros(len(voxels["coords"])),
        scores=read_scores(yinf, event) if yinf is not None else None,
        **known,
    )


def _triple(values: Sequence[float]) -> tuple[float, float, float]:
    x, y, z = (float(v) for v in values)
    return x, y, z


def _parsed(path: Path, event_id: int | None, cut: Cut | None) -> Scene | WireImage:
    with open_parsed(path) as parsed:
        event = position(parsed.event_ids, event_id, path)
        number = int(parsed.event_ids[event])
        title = f"{path.stem}, event {number}"
        if parsed.product in WAVEFORM_PRODUCTS:
            tick, channel, value = parsed.waveform(event)
            return WireImage(
                title, number, parsed.n_ticks, parsed.n_channels, tick, channel, value, _planes(parsed)
            )
        coords, values, columns, *_ = parsed.truth(event)
        label = Label.of(parsed.product, columns[0])
    charge = values[:, 0]
    above = charge > (cut.against(label) if cut else 0.0)
    none = np.zeros((0, 3), np.int32)
    return Scene(
        title,
        number,
        geometry.VOXEL_SIZE,
        none,
        np.zeros(0, np.float32),
        missed=coords[above],
        missed_charge=charge[above],
        truth_unit=label.unit,
    )


def _planes(parsed: Parsed) -> tuple[tuple[str, int, int], ...]:
    """Names and channel ranges of an APA's planes."""
    if parsed.n_channels != geometry.N_CHANNELS:
        return ()
    return (("U", 0, 800), ("V", 800, 1600), ("X, face 1", 1600, 2080), ("X, face 2", 2080, 2560))
