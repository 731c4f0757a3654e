"""The original package's commands, by their names, calling hpcreco."""

from __future__ import annotations

#: file -> (what it was for, arguments of hpcreco before those of the command line)
WRAPPERS = {
    "create_trafo_model.py": ("make the data transformation model of CONFIG", ("icecube", "trafo")),
    "train_model.py": ("train the model of CONFIG", ("train",)),
    "export_manager.py": (
        "export the trained model of CONFIG to the folder behind -o",
        ("icecube", "export"),
    ),
}
