#!/usr/bin/env bash
# Installs what the tests' clients and servers come from, where that is possible and NO_APT is not 1.
set -euo pipefail
cd "$(dirname "$0")/.."

# program:package, tried in this order
wanted="curl:curl openssl:openssl skopeo:skopeo podman:podman buildah:buildah dockerd:docker.io redis-server:redis-server pgbouncer:pgbouncer docker-registry:docker-registry"
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

missing=
for pair in $wanted; do
  command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair##*:}"
done
[ -n "$missing" ] || exit 0

if [ "${NO_APT:-}" = 1 ]; then
  reason="NO_APT=1 is set"
elif [ "$(id -u)" != 0 ]; then
  reason="only root may install them"
elif ! command -v apt-get >/dev/null; then
  reason="there is no apt-get"
else
  # shellcheck disable=SC2086  # a list
  exec scripts/apt.sh $missing
fi
printf 'registry: not installing%s: %s; the checks that need them are left out\n' "$missing" "$reason" >&2
