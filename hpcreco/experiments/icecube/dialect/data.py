"""`data_iterator_settings`, `data_handler_settings`, `data_trafo_settings`: which events are read, and what of them."""

from __future__ import annotations

from pathlib import Path

from hpcreco.config import ConfigError, Steps
from hpcreco.experiments.icecube import aliases, settings
from hpcreco.experiments.icecube.dialect.keys import Dialect, Handler, Model, TrafoSettings
from hpcreco.experiments.icecube.reading import Reading


def sources(written: Dialect) -> settings.Sources:
    """Where the events of each part are, and the detector that saw them."""
    iterators = written.data_iterator_settings
    paths = {
        part: tuple(iterator.input_data) or None if iterator else None
        for part, iterator in (
            ("train", iterators.training),
            ("validation", iterators.validation),
            ("trafo", iterators.trafo),
            ("test", iterators.test),
        )
    }
    return settings.Sources(**paths, detector=written.detector)


def steps(written: Dialect) -> Steps:
    """How training events become steps: so many of them, or as many as a summed cost allows."""
    iterator, micro = written.data_iterator_settings.training, written.training_settings.micro_cost
    if iterator is None:
        return Steps(mode="events", size=1, micro_cost=micro)
    if iterator.cost_budget is not None:
        size, part = iterator.cost_budget, iterator.rank_budget
        return Steps(mode="cost", size=size, rank_size=part, micro_cost=micro)
    return Steps(mode="events", size=iterator.batch_size, micro_cost=micro)


def validation_events(written: Dialect) -> int | None:
    """How many events a validation takes; None for all."""
    iterator = written.data_iterator_settings.validation
    if iterator is None or iterator.num_batches is None:
        return None
    return iterator.num_batches * iterator.batch_size


def reading(handler: Handler, model: Model) -> Reading:
    """What is made of an event's pulses and parameters when it is read."""
    data, labels = handler.data_settings, handler.label_settings
    if data.time_window_mode not in ("readout", "pulses"):
        raise ConfigError(
            "data_handler_settings.data_settings.time_window_mode: expected readout or pulses, "
            f"found {data.time_window_mode!r}"
        )
    return Reading(
        window=data.time_window_mode,
        buffer=data.time_window_buffer,
        shift_to_maximum=_cascade_prefix(model) if labels.shift_cascade_vertex else None,
        discard_excluded=data.discard_pulses_from_excluded_doms,
        quantiles=data.add_charge_quantiles,
    )


def _cascade_prefix(model: Model) -> str:
    """What stands before a cascade's own parameter names in those of the hypothesis: ``cascade_``."""
    if aliases.source(model.model_class) != "IndependentMultiSource":
        return ""
    sources = sorted(model.config.get("sources") or {})
    lit = [name for name in sources if not _is_noise(model, str(model.config["sources"][name]))]
    if len(lit) != 1:
        raise ConfigError(
            "data_handler_settings.label_settings.shift_cascade_vertex: needs one source beside the noise, "
            f"found {', '.join(lit) or 'none'}"
        )
    return f"{lit[0]}_"


def _is_noise(model: Model, base: str) -> bool:
    return base in model.multi_source_bases and (
        aliases.source(model.multi_source_bases[base].model_class) == "DefaultNoiseModel"
    )


def weighted(handler: Handler) -> bool:
    """Does an event count by its weight? The original's dummy weights are all 1."""
    return handler.weight_module is not None and "dummy" not in handler.weight_module.lower()


def cuts(handler: Handler) -> tuple[settings.Cut, ...]:
    """Conditions on the parameters that an event has to meet."""
    known = ("<", "<=", "==", ">=", ">")
    cuts = []
    for table, column, op, threshold in handler.filter_settings.constraints:
        if op not in known:
            raise ConfigError(
                f"data_handler_settings.filter_settings.constraints: {table}.{column} {op!r} {threshold}; known are "
                + ", ".join(known)
            )
        cuts.append(settings.Cut(parameter=column, op=op, threshold=threshold))
    return tuple(cuts)


def trafo(written: Dialect, output_dir: Path) -> settings.Trafo:
    """Where means and widths of the parameters are kept, and what they are taken from."""
    section: TrafoSettings = written.data_trafo_settings
    log = written.data_handler_settings.label_settings.trafo_log
    iterator = written.data_iterator_settings.trafo or written.data_iterator_settings.training
    batch = iterator.batch_size if iterator else 32
    return settings.Trafo(
        folder=Path(section.model_dir) if section.model_dir else output_dir / "trafo",
        log=tuple(log) if isinstance(log, list) else (log,),
        epsilon=section.norm_constant,
        events=None if section.num_batches is None else section.num_batches * batch,
    )
