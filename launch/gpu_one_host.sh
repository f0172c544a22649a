#!/usr/bin/env bash
# Runs bsjax on all NVIDIA GPUs of this machine, and again if it fails.
#
#   launch/gpu_one_host.sh [--dry-run] -- STAGE ARGUMENTS...
#
# Makes .venv with the CUDA build of jax if it is not there. bsjax goes on where it was, so a run
# that failed is started again, RESTARTS times at most (3).

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=launch/common.sh
source "${here}/common.sh"

while [[ $# -gt 0 ]]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --dry-run) DRY_RUN=1 ;;
    --) shift; break ;;
    *) break ;;
  esac
  shift
done
if [[ $# -eq 0 ]]; then
  printf '%s: expected a stage behind --, got none; for example -- train_sae --config=...\n' \
    "${0##*/}" >&2
  exit 2
fi

venv=${here}/../.venv
if [[ ${DRY_RUN} == 1 || ! -x ${venv}/bin/bsjax ]]; then
  run python3 -m venv "${venv}"
  run "${venv}/bin/pip" install --quiet --upgrade pip
  run "${venv}/bin/pip" install --quiet -e "${here}/..[cuda12]"
fi
left=${RESTARTS:-3}
until run "${venv}/bin/bsjax" "$@"; do
  if [[ ${left} -le 0 ]]; then
    printf '%s: failed again, no restart left\n' "${0##*/}" >&2
    exit 1
  fi
  left=$((left - 1))
  sleep 10
done
