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

while [[ $# -gt 0 ]] && option "$1"; do shift; done
if [[ ${1:-} == -- ]]; then shift; fi
need_stage $#

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
