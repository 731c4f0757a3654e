"""What a network is judged by: the loss and metrics of its config, in the unit of its labels."""

from __future__ import annotations

from functools import cached_property

from torch import Tensor, nn

from hpcreco.config import ConfigError, Run
from hpcreco.data.batch import Batch
from hpcreco.experiments.protodune import scaling
from hpcreco.experiments.protodune.files import settings_of
from hpcreco.experiments.protodune.objective.charge import CHARGE
from hpcreco.experiments.protodune.objective.deghosting import DEGHOSTING
from hpcreco.experiments.protodune.objective.quantity import Quantity
from hpcreco.experiments.protodune.settings import Normalise
from hpcreco.nn import losses, metrics
from hpcreco.nn.cell_losses import Cells
from hpcreco.nn.prediction import Prediction
from hpcreco.train.task import Term

COORDS, FEATURES, LABELS = "voxels/coords", "voxels/features", "voxels/labels"
TRUTH_COORDS, TRUTH_VALUES = "truth/coords", "truth/values"

#: `predicts` of a config -> what that means
QUANTITIES: dict[str, Quantity] = {"probability": DEGHOSTING, "electrons": CHARGE}


class Objective:
    """Rides on the model: a step knows no more than the model and the batch.

    The loss is looked up when it is first needed: inference on data without truth needs none.
    """

    def __init__(self, run: Run) -> None:
        self._run, self._settings = run, settings_of(run)
        self.quantity = QUANTITIES[self._settings.predicts]

    @cached_property
    def loss(self) -> losses.InFloat32:
        """The config's loss; ConfigError when it cannot be used."""
        named = self._settings.loss
        if named is None:
            return losses.build("BCELoss" if self.quantity is DEGHOSTING else "MSELoss", {})
        return losses.build(named.name, named.arguments)

    @cached_property
    def metrics(self) -> dict[str, metrics.Metric]:
        """The config's own metrics by column."""
        return metrics.build(self._settings.metrics)

    @cached_property
    def squeezed(self) -> Normalise | None:
        """How labels were squeezed for the network."""
        return scaling.of_labels(self._run)

    def values(self, prediction: Prediction) -> Tensor:
        """The prediction in the unit of the labels."""
        return scaling.unsqueeze(prediction.value, self.squeezed)

    def terms(self, prediction: Prediction, batch: Batch) -> dict[str, Term]:
        """The loss between prediction and squeezed labels."""
        labels = scaling.squeeze(batch[LABELS], self.squeezed)
        if not self.loss.needs_cells:
            return self.loss(prediction, labels)
        if TRUTH_COORDS not in batch.tensors:
            raise ConfigError("loss: it needs all true voxels of an event; set data.full_y: true")
        truth = scaling.squeeze(batch[TRUTH_VALUES], self.squeezed)
        return self.loss(prediction, labels, Cells(batch[COORDS], batch[TRUTH_COORDS], truth))


def of(network: nn.Module) -> Objective:
    """The Objective that `task.build_model` gave the network."""
    found = network.objective
    assert isinstance(found, Objective)
    return found
