#!/usr/bin/env bash
# Search, decode, retrain, evaluate and draw on generated images: minutes on two CPU cores.
# Usage: bash scripts/demo.sh [OUT]
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh export
out=${1:-runs/demo}
if [ -e "$out" ]; then
  out="$out-$(date +%Y%m%d-%H%M%S)"
fi
.venv/bin/autoseg demo --out "$out"
echo "the table and the pictures are in $out/results.md"
