#!/usr/bin/env bash
# Runs bsjax on a Cloud TPU slice, on every worker of it.
#
#   launch/tpu_pod.sh [--dry-run] VERB [-- STAGE ARGUMENTS...]
#
#   create    asks for the slice as a queued resource and waits until it is there
#   install   sends the working tree to every worker, with what is not committed (it is named), and
#             installs it there; again after each change
#   run       starts `bsjax STAGE ARGUMENTS` on every worker; it goes on after you log off, and is
#             started again when it stopped early (status 75), when it is killed 3 times at most,
#             after a mistake (1, 2) never; refused while it runs
#   keep      all of the above, and stays: a slice that was taken away is made anew, installed and
#             run, and bsjax goes on from its newest checkpoint; ends when bsjax does
#   resume    one round of keep: sees that it runs, and returns
#   follow    the log of a worker as it grows (WORKER, 0)
#   status    state of the slice, and of bsjax on each worker
#   stop      has bsjax save and end on every worker; the slice stays, and costs
#   delete    gives the slice back
#
# Settings, from the environment: NAME, ZONE, PROJECT, ACCELERATOR_TYPE (v5litepod-8),
# RUNTIME_VERSION (that of the type), SPOT (1: cheaper, may be taken away; 0: stays),
# SERVICE_ACCOUNT (whose roles the workers have), SOURCE (the clone that holds this script; or a
# wheel, or what pip can install, such as git+https://ADDRESS), PYTHON_VERSION (3.12), SETUP (what
# each worker does after it is installed, to mount a bucket for example; see mount_bucket.sh),
# WHEN_DONE (nothing, or delete: keep gives the slice back after status 0).

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=launch/common.sh
source "${here}/common.sh"

VERBS="create, install, run, keep, resume, follow, status, stop or delete"
# The images have Python 3.10, bsjax needs 3.11. uv brings one without root, and so without waiting
# for the lock of apt that a fresh worker's upgrades hold; a PPA (deadsnakes) would need both.
UV=uv==0.13.8
POLL_SECONDS=${POLL_SECONDS:-30}
MOST_FAILURES=5

verb=""
while [[ $# -gt 0 ]]; do
  if ! option "$1"; then
    case $1 in
      --) shift; break ;;
      -*) fail "$1 is unknown; expected --dry-run, a verb (${VERBS}), then -- STAGE ARGUMENTS" ;;
      *)
        [[ -z ${verb} ]] || fail "expected one verb, got ${verb} and $1; a stage stands behind --"
        verb=$1
        ;;
    esac
  fi
  shift
done

