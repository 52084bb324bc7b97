"""Promise: what runs as processes runs as containers too."""

import re
import unittest
from pathlib import Path

from containers import COMPOSE_FILE, PUBLISHED
from parts import PARTS, READY, STORES


class Parts(unittest.TestCase):
    """The names stand in several files."""

    def test_each_part_is_a_service_of_the_compose_file(self) -> None:
        assert services(COMPOSE_FILE) - {"init"} == {part.name for part in PARTS}

    def test_each_published_part_takes_the_port_that_the_sale_gives_it(self) -> None:
        text = COMPOSE_FILE.read_text()
        for part in PUBLISHED:
            assert f"127.0.0.1:${{SHOP_{part.upper()}_PORT:-" in text, part

    def test_who_is_no_store_says_that_it_is_ready(self) -> None:
        assert READY.keys() | set(STORES) == {part.name for part in PARTS}


def services(compose: Path) -> set[str]:
    """Return the names below `services:`, without a parser of YAML."""
    section = compose.read_text().split("\nservices:\n")[1].split("\nnetworks:\n")[0]
    return set(re.findall(r"^  ([a-z-]+):$", section, re.MULTILINE))


if __name__ == "__main__":
    unittest.main()
