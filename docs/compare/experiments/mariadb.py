"""Two servers of MariaDB, and a client that coordinates by XA."""

import pymysql
from servers import MariaDb, wait_for


def ask(session, statement):
    """The rows, or the number of the error."""
    try:
        with session.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())
    except pymysql.MySQLError as error:
        return error.args[0]


LOCK_WAIT, UNKNOWN_XID, ROLLED_BACK = 1205, 1397, 1402


def recover(session):
    return [row[3].decode() for row in ask(session, "XA RECOVER")]


class Bank:
    """Alice at the first server, Bob at the second."""

    def __init__(self):
        self.servers = [MariaDb("mariadb-a"), MariaDb("mariadb-b")]
        for server, name, money in zip(self.servers, ["alice", "bob"], [100, 0]):
            ask(server.connect("mysql"), "CREATE DATABASE app")
            session = server.connect()
            ask(session, "CREATE TABLE acct (id varchar(9) PRIMARY KEY, balance int NOT NULL)")
            ask(session, f"INSERT INTO acct VALUES ('{name}', {money})")
        self.connect()

    def connect(self):
        self.sessions = [server.connect() for server in self.servers]

    def begin(self):
        """What every experiment begins with."""
        for session, name, money in zip(self.sessions, ["alice", "bob"], [100, 0]):
            ask(session, f"UPDATE acct SET balance = {money} WHERE id = '{name}'")

    def prepare(self, xid):
        """Both votes of a transfer of 30, by connections that the caller closes."""
        branches = [server.connect() for server in self.servers]
        for branch, name, by in zip(branches, ["alice", "bob"], [-30, 30]):
            for statement in [
                    f"XA START '{xid}'",
                    f"UPDATE acct SET balance = balance + {by} WHERE id = '{name}'",
                    f"XA END '{xid}'", f"XA PREPARE '{xid}'"]:
                assert ask(branch, statement) == [], statement
        return branches

    def end(self, branches, xid):
        """The commit at both, by the connections that prepared."""
        for branch in branches:
            assert ask(branch, f"XA COMMIT '{xid}'") == []
            branch.close()

    def money(self, sessions=None):
        read = "SELECT balance FROM acct WHERE id = '{}'"
        found = [ask(session, read.format(name))
                 for session, name in zip(sessions or self.sessions, ["alice", "bob"])]
        return tuple(rows[0][0] if isinstance(rows, list) else rows for rows in found)

    def money_serializable(self):
        """What a reader sees, or is refused, whose transactions are SERIALIZABLE, at both."""
        sessions = [server.connect() for server in self.servers]
        for session in sessions:
            ask(session, "SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE")
            ask(session, "BEGIN")
        found = self.money(sessions)
        for session in sessions:
            session.close()
        return found


def close(branch, observer):
    """Closes a connection, and waits until the server has noticed."""
    (number,) = ask(branch, "SELECT connection_id()")[0]
    branch.close()
    others = "SELECT count(*) FROM information_schema.processlist WHERE id = {}"
    wait_for("the end of a connection",
             lambda: ask(observer, others.format(number)) == [(0,)])


