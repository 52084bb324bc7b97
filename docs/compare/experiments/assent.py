"""Assent: a coordinator, an agent beside each of three Redis. A transaction is held before its last
vote while the agent that has to give it is frozen."""

import os
import subprocess
import threading

from servers import Assent, Missing, Redis, call, wait_for


class Background:
    """A transaction that is under way."""

    def __init__(self, bank, body, key=None):
        self.answer = None
        self.bank, self.body, self.key = bank, body, key
        self.thread = threading.Thread(target=self.ask, daemon=True)
        self.thread.start()

    def ask(self):
        try:
            self.answer = self.bank.submit(self.body, self.key)
        except OSError as error:
            self.answer = {"outcome": "no answer", "error": str(error)}

    def wait(self):
        wait_for("an answer", lambda: self.answer)
        return self.answer


def transfer(seen=None, amount=30):
    """From Alice to Bob; `seen` is the key that `audit` keeps of it, if it has a part in it."""
    branches = [
        {"participant": "bank-a",
         "ops": [{"cmd": ["DECRBY", "alice", amount], "expect": {"ge": 0}}]},
        {"participant": "bank-b", "ops": [{"cmd": ["INCRBY", "bob", amount]}]}]
    if seen:
        branches.append({"participant": "audit", "ops": [{"cmd": ["SET", seen, 1]}]})
    return {"branches": branches, "timeout": "60s"}


def reading(timeout="60s"):
    return {"timeout": timeout, "branches": [
        {"participant": "bank-a", "ops": [{"cmd": ["GET", "alice"]}]},
        {"participant": "bank-b", "ops": [{"cmd": ["GET", "bob"]}]}]}


def replies(answer):
    return tuple(int(branch["replies"][0]) for branch in answer.get("branches", []))


def short(answer):
    """The outcome, and the code of an abort."""
    return " ".join(filter(None, [answer.get("outcome"), answer.get("code")]))


class Bank:
    """Alice at bank-a, Bob at bank-b, and an audit that votes last."""

    def __init__(self):
        if not os.environ.get("ASSENT_BIN"):
            raise Missing("no assent: build one, or set ASSENT_BIN")
        self.redis, self.agents, registered = {}, {}, []
        for name in ["bank-a", "bank-b", "audit"]:
            server = self.redis[name] = Redis(f"redis-of-{name}")
            agent = self.agents[name] = Assent(
                f"agent-of-{name}", "participant", "--name", name,
                "--redis", f"unix://{server.dir}/socket")
            registered += ["--participant", f"{name}={agent.url('')}"]
        log = self.redis["audit"].dir.parent / "decisions"
        program = os.environ["ASSENT_BIN"]
        subprocess.run([program, "init", "--data-dir", log], check=True, capture_output=True)
        self.coordinator = Assent("coordinator", "coordinator", "--data-dir", log, *registered)
        self.alice, self.bob = (self.redis[name].connect() for name in ["bank-a", "bank-b"])

    def begin(self):
        """What every experiment begins with; nothing is locked, and every participant answers."""
        wait_for("every participant", lambda: short(self.submit({"branches": [
            {"participant": name, "ops": [{"cmd": ["GET", "any"]}]} for name in self.agents
        ]})) == "committed")
        self.alice.set("alice", 100)
        self.bob.set("bob", 0)

    def submit(self, body, key=None):
        headers = {"Idempotency_Key": key} if key else {}
        return call(self.coordinator.url("/v1/transactions"), body, **headers)

    def money(self):
        """What plain clients of both Redis see, past the agents."""
        return int(self.alice.get("alice")), int(self.bob.get("bob"))

    def locked(self, name):
        """The keys of the branches that are prepared at a participant."""
        listed = call(self.agents[name].url("/v1/branches"))["branches"]
        return [key for branch in listed for key in branch["keys"]]

    def hold(self, seen, key=None):
        """A transfer that has both banks' votes; the agent of `audit` is frozen before its own."""
        self.agents["audit"].freeze()
        held = Background(self, transfer(seen), key)
        wait_for("the votes of both banks", lambda: all(
            self.locked(name) for name in ["bank-a", "bank-b"]))
        return held

    def release(self):
        """Lets `audit` vote."""
        self.agents["audit"].thaw()

    def hold_between(self, seen, key=None):
        """A transfer that is decided, and applied at bank-a only: the agent of bank-b is frozen."""
        held = self.hold(seen, key)
        before = self.alice.get("alice")
        self.agents["bank-b"].freeze()
        self.release()
        wait_for("the commit at bank-a", lambda: self.alice.get("alice") != before)
        return held


