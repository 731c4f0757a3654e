"""The loss over the sky: the direction held at the centres of HEALPix pixels, everything else fitted.

A coarse map of the whole sky, and finer rings around points of interest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hpcreco.experiments.icecube.healpix import combined, pixels
from hpcreco.experiments.icecube.reconstruct.batched import Minimiser
from hpcreco.experiments.icecube.reconstruct.fit import fit
from hpcreco.experiments.icecube.reconstruct.objective import Likelihood
from hpcreco.experiments.icecube.reconstruct.rows import take
from hpcreco.experiments.icecube.reconstruct.space import Space, SpaceError, directions
from hpcreco.experiments.icecube.sources.contract import Observation

#: (outer radius in degrees, nside): within 5 degrees of a point of interest the finest pixels, and so on
RINGS = ((5.0, 32), (15.0, 16), (30.0, 8))
BLOCK = (
    16  # pixels fitted together; always the same ones, so that the map is the same bit by bit on any ranks
)


@dataclass(frozen=True)
class Scan:
    """Pixels of several resolutions: nside, pixel (N,) int64, loss (N,), parameters (N, p)."""

    nside: np.ndarray
    pixel: np.ndarray
    loss: np.ndarray
    parameters: np.ndarray

    @property
    def best(self) -> int:
        """Number of the pixel with the lowest loss."""
        return int(np.nanargmin(self.loss))

    def map(self) -> np.ndarray:
        """(12 nside^2,) loss at the highest resolution, NESTED: everywhere that of the finest pixel there."""
        return combined(self.nside, self.pixel, self.loss)

    def sample(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Zenith and azimuth (n,) of directions drawn with the likelihood of the map's pixels."""
        import healpy

        loss = self.map()
        weight = np.exp(np.nanmin(loss) - np.nan_to_num(loss, nan=np.inf))
        chosen = rng.choice(len(loss), n, p=weight / weight.sum())
        # a pixel of nside 2^12 times finer than the map's stands for a random point in the pixel
        finer = 1 << 12
        nside = healpy.npix2nside(len(loss))
        inside = chosen * finer**2 + rng.integers(0, finer**2, n)
        return healpy.pix2ang(nside * finer, inside, nest=True)


@dataclass(frozen=True)
class Question:
    """One event's fits with the direction held at `pixels` (N, 2), zenith and azimuth; the rest from `start` (p,)."""

    data: Observation
    start: Tensor
    space: Space
    pixels: np.ndarray
    minimiser: Minimiser

    @property
    def n_blocks(self) -> int:
        """Pixels are fitted `BLOCK` at a time."""
        return -(-len(self.pixels) // BLOCK)


#: what answers: (n_blocks,) arrays (pixels of the block, 1 + p) of losses and parameters
Answer = Callable[[Likelihood, Question], Sequence[np.ndarray]]


def scan(
    likelihood: Likelihood,
    data: Observation,
    start: Tensor,
    space: Space,
    *,
    nside: int = 2,
    rings: Sequence[tuple[float, int]] = RINGS,
    centres: Sequence[tuple[float, float]] | None = None,
    minimiser: Minimiser | None = None,
    answer: Answer | None = None,
) -> Scan:
    """Scan the sky for the single event of `data`, from parameters `start` (p,).

    Rings are around `centres` (zenith, azimuth), by default the direction of `start`. `answer` may share the fits
    with others (`sharing`).
    """
    import healpy

    found = directions(space.names)
    if not found:
        raise SpaceError(f"a sky scan needs a zenith and an azimuth; there are {', '.join(space.names)}")
    pair = found[0]
    around = [tuple(start[list(pair)].tolist())] if centres is None else centres
    resolution, number = pixels(nside, rings, around)
    centre = np.stack(
        [healpy.pix2ang(int(s), int(p), nest=True) for s, p in zip(resolution, number, strict=True)]
    )
    question = Question(data, start, space, centre, minimiser or Minimiser())
    blocks = (answer or everything)(likelihood, question)
    made = np.concatenate(blocks)
    return Scan(resolution.astype(np.int64), number.astype(np.int64), made[:, 0], made[:, 1:])


def everything(likelihood: Likelihood, question: Question) -> list[np.ndarray]:
    """All blocks, one after another."""
    return [fitted(likelihood, question, block) for block in range(question.n_blocks)]


def fitted(likelihood: Likelihood, question: Question, block: int) -> np.ndarray:
    """(BLOCK or what is left, 1 + p) loss and parameters at the pixels of one block."""
    pair, start = directions(question.space.names)[0], question.start
    held = question.space.without(*(question.space.names[i] for i in pair))
    rows = question.pixels[block * BLOCK : (block + 1) * BLOCK]
    seed = start.repeat(len(rows), 1)
    seed[:, list(pair)] = torch.as_tensor(rows).to(start)
    event = torch.zeros(len(rows), dtype=torch.int64, device=start.device)
    found = fit(likelihood, take(question.data, event), seed, held, question.minimiser)
    return torch.cat([found.loss[:, None], found.parameters], 1).cpu().double().numpy()
