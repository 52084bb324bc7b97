#!/usr/bin/env bash
# Installs PostgreSQL by the system's package manager, if it is missing: the tests of its participant start servers of
# their own, on free ports. No server is started here, and Debian's package makes no cluster.
set -euo pipefail

has() { compgen -G "/usr/lib/postgresql/*/bin/$1" >/dev/null || command -v "$1" >/dev/null; }

if has initdb && has postgres && has pg_isready; then
  exit 0
fi

as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi; }

if command -v apt-get >/dev/null; then
  as_root apt-get update -q
  as_root mkdir -p /etc/postgresql-common
  if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
    echo "create_main_cluster = false" | as_root tee /etc/postgresql-common/createcluster.conf >/dev/null
  fi
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends postgresql
elif command -v dnf >/dev/null; then
  as_root dnf install -y postgresql-server
elif command -v apk >/dev/null; then
  as_root apk add postgresql
elif command -v pacman >/dev/null; then
  as_root pacman -Sy --noconfirm postgresql
elif command -v brew >/dev/null; then
  brew install postgresql
else
  echo "PostgreSQL is missing, and no package manager is known here; install PostgreSQL 14 or later" >&2
  exit 1
fi
