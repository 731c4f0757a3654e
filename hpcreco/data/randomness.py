"""Counter-based random streams: a stream is named by numbers, never by who asks or in which order."""

from __future__ import annotations

import numpy as np

READ, PLAN, PACKS, STEPS = 1, 2, 3, 4  # what a stream is for; part of its key


def stream(seed: int, purpose: int, *words: int) -> np.random.Generator:
    """The generator named (seed, purpose, words), at most three words, all below 2**64.

    Philox's key holds (seed, purpose) and the words the upper parts of its counter, so two different names
    can never overlap.
    """
    return np.random.Generator(_bits(seed, purpose, words))


def permutation(n: int, seed: int, purpose: int, *words: int) -> np.ndarray:
    """(n,) int64: a random order of 0..n-1.

    Sorted by raw 64-bit keys, which numpy promises never to change, unlike `Generator.permutation`.
    """
    return np.argsort(_bits(seed, purpose, words).random_raw(n), kind="stable")


def _bits(seed: int, purpose: int, words: tuple[int, ...]) -> np.random.Philox:
    counter = np.zeros(4, np.uint64)  # numpy counts up the first entry
    counter[1 : 1 + len(words)] = words
    return np.random.Philox(key=np.array([seed, purpose], np.uint64), counter=counter)
