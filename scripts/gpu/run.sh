#!/usr/bin/env bash
# One stage of what a GPU is for: see docs/gpu.md. Usage: scripts/gpu/run.sh check|bench|camvid [--seconds N] [--dry] ...
set -euo pipefail
cd "$(dirname "$0")/../.."

stage=${1:-}
case "$stage" in
check | bench | camvid) shift ;;
*)
  echo "error: unknown stage '$stage' (known: check, bench, camvid)" >&2
  exit 2
  ;;
esac

python=$(command -v python3 || true)
if [ -x .venv/bin/python ]; then
  python=$PWD/.venv/bin/python
fi
if [ -z "$python" ]; then
  echo "error: no Python was found; install Python 3.11 or newer, with PyTorch" >&2
  exit 2
fi

export PYTHONUNBUFFERED=1
export PYTHONPATH="$PWD:$PWD/scripts${PYTHONPATH:+:$PYTHONPATH}"

missing=$("$python" -c '
from importlib.util import find_spec
print(*(name for name in ("torch", "yaml", "pytest", "pydantic") if find_spec(name) is None))')
if [ "$missing" = pydantic ] && compgen -G '.gpu/wheels/*.whl' >/dev/null; then
  site=$(mktemp -d)
  trap 'rm -rf "$site"' EXIT
  "$python" -m pip install --quiet --disable-pip-version-check --no-cache-dir \
    --no-index --no-deps --no-compile --target "$site" .gpu/wheels/*.whl
  export PYTHONPATH="$site:$PYTHONPATH"
elif [ -n "$missing" ]; then
  echo "error: $python lacks $missing; install autoseg (bash scripts/setup.sh export,dev)," \
    "or bring pydantic in .gpu (scripts/gpu/pack.sh) to a Python that has the rest" >&2
  exit 2
fi

"$python" -m "gpu.$stage" "$@"
