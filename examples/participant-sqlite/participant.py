"""A participant of another kind: accounts in SQLite. It needs only Python's standard library.

    python3 participant.py --name ledger --port 7720 --db ledger.db
    assent participants set ledger http://127.0.0.1:7720

A branch has an input, {"account": "bob", "add": 30}; without "add" it only reads. It is vetoed if the
balance would fall below 0. The rules that this keeps are in docs/reference/participant-protocol.md.
"""
import argparse, base64, json, secrets, sqlite3, threading, time, urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

OURS, PROBLEM = "application/vnd.assent+json", "application/problem+json"
BODY_BYTES_MAX, AMOUNT_MAX = 64 * 1024 * 1024, 10**15
SCHEMA = """
PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
CREATE TABLE IF NOT EXISTS data (incarnation INTEGER, seq INTEGER, fenced INTEGER);
CREATE TABLE IF NOT EXISTS logs (log TEXT PRIMARY KEY, epoch INTEGER, mark_epoch INTEGER, mark_n INTEGER, url TEXT);
CREATE TABLE IF NOT EXISTS accounts (name TEXT PRIMARY KEY, balance INTEGER);
CREATE TABLE IF NOT EXISTS branches (txid TEXT PRIMARY KEY, log TEXT, epoch INTEGER, n INTEGER, state TEXT,
    id TEXT, account TEXT, amount INTEGER, answer TEXT);
CREATE UNIQUE INDEX IF NOT EXISTS locks ON branches (account) WHERE state = 'staged';
"""


class NotTaken(Exception):
    """A request of which nothing is done."""


class Ledger:
    def __init__(self, name, path):
        self.name, self.lock = name, threading.Lock()
        self.db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self.db.executescript(SCHEMA)
        if not self.row("SELECT * FROM data"):
            self.db.execute("INSERT INTO data VALUES (?, 0, 0)", [1 + secrets.randbelow(2**53 - 1)])

    def row(self, sql, *values):
        return self.db.execute(sql, values).fetchone()

    def atomic(self, work, *arguments):
        """One request is one transaction of SQLite: it is on the disk before its answer leaves."""
        with self.lock:
            self.db.execute("BEGIN IMMEDIATE")
            try:
                answer = work(*arguments)
                self.db.execute("COMMIT")
                return answer
            except BaseException:
                self.db.execute("ROLLBACK")
                raise

    def batch(self, batch):
        speaker, mark, known = batch["coordinator"], batch["low_water"], batch.get("known")
        log, epoch, mark = speaker["log_id"], speaker["epoch"], (mark["epoch"], mark["n"])
        messages = [next(iter(message.items())) for message in batch["messages"]]
        if batch["participant"] != self.name:
            raise NotTaken("unknown_participant", f"this is {self.name}")
        if mark[0] > epoch or any(of(body)[0] != log or of(body)[1] > epoch for _, body in messages):
            raise NotTaken("bad_request", "that is not for this speaker to say")
        incarnation, seq, fenced = self.row("SELECT * FROM data")
        if fenced or known and (known["incarnation"] != incarnation or known["seq"] > seq):
            self.db.execute("UPDATE data SET fenced = 1")
            return [no(kind, "quarantined", "this file lacks votes that were given on it") for kind, _ in messages]
        self.hear(log, epoch, mark, speaker["url"])
        return [self.message(kind, body) for kind, body in messages]

    def hear(self, log, epoch, mark, url):
        """Epochs and marks only rise. Below its log's mark, nothing is asked about any more."""
        if heard := self.row("SELECT epoch, mark_epoch, mark_n, url FROM logs WHERE log = ?", log):
            url = heard[3] if epoch < heard[0] else url
            epoch, mark = max(epoch, heard[0]), max(mark, heard[1:3])
        self.db.execute("INSERT OR REPLACE INTO logs VALUES (?, ?, ?, ?, ?)", [log, epoch, *mark, url])
        self.db.execute("DELETE FROM branches WHERE log = ? AND (epoch, n) < (?, ?) AND state != 'staged'",
                        [log, *mark])

    def message(self, kind, body):
        """The table of states: what is kept of the branch, and what it is told."""
        txid = body["txid"]
        found = self.row("SELECT state, account, amount, answer FROM branches WHERE txid = ?", txid)
        state, account, amount, answer = found or (None, None, None, None)
        if kind == "prepare":
            if state == "staged" or state == "done" and body["mode"] == "one_phase":
                return json.loads(answer)
            if state:
                return no(kind, "wrong_state" if state == "done" else "fenced", "it has ended")
            return self.prepare(txid, body)
        if kind == "commit":
            if state == "staged":
                self.apply(txid, account, amount)
            elif state != "done":
                return no(kind, "fenced" if state else self.forgotten(body), "nothing is staged")
            return {"state": "applied"}
        if kind == "settle" and state in ("staged", "done"):
            return {"state": "prepared" if state == "staged" else "applied"}
        if kind == "abort" and state == "done":
            return {**json.loads(answer), "vote": None, "state": "already_committed"}
        if kind in ("abort", "settle"):
            self.db.execute("INSERT OR REPLACE INTO branches (txid, log, epoch, n, state)"
                            " VALUES (?, ?, ?, ?, 'fenced')", [txid, *of(body)])
            return {"state": "aborted"}
        raise NotTaken("bad_request", f"{kind} is no message that is known here")

    def forgotten(self, body):
        log, *number = of(body)
        mark = self.row("SELECT mark_epoch, mark_n FROM logs WHERE log = ?", log)
        return "below_low_water" if tuple(number) < mark else "branch_lost"

    def prepare(self, txid, body):
        log, epoch, n = of(body)
        order, one_phase = body.get("input"), body["mode"] == "one_phase"
        account, amount = (order.get("account"), order.get("add", 0)) if isinstance(order, dict) else (None, None)
        if epoch < self.row("SELECT epoch FROM logs WHERE log = ?", log)[0]:
            return no("prepare", "stale_epoch", "a later life of this log has spoken")
        if self.forgotten(body) == "below_low_water":
            return no("prepare", "below_low_water", "everything there has ended")
        if body.get("branches"):
            return no("prepare", "not_durable", "implicit transactions are not taken here")
        if not isinstance(account, str) or type(amount) is not int or abs(amount) > AMOUNT_MAX:
            return no("prepare", "bad_arguments", 'the input must be {"account": NAME, "add": AMOUNT}')
        if holder := self.row("SELECT id, txid FROM branches WHERE account = ? AND state = 'staged'", account):
            return no("prepare", "lock_conflict", f"account {account} is locked",
                      holder={"id": holder[0], "txid": holder[1], "key": account})
        balance = (self.row("SELECT balance FROM accounts WHERE name = ?", account) or (0,))[0] + amount
        if not 0 <= balance <= AMOUNT_MAX:
            veto = {"code": "insufficient", "reason": f"the balance would be {balance}"}
            return no("prepare", "vetoed", veto["reason"], reply=veto)
        self.db.execute("UPDATE data SET seq = seq + 1")
        incarnation, seq, _ = self.row("SELECT * FROM data")
        redo = base64.b64encode(json.dumps([account, amount]).encode()).decode()
        answer = {"vote": "committed" if one_phase else "yes", "replies": [{"hook": {"balance": balance}}],
                  "redo": redo, "incarnation": incarnation, "seq": seq}
        self.db.execute("INSERT INTO branches VALUES (?, ?, ?, ?, 'staged', ?, ?, ?, ?)",
                        [txid, log, epoch, n, body["id"], account, amount, json.dumps(answer)])
        if one_phase:
            self.apply(txid, account, amount)
        return answer

    def apply(self, txid, account, amount):
        self.db.execute("INSERT INTO accounts VALUES (?, ?) ON CONFLICT DO UPDATE SET balance = balance + ?",
                        [account, amount, amount])
        self.db.execute("UPDATE branches SET state = 'done' WHERE txid = ?", [txid])

    def in_doubt(self):
        return self.db.execute("SELECT txid, log, url FROM branches JOIN logs USING (log)"
                               " WHERE state = 'staged'").fetchall()

    def keep_asking(self, pause_s):
        """Asks about every branch that was in doubt at the look before, too."""
        seen = set()
        while True:
            time.sleep(pause_s)
            doubts = self.atomic(self.in_doubt)
            for txid, log, url in doubts:
                outcome = outcome_of(txid, log, url) if txid in seen else None
                if outcome in ("committed", "aborted"):
                    self.atomic(self.message, "commit" if outcome == "committed" else "abort", {"txid": txid})
            seen = {txid for txid, _, _ in doubts}


