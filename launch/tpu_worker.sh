#!/usr/bin/env bash
# What tpu_pod.sh calls on each worker of a slice, within the folder bsjax of its home.
#
#   launch/tpu_worker.sh run DIGEST COMMAND...   runs it, and again after 75; once at a time
#   launch/tpu_worker.sh idle [DIGEST]           fails with one line while it runs, or if another
#                                                tree than DIGEST stands here
#   launch/tpu_worker.sh progress                running, never or "ended STATUS"
#   launch/tpu_worker.sh stop                    SIGTERM; returns when it has saved and ended

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=launch/common.sh
source "${here}/common.sh"

LOCK=../bsjax.lock PID=../bsjax.pid STATUS=../bsjax.status TREE=../bsjax.tree

# Held as long as this script or what it runs lives.
take_lock() {
  exec 9>>"${LOCK}"
  flock "$@" 9
}

check_tree() {
  if [[ -n ${1:-} && -f ${TREE} && $(cat "${TREE}") != "$1" ]]; then
    printf '%s: another tree than yours is installed; run tpu_pod.sh install first\n' \
      "${HOSTNAME}" >&2
    return 1
  fi
}

require_idle() {
  if ! take_lock -n; then
    printf '%s: bsjax is running already; see tpu_pod.sh status, or end it by tpu_pod.sh stop\n' \
      "${HOSTNAME}" >&2
    return 1
  fi
}

verb=${1:-}
if [[ $# -gt 0 ]]; then shift; fi
case ${verb} in
  run)
    require_idle
    check_tree "$1"
    shift
    printf '%s\n' "$$" >"${PID}"
    rm -f "${STATUS}"
    status=0
    keep_running "$@" || status=$?
    printf '%s\n' "${status}" >"${STATUS}"
    exit "${status}"
    ;;
  idle)
    require_idle
    check_tree "$@"
    ;;
  progress)
    if ! take_lock -n; then
      printf 'running\n'
    elif [[ -f ${STATUS} ]]; then
      printf 'ended %s\n' "$(cat "${STATUS}")"
    else
      printf 'never\n'
    fi
    ;;
  stop)
    if take_lock -n; then
      printf '%s: bsjax does not run\n' "${HOSTNAME}" >&2
      exit 0
    fi
    kill -TERM "$(cat "${PID}")"
    take_lock -w "${STOP_SECONDS:-600}"
    ;;
  *) fail "expected run, idle, progress or stop, got \"${verb}\"" ;;
esac
