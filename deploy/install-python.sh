#!/usr/bin/env bash
# Installs Python, with the module venv, by the system's package manager, if it is missing. Only the tests of sdk/python
# need it.
set -euo pipefail

as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi; }

if python3 -c 'import ensurepip, venv' 2>/dev/null; then
  exit 0
fi

if command -v apt-get >/dev/null; then
  as_root apt-get update -q
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends python3 python3-venv
else
  echo "python3 with the module venv is missing, and no package manager is known here; install Python 3.10 or later" >&2
  exit 1
fi
