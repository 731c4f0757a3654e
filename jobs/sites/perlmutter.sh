# shellcheck shell=bash disable=SC2034
# Perlmutter's GPU nodes (NERSC): 4 A100, 64 cores (128 hardware threads), Slingshot. One rank a GPU.
# Written from public documents and scripts, the addresses are where to check; nothing of it ever ran on Perlmutter.
# Your account is not in here:
# --sbatch "-A m1234", or export SBATCH_ACCOUNT=m1234. https://docs.nersc.gov/systems/perlmutter/running-jobs/
#SBATCH --constraint=gpu
#SBATCH --qos=regular
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32

# For `hpcreco plan`: a node's cores and memory, and that of one of its GPUs (the 40 GB ones; some nodes have 80 GB).
# https://docs.nersc.gov/systems/perlmutter/architecture/
site_cores=64 site_memory_gb=256 site_gpu_memory_gb=40

# Cray MPICH takes the place of the image's MPICH (same libmpi.so.12) and speaks Cray's PMI.
# Every rank sees the node's 4 GPUs, which NCCL needs for its shortcuts between them; hpcreco takes the one of its
# local rank. https://docs.nersc.gov/jobs/affinity/
site_srun=(--mpi=cray_shasta --gpu-bind=none --cpu-bind=cores)

# An image's name is Shifter's, a .sif file is Apptainer's; HPCRECO_RUNTIME=podman-hpc for images made there.
# Modules bring the host's GPU driver, Cray MPICH, and NCCL's plugin for Slingshot into the container.
# https://docs.nersc.gov/development/containers/shifter/how-to-use/
# https://docs.nersc.gov/development/containers/podman-hpc/overview/
site_runtime=shifter
site_shifter=("--module=gpu,mpich,nccl-plugin")
site_podman=(--gpu --mpich --nccl --env 'SLURM_*' --env 'PMI_*' --env 'HPCRECO_*' --env 'FI_*' --env 'NCCL_*'
    --env 'HDF5_*' --env 'NUMBA_*' --env 'MPICH_*')
# Apptainer brings no MPI: Cray's libraries are bound in, and found before the image's.
site_apptainer=(--nv --bind "/opt/cray,/usr/lib64:/host/lib64,/var/spool/slurmd,${SCRATCH:-$PWD}"
    --env "LD_LIBRARY_PATH=/opt/cray/pe/lib64:/opt/cray/lib64:/opt/cray/libfabric/default/lib64:/host/lib64")

# Gradients travel by NCCL on GPU memory; MPI carries only small host messages and need not know of GPUs.
# https://cpe.ext.hpe.com/docs/latest/mpt/mpich/intro_mpi.html (MPICH_GPU_SUPPORT_ENABLED)
export MPICH_GPU_SUPPORT_ENABLED=0
# NCCL over Slingshot: the libfabric plugin, on the hsn interfaces, any NIC to any NIC. If the plugin is missing, NCCL now
# says so, instead of falling back to TCP. https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/env.html
export NCCL_NET="AWS Libfabric" NCCL_SOCKET_IFNAME=hsn NCCL_CROSS_NIC=1 NCCL_NET_GDR_LEVEL=PHB
# Without the first two, CUDA's allocations and the network's memory registration can wait for each other for ever; the
# last is room for the completions of many ranks. https://github.com/HewlettPackard/shs-ccl-docs (ccl_env.sh)
export FI_MR_CACHE_MONITOR=userfaultfd FI_CXI_DISABLE_HOST_REGISTER=1 FI_CXI_DEFAULT_CQ_SIZE=131072
# A process that forks after MPI has begun can hang or corrupt memory on Slingshot. hpcreco reads data in threads and
# never forks; if code of yours does: export CXI_FORK_SAFE=1 CXI_FORK_SAFE_HP=1, which costs speed.

# Not every file system of NERSC's can lock (error 524). One process alone writes each file of ours.
# https://docs.nersc.gov/development/libraries/hdf5/
export HDF5_USE_FILE_LOCKING=FALSE
# Compiled kernels and temporary files in the node's memory, not on a file system that all ranks share.
export NUMBA_CACHE_DIR=/tmp/hpcreco-numba-$UID
