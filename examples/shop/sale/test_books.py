"""Promise: the check at the end finds each lie that a store or an answer could tell."""

import unittest
from dataclasses import replace

from books import Facts, judge


def facts() -> Facts:
    """Return books that are right: of two lamps, customers 1 and 2 bought one each."""
    rows: dict[str, dict[str, object]] = {
        f"7-{one}-0": {"number": f"7-{one}-0", "customer": one, "paid": 40} for one in (1, 2)
    }
    return Facts(
        items=2,
        left=0,
        rows=rows,
        copies={number: dict(row) for number, row in rows.items()},
        shop_balance=80,
        balances={1: 160, 2: 160, 3: 30},
        opening={1: 200, 2: 200, 3: 30},
        told={"7-1-0": "sold", "7-2-0": "sold", "7-3-0": "overdraft"},
    )


class Books(unittest.TestCase):
    """Each case is one lie."""

    def test_books_that_are_right_are_clean(self) -> None:
        assert judge(facts()) == []

    def test_each_lie_is_found(self) -> None:
        right = facts()
        rows, one = right.rows, dict(list(right.rows.items())[:1])
        thrice = {f"7-1-{n}": {**rows["7-1-0"], "number": f"7-1-{n}"} for n in range(3)}
        told = {**right.told, "7-3-0": "sold"}
        lies = {
            "1 of 2 are sold": replace(right, rows=one),
            "the stock says that 1 are left": replace(right, left=1),
            "and None in the cache": replace(right, copies=one),
            "None in PostgreSQL": replace(right, rows=one),
            "the shop has 40": replace(right, shop_balance=40),
            "customer 1 has 120": replace(right, balances={**right.balances, 1: 120}),
            "customer 3 has None": replace(right, balances={1: 160, 2: 160}),
            "customer 1 bought 3": replace(right, rows=thrice, copies=thrice),
            "never told": replace(right, told={**right.told, "7-3-0": "again"}),
            "told sold, and it is not there": replace(right, told=told),
            "told sold_out, and it is there": replace(right, told={"7-1-0": "sold_out"}),
            "s:1 at stock-redis has not ended": replace(right, unfinished=["s:1 at stock-redis"]),
        }
        for finding, lie in lies.items():
            with self.subTest(finding):
                found = judge(lie)
                assert any(finding in line for line in found), found


if __name__ == "__main__":
    unittest.main()
