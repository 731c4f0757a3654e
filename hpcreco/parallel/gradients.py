"""The sum of gradients over ranks, once per step, on its way while backward still computes the next gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import Parameter

from hpcreco.parallel import Parallel
from hpcreco.parallel.compression import Compression, Message, message
from hpcreco.parallel.timeline import OFF, Timeline

BUCKET_BYTES = 1 << 20


class OverlapError(RuntimeError):
    """A gradient changed after it was sent."""

    exit_code = 1


class GradientSum:
    """Replaces the gradient of every trainable parameter by its sum over ranks.

    Gradients are laid into flat buckets of one dtype in the reverse order of `parameters`, which is the order of the
    model's modules and so the same on every rank and in every run; backward brings them roughly in that order. A
    bucket's sum begins when its last gradient has come and the sums of all buckets before it have begun, so that
    sums begin in the same order everywhere whatever the timing; `finish` begins those that did not fill. What earlier
    backwards of the step left in a gradient goes with it.

    A rank without a gradient contributes zeros; a parameter that no rank has a gradient for keeps none, so that
    optimizers skip it as on one rank. Frozen parameters take no part. Summed gradients are views of the buckets: they
    are valid until the next `begin` or `finish`.

    overlap: False begins all sums in `finish`. compression: see `hpcreco.parallel.compression`.
    """

    def __init__(
        self,
        parameters: Iterable[tuple[str, Parameter]],
        parallel: Parallel,
        bucket_bytes: int = BUCKET_BYTES,
        *,
        overlap: bool = True,
        compression: Compression = "none",
        timeline: Timeline = OFF,
    ) -> None:
        trainable = [parameter for _, parameter in parameters if parameter.requires_grad]
        if parallel.size == 1:
            trainable = []
        self._timeline = timeline
        self._buckets = [
            _Bucket(number, bucket, parallel, compression)
            for number, bucket in enumerate(buckets(trainable, bucket_bytes))
        ]
        # what a message has to know before it can go is under way while the next bucket fills
        self._lag = int(any(bucket.message.announces for bucket in self._buckets))
        self._filled = self._sent = 0
        self._listening = False
        self._hooks = [
            parameter.register_post_accumulate_grad_hook(self._taker(bucket, place))
            for bucket in (self._buckets if overlap else [])
            for place, parameter in enumerate(bucket.parameters)
        ]

    def close(self) -> None:
        """Listen to the parameters no more."""
        for hook in self._hooks:
            hook.remove()

    def begin(self) -> None:
        """The step's last backward comes next: send gradients as it adds to them what it finds."""
        self._listening = True

    def finish(self) -> None:
        """Send what is not sent yet, wait for everything, and give the parameters their sums."""
        self._listening = False
        for bucket in self._buckets[self._filled :]:
            bucket.complete()
        self._send_full()
        self._send_until(len(self._buckets))
        for bucket in self._buckets:
            bucket.message.wait()
            bucket.give()
        self._filled = self._sent = 0

    def _taker(self, bucket: _Bucket, place: int) -> Callable[[Tensor], None]:
        def take(parameter: Tensor) -> None:
            if self._listening:
                bucket.take(place)
                if not bucket.missing:
                    self._send_full()

        return take

    def _send_full(self) -> None:
        """Announce full buckets in order, and send those whose announcement has had the time of another bucket."""
        while self._filled < len(self._buckets) and not self._buckets[self._filled].missing:
            self._buckets[self._filled].message.announce()
            self._filled += 1
            self._send_until(self._filled - self._lag)

    def _send_until(self, end: int) -> None:
        while self._sent < end:
            bucket = self._buckets[self._sent]
            bucket.message.send()
            self._timeline.sum(bucket.message)
            self._sent += 1


class _Bucket:
    """Parameters whose gradients travel together, and the flat vector they travel in.

    The vector holds all gradients, then for each parameter 1 if this rank has a gradient for it, else 0. Gradients
    of half precision are added in float32.
    """

    def __init__(
        self, number: int, parameters: list[Parameter], parallel: Parallel, compression: Compression
    ) -> None:
        first = parameters[0]
        dtype = torch.float32 if first.dtype in (torch.float16, torch.bfloat16) else first.dtype
        sizes = [parameter.numel() for parameter in parameters]
        flat = torch.zeros(sum(sizes) + len(parameters), dtype=dtype, device=first.device)
        *parts, self._present = flat.split([*sizes, len(parameters)])
        self._parts = [part.view(p.shape) for part, p in zip(parts, parameters, strict=True)]
        self._has = [False] * len(parameters)
        self.parameters, self.missing = parameters, len(parameters)
        self.message: Message = message(compression, number, flat, sum(sizes), parallel)

    def take(self, place: int) -> None:
        """Lay the gradient of the parameter at `place` into the vector."""
        if not self.missing:
            raise OverlapError(
                "backward added to a gradient that had been sent already, as re-entrant checkpointing does; "
                "set parallel.overlap: false"
            )
        self._parts[place].copy_(self.parameters[place].grad)  # type: ignore[arg-type]
        self.missing -= not self._has[place]
        self._has[place] = True
        if not self.missing:
            self._present.fill_(1)

    def complete(self) -> None:
        """Take the gradients that there are by now, and zeros for all others."""
        for place, parameter in enumerate(self.parameters):
            if parameter.grad is not None:
                if not self._has[place]:
                    self.take(place)
            else:
                self._parts[place].zero_()
        if self.missing:
            self._present.copy_(torch.tensor(self._has))
        self.missing = 0

    def give(self) -> None:
        """Each parameter's sum becomes its gradient, where any rank had one."""
        for parameter, part, ranks in zip(self.parameters, self._parts, self._present.tolist(), strict=True):
            if ranks == 0:
                continue
            parameter.grad = part if part.dtype == parameter.dtype else part.to(parameter.dtype)
        self._has, self.missing = [False] * len(self.parameters), len(self.parameters)


def buckets(trainable: Sequence[Parameter], bucket_bytes: float) -> list[list[Parameter]]:
    """The parameters of each bucket, in the order in which buckets are sent: those of the last layers first.

    Runs of one dtype and device, of at most `bucket_bytes` or one parameter, ordered by their last parameter.
    """
    parameters = trainable[::-1]
    place = {parameter: number for number, parameter in enumerate(parameters)}
    kinds: dict[tuple[torch.dtype, torch.device], list[Parameter]] = {}
    for parameter in parameters:
        kinds.setdefault((parameter.dtype, parameter.device), []).append(parameter)
    runs = [bucket for run in kinds.values() for bucket in _cut(run, bucket_bytes)]
    return sorted(runs, key=lambda bucket: place[bucket[-1]])


def sent_bytes(parameter: Parameter) -> int:
    """Bytes of its gradient on the way, without compression: half precision is added in float32."""
    return parameter.numel() * max(4, parameter.element_size())


def _cut(run: list[Parameter], bucket_bytes: float) -> Iterator[list[Parameter]]:
    bucket: list[Parameter] = []
    filled = 0
    for parameter in run:
        size = sent_bytes(parameter)
        if bucket and filled + size > bucket_bytes:
            yield bucket
            bucket, filled = [], 0
        bucket.append(parameter)
        filled += size
    yield bucket
