#!/usr/bin/env bash
# Seeds -> parsed files; finished files are skipped, so a requeued job goes on. The same seed gives the same files however
# many ranks and array tasks make them:
#   sbatch -N 5 -t 120 jobs/simulate.sl protodune --preset full --seed 4 --out parsed --types BeamCosmic
#   sbatch --array=0-7 jobs/simulate.sl protodune --preset full --seed 4 --out parsed --types Electron Mu Pion
#SBATCH --job-name=hpcreco-simulate
#SBATCH --output=%x-%j.out
#SBATCH --time=60
#SBATCH --signal=USR2@60
#SBATCH --requeue
#SBATCH --open-mode=append
source "${HPCRECO_JOBS:-$SLURM_SUBMIT_DIR/jobs}/launch.sh"
launch simulate "$@"
