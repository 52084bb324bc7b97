"""Promise: each example of the pages runs as it is printed, and prints what it says."""

import re
from typing import Any

import pytest
from stack import ROOT, running

BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
PRINTED = re.compile(r"\bprint\(.*\)  # (.*)")


@pytest.mark.parametrize("page", ["docs/guides/python.md", "sdk/python/README.md"])
def test_examples_run_as_printed(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / page).read_text()
    blocks = BLOCK.findall(text)
    namespace: dict[str, Any] = {}

    def decide(call: Any, stage: Any) -> Any:
        return namespace["decide"](call, stage)

    with running("bank-a", "bank-b", "credit", hook=decide, hooks_at=["credit"]) as stack:
        for block in blocks:
            code = block.replace("http://127.0.0.1:7700", stack.url)
            exec(compile(code, page, "exec"), namespace)  # noqa: S102 - they are our own pages
        if "client" in namespace:
            namespace["client"].close()
    assert blocks
    assert capsys.readouterr().out.splitlines() == PRINTED.findall(text)
