"""Builds Horovod or MinkowskiEngine for the running Python environment, keeps the wheel in a cache and installs it.

    .venv/bin/python tools/engines/build.py horovod
    .venv/bin/python tools/engines/build.py minkowski --wheel-only
    .venv/bin/python tools/engines/build.py horovod --cuda 13.0

A wheel is built once per torch, Python, MPI, CUDA, C library, machine type and patch list, in a throw-away directory,
and kept below $XDG_CACHE_HOME/hpcreco/wheels (default ~/.cache/hpcreco/wheels). Needs a C++ compiler; MinkowskiEngine
also OpenBLAS's headers. CUDA's compiler is brought along when it is needed.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # run as a script from anywhere
import cuda_toolkit
import recipes
import sources

MEMORY_PER_COMPILER = 2.5e9  # bytes; torch's headers are heavy
MEMORY_PER_NVCC = 2.9e9


def mpi_identity() -> str:
    """Name and version of the MPI whose compiler wrapper comes first, e.g. ``mpich-5.0.2``; SystemExit without one."""
    wrapper = shutil.which("mpicxx", path=search_path())
    if wrapper is None:
        sys.exit(
            "tools/engines: no mpicxx: install the mpich wheel (tools/setup does) or load the site's MPI module"
        )
    if Path(wrapper).parent == Path(sys.prefix) / "bin":
        return f"mpich-{metadata.version('mpich')}"
    shown = subprocess.run([wrapper, "-show"], capture_output=True, text=True, check=True).stdout
    return "site-" + hashlib.sha256(f"{wrapper} {shown}".encode()).hexdigest()[:10]


def search_path() -> str:
    """PATH, the environment's own programs (mpicxx, cmake, ninja) first; with HPCRECO_SITE_MPI=1 last."""
    own = str(Path(sys.prefix) / "bin")
    path = os.environ.get("PATH", os.defpath)
    return f"{path}:{own}" if os.environ.get("HPCRECO_SITE_MPI") == "1" else f"{own}:{path}"


def cache_folder(engine: recipes.Engine) -> Path:
    """Folder of the engine's wheel; its name says everything that the wheel depends on."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hpcreco" / "wheels"
    recipe = repr((engine.sha256, engine.patches, engine.arguments, sorted(build_settings(engine).items())))
    parts = [
        f"{engine.package.lower()}-{engine.version}",
        f"torch-{metadata.version('torch')}",
        f"py{sys.version_info.major}.{sys.version_info.minor}",
        *([mpi_identity()] if engine.links_mpi else []),
        *([f"cuda-{engine.cuda}-sm{'-'.join(cuda_toolkit.ARCHITECTURES)}"] if engine.cuda else []),
        "".join(platform.libc_ver()),  # an image may share the cache with a host whose libraries are newer
        platform.machine(),
        hashlib.sha256(recipe.encode()).hexdigest()[:8],
    ]
    return root / "_".join(parts)


def build_settings(engine: recipes.Engine) -> dict[str, str]:
    """The environment variables that decide what is built."""
    chosen = (
        {key: value for key, value in os.environ.items() if key.startswith("HOROVOD_")}
        if engine.links_mpi
        else {}
    )
    return engine.environment | chosen


def compilers(engine: recipes.Engine) -> int:
    """How many compilers may run at once: one per core, as far as memory allows."""
    cores = len(os.sched_getaffinity(0))
    text = Path("/proc/meminfo").read_text()  # the kernel's own estimate counts the page cache as free
    memory = int(text.partition("MemAvailable:")[2].split()[0]) * 1024
    return max(1, min(cores, int(memory / (MEMORY_PER_NVCC if engine.cuda else MEMORY_PER_COMPILER))))


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the folder's lock, so that two set-ups at once build a wheel only once."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def cached(folder: Path) -> Path | None:
    """The finished wheel in ``folder``, if there is one."""
    return next(iter(sorted(folder.glob("*.whl"))), None)


def build(engine: recipes.Engine, folder: Path) -> Path:
    """Builds the wheel in a throw-away directory and moves it into ``folder``; SystemExit names the log on failure."""
    if shutil.which(os.environ.get("CXX", "c++")) is None:
        sys.exit(
            f"tools/engines: {engine.package} needs a C++ compiler (Debian, Ubuntu: apt-get install build-essential)"
        )
    log = folder / "build.log"
    with tempfile.TemporaryDirectory(prefix=f"hpcreco-{engine.package}-") as temporary:
        archive = sources.fetch(engine.package, engine.version, engine.sha256, Path(temporary))
        with tarfile.open(archive) as tar:
            tar.extractall(temporary)  # noqa: S202  the archive's hash is known
        source = Path(temporary) / f"{engine.package}-{engine.version}"
        for patch in engine.patches:
            print(f"  patch {patch.file}: {patch.why}", flush=True)
            patch.apply(source)
        environment = os.environ | build_settings(engine)
        jobs = str(compilers(engine))
        environment |= {"PATH": search_path(), "MAKEFLAGS": f"-j{jobs}", "MAX_JOBS": jobs}
        if engine.cuda:
            toolkit = cuda_toolkit.toolkit(engine.cuda, Path(temporary) / "cuda")
            environment |= toolkit.environment()
            environment["PATH"] = f"{toolkit.home}/bin:{environment['PATH']}"
        command = [sys.executable, "setup.py", "bdist_wheel", *engine.arguments]
        time_needed = "6 (Horovod) to 25 minutes" if engine.cuda else "4 to 6 minutes"
        print(
            f"  building {engine.package} {engine.version}: {time_needed} on 2 cores; log: {log}", flush=True
        )
        code = follow(command, source, environment, log)
        wheel = cached(source / "dist")
        if code != 0 or wheel is None:
            tail = "".join(log.read_text().splitlines(keepends=True)[-15:])
            sys.exit(
                f"{tail}\ntools/engines: building {engine.package} failed (exit {code}); the whole log: {log}"
            )
        partial = folder / f".{wheel.name}.part-{os.getpid()}"
        shutil.copyfile(wheel, partial)
        return partial.rename(folder / wheel.name)


def follow(command: list[str], source: Path, environment: dict[str, str], log: Path) -> int:
    """Runs the build, its output in ``log``; shows the compilers' progress ([45%], [3/13]); returns the exit code."""
    start = shown = time.monotonic()
    terminal = sys.stdout.isatty()
    with open(log, "w") as handle:
        process = subprocess.Popen(
            command, cwd=source, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert process.stdout is not None
        for line in process.stdout:
            handle.write(line)
            handle.flush()
            step = re.match(r"\s*\[\s*(\d+%|\d+/\d+)\]", line)
            now = time.monotonic()
            if step and now - shown > (0.2 if terminal else 20):
                shown = now
                text = f"  [{step[1]:>5}] {now - start:4.0f} s"
                print(f"\r{text}" if terminal else text, end="" if terminal else "\n", flush=True)
        code = process.wait()
    print(
        f"{chr(13) if terminal else ''}  built in {time.monotonic() - start:.0f} s" if code == 0 else "",
        flush=True,
    )
    return code


def install(wheel: Path) -> None:
    """Installs the wheel alone: what it needs at run time is in the lock file."""
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--force-reinstall",
        str(wheel),
    ]
    subprocess.run(pip, check=True)


