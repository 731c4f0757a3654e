"""`model_settings`: sources within sources, as `hypothesis.build` takes them, and which of them are trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hpcreco.config import ConfigError, nearest
from hpcreco.experiments.icecube import aliases
from hpcreco.experiments.icecube.dialect.keys import Model


def nested(
    section: Model,
    frozen: tuple[tuple[str, ...], ...],
    where: str = "model_settings",
    path: tuple[str, ...] = (),
) -> dict[str, Any]:
    """The nested settings as `hypothesis.build` takes them; what the config leaves out is left out."""
    aliases.source(section.model_class, f"{where}.model_class")
    made: dict[str, Any] = {"model_class": section.model_class, "config": dict(section.config)}
    for key in ("load_dir", "decoder_settings", "decoder_charge_settings", "freeze", "unfreeze"):
        if getattr(section, key):
            made[key] = getattr(section, key)
    if section.data_trafo_settings is not None and path:
        made["data_trafo_settings"] = section.data_trafo_settings.model_dump(exclude_none=True)
    if section.multi_source_bases:
        made["multi_source_bases"] = {
            base: nested(inner, frozen, f"{where}.multi_source_bases.{base}", (*path, base))
            for base, inner in section.multi_source_bases.items()
        }
    else:
        made["trainable"] = path not in frozen
    _check_sources(made, where)
    return made


def _check_sources(made: Mapping[str, Any], where: str) -> None:
    """Every source of an independent multi-source needs a base that exists."""
    sources, bases = made["config"].get("sources"), made.get("multi_source_bases", {})
    if not isinstance(sources, Mapping):
        return
    for source, base in sources.items():
        if base not in bases:
            close = nearest(str(base), bases)
            raise ConfigError(
                f"{where}.config.sources.{source}: there is no base {base!r} in multi_source_bases"
                + (f"; did you mean {close!r}?" if close else f"; it has {', '.join(bases) or 'none'}")
            )


def frozen_paths(section: Model) -> tuple[tuple[str, ...], ...]:
    """Paths of the bases that are not trained.

    What is loaded stays as it is while something new is trained; where everything is loaded, everything trains on, as
    in the original. `trainable:` of a base decides otherwise.
    """
    leaves = list(_leaves(section, ()))
    something_new = any(not loaded for _, loaded, _ in leaves)
    return tuple(
        path
        for path, loaded, trainable in leaves
        if not (trainable if trainable is not None else not (loaded and something_new))
    )


def _leaves(
    section: Model, path: tuple[str, ...], loaded: bool = False, trainable: bool | None = None
) -> Iterator[tuple[tuple[str, ...], bool, bool | None]]:
    """(path, is it loaded, `trainable:` of it or of what holds it) of every source without bases of its own."""
    loaded = loaded or section.load_dir is not None
    trainable = section.trainable if section.trainable is not None else trainable
    if not section.multi_source_bases:
        yield path, loaded, trainable
    for name, base in section.multi_source_bases.items():
        yield from _leaves(base, (*path, name), loaded, trainable)
