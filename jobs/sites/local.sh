# shellcheck shell=bash disable=SC2034
# A Slurm cluster of CPU nodes, or your own: copy this file to sites/NAME.sh and submit with --site NAME.
# `hpcreco submit` and chain.sh hand these options to sbatch (which does not read them here); put yours on the command
# line to overrule them.
#SBATCH --ntasks-per-node=1

# For `hpcreco plan`: a node's cores and memory, where you know them (site_gpu_memory_gb: that of one GPU).
# site_cores=64 site_memory_gb=256

# How MPI's ranks find each other. The MPICH wheel speaks PMI-2; `srun --mpi=list` names what this Slurm offers.
# Under --mpi=pmix MPICH sees worlds of one (hpcreco notices and says so). https://slurm.schedmd.com/mpi_guide.html
site_srun=(--mpi=pmi2)

# Extra words for the container's runtime, for instance --nv for GPUs, or --bind for folders outside of $HOME and $PWD.
site_apptainer=()

# Compiled kernels go to the node's own disk: many ranks that write one cache on a shared file system wait for each other,
# and images are read-only. https://numba.readthedocs.io/en/stable/reference/envvars.html
export NUMBA_CACHE_DIR=${TMPDIR:-/tmp}/hpcreco-numba-$UID

# Threads: hpcreco shares a node's cores among its ranks by itself; say it here only to use fewer.
# export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK

# HDF5 locks the files it opens; where the file system cannot lock (error 524 or 37), turn that off.
# https://support.hdfgroup.org/documentation/hdf5/latest/_file_lock.html
# export HDF5_USE_FILE_LOCKING=FALSE
