#!/usr/bin/env bash
# Writes the lock files: every package that `make serve` and `make test` install, with its version and its hashes,
# for all systems and Python versions at once. The tests' file holds all of the other.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! [ -x .deps/uv/bin/uv ]; then
  [ -x .venv/bin/python ] || scripts/bootstrap.sh runtime
  .venv/bin/python -m venv --clear .deps/uv
  .deps/uv/bin/python -m pip install --quiet --disable-pip-version-check uv
fi

compile() {
  .deps/uv/bin/uv pip compile pyproject.toml "$@" --quiet --universal --python-version 3.11 --generate-hashes \
    --no-annotate --no-emit-index-url --custom-compile-command "make lock"
}

# The files that are there are uv's starting point, so only what must change does; make lock ARGS=--upgrade renews all.
compile --extra local --output-file requirements.lock "$@"
compile --extra local --extra dev --constraint requirements.lock --output-file requirements-dev.lock "$@"
