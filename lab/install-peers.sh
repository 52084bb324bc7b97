#!/usr/bin/env bash
# Installs what the peers of the bench need, as far as it is missing: PostgreSQL and MariaDB from the system's packages, and
# dtmrs from crates.io into target/peers. No server is started: the bench starts its own, in a directory of its own. What
# cannot be had is said, and the bench goes on without it.
set -uo pipefail
cd "$(dirname "$0")/../.."

DTMRS_VERSION=0.13.0

as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi; }

missing=()
compgen -G "/usr/lib/postgresql/*/bin/postgres" >/dev/null || command -v postgres >/dev/null || missing+=(postgresql)
command -v mariadbd >/dev/null || [ -x /usr/sbin/mariadbd ] || missing+=(mariadb-server)

if [ "${#missing[@]}" -gt 0 ]; then
  if command -v apt-get >/dev/null; then
    # Without this, Debian's packages start their servers.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
      printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
      as_root chmod +x "$policy"
      trap 'as_root rm -f "$policy"' EXIT
    fi
    as_root apt-get update -q >/dev/null || echo "apt-get update failed; trying with the lists that are there" >&2
    for package in "${missing[@]}"; do
      as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "$package" >/dev/null ||
        echo "$package cannot be installed; the bench goes on without it" >&2
    done
  else
    echo "no apt-get here: install ${missing[*]} yourself, or the bench goes on without" >&2
  fi
fi

if [ ! -x target/peers/bin/dtmrs ] && ! command -v dtmrs >/dev/null; then
  cargo install dtmrs --version "$DTMRS_VERSION" --locked --features redis --root target/peers --quiet ||
    echo "dtmrs cannot be installed; the bench goes on without it" >&2
fi
exit 0
