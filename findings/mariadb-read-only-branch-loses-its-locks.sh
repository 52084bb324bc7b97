#!/usr/bin/env bash
# A prepared branch of MariaDB that only read loses its locks when its connection ends. XA RECOVER lists it still, and its
# XA COMMIT is refused, with XA_RBROLLBACK (1402).
#
# What a good engineer would guess: what is prepared keeps its locks until it is committed or rolled back, whatever becomes of
# the connection (a branch that wrote does). A transaction that read here `FOR UPDATE` and wrote at another server, on
# the strength of what it read, is not protected any more between its votes and its commit, and is then told that a part of it
# was rolled back.
#
# Seen:
#   MariaDB 10.11.19 without a binary log: a writer of the row that was read: 1205; when the connection is closed: OK; XA RECOVER: b1; XA COMMIT: 1402
#   MariaDB 10.11.19 with one: a writer of the row that was read: 1205; when the connection is closed: OK; XA RECOVER: b1; XA COMMIT: 1402
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
    said = [ask(first, statement) for statement in ["XA START 'b1'", "SELECT v FROM d.t FOR UPDATE", "XA END 'b1'", "XA PREPARE 'b1'"]]
    assert said == ["OK", 1, "OK", "OK"], said
    write = "UPDATE d.t SET v = v + 1"
    found = [ask(other, write)]
    close(first, other)
    found += [ask(other, write), listed(other), ask(other, "XA COMMIT 'b1'")]
    print("MariaDB {} {}: a writer of the row that was read: {}; when the connection is closed: {}; XA RECOVER: {}; "
          "XA COMMIT: {}".format(version, name, *found))
    seen.add(tuple(found))
    process.terminate()
    process.wait()
assert seen == {(1205, "OK", "b1", 1402)}, f"this has changed: {seen}"
PYTHON
