"""What Horovod's and MinkowskiEngine's CUDA sources need on top of `patches`, for CUDA 13 and torch 2.11.

MinkowskiEngine relied on thrust headers to include one another; the thrust of CUDA 13 (part of CCCL 3) does not. The
edits were written for errors that nvcc 13.0 gives, or for calls whose header a file does not include itself. They
were compiled for compute capabilities 8.0 and 9.0; no kernel of theirs has run on a GPU yet.
"""

from __future__ import annotations

import patches
from patches import Patch

HASH_MAP = "src/3rdparty/concurrent_unordered_map.cuh"


def horovod(torch_version: tuple[int, int]) -> list[Patch]:
    """Patches of Horovod 0.28.1 with NCCL; in place of those for the CPU."""
    standard = patches.cxx_standard(torch_version)
    # As for the CPU, and to the wheels of NCCL and CUDA (12's layout last). Link paths stay out, because the toolkit
    # lies in a folder that is gone after the build; only the MPI's own is added.
    folders = (
        "../../../..",
        "../../torch/lib",
        "../../nvidia/nccl/lib",
        "../../nvidia/cu13/lib",
        "../../nvidia/cuda_runtime/lib",
    )
    runpath = ";".join(f"$ORIGIN/{folder}" for folder in folders)
    linked = "        list(APPEND LINKER_LIBS ${MPI_LIBRARIES})\n"
    _, binding = patches.horovod(torch_version)
    return [
        Patch(
            f"torch's headers need C++{standard}; a relative RUNPATH, also to NCCL and CUDA",
            "CMakeLists.txt",
            "set(CMAKE_CXX_STANDARD 14)",
            f"set(CMAKE_CXX_STANDARD {standard})\n"
            "set(CMAKE_BUILD_WITH_INSTALL_RPATH ON)\n"
            f'set(CMAKE_INSTALL_RPATH "{runpath}")',
        ),
        Patch(
            "the RUNPATH leads to the MPI that it was built with",
            "CMakeLists.txt",
            linked,
            linked + "        foreach(LIBRARY IN LISTS MPI_LIBRARIES)\n"
            "            get_filename_component(FOLDER ${LIBRARY} DIRECTORY)\n"
            "            list(APPEND CMAKE_INSTALL_RPATH ${FOLDER})\n"
            "        endforeach()\n",
        ),
        binding,
    ]


def minkowski() -> list[Patch]:
    """MinkowskiEngine 0.5.4's CUDA sources for CUDA 12 and 13."""
    return [*hash_map(), *language(), *includes(), *host_compiler()]


def hash_map() -> list[Patch]:
    """cudf's hash map on the GPU, which MinkowskiEngine carries along."""
    marks = "only marks for a profiler, and two versions of nvtx3 clash: CCCL 3 includes its own"
    location = "since CUDA 13 a prefetch names its place by a cudaMemLocation"
    values = "cudaMemPrefetchAsync(m_hashtbl_values, m_capacity * sizeof(value_type), dev_id, stream)"
    map_itself = "cudaMemPrefetchAsync(this, sizeof(*this), dev_id, stream)"
    prefetch = """
inline cudaError_t prefetch_to_device(void const* data, size_t bytes, int device, cudaStream_t stream)
{
#if CUDART_VERSION >= 13000
  cudaMemLocation place{};
  place.type = cudaMemLocationTypeDevice;
  place.id   = device;
  return cudaMemPrefetchAsync(data, bytes, place, 0, stream);
#else
  return cudaMemPrefetchAsync(data, bytes, device, stream);
#endif
}
"""
    return [
        Patch(marks, HASH_MAP, "#include <cudf/detail/nvtx/ranges.hpp>\n", ""),
        Patch(marks, HASH_MAP, "    CUDF_FUNC_RANGE();\n", ""),
        Patch(location, HASH_MAP, values, values.replace("cudaMemPrefetchAsync", "prefetch_to_device")),
        Patch(
            location, HASH_MAP, map_itself, map_itself.replace("cudaMemPrefetchAsync", "prefetch_to_device")
        ),
        Patch(location, HASH_MAP, "#include <type_traits>\n", "#include <type_traits>\n" + prefetch),
    ]