SPOT=${SPOT:-1}
PYTHON_VERSION=${PYTHON_VERSION:-3.12}
WHEN_DONE=${WHEN_DONE:-nothing}
WORKER=${WORKER:-0}
if [[ -f ${here}/common.sh ]]; then SOURCE=${SOURCE:-${here%/*}}; fi

# No question is asked: keep goes on where nobody sits.
tpu() {
  run gcloud compute tpus tpu-vm "$@" --zone="${ZONE}" --project="${PROJECT}" --quiet
}

queue() {
  run gcloud compute tpus queued-resources "$@" --zone="${ZONE}" --project="${PROJECT}"
}

on_every_worker() {
  tpu ssh "${NAME}" --worker=all --command="$1"
}

# --- What is checked before anything is asked for, started or deleted. ---

check_settings() {
  need NAME rasae
  need ZONE us-west4-a
  need PROJECT my-project
  [[ ${NAME} =~ ^[a-z][a-z0-9-]*$ ]] || fail "NAME=${NAME}: expected small letters, digits, dashes"
  [[ ${SPOT} == [01] ]] || fail "SPOT=${SPOT}: expected 0 or 1"
  [[ ${WHEN_DONE} == nothing || ${WHEN_DONE} == delete ]] ||
    fail "WHEN_DONE=${WHEN_DONE}: expected nothing or delete"
  [[ ${PYTHON_VERSION} =~ ^3\.1[1-3]$ ]] ||
    fail "PYTHON_VERSION=${PYTHON_VERSION}: expected 3.11, 3.12 or 3.13"
  [[ ${WORKER} == all || ${WORKER} =~ ^[0-9]+$ ]] ||
    fail "WORKER=${WORKER}: expected the number of a worker"
}

check_type() {
  need ACCELERATOR_TYPE v5litepod-8
  case ${ACCELERATOR_TYPE} in
    v[23]-* | v4-*) RUNTIME_VERSION=${RUNTIME_VERSION:-tpu-ubuntu2204-base} ;;
    v5litepod-*) RUNTIME_VERSION=${RUNTIME_VERSION:-v2-alpha-tpuv5-lite} ;;
    v5p-*) RUNTIME_VERSION=${RUNTIME_VERSION:-v2-alpha-tpuv5} ;;
    v6e-*) RUNTIME_VERSION=${RUNTIME_VERSION:-v2-alpha-tpuv6e} ;;
  esac
  need RUNTIME_VERSION v2-alpha-tpuv6e
}

check_source() {
  need SOURCE "git+https://ADDRESS"
  case ${SOURCE} in
    *://*) ;;
    *.whl) [[ -f ${SOURCE} ]] || fail "SOURCE=${SOURCE}: there is no such wheel" ;;
    *) [[ -f ${SOURCE}/pyproject.toml ]] || fail "SOURCE=${SOURCE}: expected a clone of bsjax" ;;
  esac
}

# check_stage MUST_LAST ARGUMENTS...: of bsjax; MUST_LAST is 1 where a new slice has to find the
# workdir again.
check_stage() {
  local must_last=$1 each path workdir=""
  shift
  need_stage "$@"
  for each in "$@"; do
    case ${each} in
      --config=*)
        path=${each#--config=}
        path=${path%%:*}
        path=${path#./}
        if [[ ${path} != *.py && ${path} != */* ]]; then continue; fi
        [[ -d ${SOURCE} ]] || fail "${each}: expected a config that comes with bsjax, since SOURCE\
 is no folder; name one, or set SOURCE to a clone that holds the file"
        tree_files | tr '\0' '\n' | grep -Fx -- "${path}" >/dev/null ||
          fail "${each}: expected a path within ${SOURCE} that git does not ignore; move it there"
        ;;
      --workdir=*) workdir=${each#--workdir=} ;;
    esac
  done
  if [[ ${must_last} == 1 && ${workdir} != gs://?* ]]; then
    fail "expected --workdir=gs://BUCKET/FOLDER, got ${workdir:-none}; a new slice finds nothing\
 of what lay on the old one"
  fi
}

# --- The tree that is run. ---

# Names of its files, each with a zero behind it: the committed ones as they are now, and new ones.
tree_files() {
  if git -C "${SOURCE}" rev-parse --is-inside-work-tree >/dev/null 2>&1; then
    (cd "${SOURCE}" && git ls-files -z --cached --others --exclude-standard |
      while IFS= read -r -d '' each; do
        if [[ -f ${each} ]]; then printf '%s\0' "${each}"; fi
      done)
  else
    (cd "${SOURCE}" && find . -type f -not -path '*/.*' -not -path './runs/*' \
      -not -path '*/__pycache__/*' -printf '%P\0')
  fi | LC_ALL=C sort -z
}

# Tells one tree from another.
digest() {
  if [[ -d ${SOURCE} ]]; then
    tree_files | (cd "${SOURCE}" && xargs -0 sha256sum) | sha256sum
  elif [[ -f ${SOURCE} ]]; then
    sha256sum <"${SOURCE}"
  else
    printf '%s' "${SOURCE}" | sha256sum
  fi | cut -c 1-16
}

tell_what_is_sent() {
  local commit changed
  if ! commit=$(git -C "${SOURCE}" rev-parse --short HEAD 2>/dev/null); then return; fi
  changed=$(git -C "${SOURCE}" status --porcelain --untracked-files=all |
    cut -c 4- | paste -sd ' ')
  say "sends commit ${commit}${changed:+ with what is not committed: ${changed}}"
}

install() {
  local archive=/tmp/bsjax-${NAME}.tar.gz get wanted
  if [[ -d ${SOURCE} ]]; then
    tell_what_is_sent
    if [[ ${DRY_RUN} == 1 ]]; then
      printf '# the files of %q, into %q\n' "${SOURCE}" "${archive}"
    else
      tree_files | tar -czf "${archive}" -C "${SOURCE}" --null --verbatim-files-from -T - ||
        return 1
    fi
    tpu scp "${archive}" "${NAME}:bsjax.tar.gz" --worker=all || return 1
    get="tar -xzf bsjax.tar.gz -C bsjax"
    wanted="-e ./bsjax[tpu]"
  elif [[ -f ${SOURCE} ]]; then
    tpu scp "${SOURCE}" "${NAME}:${SOURCE##*/}" --worker=all || return 1
    get=true
    wanted="\"bsjax[tpu] @ file://\$PWD/$(printf '%q' "${SOURCE##*/}")\""
  else
    get=true
    wanted="$(printf '%q' "bsjax[tpu] @ ${SOURCE}")"
  fi
  # gcsfs is what paths on gs:// are read by.
  on_every_worker "set -e
if [ -e bsjax/launch/tpu_worker.sh ]; then (cd bsjax && bash launch/tpu_worker.sh idle); fi
mkdir -p bsjax/launch
${get}
python3 -m pip install --user --quiet ${UV}
uv=\"python3 -m uv\"
[ -x venv/bin/python ] || \$uv venv --quiet --python ${PYTHON_VERSION} venv
\$uv pip install --quiet --python venv/bin/python ${wanted} gcsfs
[ -e bsjax/launch/tpu_worker.sh ] || venv/bin/bsjax launch tpu_worker.sh > bsjax/launch/tpu_worker.sh
${SETUP:-true}
echo $(digest) > bsjax.tree"
}

# --- The slice. ---

# READY, ABSENT, LOST or another word of the API; fails where that cannot be told.
state() {
  local found errors
  errors=$(mktemp)
  # A list is empty where there is none, and fails where one may not look.
  if ! found=$(gcloud compute tpus queued-resources list --zone="${ZONE}" --project="${PROJECT}" \
    --filter="name~/${NAME}\$" --format='value(state.state)' 2>"${errors}"); then
    say "cannot tell the state of ${NAME}: $(head -n 1 "${errors}")"
    rm -f "${errors}"
    return 1
  fi
  rm -f "${errors}"
  case ${found} in
    "") found=ABSENT ;;
    SUSPENDED | FAILED) found=LOST ;;
    ACTIVE)
      found=$(gcloud compute tpus tpu-vm describe "${NAME}" --zone="${ZONE}" \
        --project="${PROJECT}" --format='value(state)') || return 1
      if [[ ${found} == PREEMPTED || ${found} == TERMINATED ]]; then found=LOST; fi
      ;;
  esac
  printf '%s\n' "${found}"
}

