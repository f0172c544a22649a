# shellcheck shell=bash
# Shared by the launch scripts: printing or running a command, asking for settings, starting again.

DRY_RUN=0

# fail LINE: a command line that makes no sense ends with one line and status 2.
fail() {
  printf '%s: %s\n' "${0##*/}" "$1" >&2
  exit 2
}

# say LINE: to the one who watches, apart from what a program prints.
say() {
  printf '%s: %s\n' "${0##*/}" "$1" >&2
}

# Runs a command, or prints it as it could be pasted.
run() {
  if [[ ${DRY_RUN} == 1 ]]; then
    printf '%q ' "$@"
    printf '\n'
  else
    "$@"
  fi
}

# option ARGUMENT: takes an option that every script knows; fails on anything else.
option() {
  case $1 in
    -h | --help) usage; exit 0 ;;
    --dry-run) DRY_RUN=1 ;;
    *) return 1 ;;
  esac
}

# need_stage ARGUMENTS: stops with one line if bsjax is given no stage, or a flag in its place.
need_stage() {
  case ${1:-} in
    "") fail "expected a stage behind --, got none; for example -- train_sae --config=..." ;;
    -*) fail "expected a stage behind --, got $1; for example -- train_sae --config=..." ;;
  esac
}

# need NAME EXAMPLE: stops with one line if the variable is empty.
need() {
  [[ -n ${!1:-} ]] || fail "expected a value in $1, got none; set it, for example $1=$2"
}

# run_once COMMAND...: its status. From then on SIGTERM to this shell goes on to the command, and is
# remembered in STOPPED as Ctrl-C is, which the command gets from the terminal.
STOPPED=0
HEARD=0
CHILD=0
run_once() {
  local status
  trap 'STOPPED=1 HEARD=1; if [[ ${CHILD} -gt 0 ]]; then kill -TERM "${CHILD}" || true; fi' TERM
  trap 'STOPPED=1 HEARD=1' INT
  # In the background, since a shell that waits for the foreground hears no signal.
  (trap - INT TERM; exec "$@") &
  CHILD=$!
  while true; do
    HEARD=0
    status=0
    wait "${CHILD}" || status=$?
    if [[ ${HEARD} == 0 ]]; then break; fi
  done
  CHILD=0
  return "${status}"
}

# keep_running COMMAND...: runs it to its end. Stopped early (75) it starts again at once, as often
# as it takes, unless it was this script that was told to stop. A mistake, a wrong command line, a
# failed gate and Ctrl-C (1, 2, 3, 130) would come again: they end it. Whatever else ends it (a
# signal, no memory) may do so RESTARTS times (3).
keep_running() {
  local left=${RESTARTS:-3} status
  while true; do
    status=0
    run_once "$@" || status=$?
    case ${status} in
      0 | 1 | 2 | 3 | 130) return "${status}" ;;
    esac
    if [[ ${STOPPED} == 1 ]]; then return "${status}"; fi
    if [[ ${status} -eq 75 ]]; then continue; fi
    if [[ ${left} -le 0 ]]; then
      printf '%s: ended with status %s again, no restart left\n' "${1##*/}" "${status}" >&2
      return "${status}"
    fi
    left=$((left - 1))
    sleep "${RESTART_SECONDS:-10}"
    if [[ ${STOPPED} == 1 ]]; then return "${status}"; fi
  done
}

# Prints the comment at the top of the script.
usage() {
  sed -n '2,/^$/{s/^# \{0,1\}//;p}' "$0"
}
