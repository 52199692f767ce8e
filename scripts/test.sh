#!/usr/bin/env bash
# Runs the tests. Usage: bash scripts/test.sh [PYTEST ARGUMENTS]
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh export,dev
export OMP_NUM_THREADS=1  # one worker a core
exec .venv/bin/python -m pytest -n 2 "$@"
