#!/usr/bin/env bash
# Fits events with an exported likelihood, one result file per shard; finished ones are skipped, so a requeued job goes on:
#   sbatch -N 5 -t 30 jobs/reconstruct.sl MODEL -i SHARDS -o DIR [flags of `hpcreco icecube reconstruct`]
#   sbatch --array=0-7 jobs/reconstruct.sl MODEL -i SHARDS -o DIR      array tasks; both work together
#SBATCH --job-name=hpcreco-reconstruct
#SBATCH --output=%x-%j.out
#SBATCH --time=60
#SBATCH --signal=USR2@60
#SBATCH --requeue
#SBATCH --open-mode=append
source "${HPCRECO_JOBS:-$SLURM_SUBMIT_DIR/jobs}/launch.sh"
launch icecube reconstruct "$@"
