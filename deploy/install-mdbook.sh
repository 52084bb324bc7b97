#!/usr/bin/env bash
# Puts mdbook, which makes the HTML of docs/, into target/tools/bin; it is installed nowhere else and asks nothing. That takes
# about a minute, once. Where it cannot be had, that is said and the docs are not rendered; with CI=true that is an error.
set -euo pipefail
cd "$(dirname "$0")/.."

version=0.5.4
tools=$PWD/target/tools
[ "$("$tools/bin/mdbook" --version 2>/dev/null)" = "mdbook v$version" ] && exit
echo "installing mdbook $version into target/tools" >&2
# The pages are built once and searched; the features that watch and serve them would double the time of the build.
if ! cargo install --locked --quiet --root "$tools" --target-dir "$tools/build" --no-default-features --features search \
  --version "=$version" mdbook; then
  echo "mdbook $version cannot be installed: the docs are not rendered" >&2
  [ "${CI:-}" != true ] || exit 1
fi
rm -rf "$tools/build"
