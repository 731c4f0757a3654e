"""From a batch of events to the tensors that a likelihood is evaluated on."""

from __future__ import annotations

import torch

from hpcreco.data.batch import Batch
from hpcreco.experiments.icecube.sources.contract import Observation


def observe(batch: Batch, n_doms: int) -> Observation:
    """What the detector of `n_doms` DOMs saw in the events of `batch`, on the batch's device."""
    usable = torch.ones(batch.n_events, n_doms, dtype=torch.bool, device=batch["excluded/dom"].device)
    usable[batch.slots("excluded"), batch["excluded/dom"].long()] = False
    return Observation(
        charge=batch["pulses/charge"],
        time=batch["pulses/time"],
        event=batch.slots("pulses"),
        dom=batch["pulses/dom"].long(),
        window=batch["event/window"],
        gap_start=batch["gaps/start"],
        gap_stop=batch["gaps/stop"],
        gap_event=batch.slots("gaps"),
        gap_dom=batch["gaps/dom"].long(),
        usable=usable,
    )
