"""Gradients of half the bytes: how far they may be off, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch

from hpcreco import config
from hpcreco.parallel.compression import message
from hpcreco.parallel.serial import Done, Serial

UNIT = {"fp16": 2.0**-11, "bf16": 2.0**-8}


class Alike(Serial):
    """One of `size` ranks that all send the same; sums one after another, each in the tensor's own dtype."""

    size = 3

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"))

    def begin_sum_(self, tensor, name):
        own = tensor.clone()
        for _ in range(self.size - 1):
            tensor += own
        return Done()


def summed(kind: str, values: torch.Tensor) -> torch.Tensor:
    """What three ranks with these values and one flag each receive."""
    flat = torch.cat([values, torch.ones(1)])
    sent = message(kind, 0, flat, len(values), Alike())
    sent.announce()
    sent.send()
    sent.wait()
    assert flat[-1] == 3, "flags are no values and must not be scaled"
    return flat[:-1]


@pytest.mark.parametrize("kind", ["fp16", "bf16"])
@pytest.mark.parametrize("size", [1e-25, 1e-7, 1.0, 3e4, 1e30])
def test_the_error_keeps_its_bound_whatever_the_size(kind, size):
    spread = torch.randn(2000, generator=torch.Generator().manual_seed(1)).double()
    values = (size * spread * 10.0 ** torch.linspace(-8, 0, 2000, dtype=torch.float64)).float()
    exact = 3 * values.double()
    bound = 4 * UNIT[kind] * exact.abs() + 3 * 2.0**-38 * exact.abs().max()
    error = (summed(kind, values).double() - exact).abs()
    assert (error <= bound).all()
    assert error.max() > 0


@pytest.mark.parametrize("kind", ["fp16", "bf16"])
def test_zeros_and_what_is_not_finite_arrive_as_such(kind):
    assert summed(kind, torch.zeros(3)).tolist() == [0, 0, 0]
    broken = summed(kind, torch.tensor([1.0, math.inf, math.nan]))
    assert broken[1] == math.inf
    assert math.isnan(broken[2])
    assert summed(kind, torch.zeros(0)).tolist() == []


def test_the_largest_float_does_not_overflow():
    largest = torch.finfo(torch.float32).max / 4
    assert summed("fp16", torch.tensor([largest, -largest])).isfinite().all()


def test_float64_is_not_narrowed():
    with pytest.raises(config.ConfigError, match="use none"):
        message("bf16", 0, torch.zeros(3, dtype=torch.float64), 2, Alike())


def test_ranks_that_cannot_add_such_numbers_name_the_remedy():
    class Narrower(Alike):
        name = "horovod"

        def adds(self, dtype):
            return dtype != torch.bfloat16

    with pytest.raises(
        config.ConfigError, match="horovod cannot add such numbers; use fp16, or --backend ddp"
    ):
        message("bf16", 0, torch.zeros(3), 2, Narrower())
    message("fp16", 0, torch.zeros(3), 2, Narrower())


def test_a_config_names_the_choices():
    with pytest.raises(config.ConfigError, match=r"compression: .*'none', 'fp16' or 'bf16'"):
        config.build(config.Parallel, {"compression": "int8"}, "parallel")
    with pytest.raises(
        config.ConfigError, match=r"^parallel.compression .*: choose none, or precision float32$"
    ):
        config.build(
            config.Run,
            {
                "experiment": "x",
                "output_dir": "x",
                "settings": config.Strict(),
                "precision": "float64",
                "parallel": {"compression": "fp16"},
            },
        )
