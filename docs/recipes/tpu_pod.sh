#!/bin/bash
# docs/recipes/tpu_pod.sh NAME ZONE WORKDIR fashion_mnist
# Starts the same command on every host of a TPU pod, and again when it ended early: what is saved goes on. All hosts must
# see WORKDIR, a bucket that is mounted or a network drive, and have this project in ~/ddim_jax with its .venv.
set -euo pipefail
name=$1 zone=$2 workdir=$3
shift 3
command="cd ddim_jax && .venv/bin/ddim train $(printf '%q ' "$@")--workdir $(printf '%q' "$workdir") --distributed"
for attempt in 1 2 3 4 5; do
  if gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="$command"; then
    exit 0
  fi
  echo "attempt $attempt ended early; once more in a minute" >&2
  sleep 60
done
exit 1
