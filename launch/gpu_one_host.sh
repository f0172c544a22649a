#!/usr/bin/env bash
# Runs bsjax on all NVIDIA GPUs of this machine, and again if it is stopped or dies.
#
#   launch/gpu_one_host.sh [--dry-run] -- STAGE ARGUMENTS...
#
# Makes .venv with the CUDA build of jax if it is not there. bsjax goes on where it was: stopped by
# SIGTERM (status 75) it is started again at once, killed or out of memory RESTARTS times at most
# (3). A mistake (1, 2) is not tried again.

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
if [[ ${DRY_RUN} == 1 ]]; then
  run "${venv}/bin/bsjax" "$@"
else
  keep_running "${venv}/bin/bsjax" "$@"
fi
