#!/usr/bin/env bash
# tile -> train -> infer -> report, each link after the one before has succeeded; a failed link cancels what follows.
# Run it on the login node; it needs sbatch, not hpcreco.
#   NODES=5 TIME=60 jobs/chain.sh TRAIN_CONFIG INFER_CONFIG RUN [arguments of `hpcreco tile`]
#   NODES=5 jobs/chain.sh ghost3d_tiny ghost_inf_tiny runs/ghost3d_tiny -i parsed -o xy -t 1
# HPCRECO_SITE, HPCRECO_IMAGE and HPCRECO_RUNTIME as in launch.sh; SBATCH_OPTIONS="-A m1234" goes to every sbatch.
set -euo pipefail

if [ $# -lt 3 ]; then
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
    exit 2
fi
train=$1 infer=$2 run=$3
shift 3
HPCRECO_JOBS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export HPCRECO_JOBS HPCRECO_SITE=${HPCRECO_SITE:-local} HPCRECO_IMAGE=${HPCRECO_IMAGE:-}
site=$HPCRECO_JOBS/sites/$HPCRECO_SITE.sh
[ -e "$site" ] || { echo "chain.sh: there is no site $HPCRECO_SITE ($site)" >&2 && exit 2; }
read -ra options <<<"$(sed -n 's/^#SBATCH//p' "$site" | tr '\n' ' ') ${SBATCH_OPTIONS:-}"

# link VERB ARGUMENT...: queues it after the link before, and says so.
previous=
link() {
    local verb=$1 nodes=${NODES:-1} after=()
    shift
    if [ "$verb" = report ]; then nodes=1; fi
    if [ -n "$previous" ]; then after=("--dependency=afterok:$previous" --kill-on-invalid-dep=yes); fi
    previous=$(sbatch --parsable "${options[@]}" "--nodes=$nodes" ${TIME:+"--time=$TIME"} "${after[@]}" \
        "$HPCRECO_JOBS/$verb.sl" "$@")
    echo "$verb: job $previous"
}

if [ $# -gt 0 ]; then link tile "$@"; fi # without arguments for tile, the xy shards are there already
link train "$train"
link infer "$infer"
link report "$run"
