#!/usr/bin/env bash
# Makes .venv, or brings it up to date: `bootstrap.sh runtime` for `make serve`, `bootstrap.sh dev` for the tests.
#
# The copy of a lock file inside .venv says that everything in it is installed, so a run with nothing to do takes
# some milliseconds. Nothing is installed outside the checkout, unless root lacks Debian's part of Python that
# makes virtual environments: it says so before it installs that (NO_APT=1 keeps it from it).
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '%s\n' "registry: $*" >&2; }
fail() { say "$*"; exit 1; }

case ${1:-} in
  runtime) lock=requirements.lock ;;
  dev) lock=requirements-dev.lock ;;
  *) fail "usage: scripts/bootstrap.sh runtime|dev" ;;
esac

fits() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }
makes_environments() { "$1" -c 'import ensurepip, venv' >/dev/null 2>&1; }

# Prints the Python to use: the first one that fits and can make virtual environments, else the first that fits.
find_python() {
  local name fallback=
  for name in ${PYTHON:-python3.13 python3.12 python3.11 python3.14 python3}; do
    fits "$name" || continue
    if makes_environments "$name"; then
      printf '%s' "$name"
      return
    fi
    fallback=${fallback:-$name}
  done
  printf '%s' "$fallback"
}

install_venv_module() {
  local package
  package=$("$1" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null || [ "${NO_APT:-}" = 1 ]; then
    fail "$1 cannot make virtual environments: install its venv module (on Debian and Ubuntu, as root:" \
      "apt-get install $package) and try again"
  fi
  scripts/apt.sh "$package"
  makes_environments "$1" || fail "$package is installed and $1 still cannot make virtual environments"
}

make_environment() {
  local python
  python=$(find_python)
  [ -n "$python" ] || fail "Python 3.11 or newer is needed, and ${PYTHON:-python3} is not:" \
    "install it, or name it, as in: make serve PYTHON=/path/to/python3.12"
  makes_environments "$python" || install_venv_module "$python"
  say "making .venv with $("$python" --version 2>&1)"
  "$python" -m venv --clear .venv
}

# Shows on a terminal which package pip is at, on one line; passes over the rest.
progress() {
  local word package _ count=0 total
  total=$(grep -c '^[a-z0-9]' "$lock")
  while read -r word package _; do
    [ -t 2 ] || continue
    case $word in
      Collecting | Requirement) count=$((count + 1)); printf '\r\033[K  %d of %d  %s' "$count" "$total" "$package" >&2 ;;
      Installing) printf '\r\033[K  unpacking' >&2 ;;
    esac
  done
  [ ! -t 2 ] || printf '\r\033[K' >&2
}

install_packages() {
  say "installing the Python packages of $lock into .venv"
  .venv/bin/python -m pip --disable-pip-version-check --no-input install --no-deps --require-hashes \
    --only-binary :all: --no-warn-script-location --progress-bar off -r "$lock" | progress ||
    fail "the packages could not be installed (see above): check the network, and try again"
}

# pip takes a package that it was killed over for installed, so what was left unfinished is made anew.
if [ -e .venv/unfinished ] || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
  make_environment
fi
touch .venv/unfinished
install_packages
.venv/bin/python scripts/link.py
# Each worker imports all of it at every start, also where the environment keeps Python from caching.
.venv/bin/python -m compileall -q app db gc_workers
cp requirements.lock .venv/requirements.lock
cp "$lock" ".venv/$lock"
rm .venv/unfinished
