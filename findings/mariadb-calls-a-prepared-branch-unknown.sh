#!/usr/bin/env bash
# MariaDB says "Unknown XID" of a branch that is prepared, to every connection but the one that prepared it, for as long as that
# one is open; XA RECOVER lists it all the while. The same words, XAER_NOTA (1397), are said of a branch that was committed.
#
# What a good engineer would guess: a prepared branch belongs to nobody, so that any connection may finish it, and XAER_NOTA
# means that it is finished. A coordinator that repeats its XA COMMIT by a new connection, and takes "unknown" for "done before",
# leaves the branch prepared, with its locks. So does a pool that takes the connection back. (PostgreSQL finishes it by any
# connection. The manual of MySQL 8.4 says that XA PREPARE detaches the branch there, by `xa_detach_on_prepare`.)
#
# Seen:
#   MariaDB 10.11.19 without a binary log: XA RECOVER: b1; XA COMMIT by another connection: 1397, the row: 1; when the first is closed: OK, the row: 2; again: 1397
#   MariaDB 10.11.19 with one: XA RECOVER: b1; XA COMMIT by another connection: 1397, the row: 1; when the first is closed: OK, the row: 2; again: 1397
set -euo pipefail

VERSION=1:10.11.19-0+deb12u1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
chmod 777 "$dir" # the server refuses to be root, and works here as nobody
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check PyMySQL==1.2.4

cd "$dir"
apt-get download -q "mariadb-server-core=$VERSION" "mariadb-client-core=$VERSION" libaio1 libnuma1 liburing2 >/dev/null 2>apt.log ||
  { cat apt.log; echo "needs Debian 12, with MariaDB $VERSION"; exit 1; }
for package in *.deb; do dpkg -x "$package" root; done

venv/bin/python - <<'PYTHON'
import atexit, os, pathlib, subprocess, sys, time
import pymysql

ROOT = pathlib.Path("root").resolve()
LIBRARIES = [str(folder) for where in ["lib", "usr/lib"] for folder in ROOT.glob(f"{where}/*-linux-gnu")]
ENV = {**os.environ, "LD_LIBRARY_PATH": ":".join(LIBRARIES)}
RUN = {"env": ENV, "stdout": subprocess.DEVNULL, "stderr": open("log", "w"),
       **({"user": 65534, "group": 65534, "extra_groups": []} if os.getuid() == 0 else {})}

def start(name, *settings):
    """Makes the data of a server, and starts it on a socket in this folder; returns the process."""
    base = ["--no-defaults", f"--basedir={ROOT}/usr", f"--datadir={pathlib.Path(name).resolve()}"]
    subprocess.run([ROOT / "usr/bin/mariadb-install-db", *base, "--skip-test-db",
                    "--auth-root-authentication-method=normal"], check=True, **RUN)
    process = subprocess.Popen(
        [ROOT / "usr/sbin/mariadbd", *base, "--skip-networking", f"--socket={os.getcwd()}/socket",
         f"--pid-file={os.getcwd()}/pid", "--innodb-lock-wait-timeout=1", *settings], **RUN)
    atexit.register(process.kill)
    return process

def connect():
    for _ in range(600):
        try:
            return pymysql.connect(unix_socket="socket", user="root", autocommit=True)
        except pymysql.OperationalError:
            time.sleep(0.05)
    sys.exit("the server does not answer")

def ask(connection, statement):
    """OK, the first value of a row, or the number of the error."""
    with connection.cursor() as cursor:
        try:
            cursor.execute(statement)
        except pymysql.MySQLError as error:
            return error.args[0]
        row = cursor.fetchone()
        return row[-1] if row else "OK"

def close(branch, other):
    """Closes a connection, and waits until the server has noticed."""
    number = branch.thread_id()
    branch.close()
    while ask(other, f"SELECT count(*) FROM information_schema.processlist WHERE id = {number}"):
        time.sleep(0.02)

def listed(other):
    """What XA RECOVER lists."""
    xid = ask(other, "XA RECOVER")
    return xid.decode() if isinstance(xid, bytes) else "nothing"

SERVERS = {"without a binary log": ["--skip-log-bin"], "with one": ["--log-bin=binlog"]}
seen = set()
for name, settings in SERVERS.items():
    process = start(name.replace(" ", "-"), *settings)
    first, other = connect(), connect()
    version = ask(other, "SELECT version()").split("-")[0]
    for statement in ["CREATE DATABASE d", "CREATE TABLE d.t (v int) ENGINE=InnoDB", "INSERT INTO d.t VALUES (1)"]:
        ask(other, statement)
    for statement in ["XA START 'b1'", "UPDATE d.t SET v = 2", "XA END 'b1'", "XA PREPARE 'b1'"]:
        assert ask(first, statement) == "OK", statement
    row = "SELECT v FROM d.t"
    found = [listed(other), ask(other, "XA COMMIT 'b1'"), ask(other, row)]
    close(first, other)
    found += [ask(other, "XA COMMIT 'b1'"), ask(other, row), ask(other, "XA COMMIT 'b1'")]
    print("MariaDB {} {}: XA RECOVER: {}; XA COMMIT by another connection: {}, the row: {}; when the first is closed: {}, "
          "the row: {}; again: {}".format(version, name, *found))
    seen.add(tuple(found))
    process.terminate()
    process.wait()
assert seen == {("b1", 1397, 1, "OK", 2, 1397)}, f"this has changed: {seen}"
PYTHON
