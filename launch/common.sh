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
