# shellcheck shell=bash disable=SC2034
# Perlmutter's CPU nodes (NERSC): 128 cores, 256 hardware threads. For tiling, inference and small trainings.
# perlmutter.sh explains the settings and names their sources; this never ran on Perlmutter either.
#SBATCH --constraint=cpu
#SBATCH --qos=regular
#SBATCH --ntasks-per-node=16
#SBATCH --cpus-per-task=16

# For `hpcreco plan`: a node's cores and memory. https://docs.nersc.gov/systems/perlmutter/architecture/
site_cores=128 site_memory_gb=512

site_srun=(--mpi=cray_shasta --cpu-bind=cores)
site_runtime=shifter
site_shifter=(--module=mpich)
site_podman=(--mpich --env 'SLURM_*' --env 'PMI_*' --env 'HPCRECO_*' --env 'HDF5_*' --env 'NUMBA_*')
site_apptainer=(--bind "/opt/cray,/usr/lib64:/host/lib64,/var/spool/slurmd,${SCRATCH:-$PWD}"
    --env "LD_LIBRARY_PATH=/opt/cray/pe/lib64:/opt/cray/lib64:/opt/cray/libfabric/default/lib64:/host/lib64")

export HDF5_USE_FILE_LOCKING=FALSE
export NUMBA_CACHE_DIR=/tmp/hpcreco-numba-$UID
