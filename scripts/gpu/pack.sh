#!/usr/bin/env bash
# Lays what a GPU machine without a network lacks into .gpu, which git ignores: CamVid, and packages as wheels.
# Usage: scripts/gpu/pack.sh [CAMVID_FOLDER]       (default: ../shared/data/camvid; see docs/gpu.md)
# Doing it again changes nothing. PACK_WHEELS=no leaves the wheels out, which needs no network.
set -euo pipefail
camvid=${1:-}
if [ -n "$camvid" ] && [ -d "$camvid" ]; then
  camvid=$(cd "$camvid" && pwd)
fi
cd "$(dirname "$0")/../.."
camvid=${camvid:-../shared/data/camvid}
packages="pydantic pydantic_core annotated-types typing-inspection typing_extensions"
largest=$((48 * 1024 * 1024))  # bytes; some machines take 64 MiB, and the repository needs its part

fail() {
  echo "error: $*" >&2
  exit 2
}

[ "$#" -le 1 ] || fail "give one folder at most, that of CamVid; usage: scripts/gpu/pack.sh [CAMVID_FOLDER]"
for part in train trainannot val valannot; do
  [ -n "$(ls -A "$camvid/$part" 2>/dev/null)" ] ||
    fail "$camvid/$part is missing or empty; give the folder that holds CamVid's train, trainannot, val and valannot"
done

mkdir -p .gpu/camvid .gpu/wheels
for part in train trainannot val valannot; do
  if ! diff -rq "$camvid/$part" ".gpu/camvid/$part" >/dev/null 2>&1; then
    rm -rf ".gpu/camvid/$part"
    cp -rL "$camvid/$part" ".gpu/camvid/$part"
    chmod -R u+w ".gpu/camvid/$part"
  fi
done

if [ "${PACK_WHEELS:-yes}" != no ]; then
  python=$(command -v python3 || true)
  [ -x .venv/bin/python ] && python=.venv/bin/python
  [ -n "$python" ] || fail "no Python was found to download wheels with; install one, or set PACK_WHEELS=no"
  pinned=()
  missing=no
  for package in $packages; do
    line=$(grep -i "^$package==" constraints.txt) || fail "constraints.txt names no version of $package"
    pinned+=("$line")
    compgen -G ".gpu/wheels/${package//-/_}-${line#*==}-*.whl" >/dev/null || missing=yes
  done
  if [ "$missing" = yes ]; then
    platforms=()
    for tag in _2_28_x86_64 _2_27_x86_64 _2_17_x86_64 2014_x86_64 1_x86_64; do
      platforms+=(--platform "manylinux$tag")
    done
    fresh=$(mktemp -d .gpu/download.XXXXXX)
    trap 'rm -rf "$fresh"' EXIT
    "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
      --python-version 3.12 --implementation cp "${platforms[@]}" --dest "$fresh" "${pinned[@]}" 2>"$fresh/error" ||
      fail "pip cannot download ${pinned[*]} ($(tail -n 1 "$fresh/error")); see to the network, or set PACK_WHEELS=no"
    rm -f .gpu/wheels/*.whl
    mv "$fresh"/*.whl .gpu/wheels/
  fi
fi

size=$(du -sb .gpu | cut -f1)
count() { find ".gpu/$1" -type f | wc -l | tr -d ' '; }
echo ".gpu: $(count camvid/train) training and $(count camvid/val) validation images, $(count wheels) wheels," \
  "$((size / 1024 / 1024)) MiB in all"
[ "$size" -le "$largest" ] || fail "that is more than $((largest / 1024 / 1024)) MiB, which is too much to travel; give a smaller CamVid"
