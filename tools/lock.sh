#!/usr/bin/env bash
# Write the three lock files anew: exact versions with hashes, and no address of any index.
#
# Run it with the oldest Python that is supported: packages that only older ones need are then in the lock, with
# their hashes for every Python. `make lock UPGRADE=1` takes the newest versions that pyproject.toml allows.
set -euo pipefail
cd "$(dirname "$0")/.."

unset PIP_FIND_LINKS PIP_EXTRA_INDEX_URL
export CUSTOM_COMPILE_COMMAND="make lock"

mkdir -p .cache

lock() { # target source...
  if ! .venv/bin/python -m piptools compile --quiet ${UPGRADE:+--upgrade} --generate-hashes --strip-extras \
    --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --allow-unsafe --newline lf \
    --resolver backtracking --output-file "$@" >.cache/lock.log 2>&1; then
    tail -n 15 .cache/lock.log >&2
    echo "lock  failed: $1; everything it said is in .cache/lock.log" >&2
    exit 1
  fi
  echo "lock  $1: $(grep -c '^[A-Za-z]' "$1") packages"
}

lock requirements-build.txt requirements-build.in
lock requirements.txt pyproject.toml
lock requirements-dev.txt requirements-dev.in
