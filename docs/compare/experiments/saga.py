"""Plain Redis, and a saga over two of them: a log, steps that are guarded by a marker, and
compensations."""

import signal
import socket
import subprocess
import sys

import redis
from servers import Redis, Server, find, wait_for

# A step at most once, if nobody goes below zero.
STEP = """
if redis.call('EXISTS', KEYS[2]) == 1 then return 'done before' end
if redis.call('GET', KEYS[1]) + ARGV[1] < 0 then return 'refused' end
redis.call('SET', KEYS[2], 1)
redis.call('INCRBY', KEYS[1], ARGV[1])
return 'done'
"""


class Saga:
    """A transfer: the second account first. What is logged is known after a crash."""

    def __init__(self, log, name, steps):
        self.log, self.name, self.steps = log, name, steps

    def step(self, number, undo=False):
        client, key, by = self.steps[number]
        marker = f"saga:{self.name}:{number}{':undo' if undo else ''}"
        answer = client.eval(STEP, 2, key, marker, -by if undo else by)
        if answer != "refused":
            self.log.rpush(f"log:{self.name}", f"{'undone' if undo else 'done'} {number}")
        return answer

    def resume(self):
        """Does what the log does not have yet."""
        logged = self.log.lrange(f"log:{self.name}", 0, -1)
        return [self.step(number) for number in range(len(self.steps))
                if f"done {number}" not in logged]


DIES_BETWEEN = """
import os, redis, signal, sys
a, b = (redis.Redis(unix_socket_path=path) for path in sys.argv[1:])
a.pipeline(transaction=True).decrby("alice", 30).execute()
os.kill(os.getpid(), signal.SIGKILL)
b.pipeline(transaction=True).incrby("bob", 30).execute()
"""


def in_a_cluster():
    """What one server in cluster mode says of two keys, without and with a tag in common."""
    node = Server("redis-cluster")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    node.launch(
        find("redis-server"), "--port", port, "--bind", "127.0.0.1", "--cluster-enabled", "yes",
        "--cluster-port", "0" if port < 55_000 else port - 10_000, "--save", "",
        "--dir", node.dir)
    client = redis.Redis(port=port, decode_responses=True)
    wait_for("Redis", lambda: client.ping())
    client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
    wait_for("the cluster",
             lambda: client.execute_command("CLUSTER INFO")["cluster_state"] == "ok")

    def transaction(*keys):
        with socket.create_connection(("127.0.0.1", port)) as raw:
            words = ["MULTI", *(f"SET {key} 1" for key in keys), "EXEC"]
            raw.sendall("".join(f"{word}\r\n" for word in words).encode())
            answers = raw.makefile()
            return [answers.readline().strip() for _ in words][-2:]

    return transaction("alice", "bob"), transaction("{bank}alice", "{bank}bob")


def run(say):
    a, b, log = Redis("redis-a"), Redis("redis-b"), Redis("redis-log")
    alice, bob, logged = a.connect(), b.connect(), log.connect()
    say.about(f"Redis {alice.info('server')['redis_version']}, without Assent")

    def money():
        return int(alice.get("alice")), int(bob.get("bob"))

    def begin(first, second):
        alice.set("alice", first)
        bob.set("bob", second)

    begin(100, 0)
    paths = [server.dir / "socket" for server in (a, b)]
    died = subprocess.run([sys.executable, "-c", DIES_BETWEEN, *paths]).returncode
    say("R1",
        "A process that dies between two MULTI at two servers leaves half of the transfer, "
        "and nobody knows of it.",
        died == -signal.SIGKILL and money() == (70, 0), f"{money()}")

    apart, together = in_a_cluster()
    say("R2",
        "In a Redis Cluster MULTI takes keys of one slot only; a tag puts keys into one slot.",
        apart[-1].startswith("-CROSSSLOT") and together[-1] == "*2",
        f"alice and bob: {apart}; {{bank}}alice and {{bank}}bob: {together}")

    def transfer(name):
        return Saga(logged, name, [(bob, "bob", 30), (alice, "alice", -30)])

    begin(100, 0)
    saga = transfer("s1")
    saga.step(0)
    between = money()
    free = bool(bob.set("bob:mail", "b@example.org")) and bob.incrby("bob", 0) == 30
    saga.step(1)
    say("S1",
        "Between the steps of a saga everybody sees half of it, and nobody waits.",
        between == (100, 30) and free and money() == (70, 30),
        f"between: {between}, a writer of the same key goes on; after: {money()}")

    begin(10, 0)
    saga = transfer("s2")
    saga.step(0)
    seen = money()
    bob.incrby("bob", -30)
    refused = saga.step(1)
    undo = saga.step(0, undo=True)
    say("S2",
        "What was seen between the steps can be used before the saga is undone, and then it "
        "cannot be undone.",
        (seen, refused, undo) == ((10, 30), "refused", "refused"),
        f"bob has {seen[1]} and spends it; alice's step: {refused}; the compensation: {undo}; "
        f"{money()}")

    begin(100, 0)
    transfer("s3").step(0)
    logged.delete("log:s3")
    answers = transfer("s3").resume()
    say("S3",
        "A saga whose process dies is finished from its log. A step that was done and not "
        "logged comes again, and only its marker keeps it from being done twice.",
        answers == ["done before", "done"] and money() == (70, 30), f"{answers}; {money()}")

    begin(100, 0)
    b.back_up()
    b.start()
    transfer("s4").resume()
    whole = money()
    b.restore()
    b.start()
    found, left = money(), transfer("s4").resume()
    say("S4",
        "One Redis comes back from a copy that is older than a finished saga: half of it is "
        "gone, the log says that it is done, and nobody notices.",
        whole == (70, 30) and found == (70, 0) and left == [],
        f"before: {whole}; after the restore: {found}; steps that the log lacks: {left}")
