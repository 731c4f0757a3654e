"""What a reconstruction says of events: tables of a yinf shard. Torch-free."""

from __future__ import annotations

from hpcreco.shards import Attribute, Field, Table

PIT_BINS = 20
#: parameters of the distributions on the sphere that are fitted to samples of the direction
SPHERE = {
    "von_mises_fisher": ("zenith", "azimuth", "kappa"),
    "gauss": ("zenith", "azimuth", "major", "minor", "angle"),
    "kent": ("zenith", "azimuth", "kappa", "beta", "angle"),
    "fb8": ("a_x", "a_y", "a_z", "b_xx", "b_yy", "b_xy", "b_xz", "b_yz"),
}

TABLES = (
    Table(
        "fit",
        (
            Field("parameters", "float64", (), finite=False),  # columns: the hypothesis' parameters
            Field("seed", "float64", (), finite=False),  # from which the best fit started
            Field("truth", "float64", (), optional=True, finite=False),
            Field(
                "loss", "float64", finite=False
            ),  # minus log likelihood; infinite where it could not be computed
            Field("seed_loss", "float64", finite=False),
            Field("truth_loss", "float64", optional=True, finite=False),
            Field("converged", "int8"),
            Field("evaluations", "int32"),
            Field("seconds", "float32", unit="s"),
            Field("chosen", "int16"),  # which of the seeds, in the order of the attribute `seeds`
            Field("charge", "float32", unit="PE"),  # on usable DOMs
            Field("pulses", "int32"),
            Field("doms", "int32"),  # usable ones with light
        ),
        ragged=False,
        optional=True,
    ),
    Table(
        "covariance",  # of the free parameters in physical units, columns "<row>*<column>"
        tuple(
            Field(name, "float64", (), optional=True, finite=False)
            for name in ("hessian", "opg", "sandwich", "fit", "sandwich_fit")
        ),
        ragged=False,
        optional=True,
    ),
    Table(
        "direction",  # its uncertainty as one number, rad
        (
            Field("circular", "float64", optional=True, unit="rad", finite=False),
            Field("from_covariance", "float64", optional=True, unit="rad", finite=False),
        ),
        ragged=False,
        optional=True,
    ),
    Table(
        "pit",  # histograms of the expected fraction of light before each pulse, in equal bins from 0 to 1
        (
            Field("best", "float32", tuple(f"bin{k}" for k in range(PIT_BINS))),
            Field("truth", "float32", tuple(f"bin{k}" for k in range(PIT_BINS)), optional=True),
        ),
        ragged=False,
        optional=True,
    ),
    Table(
        "sky",
        (
            Field("nside", "int32"),
            Field("pixel", "int64"),  # NESTED
            Field("loss", "float64", finite=False),
            Field("parameters", "float64", (), finite=False),
        ),
        optional=True,
    ),
    Table(
        "goodness",
        (
            Field("one_sided", "float64"),
            Field("two_sided", "float64"),
            Field("bias", "float64", (), optional=True, finite=False),
            Field("width", "float64", (), optional=True, finite=False),
        ),
        ragged=False,
        optional=True,
    ),
    Table("goodness_doms", (Field("dom", "int32"), Field("one_sided", "float32")), optional=True),
    Table(
        "chain", (Field("parameters", "float64", ()), Field("loss", "float64", finite=False)), optional=True
    ),
    Table(
        "sphere",
        (
            *(Field(kind, "float64", columns, finite=False) for kind, columns in SPHERE.items()),
            Field("log_density", "float64", tuple(SPHERE), finite=False),  # mean over the samples, per sr
        ),
        ragged=False,
        optional=True,
    ),
    Table(
        "scan",
        (Field("parameter", "int32"), Field("value", "float64"), Field("loss", "float64", finite=False)),
        optional=True,
    ),
)

ATTRIBUTES = (
    Attribute("detector_sha256", "str", required=False),
    Attribute("free", "strs", required=False),  # parameters that were fitted
    Attribute("log", "strs", required=False),  # those fitted as logarithms
    Attribute("seeds", "strs", required=False),
    Attribute("settings", "json", required=False),  # of the reconstruction
    Attribute("model", "str", required=False, volatile=True),  # where it was
    Attribute("fingerprint", "str", required=False, volatile=True),  # what decides whether the file is stale
)
#: fields whose columns are named after the parameters
BY_PARAMETER = (
    "fit/parameters",
    "fit/seed",
    "fit/truth",
    "sky/parameters",
    "goodness/bias",
    "goodness/width",
    "chain/parameters",
)
