#!/usr/bin/env bash
# Makes .venv and installs autoseg into it. Usage: scripts/setup.sh [EXTRA,EXTRA]
# It does nothing where that has been done and pyproject.toml and constraints.txt have not changed since.
set -euo pipefail
cd "$(dirname "$0")/.."
extras=${1:-export}

python=
for candidate in python3 python3.13 python3.12 python3.11 python; do
  if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python=$candidate
    break
  fi
done
if [ -z "$python" ]; then
  echo "error: no Python 3.11 or newer was found; install one" >&2
  exit 2
fi

stamp=".venv/autoseg-$extras-$(cat pyproject.toml constraints.txt | cksum | tr ' ' '-')"
if [ ! -e "$stamp" ]; then
  [ -x .venv/bin/python ] || "$python" -m venv .venv
  echo "installing autoseg and what it needs into .venv (some minutes the first time)"
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -e ".[$extras]" -c constraints.txt
  touch "$stamp"
fi
