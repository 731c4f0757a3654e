"""The sum of gradients over ranks, once per step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.nn import Parameter

from hpcreco.parallel import Parallel

BUCKET_BYTES = 32 << 20


def reduce_gradients(
    parameters: Iterable[tuple[str, Parameter]], parallel: Parallel, bucket_bytes: int = BUCKET_BYTES
) -> None:
    """Replace the gradient of every trainable parameter by its sum over ranks.

    Gradients are laid into flat buckets of one dtype in the order of `parameters`, which is the order of the
    model's modules and so the same on every rank and in every run. A rank without a gradient contributes
    zeros; a parameter that no rank has a gradient for keeps none, so that optimizers skip it as on one rank.
    Frozen parameters take no part.
    """
    if parallel.size == 1:
        return
    trainable = [parameter for _, parameter in parameters if parameter.requires_grad]
    buckets = list(_buckets(trainable, bucket_bytes))
    flats = [_flatten(bucket) for bucket in buckets]
    parallel.sum_(flats)
    for bucket, flat in zip(buckets, flats, strict=True):
        _spread(bucket, flat)


def _buckets(parameters: list[Parameter], bucket_bytes: int) -> Iterator[list[Parameter]]:
    """Runs of parameters of one dtype and device, of at most `bucket_bytes` or one parameter."""
    kinds: dict[tuple[torch.dtype, torch.device], list[Parameter]] = {}
    for parameter in parameters:
        kinds.setdefault((parameter.dtype, parameter.device), []).append(parameter)
    for run in kinds.values():
        bucket: list[Parameter] = []
        filled = 0
        for parameter in run:
            size = parameter.numel() * parameter.element_size()
            if bucket and filled + size > bucket_bytes:
                yield bucket
                bucket, filled = [], 0
            bucket.append(parameter)
            filled += size
        yield bucket


def _flatten(bucket: list[Parameter]) -> Tensor:
    """All gradients of the bucket in one vector, then for each parameter 1 if it has a gradient, else 0.

    Half-precision gradients are added in float32.
    """
    first = bucket[0]
    dtype = torch.float32 if first.dtype in (torch.float16, torch.bfloat16) else first.dtype
    sizes = [parameter.numel() for parameter in bucket]
    flat = torch.zeros(sum(sizes) + len(bucket), dtype=dtype, device=first.device)
    *parts, present = flat.split([*sizes, len(bucket)])
    for number, (parameter, part) in enumerate(zip(bucket, parts, strict=True)):
        if parameter.grad is not None:
            part.copy_(parameter.grad.reshape(-1))
            present[number] = 1
    return flat


def _spread(bucket: list[Parameter], flat: Tensor) -> None:
    *parts, present = flat.split([*(parameter.numel() for parameter in bucket), len(bucket)])
    for parameter, part, ranks in zip(bucket, parts, present.tolist(), strict=True):
        if ranks == 0:
            continue
        if parameter.grad is None:
            parameter.grad = torch.empty_like(parameter)
        parameter.grad.copy_(part.view_as(parameter))
