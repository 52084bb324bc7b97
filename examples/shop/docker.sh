#!/usr/bin/env bash
# Runs the shop in containers: builds its images, and the images that those start from where they can be neither found
# nor pulled. Arguments go to sale/sale.py.
set -euo pipefail
cd "$(dirname "$0")/../.."

if ! docker info >/dev/null 2>&1; then
  echo "the Docker daemon does not answer; start it, or run the shop without it: make shop-local" >&2
  exit 1
fi
compose=(docker compose)
docker compose version >/dev/null 2>&1 || compose=(docker-compose)
if ! "${compose[@]}" version >/dev/null 2>&1; then
  echo "neither docker compose nor docker-compose (1.29 or later) is installed; or run: make shop-local" >&2
  exit 1
fi

have() { docker image inspect "$1" >/dev/null 2>&1 || docker pull --quiet "$1" 2>/dev/null; }

for image in "${DEBIAN_IMAGE:-debian:bookworm-slim}" "${REDIS_IMAGE:-redis:7.0-bookworm}" \
  "${POSTGRES_IMAGE:-postgres:15-bookworm}"; do
  have "$image" || { deploy/base-images.sh --with-postgres; break; }
done

# The image compiles by itself, unless there is no image to compile in.
if [ -z "${SHOP_BUILD:-}" ] && ! have "${RUST_IMAGE:-rust:1.95-bookworm}"; then
  export SHOP_BUILD=prebuilt
fi
if [ "${SHOP_BUILD:-}" = prebuilt ]; then
  cargo build --profile demo --locked --no-default-features -p assent -p assent-shop-payments
fi
"${compose[@]}" -f examples/shop/compose.yaml build

PYTHONDONTWRITEBYTECODE=1 exec python3 examples/shop/sale/sale.py --docker "$@"
