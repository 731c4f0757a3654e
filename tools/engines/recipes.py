"""Horovod and MinkowskiEngine: which releases, with which patches and settings, for CPUs or for GPUs too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import metadata

import cuda_toolkit
import patches
import patches_cuda


@dataclass(frozen=True)
class Engine:
    """One package to build: where it comes from, how it is patched and built, what proves that it works."""

    package: str
    version: str
    sha256: str
    patches: list[patches.Patch]
    arguments: tuple[str, ...]
    environment: dict[str, str]
    links_mpi: bool
    check: str
    cuda: str | None = None


def torch_version() -> tuple[int, int]:
    """(major, minor) of the installed torch."""
    major, minor = metadata.version("torch").split(".")[:2]
    return int(major), int(minor)


def horovod(cuda_version: str | None = None) -> Engine:
    """Horovod 0.28.1 over MPI, for torch only; with CUDA its operations on GPUs are NCCL's. The user's own HOROVOD_*
    variables win.
    """
    engine = Engine(
        package="horovod",
        version="0.28.1",
        sha256="92a43f5a94c43907a56805bad15f19700c62ffc83b7ca483f9e104e229f67ef0",
        patches=patches.horovod(torch_version()),
        arguments=(),
        environment={
            "HOROVOD_WITH_MPI": "1",
            "HOROVOD_WITH_PYTORCH": "1",
            "HOROVOD_WITHOUT_GLOO": "1",
            "HOROVOD_WITHOUT_TENSORFLOW": "1",
            "HOROVOD_WITHOUT_MXNET": "1",
        },
        links_mpi=True,
        check="import horovod.torch as hvd; assert hvd.mpi_built()",
    )
    if cuda_version is None:
        return engine
    capabilities = ",".join(a.replace(".", "") for a in cuda_toolkit.ARCHITECTURES)
    return replace(
        engine,
        patches=patches_cuda.horovod(torch_version()),
        environment=engine.environment
        | {"HOROVOD_GPU_OPERATIONS": "NCCL", "HOROVOD_BUILD_CUDA_CC_LIST": capabilities},
        check="import horovod.torch as hvd; assert hvd.mpi_built() and hvd.nccl_built()",
        cuda=cuda_version,
    )


def minkowski(cuda_version: str | None = None) -> Engine:
    """MinkowskiEngine 0.5.4 over OpenBLAS, for the CPU or for CUDA as well."""
    engine = Engine(
        package="MinkowskiEngine",
        version="0.5.4",
        sha256="b1879c00d0b0b1d30ba622cce239886a7e3c78ee9da1064cdfe2f64c2ab15f94",
        patches=patches.minkowski(),
        arguments=("--cpu_only", "--blas=openblas"),
        environment={},
        links_mpi=False,
        check="import MinkowskiEngine",
    )
    if cuda_version is None:
        return engine
    return replace(
        engine,
        patches=[*engine.patches, *patches_cuda.minkowski()],
        arguments=("--force_cuda", "--blas=openblas"),
        environment={
            "TORCH_CUDA_ARCH_LIST": ";".join(cuda_toolkit.ARCHITECTURES) + "+PTX",
            # Otherwise templates are shared with other libraries of the process, whatever version those hold.
            "NVCC_APPEND_FLAGS": "-Xcompiler=-fno-gnu-unique",
        },
        check="import MinkowskiEngine as ME; assert ME.is_cuda_available()",
        cuda=cuda_version,
    )


ENGINES: dict[str, Callable[[str | None], Engine]] = {"horovod": horovod, "minkowski": minkowski}
