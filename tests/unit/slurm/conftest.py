"""A machine that looks like a login node, without a Slurm behind it."""

from __future__ import annotations

import pytest


@pytest.fixture
def sbatch(tmp_path, monkeypatch):
    """An ``sbatch`` on PATH that notes its words, one a line, in the file returned, and answers ``123``."""
    folder = tmp_path / "bin"
    folder.mkdir()
    noted = tmp_path / "sbatch.txt"
    for name, body in (("sbatch", f'printf "%s\\n" "$@" >"{noted}"; echo 123'), ("hpcreco", "exit 0")):
        script = folder / name
        script.write_text(f"#!/bin/sh\n{body}\n")
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.delenv("HPCRECO_JOBS", raising=False)
    monkeypatch.chdir(tmp_path)
    return noted
