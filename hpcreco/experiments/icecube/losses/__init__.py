"""What a likelihood is made of: terms of -ln L, each a sum over pulses, over DOMs or of whole events.

DOMs that are excluded from an event count nowhere, neither do pulses there. ``q`` is charge, ``μ`` what is expected
of it, ``α`` its over-dispersion (variance μ + αμ²), all in photo-electrons.
"""

from hpcreco.experiments.icecube.losses.prior import prior
from hpcreco.experiments.icecube.losses.sums import at_doms, names, parts, terms

__all__ = ["at_doms", "names", "parts", "prior", "terms"]
