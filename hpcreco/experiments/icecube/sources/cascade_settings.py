"""What a cascade's config may say, in the words of the original package."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from hpcreco.config import Strict
from hpcreco.experiments.icecube.sources.mixture import FAMILIES, Component, Mixture
from hpcreco.experiments.icecube.sources.network import ACTIVATIONS, METHODS, LayerSpec

_METHODS = ["locally_connected", "convolution"]  # of the first layer and of the others
CHARGE_OUTPUTS = {"negative_binomial": 2, "asymmetric_gaussian": 3, "poisson": 1}
_LATEST = 2.0  # µs: the components' times after the first light, before training, spread up to here


class FamilySettings(Strict):
    """Some components of the time mixture. starts: values of the latents before training, in µs where they are times,
    each for all components or one for each.
    """

    family: str
    count: int = Field(default=1, ge=1)
    starts: dict[str, float | list[float]] = Field(default_factory=dict)
    weight_factor: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _known(self) -> FamilySettings:
        if self.family not in FAMILIES:
            raise ValueError(f"family {self.family!r} is unknown; known: {', '.join(FAMILIES)}")
        latents = FAMILIES[self.family].latents
        unknown = sorted(set(self.starts) - set(latents))
        if unknown:
            raise ValueError(f"{self.family} has no latent {unknown[0]!r}; it has {', '.join(latents)}")
        for name, start in self.starts.items():
            if isinstance(start, list) and len(start) != self.count:
                raise ValueError(f"starts.{name} has {len(start)} values for {self.count} components")
        return self

    @property
    def component(self) -> Component:
        """The same for `Mixture`."""
        family = FAMILIES[self.family]
        values = [
            self.starts.get(name, value) for name, value in zip(family.latents, family.start, strict=True)
        ]
        rows = tuple(tuple(v) if isinstance(v, list) else (float(v),) for v in values)
        return Component(self.family, self.count, rows, self.weight_factor)


class NetworkSettings(Strict):
    """Network and outputs of a `NetworkSource`.

    Lists with one entry per layer may be longer than there are layers, or be one value for all. time_reference: times
    count from the source's own time, or (`geometry`) from when its unscattered light can be at the DOM.
    legacy_time_units: time densities per µs among others per ns, as in models that were trained so.
    """

    keep_prob: float | None = Field(default=None, gt=0, le=1)
    num_local_vars: int = Field(default=0, ge=0)
    scale_charge: bool = True
    scale_charge_by_relative_dom_efficiency: bool = True
    scale_charge_by_global_dom_efficiency: bool = False
    prevent_mixture_component_swapping: bool = False
    estimate_charge_distribution: Literal["negative_binomial"] | bool = "negative_binomial"
    num_latent_models: int = Field(default=10, ge=0)
    additional_label_names: list[str] = Field(default_factory=list)
    snowstorm_parameter_names: list[tuple[str, int]] = Field(default_factory=list)
    filter_size_list: list[tuple[int, int]] | tuple[int, int] = (1, 1)
    num_filters_list: list[int] = Field(default=[25, 100, 100, 100, 100, 42], min_length=1)
    method_list: list[str] | str | None = None
    activation_list: list[str] | str = "elu"
    use_dropout_list: list[bool] | bool = False
    use_batch_norm_list: list[bool] | bool = False
    use_residual_list: list[bool] | bool = True
    time_reference: Literal["vertex", "geometry"] = "geometry"
    legacy_time_units: bool = False
    mixture: list[FamilySettings] | None = None

    @field_validator("activation_list", mode="before")
    @classmethod
    def _no_activation(cls, value: Any) -> Any:
        return ["" if item is None else item for item in value] if isinstance(value, list) else value or ""

    @property
    def charge_model(self) -> str:
        """Distribution of a DOM's charge."""
        if isinstance(self.estimate_charge_distribution, str):
            return self.estimate_charge_distribution
        return "asymmetric_gaussian" if self.estimate_charge_distribution else "poisson"

    def components(self) -> list[Component]:
        """Those of the time mixture."""
        if self.mixture is not None:
            return [family.component for family in self.mixture]
        if not self.num_latent_models:
            return []
        component = FamilySettings(family="asymmetric_gaussian", count=self.num_latent_models).component
        if self.time_reference == "vertex":
            return [component]
        n = self.num_latent_models
        mean = tuple(_LATEST * ((k + 0.5) / n) ** 3 for k in range(n))
        width = tuple(0.05 + m for m in mean)
        return [Component("asymmetric_gaussian", n, (mean, width, (2.001,)))]

    @model_validator(mode="after")
    def _outputs_fit(self) -> NetworkSettings:
        components = self.components()
        n_time = Mixture(components).n_latents if components else 0
        wanted = CHARGE_OUTPUTS[self.charge_model] + n_time
        if self.num_filters_list[-1] != wanted:
            raise ValueError(
                f"num_filters_list ends with {self.num_filters_list[-1]}, but there are {wanted} outputs: "
                f"{CHARGE_OUTPUTS[self.charge_model]} for the charge ({self.charge_model}) and {n_time} for times"
            )
        self.layers()
        return self

    def layers(self) -> list[LayerSpec]:
        """One per entry of `num_filters_list`."""
        n = len(self.num_filters_list)
        rate = 0.0 if self.keep_prob is None else 1.0 - self.keep_prob
        columns = {
            "method": _per_layer(
                "method_list", self.method_list or _METHODS[:1] + _METHODS[1:] * n, n, METHODS
            ),
            "activation": _per_layer("activation_list", self.activation_list, n, ACTIVATIONS),
            "size": _per_layer("filter_size_list", self.filter_size_list, n),
            "residual": _per_layer("use_residual_list", self.use_residual_list, n),
            "batch_norm": _per_layer("use_batch_norm_list", self.use_batch_norm_list, n),
            "rate": [rate * flag for flag in _per_layer("use_dropout_list", self.use_dropout_list, n)],
            "width": self.num_filters_list,
        }
        specs = [LayerSpec(**{name: column[k] for name, column in columns.items()}) for k in range(n)]
        if isinstance(self.activation_list, str):
            specs[-1] = LayerSpec(**{**vars(specs[-1]), "activation": ""})
        even = next((spec.size for spec in specs if not all(side % 2 for side in spec.size)), None)
        if even:
            raise ValueError(f"filter_size_list: {list(even)} has an even side; kernels are centred on a DOM")
        return specs


class CascadeSettings(NetworkSettings):
    """The network of a cascade, and what it is told. shift_cascade_vertex: positions are where the shower starts."""

    add_opening_angle: bool = True
    add_dom_coordinates: bool = False
    add_anisotropy_angle: bool = False
    add_dom_angular_acceptance: bool = False
    shift_cascade_vertex: bool = False


def _per_layer(name: str, value: Any, n: int, allowed: Any = None) -> list[Any]:
    """One value for each of n layers: of a list that is long enough, or of one value for all."""
    values = value[:n] if isinstance(value, list) else [value] * n
    if len(values) < n:
        raise ValueError(f"{name} has {len(values)} entries for {n} layers")
    wrong = [item for item in values if allowed is not None and item not in allowed]
    if wrong:
        raise ValueError(f"{name}: {wrong[0]!r} is unknown; known: {', '.join(map(repr, allowed))}")
    return values
