"""What several tests use."""

from collections.abc import Iterator

import pytest
from stack import Stack, running


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """A live coordinator, for tests that use keys of their own."""
    with running("bank", "shop") as stack:
        yield stack