# wait_while_changing: until the slice is READY, LOST or ABSENT, which it prints.
wait_while_changing() {
  local now before=""
  while true; do
    now=$(state) || return 1
    case ${now} in
      READY | LOST | ABSENT) printf '%s\n' "${now}"; return ;;
    esac
    if [[ ${now} != "${before}" ]]; then say "${NAME} is ${now}"; fi
    before=${now}
    sleep "${POLL_SECONDS}"
  done
}

create() {
  local options=(--node-id="${NAME}" --accelerator-type="${ACCELERATOR_TYPE}"
    --runtime-version="${RUNTIME_VERSION}")
  if [[ ${SPOT} == 1 ]]; then options+=(--spot); fi
  if [[ -n ${SERVICE_ACCOUNT:-} ]]; then options+=(--service-account="${SERVICE_ACCOUNT}"); fi
  queue create "${NAME}" "${options[@]}" || return 1
  if [[ ${DRY_RUN} == 1 ]]; then return; fi
  if [[ $(wait_while_changing) != READY ]]; then
    say "${NAME} did not become ready; see tpu_pod.sh status"
    return 1
  fi
}

delete() {
  queue delete "${NAME}" --force --quiet
}

# Sees that there is a slice with bsjax on it; only one that is lost is deleted.
make_ready() {
  local now
  if [[ ${DRY_RUN} == 1 ]]; then
    printf '# where the slice was taken away (SUSPENDED, FAILED):\n'
    delete
    printf '# where there is none:\n'
    create
    install
    return
  fi
  now=$(wait_while_changing) || return 1
  if [[ ${now} == LOST ]]; then
    say "${NAME} was taken away; making it anew"
    delete || return 1
    now=ABSENT
  fi
  if [[ ${now} == ABSENT ]]; then
    create && install
  elif ! on_every_worker "test -e bsjax.tree" 2>/dev/null; then
    install
  fi
}