def language() -> list[Patch]:
    """What CCCL 3 has removed, or made ambiguous."""
    base = "    : public thrust::unary_function<uint32_t,\n"
    base += "                                    thrust::pair<uint32_t, uint32_t>> {\n"
    create = """      m_map = map_type::create(
          compute_hash_table_size(size, m_hashtable_occupancy),
          m_unused_element, m_unused_key, m_hasher, m_equal, m_map_allocator);
"""
    created = create.replace("m_map = map_type", "auto created = map_type")
    created += """      auto destroy = created.get_deleter();
      m_map = std::shared_ptr<map_type>(created.release(), destroy);
"""
    return [
        Patch(
            "CCCL 3 has no thrust::unary_function, and nothing uses what it adds",
            "src/coordinate_map_functors.cuh",
            "struct find_coordinate\n" + base,
            "struct find_coordinate {\n",
        ),
        # https://github.com/NVIDIA/MinkowskiEngine/issues/596
        Patch(
            "unique_ptr to shared_ptr calls __to_address, which both std and cuda::std offer for this type",
            "src/coordinate_map_gpu.cuh",
            create,
            created,
        ),
    ]


def includes() -> list[Patch]:
    """Headers that a file used without including them."""
    wanted = {
        "3rdparty/concurrent_unordered_map.cuh": ("<thrust/count.h>", "execution_policy"),
        "coordinate_map_functors.cuh": ("<thrust/pair.h>", "tuple"),
        "coordinate_map_gpu.cu": (
            "<thrust/sort.h>",
            "for_each iterator/zip_iterator remove scan sequence transform tuple unique",
        ),
        "kernel_map.cuh": ("<thrust/sort.h>", "functional host_vector iterator/zip_iterator reduce tuple"),
        "spmm.cu": ("<cusparse.h>", "execution_policy iterator/zip_iterator reduce sort tuple"),
        "broadcast_kernel.cu": ('"math_functions.cuh"', "execution_policy fill sort"),
        "pooling_max_kernel.cu": ("<thrust/reduce.h>", "sequence"),
        "storage.cuh": ("<vector>", "device_vector"),
    }
    return [
        *(
            Patch(
                "thrust headers no longer include one another",
                f"src/{file}",
                f"#include {after}\n",
                f"#include {after}\n" + "".join(f"#include <thrust/{name}.h>\n" for name in names.split()),
            )
            for file, (after, names) in wanted.items()
        ),
        Patch(
            "since torch 2.11 the header below leaves at::Tensor incomplete",
            "src/spmm.cu",
            "#include <ATen/cuda/CUDAUtils.h>\n",
            "#include <ATen/core/Tensor.h>\n#include <ATen/cuda/CUDAUtils.h>\n",
        ),
    ]


def host_compiler() -> list[Patch]:
    """What only nvcc finds: since CUDA 13 thrust lies in include/cccl, where the host's compiler does not look."""
    why = "three files of the CUDA build are compiled by the host's compiler, which finds no thrust"
    return [
        Patch(
            why,
            "src/gpu.cuh",
            "#include <driver_types.h> // cuda driver types\n",
            "#include <driver_types.h> // cuda driver types\n\n"
            "#ifdef __CUDACC__\n#include <thrust/system_error.h>\n#endif\n",
        ),
        Patch(
            why,
            "src/utils.hpp",
            "#ifndef CPU_ONLY\n#include <thrust/host_vector.h>\n",
            "#ifdef __CUDACC__\n#include <thrust/host_vector.h>\n",
        ),
        Patch(
            why,
            "src/utils.hpp",
            "#ifndef CPU_ONLY\ntemplate <typename T>\n",
            "#ifdef __CUDACC__\ntemplate <typename T>\n",
        ),
    ]
