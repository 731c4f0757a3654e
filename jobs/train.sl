#!/usr/bin/env bash
# Trains a network, and goes on by itself after a time limit, a preemption or a lost node until it is done:
#   sbatch -N 5 -t 60 jobs/train.sl CONFIG [flags of `hpcreco train`]      or: hpcreco submit train CONFIG -N 5 -t 60
#SBATCH --job-name=hpcreco-train
#SBATCH --output=%x-%j.out
#SBATCH --time=60
#SBATCH --signal=USR2@120
#SBATCH --requeue
#SBATCH --open-mode=append
source "${HPCRECO_JOBS:-$SLURM_SUBMIT_DIR/jobs}/launch.sh"
launch train "$@" --resume auto
