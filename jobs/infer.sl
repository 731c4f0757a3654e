#!/usr/bin/env bash
# Runs a trained network over shards, one yinf file per shard; finished files are skipped, so a requeued job goes on:
#   sbatch -N 5 -t 30 jobs/infer.sl CONFIG [flags of `hpcreco infer`]      several nodes, files shared out over the ranks
#   sbatch --array=0-7 jobs/infer.sl CONFIG                                array tasks; both work together
#SBATCH --job-name=hpcreco-infer
#SBATCH --output=%x-%j.out
#SBATCH --time=60
#SBATCH --signal=USR2@60
#SBATCH --requeue
#SBATCH --open-mode=append
source "${HPCRECO_JOBS:-$SLURM_SUBMIT_DIR/jobs}/launch.sh"
launch infer "$@"
