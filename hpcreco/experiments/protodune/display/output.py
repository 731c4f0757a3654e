"""Which files a display writes, and how: each appears complete or not at all."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from matplotlib.figure import Figure

from hpcreco.experiments.protodune import geometry
from hpcreco.experiments.protodune.display import pictures
from hpcreco.experiments.protodune.display.channels import draw_wires
from hpcreco.experiments.protodune.display.page import page
from hpcreco.experiments.protodune.display.region import Box, Region, region_of
from hpcreco.experiments.protodune.display.scene import DisplayError, Scene, WireImage
from hpcreco.shards import atomic

LOG = logging.getLogger("hpcreco")
DPI = 110


@dataclass(frozen=True)
class Output:
    """Files ``folder/stem*``, where a stem is a file's with the event; `only` is "png", "html" or None for both."""

    folder: Path
    only: str | None
    threshold: float
    unit: str
    box: Box | None

    def channels(self, stem: str, image: WireImage, scenes: Sequence[Scene], spec: str) -> None:
        """The channel-time image, with the scenes of the same TPC on the wires of geometry `spec`."""
        if self.only == "html":
            if scenes:
                return
            raise DisplayError(f"{image.title}: there is no HTML page of waveforms, only a PNG")
        detector = geometry.load(spec)
        shown = [scene for scene in scenes if scene.tpcs in ((), (image.tpc,))]
        for scene in scenes:
            if not any(scene is other for other in shown):
                tpcs = ", ".join(map(str, scene.tpcs))
                LOG.warning(
                    "%s: voxels of TPC %s are not drawn on the wires of TPC %s", scene.title, tpcs, image.tpc
                )
        face = detector.face(image.tpc) if shown and image.tpc in detector.tpcs else None
        region = self._region(shown) if shown and self.box else None
        figure = draw_wires(image, shown, face, self.threshold, region)
        self._save(figure, f"{stem}-channels" if scenes else stem)

    def voxels(self, stem: str, scenes: Sequence[Scene]) -> None:
        """One scene in all its panels, or several side by side, and the page."""
        judged = with_truth(scenes)
        region = self._region(judged)
        if self.box:
            judged = [s.within(region.inside(s.candidates), region.inside(s.missed)) for s in judged]
        one = len(judged) == 1
        suffix = "" if one else "-compared"
        if self.only != "html":
            if one:
                self._save(pictures.draw_scene(judged[0], self.threshold, region), stem + suffix)
            else:
                self._compare(stem, judged, region)
        if self.only != "png":
            text = page(judged[0], self.threshold, region, [s for s in judged[1:] if len(s.candidates)])
            target = self.folder / f"{stem}{suffix}.html"
            with atomic(target) as temporary:
                temporary.write_text(text)
            print(target)

    def _compare(self, stem: str, scenes: Sequence[Scene], region: Region) -> None:
        found = pictures.comparisons([s for s in scenes if len(s.candidates)], self.threshold)
        if not found:
            raise DisplayError(
                "these files have nothing in common to compare: give files with scores, with charge, or with truth"
            )
        heading = f"event {scenes[0].event_id}"
        for name, columns in found.items():
            figure = pictures.draw_comparison(columns, heading, region, scenes[0])
            self._save(figure, f"{stem}-compared-{name}" if name else f"{stem}-compared")

    def _region(self, scenes: Sequence[Scene]) -> Region:
        return region_of(scenes, self.unit, self.box)

    def _save(self, figure: Figure, name: str) -> None:
        target = self.folder / f"{name}.png"
        with atomic(target) as temporary:
            figure.savefig(temporary, dpi=DPI, format="png")
        print(target)


def with_truth(scenes: Sequence[Scene]) -> list[Scene]:
    """Scenes judged by the truth of the first that has some; a file of truth alone is dropped beside others."""
    source = next((scene for scene in scenes if scene.has_truth), None)
    found = [scene for scene in scenes if len(scene.candidates) or len(scenes) == 1]
    if source is None or not found:
        return found or [scenes[0]]
    judged = [s if s.is_true is not None or not len(s.candidates) else s.with_truth_of(source) for s in found]
    return [replace(s, borders=s.borders or source.borders) for s in judged]
