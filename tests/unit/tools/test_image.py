"""tools/image refuses at once what would fail after minutes of building."""

from __future__ import annotations

import os
import subprocess

import pytest


@pytest.fixture
def refusal(repository, tmp_path):
    """refusal(*arguments): what `tools/image build` says when it refuses them; apptainer is not on its PATH."""

    def refusal(*arguments) -> str:
        command = [repository / "tools/image", "build", *map(str, arguments)]
        environment = os.environ | {"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path)}
        run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=400)
        assert run.returncode != 0
        assert not list(tmp_path.glob("hpcreco-image-*"))
        return run.stderr

    return refusal


def test_a_sif_needs_apptainer(refusal, tmp_path):
    assert "needs apptainer" in refusal("--engine", "podman", "-o", tmp_path / "reco.sif")


def test_a_folder_must_be_empty(refusal, tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/file").touch()
    assert "not an empty folder" in refusal("--engine", "podman", "-o", tmp_path / "taken")


def test_a_chroot_needs_a_folder(refusal, tmp_path):
    assert "needs -o" in refusal("--engine", "chroot")
    assert "writes a folder" in refusal("--engine", "chroot", "-o", tmp_path / "image.tar")


def test_unknown_words_show_the_usage(refusal):
    assert "tools/image build [cpu|gpu]" in refusal("tpu")
