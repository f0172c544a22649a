# shellcheck shell=bash
# Shared by the launch scripts: printing or running a command, and asking for settings.

DRY_RUN=0

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

# need_stage COUNT: stops with one line if no arguments for bsjax are left.
need_stage() {
  if [[ $1 -eq 0 ]]; then
    printf '%s: expected a stage behind --, got none; for example -- train_sae --config=...\n' \
      "${0##*/}" >&2
    exit 2
  fi
}

# need NAME EXAMPLE: stops with one line if the variable is empty.
need() {
  if [[ -z ${!1:-} ]]; then
    printf '%s: expected a value in %s, got none; set it, for example %s=%s\n' \
      "${0##*/}" "$1" "$1" "$2" >&2
    exit 2
  fi
}

# keep_running COMMAND...: runs it to its end. Stopped early (75) it starts again at once, as often
# as it takes. A mistake, a wrong command line, a failed gate and Ctrl-C (1, 2, 3, 130) would come
# again: they end it. Whatever else ends it (a signal, no memory) may do so RESTARTS times (3).
keep_running() {
  local left=${RESTARTS:-3} status
  while true; do
    status=0
    "$@" || status=$?
    case ${status} in
      0 | 1 | 2 | 3 | 130) return "${status}" ;;
      75) continue ;;
    esac
    if [[ ${left} -le 0 ]]; then
      printf '%s: ended with status %s again, no restart left\n' "${1##*/}" "${status}" >&2
      return "${status}"
    fi
    left=$((left - 1))
    sleep "${RESTART_SECONDS:-10}"
  done
}

# Prints the comment at the top of the script.
usage() {
  sed -n '2,/^$/{s/^# \{0,1\}//;p}' "$0"
}
