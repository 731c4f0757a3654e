#!/usr/bin/env bash
# Parsed waveforms -> candidate voxels in xy shards; finished files are skipped, so a requeued job goes on:
#   sbatch -N 5 -t 30 jobs/tile.sl -i parsed -o xy -t 1          several nodes, files shared out over the ranks
#   sbatch --array=0-7 jobs/tile.sl -i parsed -o xy -t 1         array tasks; both work together
#SBATCH --job-name=hpcreco-tile
#SBATCH --output=%x-%j.out
#SBATCH --time=60
#SBATCH --signal=USR2@60
#SBATCH --requeue
#SBATCH --open-mode=append
source "${HPCRECO_JOBS:-$SLURM_SUBMIT_DIR/jobs}/launch.sh"
launch tile "$@"
