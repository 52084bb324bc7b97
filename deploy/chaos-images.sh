#!/usr/bin/env bash
# Makes the images of `make chaos` out of target/release/assent and target/release/assent-chaos. The base images are
# pulled where there is a registry, and made from Debian packages where there is none.
set -euo pipefail
cd "$(dirname "$0")/.."

debian=${DEBIAN_IMAGE:-debian:bookworm-slim}
redis=${REDIS_IMAGE:-redis:7.0-bookworm}

for image in "$debian" "$redis"; do
  docker image inspect "$image" >/dev/null 2>&1 || docker pull --quiet "$image" 2>/dev/null || deploy/base-images.sh
done

# Quiet, but not when it fails.
build() {
  local log
  log=$(docker build "$@" . 2>&1) || { echo "$log" >&2; exit 1; }
}

build --file deploy/Dockerfile --target prebuilt --tag assent-chaos:assent --build-arg "DEBIAN_IMAGE=$debian"
build --file deploy/Dockerfile.chaos --tag assent-chaos:dev --build-arg ASSENT_IMAGE=assent-chaos:assent
