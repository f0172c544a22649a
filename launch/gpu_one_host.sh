#!/usr/bin/env bash
# Runs bsjax on all NVIDIA GPUs of this machine, and again if it is stopped or dies.
#
#   launch/gpu_one_host.sh [--dry-run] -- STAGE ARGUMENTS...
#
# Makes .venv with the CUDA build of jax where there is none, also where one for CPUs stands. bsjax
# goes on where it was: stopped by SIGTERM (status 75) it is started again at once, killed or out of
# memory RESTARTS times at most (3). A mistake (1) and a wrong command line (2) are not tried again.
# SIGTERM to this script stops bsjax, which saves, for good.
#
# Settings, from the environment: VENV (.venv of the clone, or of this folder without a clone),
# EXTRA (cuda12, the extra of pyproject.toml), PYTHON (the newest of python3.13, 3.12, 3.11 that is
# there), SOURCE (the clone that holds this script, or what pip can install, such as
# git+https://ADDRESS), JAX_PLATFORMS (cuda,cpu: a machine without a working GPU is a mistake and no
# slow run).

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=launch/common.sh
source "${here}/common.sh"

while [[ $# -gt 0 ]] && option "$1"; do shift; done
if [[ ${1:-} == -- ]]; then shift; fi
need_stage "$@"

EXTRA=${EXTRA:-cuda12}
if [[ -f ${here}/common.sh ]]; then
  SOURCE=${SOURCE:-${here%/*}}
  VENV=${VENV:-${here%/*}/.venv}
else
  VENV=${VENV:-${PWD}/.venv}
fi
export JAX_PLATFORMS=${JAX_PLATFORMS:-cuda,cpu}

# The newest Python that bsjax runs on; fails where there is none.
newest_python() {
  local each
  for each in ${PYTHON:-python3.13 python3.12 python3.11 python3}; do
    if "${each}" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      printf '%s\n' "${each}"
      return
    fi
  done
  return 1
}

# Whether bsjax stands in VENV together with the plug-in of jax for GPUs.
is_installed() {
  [[ -x ${VENV}/bin/bsjax ]] || return 1
  [[ ! -x ${VENV}/bin/python ]] || "${VENV}/bin/python" -c "
import importlib.util, sys
sys.exit(importlib.util.find_spec('jax_${EXTRA}_plugin') is None)"
}

install() {
  local python
  need SOURCE "git+https://ADDRESS"
  if [[ ! -x ${VENV}/bin/python ]]; then
    python=$(newest_python) ||
      fail "expected Python 3.11 or newer, got none; install it, or set PYTHON to one"
    run "${python}" -m venv "${VENV}"
  fi
  run "${VENV}/bin/python" -m pip install --quiet --upgrade pip
  # gcsfs is what paths on gs:// are read by.
  if [[ -d ${SOURCE} ]]; then
    run "${VENV}/bin/python" -m pip install --quiet -e "${SOURCE}[${EXTRA}]" gcsfs
  else
    run "${VENV}/bin/python" -m pip install --quiet "bsjax[${EXTRA}] @ ${SOURCE}" gcsfs
  fi
}

if [[ ${DRY_RUN} == 1 ]] || ! is_installed; then install; fi
if [[ ${DRY_RUN} == 1 ]]; then
  run "${VENV}/bin/bsjax" "$@"
else
  keep_running "${VENV}/bin/bsjax" "$@"
fi
