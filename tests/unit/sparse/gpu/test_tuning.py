"""Block sizes are tried once, kept, and found again; what cannot be read or written stands in nobody's way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hpcreco.sparse.gpu import tuning
from hpcreco.sparse.gpu.tuning import Blocks, Kept

ONE, TWO, THREE = Blocks(16, 1, 1), Blocks(32, 2, 2), Blocks(64, 4, 3)


def test_the_fastest_is_chosen_and_one_that_does_not_fit_is_not() -> None:
    from triton.runtime.errors import OutOfResources

    def cost(blocks: Blocks) -> float:
        if blocks == TWO:
            raise OutOfResources(200_000, 100_000, "shared memory")
        return {ONE: 3.0, THREE: 2.0}[blocks]

    assert tuning.fastest((ONE, TWO, THREE), cost) == THREE


def test_choices_are_found_again_and_those_of_others_stay(tmp_path: Path) -> None:
    file = tmp_path / "made" / "choices.json"
    ours, theirs = Kept(file), Kept(file)
    ours.keep("a", ONE)
    theirs.keep("b", TWO)
    assert Kept(file).choices == {"a": ONE, "b": TWO}
    assert Kept(file, anew=True).choices == {}
    assert [path.name for path in file.parent.iterdir()] == ["choices.json"]


@pytest.mark.parametrize("text", ["", "[1, 2]", '{"a": {"rows": 1}}', '{"a": 3}'])
def test_a_broken_file_counts_for_nothing(text: str, tmp_path: Path) -> None:
    file = tmp_path / "choices.json"
    file.write_text(text)
    kept = Kept(file)
    assert kept.choices == {}
    kept.keep("b", TWO)
    assert Kept(file).choices == {"b": TWO}


def test_where_nothing_can_be_written_choices_last_for_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    kept = Kept(tmp_path / "file" / "choices.json")
    kept.keep("a", ONE)
    assert kept.choices == {"a": ONE}


def test_nothing_is_tried_off_gpus() -> None:
    def run(blocks: Blocks) -> None:
        raise AssertionError("tried")

    chosen = tuning.choose("convolve", torch.zeros(1), (16, 16, 27), 10**6, run)
    assert chosen == tuning.CANDIDATES["convolve"][0]


@pytest.mark.parametrize(
    ("width", "most", "block"),
    [(1, 64, 16), (16, 64, 16), (17, 64, 32), (48, 64, 16), (64, 64, 64), (80, 16, 16)],
)
def test_blocks_of_channels_cover_the_width_with_least_to_spare(width: int, most: int, block: int) -> None:
    assert tuning.channels(width, most) == block


@pytest.mark.parametrize("switch", ["allow_tf32", "fp32_precision"])
def test_tf32_is_ruled_by_torchs_switches(switch: str) -> None:
    """In processes of their own: torch refuses to read one switch after the other was set."""
    if switch == "fp32_precision" and not hasattr(torch.backends.cuda.matmul, switch):
        pytest.skip("this torch has the older switch only")
    on, off = {"allow_tf32": ("True", "False"), "fp32_precision": ("'tf32'", "'ieee'")}[switch]
    program = f"""
import torch
from hpcreco.sparse.gpu import tuning
matmul = torch.backends.cuda.matmul
print(tuning.float32_products())
matmul.{switch} = {on}
print(tuning.float32_products())
matmul.{switch} = {off}
print(tuning.float32_products())
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["ieee", "tf32", "ieee"]
