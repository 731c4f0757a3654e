"""Whether processes that belong together see each other: those of this job, and two that are started for it."""

from __future__ import annotations

import platform
import shutil
import sys
from pathlib import Path

from hpcreco import world
from hpcreco.doctor.asking import ask
from hpcreco.doctor.finding import BROKEN, MISSING, WORKS, Finding

TWO_RANKS = (
    "import numpy; from hpcreco import collective; print(int(collective.connect().sum(numpy.ones(1))[0]))"
)


def examine_world() -> tuple[world.World | None, Finding]:
    """Who the launcher says we are, and whether that many processes really see each other."""
    try:
        promised = world.detect()
    except world.WorldError as error:
        return None, Finding("world", BROKEN, str(error), "start with mpiexec, srun or torchrun, not by hand")
    text = f"rank {promised.rank} of {promised.size}, {promised.local_size} on this node, launcher: {promised.launcher}"
    if promised.size == 1 or promised.launcher == "torchrun":
        return promised, Finding("world", WORKS, text)
    from hpcreco import collective

    try:
        ranks = collective.connect(promised)
        seen = ranks.gather(platform.node())
    except (world.WorldError, ImportError) as error:
        return promised, Finding(
            "world", BROKEN, f"{text}; {error}", "mpiexec and mpi4py must belong to the same MPI"
        )
    nodes = sorted(set(seen or []))
    return promised, Finding(
        "world", WORKS, f"{text}; {ranks.size} ranks see each other on {', '.join(nodes)}"
    )


def examine_launch(here: world.World | None) -> Finding:
    """Whether mpiexec starts two ranks that see each other (only asked from outside a launcher)."""
    if here is not None and here.size > 1:
        return Finding("mpiexec", WORKS, f"not tried: started by {here.launcher}", needed=False)
    # The mpiexec beside the interpreter belongs to its mpich wheel; PATH may lead to another MPI's.
    beside = Path(sys.executable).parent / "mpiexec"
    program = str(beside) if beside.exists() else shutil.which("mpiexec")
    if program is None:
        return Finding(
            "mpiexec", MISSING, "not found", "pip install mpich; on a cluster srun takes its place", False
        )
    works, said = ask(TWO_RANKS, launcher=(program, "-n", "2"))
    if works and said.split() == ["2", "2"]:
        return Finding("mpiexec", WORKS, f"{program}: two ranks see each other", needed=False)
    if works:
        said = "two ranks were started, each alone: mpiexec and mpi4py belong to different MPIs"
    return Finding(
        "mpiexec", BROKEN, f"{program}: {said}", "use the mpiexec of the MPI that mpi4py loads", False
    )
