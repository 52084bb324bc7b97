#!/usr/bin/env bash
# Runs the shop on this machine, with programs from the folder that PROGRAMS names. Arguments go to sale/sale.py. What
# the orders service needs is installed into target/shop.
set -euo pipefail
cd "$(dirname "$0")/../.."

venv=$PWD/target/shop/venv
needs=$(cat examples/shop/orders/requirements.txt sdk/python/pyproject.toml <(find sdk/python/src -name '*.py' | sort | xargs cat) \
  <(python3 --version) | sha256sum)
if [ "$(cat "$venv/needs" 2>/dev/null)" != "$needs" ]; then
  echo "installing what the orders service needs, into target/shop (once)"
  rm -rf "$venv"
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check -r examples/shop/orders/requirements.txt ./sdk/python
  echo "$needs" >"$venv/needs"
fi

export PYTHONDONTWRITEBYTECODE=1
exec "$venv/bin/python" examples/shop/sale/sale.py --programs "${PROGRAMS:-target/demo}" "$@"
