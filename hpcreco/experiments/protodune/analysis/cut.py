"""The truth cut: from which charge or energy on a voxel counts as true."""

from __future__ import annotations

import re
from dataclasses import dataclass

FIELD = 0.5  # kV/cm
DENSITY = 1.396  # g/cm3
MIP_LOSS = 2.1  # MeV/cm, the mean loss of a minimum-ionising particle
WORK = 23.6e-6  # MeV per ion pair
RECOMBINATION = 0.8 / (1 + 0.0486 * MIP_LOSS / (DENSITY * FIELD))
"""Share of the electrons which survive recombination (Birks' law, ICARUS constants), 0.698 for a MIP."""

ELECTRONS_PER_MEV = RECOMBINATION / WORK
"""About 29 600: 0.17 MeV correspond to about 5 000 electrons."""

_PATTERN = re.compile(r"\s*([0-9.]+(?:[eE][-+]?[0-9]+)?)\s*(MeV|keV|ke|e)?\s*")
_SCALE = {"MeV": ("MeV", 1.0), "keV": ("MeV", 1e-3), "ke": ("electrons", 1e3), "e": ("electrons", 1.0)}


class CutError(ValueError):
    """A truth cut that cannot be read or compared with the labels."""

    exit_code = 2


@dataclass(frozen=True)
class Label:
    """What labels measure: `quantity` "electrons" or "energy" (MeV), counted `times` over.

    Truth of the product "energy" is summed over the three planes, so it counts every MeV three times.
    """

    quantity: str
    times: int = 1

    @staticmethod
    def of(product: str, quantity: str) -> Label:
        """The label of a truth product ("energy", "depo", "depoElectron") whose column is named `quantity`."""
        return Label(quantity, 3 if product == "energy" else 1)

    @property
    def unit(self) -> str:
        """Short, for axes."""
        unit = {"electrons": "e", "energy": "MeV"}.get(self.quantity, self.quantity)
        return unit if self.times == 1 else f"{unit}, sum of {self.times} planes"


@dataclass(frozen=True)
class Cut:
    """A voxel is true when its label > value; `unit` is "MeV", "electrons", or None: whatever the labels are in."""

    value: float
    unit: str | None = None

    def against(self, label: Label) -> float:
        """The cut as a number to compare with labels. Raises CutError if they are neither electrons nor energy."""
        if self.unit is None:
            return self.value
        if label.quantity not in ("electrons", "energy"):
            raise CutError(
                f"a truth cut in {self.unit} cannot be compared with labels of {label.quantity}; give it without a unit"
            )
        energy = self.value if self.unit == "MeV" else self.value / ELECTRONS_PER_MEV
        return label.times * (energy if label.quantity == "energy" else energy * ELECTRONS_PER_MEV)

    def __str__(self) -> str:
        return f"{self.value:g} {self.unit or '(unit of the labels)'}"


def parse_cut(text: str) -> Cut:
    """Read "0.17MeV", "170 keV", "5000e", "5ke" or a bare number in the labels' own unit. Raises CutError."""
    match = _PATTERN.fullmatch(text)
    try:
        value = float(match[1]) if match else None
    except ValueError:
        value = None
    if match is None or value is None:
        raise CutError(
            f"truth cut {text!r} is not a number with an optional unit: write e.g. 0.17MeV, 5000e or 0.001"
        )
    if match[2] is None:
        return Cut(value)
    unit, scale = _SCALE[match[2]]
    return Cut(value * scale, unit)
