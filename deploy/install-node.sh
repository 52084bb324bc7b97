#!/usr/bin/env bash
# Installs Node and the TypeScript compiler by the system's package manager, as far as they are missing. The shop needs
# Node only, and says --without-tsc; without tsc the types of sdk/js are not checked.
set -euo pipefail

as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi; }

missing=()
command -v node >/dev/null || missing+=(nodejs)
[ "${1:-}" = --without-tsc ] || command -v tsc >/dev/null || missing+=(node-typescript)
if [ ${#missing[@]} -eq 0 ]; then
  exit 0
fi

if command -v apt-get >/dev/null; then
  as_root apt-get update -q
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}"
elif ! command -v node >/dev/null; then
  echo "node is missing, and no package manager is known here; install Node 18.18 or later" >&2
  exit 1
fi
