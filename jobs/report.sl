#!/usr/bin/env bash
# Tables, curves and pictures of a run's inference, on one process:
#   sbatch jobs/report.sl RUN [flags of `hpcreco report`]
#SBATCH --job-name=hpcreco-report
#SBATCH --output=%x-%j.out
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --time=30
#SBATCH --requeue
#SBATCH --open-mode=append
source "${HPCRECO_JOBS:-$SLURM_SUBMIT_DIR/jobs}/launch.sh"
launch report "$@"
