"""Which hpcreco this is: its version, and the commit where that is known."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from hpcreco import __version__

PACKAGE = Path(__file__).parent


def described() -> str:
    """The version, and the commit in brackets."""
    known = commit()
    return f"{__version__} (commit {known})" if known else __version__


def commit(package: Path = PACKAGE) -> str:
    """The commit that an image was built from (its recipe notes it beside the code) or that a checkout is at.

    Ends in ``-dirty`` where files of the checkout have been changed since; empty where nobody knows.
    """
    try:
        noted = (package / "_commit").read_text().strip()
        number, dash, changed = noted.partition("-")
        return "" if noted == "unknown" else number[:12] + dash + changed
    except OSError:
        pass
    if not (package.parent / ".git").exists():
        return ""
    words = [
        "git",
        "-C",
        str(package.parent),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=12",
        "--exclude=*",
    ]
    try:
        ended = subprocess.run(
            words, capture_output=True, text=True, timeout=10, check=False, env=of_no_repository()
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return ended.stdout.strip() if ended.returncode == 0 else ""


def of_no_repository() -> dict[str, str]:
    """The environment without what would point git elsewhere (GIT_DIR, in a hook)."""
    return {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
