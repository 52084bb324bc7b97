#!/usr/bin/env bash
# What `make test` checks of the SDK for JavaScript: its types, and its tests, which need the program
# assent (ASSENT, or target/debug/assent).
set -euo pipefail
cd "$(dirname "$0")"

# types/ is made by this version; another one may write the same types in other words.
TSC_VERSION="Version 4.8.4"

if ! command -v tsc >/dev/null; then
  echo "tsc is not installed; the types of sdk/js are not checked"
else
  made=$(mktemp -d)
  trap 'rm -rf "$made"' EXIT
  tsc -p . --outDir "$made"
  if [ "$(tsc --version)" = "$TSC_VERSION" ]; then
    diff -r types "$made" || { echo "sdk/js/types is not what src says: make fix" >&2; exit 1; }
  fi
  tsc -p typecheck
fi

node --test