# --- bsjax on it. ---

WORKER_SCRIPT="cd bsjax && bash launch/tpu_worker.sh"

start() {
  local command tree
  tree=$(digest)
  command=$(printf '%q ' "$@")
  on_every_worker "${WORKER_SCRIPT} idle ${tree}" || return 1
  # ssh returns once nothing holds its streams.
  on_every_worker "(cd bsjax && BSJAX_DISTRIBUTED=1 JAX_PLATFORMS=tpu,cpu exec nohup bash\
 launch/tpu_worker.sh run ${tree} ../venv/bin/bsjax ${command}) >> bsjax.log 2>&1 < /dev/null &"
}

# What the workers say, each word once: running, never, ended STATUS.
progress() {
  on_every_worker "${WORKER_SCRIPT} progress" |
    sed -n -E '/^(running|never|ended [0-9]+)$/p' | sort -u
}

# see_that_it_runs ARGUMENTS...: on a slice that is ready.
see_that_it_runs() {
  make_ready || return 1
  if [[ ${DRY_RUN} == 1 ]]; then
    start "$@"
    return
  fi
  if [[ $(progress) != *running* ]]; then start "$@"; fi
}

keep() {
  local failures=0 said status
  see_that_it_runs "$@" || exit 1
  if [[ ${DRY_RUN} == 1 ]]; then return; fi
  while true; do
    sleep "${POLL_SECONDS}"
    said=""
    if ! make_ready || ! said=$(progress); then said=unknown; fi
    case ${said} in
      *running*) failures=0; continue ;;
      unknown | never)
        if [[ ${said} == never ]] && start "$@"; then continue; fi
        failures=$((failures + 1))
        if [[ ${failures} -ge ${MOST_FAILURES} ]]; then
          say "gave up after ${failures} failures; ${NAME} may be there still, and cost"
          exit 1
        fi
        continue
        ;;
    esac
    status=$(grep -o '[0-9]*$' <<<"${said}" | sort -n | tail -n 1)
    say "bsjax ended with status ${status}; its log: tpu_pod.sh follow"
    if [[ ${status} == 0 && ${WHEN_DONE} == delete ]]; then
      delete
    else
      say "${NAME} is there still, and costs: tpu_pod.sh delete"
    fi
    exit "${status}"
  done
}

case ${verb} in
  create | install | run | keep | resume | follow | status | stop | delete) check_settings ;;
  *) fail "expected ${VERBS}, got \"${verb}\"; see --help" ;;
esac
case ${verb} in
  create)
    check_type
    if [[ ${DRY_RUN} == 0 ]]; then
      now=$(state)
      if [[ ${now} != ABSENT ]]; then
        say "${NAME} is there already (${now}); see tpu_pod.sh status"
        exit 1
      fi
    fi
    create
    ;;
  install)
    check_source
    install
    ;;
  run)
    check_source
    check_stage 0 "$@"
    start "$@"
    ;;
  keep | resume)
    check_type
    check_source
    check_stage 1 "$@"
    if [[ ${verb} == keep ]]; then keep "$@"; else see_that_it_runs "$@"; fi
    ;;
  follow) tpu ssh "${NAME}" --worker="${WORKER}" --command="tail -n 50 -F bsjax.log" ;;
  status)
    if [[ ${DRY_RUN} == 0 ]]; then
      now=$(state)
      printf '%s: %s\n' "${NAME}" "${now}"
      if [[ ${now} != READY ]]; then exit 0; fi
    else
      queue describe "${NAME}" --format='value(state.state)'
    fi
    on_every_worker "printf '%s: ' \"\$HOSTNAME\"; ${WORKER_SCRIPT} progress; tail -n 1 ../bsjax.log"
    ;;
  stop) on_every_worker "${WORKER_SCRIPT} stop" ;;
  delete)
    if [[ ${DRY_RUN} == 0 ]]; then
      now=$(state)
      if [[ ${now} == ABSENT ]]; then
        say "there is no ${NAME} in ${ZONE} of ${PROJECT}; nothing was deleted"
        exit 1
      fi
    fi
    delete
    ;;
esac
