#!/usr/bin/env bash
# What `make test` checks of the SDK for Python: its form, its types, and its tests, which need the program assent (ASSENT,
# or target/debug/assent). Arguments go to pytest. What it needs is installed into target/sdk-python. The examples in
# Python are held to the same form.
set -euo pipefail
cd "$(dirname "$0")"

target="$(cd ../.. && pwd)/target/sdk-python"
needs=$(cat requirements-test.txt <(python3 --version) | sha256sum)
if [ "$(cat "$target/needs" 2>/dev/null)" != "$needs" ]; then
  rm -rf "$target"
  python3 -m venv "$target"
  "$target/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r requirements-test.txt
  echo "$needs" >"$target/needs"
fi

export PATH="$target/bin:$PATH" PYTHONDONTWRITEBYTECODE=1
examples=(../../examples/redis_transaction.py ../../examples/shop)
ruff format --no-cache --check --quiet . "${examples[@]}"
ruff check --no-cache --quiet . "${examples[@]}"
mypy --cache-dir "$target/mypy" --no-error-summary
pytest "$@"
