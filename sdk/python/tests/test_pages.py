"""Promise: each example of the pages runs as it is printed, and prints what it says."""

import re
from typing import Any

import pytest
import redis
from stack import ROOT, running

BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
PRINTED = re.compile(r"\bprint\(.*\)  # (.*)")


PAGES = ["docs/guides/python.md", "sdk/python/README.md", "docs/guides/redis-clients.md"]


@pytest.mark.parametrize("page", PAGES)
def test_examples_run_as_printed(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / page).read_text()
    blocks = BLOCK.findall(text)
    namespace: dict[str, Any] = {}

    def decide(call: Any, stage: Any) -> Any:
        return namespace["decide"](call, stage)

    with running("bank-a", "bank-b", "credit", hook=decide, hooks_at=["credit"]) as stack:
        port = stack.resp.rpartition(":")[2]
        with redis.Redis(port=int(port)) as client:
            # What the page of the port for Redis clients has by redis-cli before.
            client.set("bank-a:alice", 100)
        for block in blocks:
            code = block.replace("http://127.0.0.1:7700", stack.url)
            code = code.replace("port=7702", f"port={port}")
            exec(compile(code, page, "exec"), namespace)  # noqa: S102 - they are our own pages
        if "client" in namespace:
            namespace["client"].close()
    assert blocks
    assert capsys.readouterr().out.splitlines() == PRINTED.findall(text)
