#!/usr/bin/env bash
# Runs bsjax on a Cloud TPU slice, on every worker of it.
#
#   launch/tpu_pod.sh [--dry-run] create|install|run|resume|delete [-- STAGE ARGUMENTS...]
#
#   create    asks for the slice; a spot slice is cheaper and may be taken away
#   install   copies this repository to every worker and installs it there
#   run       starts `bsjax STAGE ARGUMENTS` on every worker; it goes on after you log off, and is
#             started again when SIGTERM stops it (status 75), when it is killed 3 times at most,
#             after a mistake (1, 2) never
#   resume    makes a slice that was taken away anew, installs and runs: bsjax goes on from its
#             newest checkpoint, so the workdir must be on gs://
#   delete    gives the slice back
#
# Settings, from the environment: NAME, ZONE, PROJECT, ACCELERATOR_TYPE (v5litepod-8),
# RUNTIME_VERSION (v2-alpha-tpuv5-lite), SPOT (1, or 0 for a slice that stays).

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=launch/common.sh
source "${here}/common.sh"

action=""
while [[ $# -gt 0 ]]; do
  if ! option "$1"; then
    case $1 in
      --) shift; break ;;
      *) action=$1 ;;
    esac
  fi
  shift
done

SPOT=${SPOT:-1}
RUNTIME_VERSION=${RUNTIME_VERSION:-v2-alpha-tpuv5-lite}

tpu() {
  run gcloud compute tpus tpu-vm "$@" --zone="${ZONE}" --project="${PROJECT}"
}

on_every_worker() {
  tpu ssh "${NAME}" --worker=all --command="$1"
}

create() {
  need ACCELERATOR_TYPE v5litepod-8
  local options=(--accelerator-type="${ACCELERATOR_TYPE}" --version="${RUNTIME_VERSION}")
  if [[ ${SPOT} == 1 ]]; then options+=(--spot); fi
  tpu create "${NAME}" "${options[@]}"
}

install() {
  local archive
  archive=/tmp/bsjax-${NAME}.tar.gz
  run git -C "${here}/.." archive --format=tar.gz --output="${archive}" HEAD
  tpu scp "${archive}" "${NAME}:bsjax.tar.gz" --worker=all
  on_every_worker 'mkdir -p bsjax && tar -xzf bsjax.tar.gz -C bsjax && python3 -m venv venv &&
venv/bin/pip install --quiet --upgrade pip && venv/bin/pip install --quiet -e "./bsjax[tpu]"'
}

start() {
  need_stage $#
  local command
  command=$(printf '%q ' "$@")
  # shellcheck disable=SC2016  # $@ is for the worker
  on_every_worker "cd bsjax && BSJAX_DISTRIBUTED=1 nohup bash -c 'source launch/common.sh && keep_running \"\$@\"' bsjax ../venv/bin/bsjax ${command}>> ../bsjax.log 2>&1 &"
}

case ${action} in
  create | install | run | resume | delete)
    need NAME rasae
    need ZONE us-west4-a
    need PROJECT my-project
    ;;
esac
case ${action} in
  create) create ;;
  install) install ;;
  run) start "$@" ;;
  resume)
    if [[ ${DRY_RUN} == 1 ]] || ! gcloud compute tpus tpu-vm describe "${NAME}" --zone="${ZONE}" \
      --project="${PROJECT}" --format='value(state)' | grep -qx READY; then
      tpu delete "${NAME}" --quiet || true
      create
      install
    fi
    start "$@"
    ;;
  delete) tpu delete "${NAME}" --quiet ;;
  *)
    printf '%s: expected create, install, run, resume or delete, got "%s"; see --help\n' \
      "${0##*/}" "${action}" >&2
    exit 2
    ;;
esac
