#!/usr/bin/env bash
# Makes the images that deploy/Dockerfile and deploy/compose.yaml start from out of Debian packages, under the names that
# a registry would give them. For machines that reach a Debian mirror and no image registry; where `docker pull` works,
# nobody needs this. An image that is there is left alone, so it may be run before every build.
#
#   deploy/base-images.sh                 debian:bookworm-slim and redis:7.0-bookworm
#   deploy/base-images.sh --with-rust     rust:1.95-bookworm too, with the Rust toolchain of this machine
#   deploy/base-images.sh --with-postgres postgres:15-bookworm too, as far as examples/shop needs it
#
# Environment: DEBIAN_MIRROR, where debootstrap gets its packages and tells the images to get theirs [default: its own].
set -euo pipefail

debian=${DEBIAN_IMAGE:-debian:bookworm-slim}
redis=${REDIS_IMAGE:-redis:7.0-bookworm}
rust=${RUST_IMAGE:-rust:1.95-bookworm}
postgres=${POSTGRES_IMAGE:-postgres:15-bookworm}
with_rust=false
with_postgres=false
for word in "$@"; do
  case "$word" in
    --with-rust) with_rust=true ;;
    --with-postgres) with_postgres=true ;;
    *) echo "usage: $0 [--with-rust] [--with-postgres]" >&2; exit 2 ;;
  esac
done

say() { echo "base-images: $*" >&2; }
there() { docker image inspect "$1" >/dev/null 2>&1; }

# Everything that is built lies under this, and goes with it.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

need_debootstrap() {
  command -v debootstrap >/dev/null && return
  if [ "$(id -u)" -ne 0 ]; then
    say "debootstrap is missing and only root can use it: run this as root, on Debian or Ubuntu"
    exit 1
  fi
  apt-get update -q >&2
  DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends debootstrap >&2
}

make_debian() {
  there "$debian" && { say "$debian is there"; return; }
  need_debootstrap
  say "$debian: debootstrap, half a minute"
  debootstrap --variant=minbase --include=ca-certificates bookworm "$work/root" ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"} >"$work/log" 2>&1 || {
    tail -n 20 "$work/log" >&2
    exit 1
  }
  rm -rf "$work"/root/var/cache/apt/archives/*.deb "$work"/root/var/lib/apt/lists/* "$work"/root/usr/share/doc/*
  # As in Debian's own images: no service starts because its package was installed.
  printf '#!/bin/sh\nexit 101\n' >"$work/root/usr/sbin/policy-rc.d"
  chmod +x "$work/root/usr/sbin/policy-rc.d"
  # Whom this machine trusts, the images made here do: there may be a mirror with a certificate of its own.
  if [ -s /etc/ssl/certs/ca-certificates.crt ]; then
    cp /etc/ssl/certs/ca-certificates.crt "$work/root/etc/ssl/certs/"
  fi
  tar -C "$work/root" -c . | docker import --change 'CMD ["bash"]' --message "by deploy/base-images.sh" - "$debian" >/dev/null
  say "$debian is made"
}

# As the image of that name: uid 999, its data in /data. Debian's server keeps its protected mode, which compose.yaml
# turns off for both.
make_redis() {
  there "$redis" && { say "$redis is there"; return; }
  say "$redis: the package redis-server"
  docker build --quiet --tag "$redis" - >/dev/null <<DOCKERFILE
FROM $debian
RUN groupadd --system --gid 999 redis && useradd --system --uid 999 --gid redis --no-create-home redis \
 && apt-get update -q && apt-get install -qy --no-install-recommends redis-server redis-tools \
 && rm -rf /var/lib/apt/lists/* && mkdir /data && chown redis:redis /data
WORKDIR /data
VOLUME /data
EXPOSE 6379
CMD ["redis-server"]
DOCKERFILE
  say "$redis is made"
}

make_rust() {
  there "$rust" && { say "$rust is there"; return; }
  local sysroot
  sysroot=$(rustc --print sysroot) || { say "there is no rustc here to copy"; exit 1; }
  say "$rust: gcc from Debian, the toolchain from this machine ($(rustc --version))"
  mkdir "$work/rust"
  cat >"$work/rust/Dockerfile" <<DOCKERFILE
FROM $debian
RUN apt-get update -q && apt-get install -qy --no-install-recommends gcc g++ libc6-dev make git pkg-config \
 && rm -rf /var/lib/apt/lists/*
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY toolchain /usr/local/rust
ENV PATH=/usr/local/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin CARGO_HOME=/usr/local/cargo
DOCKERFILE
  # Whom this machine trusts, the image that compiles on it does: there may be a mirror with a certificate of its own.
  cp /etc/ssl/certs/ca-certificates.crt "$work/rust/"
  mkdir "$work/rust/toolchain"
  # The documentation is most of a toolchain.
  tar -C "$sysroot" --exclude=./share/doc -c . | tar -C "$work/rust/toolchain" -x
  docker build --quiet --tag "$rust" "$work/rust" >/dev/null
  say "$rust is made"
}

# As the image of that name: uid 999, its data in /var/lib/postgresql/data, a database for POSTGRES_USER where there is
# none. It knows no passwords.
make_postgres() {
  there "$postgres" && { say "$postgres is there"; return; }
  say "$postgres: the package postgresql"
  mkdir "$work/postgres"
  cat >"$work/postgres/docker-entrypoint.sh" <<'SCRIPT'
#!/bin/sh
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  if [ "${POSTGRES_HOST_AUTH_METHOD:-}" != trust ]; then
    echo "this stand-in of deploy/base-images.sh knows POSTGRES_HOST_AUTH_METHOD=trust only" >&2
    exit 1
  fi
  initdb --username="${POSTGRES_USER:-postgres}" --encoding=UTF8 --locale=C.UTF-8 --auth=trust
  echo "host all all all trust" >>"$PGDATA/pg_hba.conf"
  echo "listen_addresses = '*'" >>"$PGDATA/postgresql.conf"
fi
exec "$@"
SCRIPT
  chmod +x "$work/postgres/docker-entrypoint.sh"
  cat >"$work/postgres/Dockerfile" <<DOCKERFILE
FROM $debian
RUN groupadd --system --gid 999 postgres \
 && useradd --system --uid 999 --gid postgres --home-dir /var/lib/postgresql postgres \
 && mkdir -p /etc/postgresql-common && echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.conf \
 && apt-get update -q \
 && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends postgresql \
 && rm -rf /var/lib/apt/lists/* \
 && install -d -o postgres -g postgres -m 0700 /var/lib/postgresql/data \
 && install -d -o postgres -g postgres /var/run/postgresql
COPY docker-entrypoint.sh /usr/local/bin/
ENV PATH=/usr/lib/postgresql/15/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PGDATA=/var/lib/postgresql/data
VOLUME /var/lib/postgresql/data
EXPOSE 5432
STOPSIGNAL SIGINT
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["postgres"]
DOCKERFILE
  docker build --quiet --tag "$postgres" "$work/postgres" >/dev/null
  say "$postgres is made"
}

make_debian
make_redis
if "$with_rust"; then make_rust; fi
if "$with_postgres"; then make_postgres; fi
