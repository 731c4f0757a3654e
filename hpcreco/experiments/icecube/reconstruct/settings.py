"""`reconstruction_settings` of a config: the users' keys as they know them, and ours. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator

from hpcreco.config import Strict

TRUTH = "x_parameters"  # the seed that is the truth, as the original package calls it
DATA = "data"  # the seed that is found from the pulses alone


class ScipySettings(Strict):
    """Keyword arguments of `scipy.optimize.minimize`; the method "shgo" searches globally."""

    method: str = "BFGS"
    options: dict[str, Any] = Field(default_factory=dict)
    tol: float | None = None

    @field_validator("options", mode="before")
    @classmethod
    def _empty(cls, value: Any) -> Any:
        return value or {}


class LegacySettings(Strict):
    """Of the original's TensorFlow minimiser, whose part the batched one plays."""

    method: str = "bfgs_minimize"
    x_tolerance: float = 0.001
    initial_inverse_hessian_estimate: Any = None


class BatchedSettings(Strict):
    """Of the batched minimiser: method bfgs or lbfgs; done when less than `tolerance` of loss is left to gain."""

    method: Literal["bfgs", "lbfgs"] = "bfgs"
    tolerance: float = Field(default=1e-5, gt=0)
    max_evaluations: int = Field(default=500, gt=0)


class SphericalSettings(Strict):
    """Of the minimisers without gradients, see `by_spherical.SphericalMinimiser`."""

    method: Literal["crs2", "nelder-mead"] = "crs2"
    population: int = Field(default=0, ge=0)
    width: float = Field(default=0.3, gt=0)
    tolerance: float = Field(default=1e-3, gt=0)
    max_evaluations: int = Field(default=20_000, gt=0)
    batch: int = Field(default=16, gt=0)


class PreparationSettings(Strict):
    """What is done to events first, see `prepare.Preparation`."""

    bright_doms: bool = False
    bright_fraction: float = Field(default=0.4, gt=0)
    bright_charge: float = Field(default=100.0, ge=0)
    partial_exclusion: bool = True
    merge_pulses: float = Field(default=0.0, ge=0)


class SkySettings(Strict):
    """nside of the whole sky; rings as [outer radius in degrees, nside], around the best fit and the `centres`.

    centres: names of seeds whose directions get rings as well.
    """

    nside: int = Field(default=2, gt=0)
    rings: tuple[tuple[float, int], ...] = ((5.0, 32), (15.0, 16), (30.0, 8))
    centres: tuple[str, ...] = ()


class GoodnessSettings(Strict):
    """How many events are drawn; from the covariance or the best fit; fitted again or not."""

    samples: int = Field(default=50, gt=1)
    from_covariance: bool = False
    refit: bool = False


class ChainSettings(Strict):
    """Of posterior samples, see `chains.Sampling`."""

    method: Literal["emcee", "metropolis", "hmc", "nuts"] = "emcee"
    walkers: int = Field(default=0, ge=0)
    steps: int = Field(default=100, gt=0)
    burn_in: int = Field(default=50, ge=0)
    thin: int = Field(default=1, gt=0)


class ScanSettings(Strict):
    """points per parameter; reach to both sides in coordinates, or in standard deviations where `sigmas` is set.

    others: the other parameters are held, fitted at every point (a profile), or fitted, and those with a prior
    (systematics) integrated over.
    """

    others: Literal["held", "fitted", "marginalised"] = "held"
    points: int = Field(default=1000, gt=2)
    reach: float = Field(default=1.0, gt=0)
    sigmas: float | None = 5.0


class ReconstructionSettings(Strict):
    """All that decides a reconstruction's result.

    seed: name of start values in the shards, "x_parameters" (the truth), "data" (found from the pulses); with several,
    the best of the fits is kept. random_seeds: so many more fits from around each seed, `random_width` coordinates
    wide. parameter_priors: parameter -> (mean, width), of systematic uncertainties: fits and covariances are then
    profiled over them, posterior samples marginalised.
    """

    # the users' keys
    reco_output_file: str | None = None
    calculate_covariance_matrix: bool = False
    calculate_goodness_of_fit: bool = False
    estimate_angular_uncertainty: bool = False
    run_mcmc: bool = False
    make_1d_llh_scans: bool = False
    parameter_tensor_name: str = TRUTH
    seed: tuple[str, ...] = (TRUTH,)
    seed_parameter_names: tuple[str | tuple[str, int], ...] = ()  # (name, count) for a numbered row of them
    seed_missing_value: float | None = None
    seed_missing_value_dict: dict[str, float] = Field(default_factory=dict)
    seed_float_precision: str = "float32"
    reco_optimizer_interface: Literal["batched", "scipy", "spherical_opt", "tfp"] = "batched"
    scipy_optimizer_settings: ScipySettings = ScipySettings()
    tf_optimizer_settings: LegacySettings = LegacySettings()
    minimize_in_trafo_space: bool = True
    minimize_parameter_default_value: bool = True
    minimize_parameter_dict: dict[str, bool] = Field(default_factory=dict)
    parameter_boundaries: dict[str, tuple[float, float]] = Field(default_factory=dict)
    # ours
    parameter_priors: dict[str, tuple[float, float]] = Field(default_factory=dict)
    batched_optimizer_settings: BatchedSettings = BatchedSettings()
    spherical_optimizer_settings: SphericalSettings = SphericalSettings()
    random_seeds: int = Field(default=0, ge=0)
    random_width: float = Field(default=0.1, gt=0)
    preparation: PreparationSettings = PreparationSettings()
    make_skyscan: bool = False
    skyscan: SkySettings = SkySettings()
    goodness_of_fit: GoodnessSettings = GoodnessSettings()
    mcmc: ChainSettings = ChainSettings()
    llh_scans: ScanSettings = ScanSettings()
    batch_size: int = Field(default=32, gt=0)
    float_precision: Literal["float32", "float64"] = "float64"

    @field_validator("seed", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator(
        "seed_missing_value_dict", "minimize_parameter_dict", "parameter_boundaries", mode="before"
    )
    @classmethod
    def _nothing(cls, value: Any) -> Any:
        return value or {}

    def fixed(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Which of the parameters are held; those of `minimize_parameter_dict` are known to exist afterwards."""
        default, special = self.minimize_parameter_default_value, self.minimize_parameter_dict
        unknown = [name for name in special if name not in names]
        return (*(name for name in names if not special.get(name, default)), *unknown)


def settings(raw: Mapping[str, Any] | None) -> ReconstructionSettings:
    """Checked settings; `ConfigError` names a wrong key."""
    from hpcreco.config import build

    return build(ReconstructionSettings, raw or {}, "reconstruction_settings")