def works(engine: recipes.Engine) -> bool:
    """Whether the engine, as installed in this environment, can be imported."""
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", engine.check], capture_output=True, text=True, cwd="/"
    )
    if run.returncode != 0:
        print(run.stderr.strip().splitlines()[-1] if run.stderr.strip() else "no message", file=sys.stderr)
    return run.returncode == 0


def main() -> int:
    """Builds or finds the wheel, installs it and tries it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("engine", choices=sorted(recipes.ENGINES))
    parser.add_argument(
        "--wheel-only", action="store_true", help="build into the cache and print the wheel's path"
    )
    parser.add_argument(
        "--from-cache", action="store_true", help="exit code 1 instead of building what the cache lacks"
    )
    parser.add_argument(
        "--source",
        type=Path,
        metavar="DIR",
        help="only bring the engine's source into DIR, which has torch's wheels; with --cuda also the compiler",
    )
    parser.add_argument(
        "--cuda",
        metavar="VERSION",
        default=os.environ.get("HPCRECO_CUDA"),
        help="build for GPUs too, with the CUDA of the installed torch: 13.0, or torch (default: $HPCRECO_CUDA)",
    )
    arguments = parser.parse_args()
    # A source is the same for all, and may be fetched where another torch is installed.
    engine = recipes.ENGINES[arguments.engine](
        None if arguments.source else cuda_toolkit.chosen(arguments.cuda)
    )
    if arguments.source:
        sources.fetch(engine.package, engine.version, engine.sha256, arguments.source)
        if arguments.cuda:
            cuda_toolkit.download(arguments.source)
        return 0
    folder = cache_folder(engine)
    if arguments.from_cache and cached(folder) is None:
        return 1
    with locked(folder):
        wheel = cached(folder) or build(engine, folder)
    if arguments.wheel_only:
        print(wheel)
        return 0
    install(wheel)
    if not works(engine):
        sys.exit(
            f"tools/engines: {engine.package} from {wheel} is installed but cannot be imported (message above)"
        )
    print(f"  {engine.package} {engine.version} works", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
