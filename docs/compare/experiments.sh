#!/usr/bin/env bash
# Tries the claims of docs/compare.md on real servers, and prints of each what was seen:
#
#   docs/compare/experiments.sh [postgres] [mariadb] [redis] [assent]        all four without a word
#
# It needs redis-server, PostgreSQL, MariaDB (`make peers` installs them; MariaDB is unpacked from
# Debian's packages into the temporary folder if it is not installed), Python 3.9 or later, and an
# `assent`: that of ASSENT_BIN, or of a build in target/. Everything runs on sockets in a temporary
# folder and on 127.0.0.1, and is gone afterwards. The exit code is 0 if all was seen as the page
# says, 1 if something was not, or could not be tried.
set -euo pipefail
cd "$(dirname "$0")/../.."

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
chmod 755 "$dir" # databases refuse to be root, and have to get here as somebody else

python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check \
  'psycopg[binary]==3.3.9' PyMySQL==1.2.4 redis==8.1.0

if [ -z "${ASSENT_BIN:-}" ]; then
  for build in release demo debug; do
    if [ -x "target/$build/assent" ]; then
      ASSENT_BIN=$PWD/target/$build/assent
      break
    fi
  done
fi

if ! command -v mariadbd >/dev/null && [ ! -x /usr/sbin/mariadbd ] &&
  command -v apt-get >/dev/null; then
  mkdir "$dir/packages"
  needed=(mariadb-server-core mariadb-client-core libaio1 libnuma1 liburing2)
  (cd "$dir/packages" && apt-get download -q "${needed[@]}") >/dev/null 2>&1 || true
  for package in "$dir/packages"/*.deb; do
    [ -e "$package" ] && dpkg -x "$package" "$dir/mariadb"
  done
fi

ASSENT_BIN=${ASSENT_BIN:-} EXPERIMENTS_DIR=$dir PYTHONDONTWRITEBYTECODE=1 \
  "$dir/venv/bin/python" docs/compare/experiments "$@"
