#!/bin/bash
# sbatch docs/recipes/slurm.sh fashion_mnist --workdir /shared/runs/clothes
# One process on each of the nodes, with all of its GPUs. Five minutes before the time is up the run is asked to stop:
# it saves, and the job is put back into the queue, from where it goes on.
#SBATCH --job-name=ddim
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=12:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
set -uo pipefail
coordinator="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1):12345"
export coordinator
srun --kill-on-bad-exit=1 bash -c '
  exec ddim train "$@" --distributed --coordinator "$coordinator" --num-processes "$SLURM_NTASKS" \
    --process-id "$SLURM_PROCID"' ddim "$@" &
run=$! again=0
trap 'again=1; kill -TERM "$run"' USR1
wait "$run"
status=$?
if [ "$again" -eq 1 ]; then
  wait "$run" # the signal ended the first wait; srun hands it on, and ends when all have saved
  scontrol requeue "$SLURM_JOB_ID"
  exit 0
fi
exit "$status"
