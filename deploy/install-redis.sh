#!/usr/bin/env bash
# Installs redis-server by the system's package manager, if it is missing. The server is not started: the demo and the
# tests start their own, on free ports, and a server that the package starts by itself is stopped from doing so.
set -euo pipefail

if command -v redis-server >/dev/null; then
  exit 0
fi

as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi; }

if command -v apt-get >/dev/null; then
  as_root apt-get update -q
  # Without this, Debian's package starts a server on port 6379.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod +x "$policy"
    trap 'as_root rm -f "$policy"' EXIT
  fi
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends redis-server
elif command -v dnf >/dev/null; then
  as_root dnf install -y redis
elif command -v apk >/dev/null; then
  as_root apk add redis
elif command -v pacman >/dev/null; then
  as_root pacman -Sy --noconfirm redis
elif command -v brew >/dev/null; then
  brew install redis
else
  echo "redis-server is missing, and no package manager is known here; install Redis 6.2 or later" >&2
  exit 1
fi
