#!/usr/bin/env bash
# Installs Debian packages for the tests: `apt.sh PACKAGE…`. Says so first; starts no service; leaves no trace but
# the packages. Ends with 0 even where some cannot be had: whoever needs them says what is missing.
set -uo pipefail

say() { printf '%s\n' "registry: $*" >&2; }

export DEBIAN_FRONTEND=noninteractive
say "installing the operating system packages $* (NO_APT=1 keeps make from it)"

# Debian starts what it installs unless this file says no. Where there is one already, it stays as it is.
policy=/usr/sbin/policy-rc.d
if ! [ -e "$policy" ]; then
  trap 'rm -f "$policy"' EXIT
  trap 'exit 130' HUP INT TERM
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
fi

output=$(mktemp)
install() {
  apt-get -o DPkg::Lock::Timeout=120 install -y --no-install-recommends "$@" >"$output" 2>&1 </dev/null
}

apt-get update >"$output" 2>&1 </dev/null || say "apt-get update failed: $(tail -n 1 "$output")"
if ! install "$@"; then
  for package in "$@"; do
    install "$package" || say "$package could not be installed: $(tail -n 1 "$output")"
  done
fi
rm -f "$output"
