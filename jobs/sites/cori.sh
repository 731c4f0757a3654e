# shellcheck shell=bash disable=SC2034
# CPU nodes of Cori's class (Cray, Haswell: 2 sockets of 16 cores, 2 hardware threads a core). Cori itself was switched off
# in 2023 (https://docs.nersc.gov/systems/cori/); kept as the pattern of a Cray with CPU nodes. Never run there.
#SBATCH --constraint=haswell
#SBATCH --qos=regular
#SBATCH --ntasks-per-node=2
#SBATCH --cpus-per-task=32

# For `hpcreco plan`: a node's cores and memory.
site_cores=32 site_memory_gb=128

# One rank a socket, bound to its cores; Cray MPICH starts without naming a PMI there.
site_srun=(--cpu-bind=cores)

# Shifter brings Cray MPICH into the container by its module mpich, which takes the place of the image's (same
# libmpi.so.12). https://docs.nersc.gov/development/containers/shifter/how-to-use/
site_runtime=shifter
site_shifter=(--module=mpich)

# The community file systems cannot lock. https://docs.nersc.gov/development/libraries/hdf5/
export HDF5_USE_FILE_LOCKING=FALSE
# Compiled kernels in the node's memory; threads on cores, not on both hardware threads of each.
export NUMBA_CACHE_DIR=/tmp/hpcreco-numba-$UID
export OMP_NUM_THREADS=16 NUMBA_NUM_THREADS=16