def run(say):
    bank = Bank()
    version = call(bank.coordinator.url("/v1/version"))["version"]
    redis = bank.alice.info("server")["redis_version"]
    say.about(f"Assent {version}, each participant with a Redis {redis}")

    bank.begin()
    held = bank.hold("t1")
    plain = bank.money()
    same = bank.submit({"timeout": "2s", "branches": [
        {"participant": "bank-a", "ops": [{"cmd": ["INCRBY", "alice", 1]}]}]})
    other = bank.submit({"branches": [
        {"participant": "bank-a", "ops": [{"cmd": ["SET", "carol", 5]}]}]})
    bank.release()
    end = held.wait()
    say("A1",
        "While a transaction is prepared, plain readers see what was before it; whoever wants "
        "the same key through Assent waits, until his own deadline; other keys are free.",
        plain == (100, 0) and short(same) == "aborted lock_conflict"
        and short(other) == "committed" and short(end) == "committed"
        and bank.money() == (70, 30),
        f"plain: {plain}; the same key: {short(same)}; another key: {short(other)}; after: "
        f"{bank.money()}")

    bank.begin()
    held = bank.hold_between("t2")
    half = bank.money()
    through = bank.submit(reading("500ms"))
    patient = Background(bank, reading())
    bank.agents["bank-b"].thaw()
    whole = replies(patient.wait())
    held.wait()
    say("A2",
        "Between the two applies a plain client of both Redis sees half of the transfer. A "
        "reader through Assent does not: it waits, or is aborted.",
        half == (70, 0) and short(through).startswith("aborted") and whole == (70, 30),
        f"plain: {half}; through Assent: {short(through)}, and {whole} when bank-b is back")

    bank.begin()
    held = bank.hold_between("t3", key="payment-3")
    bank.coordinator.kill()
    bank.agents["bank-b"].kill()
    bank.agents["bank-b"].start()
    told, meanwhile, locked = held.wait()["outcome"], bank.money(), bank.locked("bank-b")
    bank.coordinator.start()
    wait_for("the end of the branch in doubt", lambda: not bank.locked("bank-b"))
    alone = bank.money()
    again = bank.submit(transfer("t3"), key="payment-3")
    say("A3",
        "After kill -9 of the coordinator and of an agent, behind the decision, the branch "
        "stays in doubt and locked. When both are back, it is finished without being asked "
        "for. The client repeats its key, and is told what became of it; nothing is done "
        "twice.",
        told == "no answer" and meanwhile == (70, 0) and locked == ["bob"] and alone == (70, 30)
        and short(again) == "committed" and bank.money() == alone,
        f"the client: {told}; meanwhile: {meanwhile}, locked: {locked}; when they are back: "
        f"{alone}; by the key: {short(again)}, {bank.money()}")

    bank.begin()
    bank.hold("t4")
    bank.coordinator.kill()
    bank.coordinator.start()
    wait_for("the end of both branches", lambda: not any(
        bank.locked(name) for name in ["bank-a", "bank-b"]))
    bank.release()
    alone, free = bank.money(), bank.submit(transfer())
    say("A4",
        "After kill -9 of the coordinator before the decision, the transaction is aborted "
        "when it is back, and its locks are free.",
        alone == (100, 0) and short(free) == "committed" and bank.money() == (70, 30),
        f"when it is back: {alone}, nothing in doubt; the next transfer: {short(free)}, "
        f"{bank.money()}")

    bank.begin()
    held = bank.hold("t5")
    bank.redis["bank-b"].kill()
    bank.redis["bank-b"].start()
    bank.release()
    end = held.wait()
    say("A5",
        "A vote outlives kill -9 of the Redis that keeps it: the transaction commits.",
        short(end) == "committed" and bank.money() == (70, 30), f"{short(end)}, {bank.money()}")

    bank.begin()
    held = bank.hold("t6")
    taken = bank.bob.set("bob", 1000)
    bank.release()
    end = held.wait()
    say("A6",
        "A plain client is not stopped from writing a locked key. The decision stands, and "
        "the plain client's write is lost.",
        taken is True and short(end) == "committed" and bank.money() == (70, 30),
        f"SET bob 1000: {'OK' if taken else 'refused'}; the transfer: {short(end)}, {bank.money()}")

    bank.begin()
    old = bank.redis["bank-b"]
    old.back_up()
    old.start()
    wait_for("a transfer", lambda: short(bank.submit(transfer())) == "committed")
    whole = bank.money()
    old.restore()
    found = old.has("bob")
    old.start()
    wait_for("the repair", lambda: bank.money() == whole)
    after = wait_for("a transfer behind it", lambda: replies(bank.submit(transfer())))
    say("A7",
        "One Redis comes back from a copy that is older than a committed transfer: that is "
        "noticed, and repaired from the coordinator's log.",
        whole == (70, 30) and found == "0" and after == (40, 60),
        f"before: {whole}; in the copy: {found}; after the restore: {whole} again; the next "
        f"transfer: {after}")
