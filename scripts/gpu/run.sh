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

if ! "$python" -c 'import pydantic' 2>/dev/null; then
  if ! compgen -G '.gpu/wheels/*.whl' >/dev/null; then
    echo "error: $python lacks pydantic, and .gpu/wheels holds no wheels; run scripts/gpu/pack.sh where there is a network, or install autoseg with pip" >&2
    exit 2
  fi
  site=$(mktemp -d)
  trap 'rm -rf "$site"' EXIT
  "$python" -m pip install --quiet --disable-pip-version-check --no-cache-dir \
    --no-index --no-deps --no-compile --target "$site" .gpu/wheels/*.whl
  export PYTHONPATH="$site:$PYTHONPATH"
fi

"$python" -m "gpu.$stage" "$@"
