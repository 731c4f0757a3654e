"""Fixed numbers of a source (positions, efficiencies), at hand on every device and in every precision.

They are kept in float64: a module's buffers would be rounded by `module.float()` and stay so.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hpcreco.experiments.icecube.detector import Detector


class Constants:
    """Named float64 arrays; `on(tensor)` gives them as tensors like it."""

    def __init__(self, **arrays: np.ndarray) -> None:
        self.arrays = {name: np.asarray(array, np.float64) for name, array in arrays.items()}
        self._tensors: dict[tuple[str, torch.device, torch.dtype], Tensor] = {}

    def on(self, name: str, like: Tensor) -> Tensor:
        """The array `name` on the device of `like`, in its precision."""
        key = (name, like.device, like.dtype)
        if key not in self._tensors:
            self._tensors[key] = torch.as_tensor(self.arrays[name], dtype=like.dtype, device=like.device)
        return self._tensors[key]


def of_detector(detector: Detector) -> Constants:
    """position (M, 3) m, efficiency (M,), noise_rate (M,) 1/ns."""
    return Constants(
        position=detector.flat_positions,
        efficiency=detector.flat_efficiency,
        noise_rate=detector.flat_noise_rate,
    )
