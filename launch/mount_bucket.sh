#!/usr/bin/env bash
# Mounts a bucket of Cloud Storage below /mnt on a machine of Google Cloud with Ubuntu, to read
# images by paths.
#
#   launch/mount_bucket.sh [--dry-run] BUCKET
#
# Installs gcsfuse if it is not there, and mounts gs://BUCKET at /mnt/BUCKET for reading. The
# machine's service account needs roles/storage.objectViewer on the bucket. On the workers of a
# slice: SETUP='venv/bin/bsjax launch mount_bucket.sh | bash -s -- BUCKET' for tpu_pod.sh.

set -euo pipefail
is_dry=0
if [[ ${1:-} == --dry-run ]]; then
  is_dry=1
  shift
fi
if [[ $# -ne 1 || ${1:-} == *[!a-z0-9._-]* || -z ${1:-} ]]; then
  printf 'mount_bucket.sh: expected the name of a bucket without gs://, got %s\n' "${*:-none}" >&2
  exit 2
fi
folder=/mnt/$1

run() {
  if [[ ${is_dry} == 1 ]]; then
    printf '%q ' "$@"
    printf '\n'
  else
    "$@"
  fi
}

if [[ ${is_dry} == 1 ]] || ! command -v gcsfuse >/dev/null; then
  # As cloud.google.com/storage/docs/cloud-storage-fuse/install tells. The lock of apt may be held
  # by upgrades while a machine is fresh.
  source=https://packages.cloud.google.com/apt
  key=/usr/share/keyrings/cloud.google.asc
  # shellcheck disable=SC1091  # the system's
  release=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME}")
  run sudo curl -fsSL -o "${key}" "${source}/doc/apt-key.gpg"
  run sudo sh -c "echo 'deb [signed-by=${key}] ${source} gcsfuse-${release} main' > /etc/apt/sources.list.d/gcsfuse.list"
  run sudo apt-get -qq -o DPkg::Lock::Timeout=600 update
  run sudo apt-get -qq -o DPkg::Lock::Timeout=600 install -y gcsfuse
fi
if [[ ${is_dry} == 0 ]] && mountpoint -q "${folder}"; then exit 0; fi
run sudo mkdir -p "${folder}"
run sudo chown "$(id -u):$(id -g)" "${folder}"
run gcsfuse --implicit-dirs -o ro "$1" "${folder}"
