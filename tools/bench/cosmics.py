"""What benchmarks of training train on: a few cosmic events, one a file, by the network of ghost3d_cpu."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CONFIG = "protodune/ghost3d_cpu"


def prepare(folder: Path, events: int) -> None:
    """Simulate and tile cosmic events, one a file."""
    hpcreco = [sys.executable, "-m", "hpcreco"]
    parsed, xy = str(folder / "parsed"), str(folder / "xy")
    sample = ["--preset", "small", "--files", str(events), "--events", "1", "--seed", "7", "--out", parsed]
    tile = ["tile", "-i", parsed, "-o", xy, "-t", "1", "--y-type", "depo"]
    for command in (["simulate", "protodune", *sample], tile):
        subprocess.run([*hpcreco, *command], check=True, stdout=subprocess.DEVNULL)


def overrides(folder: Path, **changes: object) -> list[str]:
    """Overrides that let CONFIG train on the events of `folder` without validation; __ in `changes` is a dot."""
    fixed: dict[str, object] = {
        "output_dir": folder / "out",
        "data.data_path": folder / "xy",
        "data.train_i": "[1, 9999]",
        "data.inference_i": "null",
        "data.tpcs": "[1]",
        "schedule": "null",
    }
    changed = {name.replace("__", "."): value for name, value in changes.items()}
    return [f"{name}={value}" for name, value in (fixed | changed).items()]
