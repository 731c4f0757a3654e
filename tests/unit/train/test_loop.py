"""What the training loop shows of how far it is; what it does is tested on real runs in tests/parallel."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from hpcreco.config import Cadence
from hpcreco.train.loop import Loop


@pytest.mark.parametrize(
    ("cadence", "length"),
    [(Cadence(every=5, unit="steps"), 5), (Cadence(every=2, unit="epochs"), 7)],
)
def test_progress_counts_to_the_next_row_of_the_summary(cadence: Cadence, length: int) -> None:
    session = SimpleNamespace(
        run=SimpleNamespace(validate_every=cadence, keep_checkpoints=None),
        output_dir=Path(),
        pace=lambda stage: SimpleNamespace(steps_per_epoch=7),
    )
    loop = Loop(session, None, None, None, [])  # type: ignore[arg-type]
    assert loop._epoch_length(0) == length
