#!/usr/bin/env bash
# Runs the tests that a server can break once on each server beside the system's: those of the store, the agent and its repair,
# and those on processes whose Redis loses data or fails. A server that is not installed is left out, and said; with CI=true
# `make servers` has failed before that.
set -euo pipefail
cd "$(dirname "$0")/.."

servers=${ASSENT_SERVERS_DIR:-target/servers}
system=$(redis-server --version)

for server in redis-6.2 redis-7.0 redis-8.2 valkey-9.1; do
  if [ ! -x "$servers/$server" ]; then
    echo "$server is not in $servers: nothing is tested on it (make servers)" >&2
    continue
  fi
  # The whole workspace has run on this one.
  [ "$("$servers/$server" --version)" != "$system" ] || continue
  store="binary(store) + binary(scripts)"
  echo "on $server"
  ASSENT_TEST_SERVER=$server cargo nextest run --workspace --locked -E \
    "package(assent-participant) & ($store + binary(agent))
      + package(assent-tests) & (test(/^redis_loss::/) + test(/^redis_faults::/))"
done
