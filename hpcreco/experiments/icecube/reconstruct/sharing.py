"""The pixels of a sky scan shared over ranks: rank 0 reconstructs, the others fit pixels of the events it is at.

For when there are fewer files than ranks. Rank 0 hands out the event, each rank fits every so-and-so-many-th block of
pixels, rank 0 collects them. A rank that fails hands back its error, which rank 0 raises for the event's file.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from hpcreco.collective import Collective
from hpcreco.experiments.icecube.reconstruct.objective import Likelihood
from hpcreco.experiments.icecube.reconstruct.skyscan import Question, fitted


class SharingError(RuntimeError):
    """Another rank could not fit its pixels."""


class Shared:
    """Rank 0's side: `answer` for `skyscan.scan`, of the shard that `source` names; `close` sends the others home."""

    def __init__(self, collective: Collective) -> None:
        self._collective = collective
        self._waiting = False  # do the others owe an answer?
        self.source = ""

    def __call__(self, likelihood: Likelihood, question: Question) -> Sequence[np.ndarray]:
        """The answer to a question, all ranks' blocks in order."""
        self._settle()
        on_cpu = replace(question, data=question.data.to("cpu"), start=question.start.cpu())
        self._collective.broadcast((self.source, on_cpu))
        self._waiting = True
        own = _blocks(likelihood, question, self._collective)
        parts = self._collective.gather(own)
        self._waiting = False
        assert parts is not None
        failed = next((part for part in parts if isinstance(part, str)), None)
        if failed is not None:
            raise SharingError(f"a rank could not fit its pixels of the sky:\n{failed}")
        blocks = {number: block for part in parts for number, block in part.items()}
        return [blocks[number] for number in range(question.n_blocks)]

    def close(self) -> None:
        """No more questions."""
        self._settle()
        self._collective.broadcast(None)

    def _settle(self) -> None:
        """Collect what is still owed to a question that was abandoned."""
        if self._waiting:
            self._collective.gather({})
            self._waiting = False


def serve(collective: Collective, likelihood_of: Callable[[str], tuple[Likelihood, torch.device]]) -> int:
    """The other ranks' side: answer until rank 0 is done; how many questions there were.

    likelihood_of: name of a shard -> its likelihood and where that computes.
    """
    count = 0
    while (asked := collective.broadcast(None)) is not None:
        source, question = asked
        try:
            likelihood, device = likelihood_of(source)
            there = replace(question, data=question.data.to(device), start=question.start.to(device))
            own: Any = _blocks(likelihood, there, collective)
        except Exception:  # noqa: BLE001 - rank 0 has to hear of it, or it would wait for ever
            own = traceback.format_exc()
        collective.gather(own)
        count += 1
    return count


def _blocks(likelihood: Likelihood, question: Question, collective: Collective) -> dict[int, np.ndarray]:
    numbers = range(collective.rank, question.n_blocks, collective.size)
    return {number: fitted(likelihood, question, number) for number in numbers}
