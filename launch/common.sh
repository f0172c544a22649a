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

# Prints the comment at the top of the script.
usage() {
  sed -n '2,/^$/{s/^# \{0,1\}//;p}' "$0"
}
