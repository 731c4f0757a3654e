"""How the ranks of torch.distributed find each other: environment, MPI, or a file."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from torch.distributed import Store, TCPStore

from hpcreco.collective import Collective
from hpcreco.world import World, WorldError

WAIT = timedelta(seconds=300)  # for all ranks to appear
_TRY = timedelta(seconds=5)  # for a connection to an address that may be a dead job's


def meet(world: World, mpi: Collective | None, output_dir: Path | None = None) -> Store:
    """A key-value store that all ranks of `world` are connected to; rank 0 serves it.

    Its address comes from MASTER_ADDR and MASTER_PORT (torchrun), else over `mpi`, else through a file.
    Raises WorldError when the ranks do not meet.
    """
    environ = os.environ
    if world.size == 1:
        return _serve(world)
    try:
        if "MASTER_ADDR" in environ and "MASTER_PORT" in environ:
            # torchrun's agent serves a store of its own at this address
            serving = world.rank == 0 and environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
            return TCPStore(
                environ["MASTER_ADDR"], int(environ["MASTER_PORT"]), world.size, serving, timeout=WAIT
            )
        if mpi is not None:
            store = _serve(world) if world.rank == 0 else None
            address = mpi.broadcast(_address(world, store) if store else None)
            return store or _join(world, address)
        return _meet_by_file(world, address_file(world, output_dir, environ))
    except (RuntimeError, ValueError) as error:
        if isinstance(error, WorldError):
            raise
        raise WorldError(
            f"rank {world.rank} of {world.size} on {socket.gethostname()} did not meet the others: {error}"
        ) from error


def address_file(world: World, output_dir: Path | None, environ: Mapping[str, str]) -> Path:
    """The file through which rank 0 tells its address: HPCRECO_RENDEZVOUS_FILE, or one per job step.

    It must be on a file system that all ranks share. Raises WorldError when no name is the same on all ranks
    and different from that of every other job.
    """
    if given := environ.get("HPCRECO_RENDEZVOUS_FILE"):
        return Path(given)
    if "SLURM_JOB_ID" in environ:
        job = ".".join(
            environ.get(name, "0") for name in ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
        )
    elif world.size == world.local_size:
        job = f"{socket.gethostname()}.{os.getppid()}"  # ranks of one node have one parent
    else:
        raise WorldError(
            f"{world.size} ranks on several nodes without MPI, Slurm or torchrun: set HPCRECO_RENDEZVOUS_FILE "
            "to a new file name on a shared file system"
        )
    if output_dir is None:
        raise WorldError("there is no output directory for a rendezvous file: set HPCRECO_RENDEZVOUS_FILE")
    return output_dir / f".rendezvous-{job}"


def _meet_by_file(world: World, path: Path) -> Store:
    """Rank 0 writes its address; the others try what they read until it is that of a living rank 0."""
    if world.rank == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        store = _serve(world)
        host, port = _address(world, store)
        temporary = path.with_name(f"{path.name}.part-{os.getpid()}")
        temporary.write_text(f"{host} {port}\n")
        temporary.replace(path)
        store.set_timeout(WAIT)
        store.wait([f"joined/{rank}" for rank in range(1, world.size)], WAIT)
        path.unlink(missing_ok=True)
        return store
    end = time.monotonic() + WAIT.total_seconds()
    reason: Exception | str = "rank 0 never wrote it"
    while time.monotonic() < end:
        try:
            address, number = path.read_text().split()
            store = _join(world, (address, int(number)), _TRY)
            store.set(f"joined/{world.rank}", "yes")
            store.set_timeout(WAIT)
            return store
        except (FileNotFoundError, ValueError):
            pass
        except RuntimeError as error:  # left over from a dead job: a new one will replace it
            reason = error
        time.sleep(0.1)
    raise WorldError(f"rank {world.rank} found no rank 0 through {path}: {reason}")


def _serve(world: World) -> TCPStore:
    return TCPStore(_host(world), 0, world.size, is_master=True, wait_for_workers=False, timeout=WAIT)


def _join(world: World, address: tuple[str, int], timeout: timedelta = WAIT) -> TCPStore:
    return TCPStore(address[0], address[1], world.size, is_master=False, timeout=timeout)


def _address(world: World, store: TCPStore) -> tuple[str, int]:
    return _host(world), store.port


def _host(world: World) -> str:
    return "127.0.0.1" if world.size == world.local_size else socket.gethostname()
