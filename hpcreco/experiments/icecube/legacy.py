"""The original package's commands, by their names, calling hpcreco."""

from __future__ import annotations

from hpcreco.legacy import Script, Wrappers

WRAPPERS = Wrappers(
    {
        "create_trafo_model.py": Script("make the data transformation model of CONFIG", ("icecube", "trafo")),
        "train_model.py": Script("train the model of CONFIG", ("train",)),
        "export_manager.py": Script(
            "export the trained model of CONFIG to the folder behind -o", ("icecube", "export")
        ),
    }
)
