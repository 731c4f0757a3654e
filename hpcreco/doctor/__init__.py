"""``hpcreco doctor``: what works on this machine, and what to do about what does not.

Every library is tried in a process of its own: one that crashes or hangs while it loads is a line of the
table, not the end of it, and this package stays free of them.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from dataclasses import asdict
from pathlib import Path

from hpcreco import version
from hpcreco.doctor import libraries, machine, ranks
from hpcreco.doctor.finding import BROKEN, MISSING, WORKS, Finding, show


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of ``hpcreco doctor``."""
    parser.description = "Say what works on this machine, and what to do about what does not."
    parser.add_argument(
        "--json", action="store_true", help="the same findings as JSON, for scripts and bug reports"
    )
    parser.epilog = (
        "Run it where the job will run: a login node and a compute node differ.\n\n"
        "examples:\n"
        "  hpcreco doctor\n"
        "  mpiexec -n 2 hpcreco doctor         # and do these ranks see each other?\n"
        "  srun -N 2 -n 8 hpcreco doctor --json > doctor.json\n\n"
        "exit code: 0 when all that is needed works (optional parts may be missing), 1 otherwise"
    )


def run(args: argparse.Namespace) -> int:
    """Examines the machine; rank 0 prints. Returns 0 when nothing needed is missing and nothing at all is broken."""
    here, reached = ranks.examine_world()
    if here is not None and here.rank > 0:
        return 0
    findings = [
        *versions(),
        *libraries.examine_all(),
        reached,
        ranks.examine_launch(here),
        *machine.examine(),
    ]
    healthy = not any(f.state == BROKEN or (f.needed and f.state == MISSING) for f in findings)
    if args.json:
        print(json.dumps({"healthy": healthy, "findings": [asdict(f) for f in findings]}, indent=1))
    else:
        show(findings, healthy)
    return 0 if healthy else 1


def versions() -> list[Finding]:
    """hpcreco and the interpreter."""
    return [
        Finding("hpcreco", WORKS, f"{version.described()} in {Path(__file__).parent.parent}"),
        Finding("python", WORKS, f"{platform.python_version()} at {sys.executable}"),
    ]
