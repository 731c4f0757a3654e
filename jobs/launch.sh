# shellcheck shell=bash
# Sourced by the job scripts: the site's settings, the container, srun, and what to do with its exit code.
#   HPCRECO_SITE    a file of sites/ (default local)
#   HPCRECO_IMAGE   container image (default none: the `hpcreco` on PATH)
#   HPCRECO_RUNTIME apptainer, shifter or podman-hpc (default: by the image's form and the site)
#   HPCRECO_JOBS    the folder of this file (default: jobs/ beside where you called sbatch)
set -u
HPCRECO_SITE=${HPCRECO_SITE:-local}
HPCRECO_IMAGE=${HPCRECO_IMAGE:-}
HPCRECO_JOBS=${HPCRECO_JOBS:-$SLURM_SUBMIT_DIR/jobs}

# What a site may say; see sites/local.sh.
site_srun=() site_runtime=apptainer site_apptainer=() site_shifter=() site_podman=()
# shellcheck source=sites/local.sh
source "$HPCRECO_JOBS/sites/$HPCRECO_SITE.sh" || exit 2

# inside: the words in front of `hpcreco`, from the image's form: a path is Apptainer's, a name the site's runtime's.
inside=()
case $HPCRECO_IMAGE in
'') runtime=none ;;
/* | ./* | ../* | *.sif | *.sqfs | *.img) runtime=${HPCRECO_RUNTIME:-apptainer} ;;
*) runtime=${HPCRECO_RUNTIME:-$site_runtime} ;;
esac
case $runtime in
none) ;;
apptainer) inside=(apptainer exec "${site_apptainer[@]}" "$HPCRECO_IMAGE") ;;
shifter) inside=(shifter "--image=$HPCRECO_IMAGE" "${site_shifter[@]}") ;;
# Root in there is you out here; the image's own user, nobody, could not write your files.
podman-hpc) inside=(podman-hpc run --rm --user 0:0 "${site_podman[@]}" -v "$PWD:$PWD" -w "$PWD" "$HPCRECO_IMAGE") ;;
*) echo "hpcreco: error: HPCRECO_RUNTIME=$runtime: write apptainer, shifter or podman-hpc" && exit 2 ;;
esac

# srun no longer takes --cpus-per-task over from sbatch (https://slurm.schedmd.com/srun.html, SRUN_CPUS_PER_TASK).
[ -z "${SLURM_CPUS_PER_TASK:-}" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
# A rank that leaves gives the others a minute; hpcreco relies on it to report the exit code that all agreed on.
export SLURM_WAIT=60
# When the time is over: training stops and saves by itself shortly before, should the warning signal not reach it.
if [ -z "${SLURM_JOB_END_TIME:-}" ]; then
    ends=$(squeue -h -j "$SLURM_JOB_ID" -o %e 2>/dev/null) # no answer is not a time: `date -d ""` would be midnight
    [ -z "$ends" ] || SLURM_JOB_END_TIME=$(date -d "$ends" +%s 2>/dev/null)
fi
export SLURM_JOB_END_TIME
# Slurm may signal this shell as well as the ranks: it must live until srun has returned.
trap : TERM USR1 USR2

say() { printf 'hpcreco: %s: %s\n' "$(date '+%F %T')" "$*"; }

# cancelled JOB: whether Slurm is ending the job already, for another reason than its time limit. Then somebody wants it
# gone (scancel), or Slurm requeues it itself; in the grace time before a preemption the job still runs.
cancelled() {
    case $(scontrol --oneliner show job "$1" 2>&1) in
    *JobState=COMPLETING*Reason=TimeLimit* | *JobState=TIMEOUT*) return 1 ;;
    *JobState=COMPLETING* | *JobState=CANCELLED*) return 0 ;;
    *) return 1 ;;
    esac
}

# launch VERB ARGUMENT...: runs it on every task of the job, then ends the job, or requeues it.
launch() {
    local job=$SLURM_JOB_ID code decision
    [ -z "${SLURM_ARRAY_TASK_ID:-}" ] || job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
    export HPCRECO_ATTEMPTS=$PWD/.hpcreco-$job.csv # file-wise verbs note there how far they came
    say "job $job, start $((${SLURM_RESTART_COUNT:-0} + 1)), $SLURM_JOB_NODELIST, site $HPCRECO_SITE: hpcreco $*"
    srun --kill-on-bad-exit=1 "${site_srun[@]}" "${inside[@]}" hpcreco "$@"
    code=$?
    if [ "$code" = 0 ]; then
        rm -f "$HPCRECO_ATTEMPTS"
        exit 0
    fi
    if cancelled "$job"; then # its notes stay: Slurm may start it again
        say "exit code $code; cancelled, or requeued by Slurm itself"
        exit "$code"
    fi
    "${inside[@]}" hpcreco status --requeue "$code" -- "$@"
    decision=$? # 75 requeue, 76 leave it, 0 all is done; anything else: it could not tell
    if [ $decision = 75 ] || { [ $decision != 76 ] && [ $decision != 0 ] && [ "$code" = 75 ]; }; then
        say "exit code $code, requeueing"
        scontrol requeue "$job" && exec sleep 60 # until Slurm ends this shell
    fi
    rm -f "$HPCRECO_ATTEMPTS"
    [ $decision != 0 ] || exit 0
    say "exit code $code, not requeued"
    exit "$code"
}
