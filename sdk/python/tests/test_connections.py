"""Promise: an answer is that of this request: no connection is shared with who might read it."""

import os
import subprocess
import sys
from textwrap import dedent

import anyio
import httpx
import pytest
from stack import LossyProxy, Stack
from test_client import one_op

import assent


class Counting(LossyProxy):
    """Counts the connections."""

    def __init__(self, url: str) -> None:
        self.connections = 0
        super().__init__(url)

    def _serve(self, peer: object) -> None:
        self.connections += 1
        super()._serve(peer)  # type: ignore[arg-type]


def program(text: str) -> list[str]:
    """Run a program, and return what it prints: forks and ended loops are not for this process."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", dedent(text)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


SETUP = """
import asyncio, os, assent, httpx
URL = "{url}"

def one_op():
    tx = assent.Transaction()
    tx.op("bank", "GET", "k")
    return tx

def told(submit, tx):
    try:
        return type(submit(tx)).__name__
    except Exception as error:
        return f"{{type(error).__name__}}, is_unclear={{tx.is_unclear}}: {{error}}"
"""


def test_a_forked_process_has_connections_of_its_own(stack: Stack) -> None:
    with Counting(stack.url) as proxy:
        said = program(
            SETUP.format(url=proxy.url)
            + """
own = assent.Client(URL)
given = assent.Client(URL, http_client=httpx.Client(trust_env=False))
unused = assent.Client(URL, http_client=httpx.Client(trust_env=False))
print(told(own.submit, one_op()), told(given.submit, one_op()), flush=True)
if os.fork() == 0:
    print(told(own.submit, one_op()))
    print(told(unused.submit, one_op()))
    print(told(given.submit, one_op()), flush=True)
    own.close()
    os._exit(0)
os.wait()
print(told(own.submit, one_op()))
"""
        )
    assert said[:3] == ["Committed Committed", "Committed", "Committed"]
    assert said[3].startswith("RuntimeError, is_unclear=False: http_client was used in another")
    assert said[4] == "Committed"
    assert proxy.connections == 4, "two of the parent, two of the child"


def test_each_event_loop_has_connections_of_its_own(stack: Stack) -> None:
    said = program(
        SETUP.format(url=stack.url)
        + """
client = assent.AsyncClient(URL)
given = assent.AsyncClient(URL, http_client=httpx.AsyncClient(trust_env=False))
for one in (client, given):
    for _ in range(3):
        print(told(lambda tx: asyncio.run(one.submit(tx)), one_op()))
"""
    )
    assert said[:4] == ["Committed"] * 4
    for refused in said[4:]:
        assert refused.startswith("RuntimeError, is_unclear=False: http_client was used in another")
    assert len(said) == 6


def test_event_loops_of_several_threads_share_a_client(stack: Stack) -> None:
    said = program(
        SETUP.format(url=stack.url)
        + """
import threading
client = assent.AsyncClient(URL)

async def some():
    return {(await client.submit(one_op())).id for _ in range(9)}

def say():
    print(f"{len(asyncio.run(some()))}\\n", end="")

threads = [threading.Thread(target=say) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""
    )
    assert said == ["9"] * 4


def test_a_closed_client_that_is_awaited_begins_nothing() -> None:
    async def run() -> None:
        http = httpx.AsyncClient()
        given, own = assent.AsyncClient("http://one", http_client=http), assent.AsyncClient()
        await http.aclose()
        await own.close()
        for client in (given, own):
            tx = one_op()
            with pytest.raises(RuntimeError, match="is closed"):
                await client.submit(tx)
            assert (tx.is_unclear, tx.coordinator) == (False, None)

    anyio.run(run)
