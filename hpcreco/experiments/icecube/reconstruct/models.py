"""The model, and the settings, that fit a shard: found once for each detector and generator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from hpcreco import config, shards
from hpcreco.experiments.icecube import detector as _detector
from hpcreco.experiments.icecube.likelihood import Likelihood
from hpcreco.experiments.icecube.pulses import PULSES
from hpcreco.experiments.icecube.reconstruct import model as _model
from hpcreco.experiments.icecube.reconstruct.model import Model
from hpcreco.experiments.icecube.reconstruct.pipeline import Reconstruction
from hpcreco.experiments.icecube.reconstruct.settings import ReconstructionSettings, settings
from hpcreco.experiments.icecube.reconstruct.skyscan import Answer
from hpcreco.world import detect

VERSION = 2  # raise when the same input gives other numbers: finished files become stale


class Models:
    """Models by detector and generator, found once each."""

    def __init__(
        self, which: str, changes: Mapping[str, Any], assignments: Sequence[str], device: str
    ) -> None:
        self._which, self._changes, self._assignments, self._device = which, changes, assignments, device
        self._known: dict[str, tuple[Model, ReconstructionSettings]] = {}
        self._ready: dict[str, Reconstruction] = {}
        self.sky: Answer | None = None  # who fits the pixels of sky scans

    def scans_the_sky(self, path: Path) -> bool:
        """Do a shard's settings ask for sky scans?"""
        with shards.Shard(path, PULSES) as source:
            return self.of(source)[1].make_skyscan

    def likelihood_of(self, path: str) -> tuple[Likelihood, torch.device]:
        """The likelihood of a shard's events, and where it computes."""
        with shards.Shard(path, PULSES) as source:
            ready = self.ready(source)
        return ready.model.likelihood, ready.device

    def of(self, source: shards.Shard) -> tuple[Model, ReconstructionSettings]:
        """The model for a shard's events, and the settings that hold."""
        key = self._key(source)
        if key not in self._known:
            array = _detector.beside(source.path, source.attributes["detector_sha256"])
            model = _model.find(self._which, array, source.attributes.get("generator"))
            raw = {**model.raw_settings, **self._changes}
            self._known[key] = model, settings(config.override(raw, list(self._assignments)))
        return self._known[key]

    def ready(self, source: shards.Shard) -> Reconstruction:
        """The model at work on the chosen device."""
        key = self._key(source)
        if key not in self._ready:
            from hpcreco.parallel import node

            model, chosen = self.of(source)
            wanted = None if self._device == "auto" else self._device
            model.likelihood.to("cpu" if wanted == "cpu" else node.choose_device(detect(), wanted))
            self._ready[key] = Reconstruction(model, chosen, self.sky)
        return self._ready[key]

    def fingerprint(self, path: Path, events: slice) -> str:
        """Digest of all that decides the result for a shard."""
        with shards.Shard(path, PULSES) as source:
            model, chosen = self.of(source)
            content = [VERSION, model.digest, chosen.model_dump(exclude={"batch_size"}), source.digest]
        return _model.digest_of({"content": content, "events": [events.start, events.stop]})

    @staticmethod
    def _key(source: shards.Shard) -> str:
        return _model.digest_of(
            {name: source.attributes.get(name) for name in ("detector_sha256", "generator")}
        )
