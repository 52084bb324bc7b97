"""Two clusters of PostgreSQL, and a client that coordinates."""

import psycopg
from servers import Postgres


def refusal(session, statement):
    """The SQLSTATE that it ends with, or nothing."""
    try:
        session.execute(statement)
    except psycopg.Error as error:
        return error.sqlstate
    return None


def balance(session, name):
    return session.execute("SELECT balance FROM acct WHERE id = %s", (name,)).fetchone()[0]


def prepared(session):
    return [gid for (gid,) in session.execute("SELECT gid FROM pg_prepared_xacts")]


class Bank:
    """Alice at the first cluster, Bob at the second."""

    def __init__(self):
        self.servers = [Postgres("postgres-a"), Postgres("postgres-b")]
        self.connect()
        for session, name, money in zip(self.sessions, ["alice", "bob"], [100, 0]):
            session.execute("CREATE TABLE acct (id text PRIMARY KEY, balance int NOT NULL)")
            session.execute("INSERT INTO acct VALUES (%s, %s)", (name, money))

    def connect(self):
        self.sessions = [server.connect() for server in self.servers]

    def prepare(self, gid):
        """Both votes of a transfer of 30; returns their transaction ids."""
        ids = []
        for session, name, by in zip(self.sessions, ["alice", "bob"], [-30, 30]):
            session.execute("BEGIN")
            session.execute("UPDATE acct SET balance = balance + %s WHERE id = %s", (by, name))
            ids.append(session.execute("SELECT pg_current_xact_id()::text").fetchone()[0])
            session.execute(f"PREPARE TRANSACTION '{gid}'")
        return ids

    def begin(self):
        """What every experiment begins with."""
        for session, money in zip(self.sessions, [100, 0]):
            session.execute("UPDATE acct SET balance = %s", (money,))

    def money(self):
        return tuple(balance(*pair) for pair in zip(self.sessions, ["alice", "bob"]))

    def money_serializable(self):
        """What a reader sees whose transactions are SERIALIZABLE, at both."""
        sessions = [server.connect() for server in self.servers]
        for session in sessions:
            session.execute("BEGIN ISOLATION LEVEL SERIALIZABLE")
        found = tuple(balance(*pair) for pair in zip(sessions, ["alice", "bob"]))
        for session in sessions:
            session.execute("COMMIT")
            session.close()
        return found


def run(say):
    bank = Bank()
    a, b = bank.sessions
    say.about("PostgreSQL " + a.execute("SHOW server_version").fetchone()[0] + ", two clusters")

    bank.prepare("t1")
    before = bank.money()
    waits = refusal(a, "UPDATE acct SET balance = 0 WHERE id = 'alice'")
    say("P1",
        "While a transaction is prepared, readers see what was before it, and whoever wants "
        "to write the same row waits.",
        before == (100, 0) and waits == "55P03",
        f"a reader: {before}; a writer: {waits} after lock_timeout")

    a.execute("COMMIT PREPARED 't1'")
    between = bank.money_serializable()
    b.execute("COMMIT PREPARED 't1'")
    after = bank.money()
    say("P2",
        "Between the two COMMIT PREPARED a reader of both clusters sees half of the transfer, "
        "also if its transactions are SERIALIZABLE.",
        between == (70, 0) and after == (70, 30), f"between: {between}; after: {after}")

    bank.begin()
    noted, _ = bank.prepare("t2")
    for server in bank.servers:
        server.kill()
    for server in bank.servers:
        server.start()
    bank.connect()
    a, b = bank.sessions
    left = prepared(a), prepared(b)
    waits = refusal(a, "UPDATE acct SET balance = 0 WHERE id = 'alice'")
    a.execute("COMMIT PREPARED 't2'")
    b.execute("COMMIT PREPARED 't2'")
    say("P3",
        "After kill -9 of client and clusters the transaction is still prepared, and its rows "
        "are still locked. Nobody in the clusters ends it; a client that knows the decision "
        "can.",
        left == (["t2"], ["t2"]) and waits == "55P03" and bank.money() == (70, 30),
        f"prepared: {left}; a writer: {waits}; after COMMIT PREPARED by new connections: "
        f"{bank.money()}")

    rolled_back, _ = bank.prepare("t3")
    a.execute("ROLLBACK PREPARED 't3'")
    b.execute("ROLLBACK PREPARED 't3'")
    answers = {
        what: refusal(a, f"COMMIT PREPARED '{gid}'")
        for what, gid in {"committed": "t2", "rolled back": "t3", "never prepared": "t9"}.items()}
    status = tuple(
        a.execute("SELECT pg_xact_status(%s::xid8)", (xid,)).fetchone()[0]
        for xid in [noted, rolled_back])
    say("P4",
        "Whoever asks again after a lost answer is told the same, whether it was committed, "
        "rolled back, or never prepared. pg_xact_status tells, if the transaction's id was "
        "noted before.",
        set(answers.values()) == {"42704"} and status == ("committed", "aborted"),
        f"{answers}; by the noted ids: {status}")

    bank.begin()
    old = bank.servers[1]
    old.back_up()
    old.start()
    bank.connect()
    bank.prepare("t4")
    for session in bank.sessions:
        session.execute("COMMIT PREPARED 't4'")
    whole = bank.money()
    old.restore()
    old.start()
    bank.connect()
    found, left = bank.money(), [prepared(session) for session in bank.sessions]
    say("P5",
        "One cluster comes back from a backup that is older than a committed transfer: half "
        "of the transfer is gone, nothing is prepared, and nobody notices.",
        whole == (70, 30) and found == (70, 0) and left == [[], []],
        f"before: {whole}; after the restore: {found}; prepared: {left}")
