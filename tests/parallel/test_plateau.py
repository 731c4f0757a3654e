"""The plateau trainer on real ranks: its metric is that of all ranks, so all of them lower the rate together."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from hpcreco.train import summary

TOYS = Path(__file__).parent.parent / "toys"
CONFIG = {
    "experiment": "protodune",
    "trainer": {"name": "schedule_plateau", "metric": "acc", "patience": 0, "factor": 0.5, "threshold": 0.02},
    "data": {"name": "user_classes:Lines", "events": 12, "batch_size": 4},
    "model": {"name": "user_classes:RowNet"},
    "loss": {"name": "user_classes:Squared"},
    "optimizer": {"name": "Adam", "lr": 0.05},
    "train": {"n_epochs": 8, "precision": "float64"},
    "metrics": {"acc": "BinAccuracy"},
    "rank_files": True,
}


def test_all_ranks_have_the_rates_of_one(mpiexec, tmp_path):
    path = tmp_path / "plateau.yaml"
    path.write_text(yaml.safe_dump(CONFIG))
    for ranks in (1, 2):
        arguments = ["-m", "hpcreco", "train", path, f"--set=output_dir={tmp_path / str(ranks)}"]
        mpiexec(ranks, arguments, env={"PYTHONPATH": f"{TOYS}:{TOYS.parent.parent}"})
    alone, *both = (
        [row["lr"] for row in summary.read(tmp_path / name)]
        for name in ("1/summaries.csv", "2/summaries_0.csv", "2/summaries_1.csv")
    )
    assert both == [alone, alone]
    assert len(set(alone)) > 2, "the rate was lowered, more than once"
    accuracies = [row["valid_acc"] for row in summary.read(tmp_path / "2/summaries_1.csv")]
    assert accuracies == pytest.approx(
        [row["valid_acc"] for row in summary.read(tmp_path / "1/summaries.csv")]
    )
