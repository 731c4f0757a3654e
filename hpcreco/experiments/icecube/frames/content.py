"""What a frame holds, through the few methods that frames, masks and particles of the experiment all have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

ROLES = ("x", "y", "z", "zenith", "azimuth", "energy", "time")


class FrameError(ValueError):
    """A frame lacks what the reconstruction needs, or holds it in a form that is not known."""

    exit_code = 1


def has(frame: Any, key: str) -> bool:
    """Is there something of this name in the frame?"""
    return bool(frame.Has(key) if hasattr(frame, "Has") else key in frame)


def items(content: Any) -> Iterable[tuple[Any, Any]]:
    """Keys and values of a map, of the experiment's own or of Python's."""
    return content.items() if hasattr(content, "items") else content


def pulse_map(frame: Any, key: str) -> Any:
    """Pulses by OMKey; masks and unions of the experiment's software have to be applied to the frame first."""
    content = frame[key]
    return content.apply(frame) if hasattr(content, "apply") else content


def particle_values(particle: Any) -> dict[str, float]:
    """The seven numbers of a particle: of the experiment's own class, or of a mapping."""
    if isinstance(particle, Mapping):
        return {role: float(particle[role]) for role in ROLES}
    return {
        "x": particle.pos.x,
        "y": particle.pos.y,
        "z": particle.pos.z,
        "zenith": particle.dir.zenith,
        "azimuth": particle.dir.azimuth,
        "energy": particle.energy,
        "time": particle.time,
    }