def run(say):
    bank = Bank()
    a, b = bank.sessions
    say.about("MariaDB " + ask(a, "SELECT version()")[0][0] + ", two servers, no binary log")

    branches = bank.prepare("t1")
    before = bank.money()
    waits = ask(a, "UPDATE acct SET balance = 0 WHERE id = 'alice'")
    ask(branches[0], "XA COMMIT 't1'")
    between, strict = bank.money(), bank.money_serializable()
    ask(branches[1], "XA COMMIT 't1'")
    after = bank.money()
    for branch in branches:
        branch.close()
    say("M1",
        "While a branch is prepared, readers see what was before it, and writers of the same "
        "row wait. Between the two XA COMMIT a reader of both servers sees half of the "
        "transfer.",
        (before, waits, between, after) == ((100, 0), LOCK_WAIT, (70, 0), (70, 30)),
        f"prepared: {before}, a writer: {waits}; between: {between}; after: {after}")
    say("M2",
        "A reader whose transactions are SERIALIZABLE waits instead, where the branch is not "
        "committed yet.",
        strict == (70, LOCK_WAIT), f"between: {strict}")

    bank.begin()
    bank.prepare("t2")
    for server in bank.servers:
        server.kill()
    for server in bank.servers:
        server.start()
    bank.connect()
    a, b = bank.sessions
    left = recover(a), recover(b)
    waits = ask(a, "UPDATE acct SET balance = 0 WHERE id = 'alice'")
    ended = ask(a, "XA COMMIT 't2'"), ask(b, "XA COMMIT 't2'")
    say("M3",
        "After kill -9 of client and servers the branch is still prepared, and its rows are "
        "still locked. Nobody in the servers ends it; a client that knows the decision can.",
        left == (["t2"], ["t2"]) and waits == LOCK_WAIT and ended == ([], [])
        and bank.money() == (70, 30),
        f"XA RECOVER: {left}; a writer: {waits}; after XA COMMIT by new connections: "
        f"{bank.money()}")

    branches = bank.prepare("t3")
    listed, other = recover(a), ask(a, "XA COMMIT 't3'")
    for branch, observer in zip(branches, bank.sessions):
        close(branch, observer)
    later = ask(a, "XA COMMIT 't3'"), ask(b, "XA COMMIT 't3'")
    again, never = ask(a, "XA COMMIT 't3'"), ask(a, "XA COMMIT 't9'")
    say("M4",
        "While the connection that prepared a branch is open, another one is told 'Unknown "
        "XID', although XA RECOVER lists the branch. The same is said of what was committed, "
        "and of what never was.",
        listed == ["t3"] and [other, again, never] == [UNKNOWN_XID] * 3 and later == ([], []),
        f"XA RECOVER: {listed}; XA COMMIT: {other}; when that connection is closed: {later}; "
        f"again: {again}; never prepared: {never}")

    reader = bank.servers[0].connect()
    for statement in ["XA START 't4'", "SELECT balance FROM acct WHERE id = 'alice' FOR UPDATE",
                      "XA END 't4'", "XA PREPARE 't4'"]:
        ask(reader, statement)
    write = "UPDATE acct SET balance = balance WHERE id = 'alice'"
    held = ask(a, write)
    close(reader, a)
    listed, free, commit = recover(a), ask(a, write), ask(a, "XA COMMIT 't4'")
    say("M5",
        "A prepared branch that only read loses its locks when its connection ends, and is "
        "still listed; its commit is then refused.",
        (held, listed, free, commit) == (LOCK_WAIT, ["t4"], [], ROLLED_BACK),
        f"a writer before: {held}, afterwards: {free}; XA RECOVER: {listed}; XA COMMIT: {commit}")

    blocker, branch = bank.servers[0].connect(), bank.servers[0].connect()
    ask(a, "INSERT INTO acct VALUES ('carol', 5)")
    ask(blocker, "BEGIN")
    ask(blocker, write)
    said = [ask(branch, statement) for statement in [
        "XA START 't5'", "UPDATE acct SET balance = balance + 1 WHERE id = 'carol'",
        "UPDATE acct SET balance = balance - 1 WHERE id = 'alice'", "XA END 't5'",
        "XA PREPARE 't5'", "XA COMMIT 't5'"]]
    blocker.close()
    carol = ask(a, "SELECT balance FROM acct WHERE id = 'carol'")
    say("M6",
        "A branch of which one statement failed by its lock wait can be prepared and "
        "committed: the others are applied.",
        said == [[], [], LOCK_WAIT, [], [], []] and carol == [(6,)],
        f"the second update: {said[2]}; XA PREPARE: {said[4]}; carol has {carol[0][0]}")

    bank.begin()
    old = bank.servers[1]
    old.back_up()
    old.start()
    bank.connect()
    bank.end(bank.prepare("t6"), "t6")
    whole = bank.money()
    old.restore()
    old.start()
    bank.connect()
    found, left = bank.money(), [recover(session) for session in bank.sessions]
    say("M7",
        "One server comes back from a backup that is older than a committed transfer: half of "
        "the transfer is gone, nothing is prepared, and nobody notices.",
        whole == (70, 30) and found == (70, 0) and left == [[], []],
        f"before: {whole}; after the restore: {found}; XA RECOVER: {left}")
