"""Class names that configs may use -> the classes of this package, named but not imported."""

from __future__ import annotations

from collections.abc import Mapping

from hpcreco.config import ConfigError, nearest

_SOURCES = "hpcreco.experiments.icecube.sources"

#: name of a source class -> where it is; the last part of the original package's dotted names
SOURCES: Mapping[str, str] = {
    "DefaultNoiseModel": f"{_SOURCES}.noise:DefaultNoiseModel",
    "DefaultCascadeModel": f"{_SOURCES}.cascade:DefaultCascadeModel",
    "ChargeOnlyCascadeModel": f"{_SOURCES}.cascade:ChargeOnlyCascadeModel",
    "IndependentMultiSource": f"{_SOURCES}.independent:IndependentMultiSource",
    "StartingVariableMultiCascadeModel": f"{_SOURCES}.cascades:StartingVariableMultiCascadeModel",
    "TrackEquidistantCascadeModel": f"{_SOURCES}.tracks:TrackEquidistantCascadeModel",
    "DefaultMultiCascadeModel": f"{_SOURCES}.tracks:DefaultMultiCascadeModel",
    "EnteringSphereInfTrack": f"{_SOURCES}.sphere:EnteringSphereInfTrack",
    "EnteringSphereInfTrackMultiCascade": f"{_SOURCES}.tracks:EnteringSphereInfTrackMultiCascade",
    "StochasticTrackSegment": f"{_SOURCES}.segment:StochasticTrackSegment",
    "StochasticTrackModel": f"{_SOURCES}.tracks:StochasticTrackModel",
    "ChargeQuantileCascade": f"{_SOURCES}.conditioned:ChargeQuantileCascade",
    "SystematicsCascade": f"{_SOURCES}.conditioned:SystematicsCascade",
    "TruthModel": f"{_SOURCES}.truth:TruthModel",
}

#: other names of these, lower case: what the original called them in other places or versions
_OTHER_NAMES: Mapping[str, str] = {
    "noise": "DefaultNoiseModel",
    "cascade": "DefaultCascadeModel",
    "defaultindependentmultisource": "IndependentMultiSource",
    "independent": "IndependentMultiSource",
}


def source(text: str, where: str = "model_class") -> str:
    """The name in `SOURCES` that a config means, or ``module:Class`` of the user's own as it is.

    Dotted names of the original package are known by their last part. Raises ConfigError naming the known ones.
    """
    if ":" in text:
        return text
    name = text.rpartition(".")[2]
    if name in SOURCES:
        return name
    if name.lower() in _OTHER_NAMES:
        return _OTHER_NAMES[name.lower()]
    raise _unknown(where, text, name, SOURCES)


def schedule(text: str) -> str:
    """The last part of a schedule's dotted name, of Keras or of the original package."""
    return text.rpartition(".")[2]


def optimizer(text: str) -> str:
    """The last part of an optimizer's dotted name; ``module:Class`` as it is."""
    return text if ":" in text else text.rpartition(".")[2]


def module(text: str | None, known: Mapping[str, str], where: str) -> str | None:
    """What `known` says of a module of the original's (a loss, a label reader), found by its class name."""
    if text is None:
        return None
    name = text.rpartition(".")[2]
    if name not in known:
        raise _unknown(where, text, name, known)
    return known[name]


def _unknown(where: str, text: str, name: str, known: Mapping[str, str]) -> ConfigError:
    close = nearest(name, known)
    return ConfigError(
        f"{where}: there is no class {text!r}; known are {', '.join(known)}, and module:Class of your own"
        + (f"; did you mean {close!r}?" if close else "")
    )
