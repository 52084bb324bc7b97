#!/usr/bin/env bash
# What `make test` checks of the shop: that its books can be found wrong, and a short sale, in which each process is
# killed once. Needs target/debug/assent and target/debug/shop-payments.
set -euo pipefail
cd "$(dirname "$0")"

(cd sale && python3 -B -m unittest -q)
PROGRAMS=target/debug ./run.sh --customers 40 --items 10 --seed "${SEED:-1}"