def of(body):
    log, epoch, n, _attempt = body["txid"].split(".")
    return log, int(epoch), int(n)


def no(kind, code, detail, **more):
    return {"vote": "no", "code": code, "detail": detail, **more} if kind == "prepare" else \
        {"state": "refused", "code": code, "detail": detail}


def outcome_of(txid, log, url):
    """What the log says; nothing, unless it is the log that says it, and of this branch."""
    try:
        with urllib.request.urlopen(f"{url}/v1/transactions/{txid}/outcome", timeout=5) as answer:
            said = json.load(answer) if answer.headers.get_content_type() == OURS else {}
        return said.get("outcome") if (said.get("txid"), said.get("log_id")) == (txid, log) else None
    except (OSError, ValueError):
        return None


class Handler(BaseHTTPRequestHandler):
    protocol_version, wbufsize = "HTTP/1.1", -1

    def do_GET(self):
        if self.path != "/v1/data":
            return self.problem(404, "not_found", "there is no such path here")
        incarnation, seq, fenced = ledger.atomic(ledger.row, "SELECT * FROM data")
        self.answer({"incarnation": incarnation, "seq": seq, "view": 1, "fenced": bool(fenced),
                     "owed": [], "staged": [], "served": []})

    def do_POST(self):
        length, alone = int(self.headers.get("Content-Length", 0)), self.path.endswith("/prepare")
        if length > BODY_BYTES_MAX:
            self.close_connection = True
            return self.problem(413, "body_too_large", "the body is too large")
        body = self.rfile.read(length)
        if self.path != "/v1/batch" and not (alone and self.path.startswith("/v1/branches/")):
            return self.problem(404, "not_found", "there is no such path here")
        try:
            answers = ledger.atomic(ledger.batch, json.loads(body))
        except NotTaken as refusal:
            return self.problem(400, *refusal.args)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return self.problem(400, "bad_request", f"the body cannot be read: {error!r}")
        # Any other error closes the connection: what was done is not known, and that is what it says.
        self.answer(answers[0] if alone else {"answers": answers})

    def problem(self, status, code, detail):
        self.answer({"type": f"/errors#{code}", "title": code, "status": status, "code": code, "detail": detail,
                     "retryable": False}, status, PROBLEM)

    def answer(self, body, status=200, media_type=OURS):
        body = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", required=True)
    parser.add_argument("--port", type=int, default=7720)
    parser.add_argument("--db", default="ledger.db")
    parser.add_argument("--ask-after", type=float, default=1.0, metavar="SECONDS")
    options = parser.parse_args()
    ledger = Ledger(options.name, options.db)
    threading.Thread(target=ledger.keep_asking, args=[options.ask_after], daemon=True).start()
    ThreadingHTTPServer(("127.0.0.1", options.port), Handler).serve_forever()
