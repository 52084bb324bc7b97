"""Promise: this SDK means by its answers what all SDKs mean (sdk/contract)."""

from collections.abc import Iterator
from typing import Any

import pytest
from contract_runner import CASES, Case
from drivers import AsyncDriver, Driver, SyncDriver
from stack import Stack, running


@pytest.fixture(scope="module", params=[SyncDriver, AsyncDriver], ids=["sync", "async"])
def sides(request: pytest.FixtureRequest) -> Iterator[tuple[Stack, Driver]]:
    """A coordinator of its own for each client: the cases share keys."""
    with (
        running("bank", "shop", "credit", hooks_at=["shop", "credit"]) as stack,
        request.param() as driver,
    ):
        yield stack, driver


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_case(sides: tuple[Stack, Driver], case: dict[str, Any]) -> None:
    stack, driver = sides
    Case(stack, driver).run(case["steps"])
