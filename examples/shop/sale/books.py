"""The books at the end: what the stores hold, read past Assent, and what customers were told."""

import json
import time
from collections import Counter
from dataclasses import dataclass, field

from customers import OPEN, PRICE, PURCHASES_MAX, Crowd
from parts import World, get

SETTLES_WITHIN_S = 60
LOOK_EVERY_S = 0.2
REDIS_PARTS = ("stock-redis", "payments-redis", "cache-redis")

# What an agent keeps of branches that have not ended, in its Redis: staged votes and locks.
STAGED_OR_LOCKED = ("s:", "l:")


@dataclass
class Facts:
    """What is there."""

    items: int
    left: int
    rows: dict[str, dict[str, object]]
    """By number: the order, as PostgreSQL has it."""
    copies: dict[str, dict[str, object]]
    """The same, as the cache has it."""
    shop_balance: int
    balances: dict[int, int]
    opening: dict[int, int]
    told: dict[str, str]
    """By number: what its customer was told."""
    unfinished: list[str] = field(default_factory=list)
    """What is still in doubt, locked or prepared, and where."""


def judge(facts: Facts) -> list[str]:
    """Return everything that is wrong; nothing, if the books are right."""
    wrong = [f"{what} has not ended" for what in facts.unfinished]
    sold = len(facts.rows)
    if sold != facts.items:
        wrong.append(f"{sold} of {facts.items} are sold")
    if facts.left != facts.items - sold:
        wrong.append(
            f"{sold} of {facts.items} are sold, and the stock says that {facts.left} are left"
        )
    for number in sorted(facts.rows.keys() | facts.copies.keys()):
        if facts.rows.get(number) != facts.copies.get(number):
            wrong.append(
                f"order {number} is {facts.rows.get(number)} in PostgreSQL, and "
                f"{facts.copies.get(number)} in the cache"
            )
    if facts.shop_balance != sold * PRICE:
        wrong.append(f"the shop has {facts.shop_balance}, and sold {sold} for {PRICE} each")
    bought = Counter(row["customer"] for row in facts.rows.values())
    for customer, opening in facts.opening.items():
        has, should = facts.balances.get(customer), opening - PRICE * bought[customer]
        if has != should:
            wrong.append(f"customer {customer} has {has}, and should have {should}")
        if should < 0 or bought[customer] > PURCHASES_MAX:
            wrong.append(f"customer {customer} bought {bought[customer]} with {opening}")
    waiting = [number for number, told in facts.told.items() if told in OPEN]
    if waiting:
        wrong.append(f"{len(waiting)} orders: their customers were never told ({waiting[0]} …)")
    for number, told in facts.told.items():
        if told not in OPEN and (told == "sold") != (number in facts.rows):
            is_there = "is" if number in facts.rows else "is not"
            wrong.append(f"order {number}: its customer was told {told}, and it {is_there} there")
    return wrong


def read(world: World, crowd: Crowd, items: int) -> Facts:
    """Wait until nothing is in doubt, and read all stores."""
    unfinished = settle(world)
    keys = sorted(world.redis("cache-redis", "--scan", "--pattern", "order:*"))
    copies = [
        json.loads(line) for line in (world.redis("cache-redis", "MGET", *keys) if keys else [])
    ]
    rows = [json.loads(line) for line in world.sql("SELECT row_to_json(orders) FROM orders")]
    customers = list(crowd.balances)
    held = world.redis("payments-redis", "MGET", *(f"balance:{one}" for one in customers))
    return Facts(
        items=items,
        left=int(world.redis("stock-redis", "GET", "stock:lamp")[0]),
        rows={str(row["number"]): row for row in rows},
        copies={str(copy["number"]): copy for copy in copies},
        shop_balance=int(world.redis("payments-redis", "GET", "balance:shop")[0]),
        balances={one: int(balance) for one, balance in zip(customers, held, strict=True)},
        opening=crowd.balances,
        told={order.number: order.state for order in crowd.orders},
        unfinished=unfinished,
    )


def settle(world: World) -> list[str]:
    """Return what is still unfinished when the time is over; nothing, as soon as nothing is."""
    deadline = time.monotonic() + SETTLES_WITHIN_S
    while True:
        left = unfinished(world)
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(LOOK_EVERY_S)


def unfinished(world: World) -> list[str]:
    """Return what is in doubt, staged, locked or prepared."""
    url = f"{world.url('coordinator')}/v1/transactions?in_doubt=true"
    page = get(url, timeout_s=5, headers=world.headers)
    left = [f"transaction {view['id']} ({view['state']})" for view in page["transactions"]]
    for part in REDIS_PARTS:
        fields = world.redis(part, "HKEYS", "assent:ctl")
        left += [f"{name} at {part}" for name in fields if name.startswith(STAGED_OR_LOCKED)]
    gids = world.sql("SELECT gid FROM pg_prepared_xacts")
    return left + [f"{gid} at orders-postgres" for gid in gids]


def summary(facts: Facts) -> list[str]:
    """Say what the books hold, a line each."""
    told = Counter(facts.told.values())
    refused = ", ".join(f"{count} {code}" for code, count in sorted(told.items()) if code != "sold")
    return [
        f"{len(facts.rows)} of {facts.items} sold, {facts.left} left in the stock",
        f"{len(facts.rows)} rows in PostgreSQL, {len(facts.copies)} copies in the cache, the same",
        f"{facts.shop_balance} paid: {len(facts.rows)} for {PRICE} each",
        f"orders refused: {refused or 'none'}",
        "nothing in doubt, nothing locked, nothing prepared",
    ]
