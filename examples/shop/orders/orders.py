"""The orders service of the shop: a row of each order in PostgreSQL, and a copy of it in Redis.

A purchase is one transaction over four stores of three services: the stock takes an item off, the
customer pays, the row is inserted, and the copy is written. All of that happens, or nothing.

    ORDERS_POSTGRES=postgres://app@127.0.0.1/postgres ORDERS_REDIS=redis://127.0.0.1:6379 \
    ASSENT_URL=http://127.0.0.1:7700 python3 orders.py
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, Literal

import assent
import asyncpg
import redis.asyncio
import uvicorn
from fastapi import FastAPI, HTTPException
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

PRICES = {"lamp": 40}
ANSWER_WITHIN_S = 10
PAUSE_S = 0.2

SCHEMA = """CREATE TABLE IF NOT EXISTS orders (number text PRIMARY KEY, customer int NOT NULL,
    item text NOT NULL, quantity int NOT NULL, paid bigint NOT NULL)"""


class Order(BaseModel):
    """What a customer sends. He draws the number himself, and keeps it for all he asks again."""

    number: str = Field(pattern="^[a-z0-9-]{1,40}$")
    customer: int = Field(ge=0, lt=2**31)
    item: Literal["lamp"]
    quantity: int = Field(ge=1, le=10)


def purchase(order: Order, attempt: int) -> assent.Transaction:
    """Write the transaction. Its key is made of the order's number, so it is done once."""
    paid = PRICES[order.item] * order.quantity
    tx = assent.Transaction(key=f"{order.number}/{attempt}", name="purchase", timeout_ms=3_000)
    tx.input("stock", {"item": order.item, "quantity": order.quantity})
    tx.input("payments", {"customer": order.customer, "amount": paid})
    row = {**order.model_dump(), "paid": paid}
    tx.sql(
        "orders",
        "INSERT INTO orders (number, customer, item, quantity, paid) VALUES ($1, $2, $3, $4, $5)",
        *row.values(),
    )
    tx.op("orders-cache", "SET", f"order:{order.number}", json.dumps(row))
    return tx


async def buy(order: Order) -> dict[str, Any]:
    """Sell, or say why not. The same order again gets the same answer, and is paid once.

    An attempt that was aborted by bad luck (somebody held a lock, a store was down) is followed by
    another one, under the next key. An order that is asked for again goes through the same keys:
    those of old attempts are answered at once, as they were.
    """
    for attempt in count(1):
        try:
            await outcome(purchase(order, attempt))
            return {"outcome": "sold"}
        except assent.Aborted as aborted:
            # The row is there: an earlier attempt has been committed.
            if aborted.code == "constraint_violated":
                return {"outcome": "sold"}
            if not aborted.retryable:
                return {"outcome": "refused", **why(aborted)}
        await asyncio.sleep(PAUSE_S)
    raise AssertionError("the count has no end")


async def outcome(tx: assent.Transaction) -> None:
    """Return when it is committed, raise `Aborted` if nothing of it is done or will be.

    What is not known is asked for by the same transaction again: that is done once, however often
    it is sent.
    """
    while True:
        try:
            await app.state.client.submit(tx)
            return
        except assent.Rejected as rejected:
            if not rejected.retryable:
                raise
        except assent.Unknown:
            pass
        await asyncio.sleep(PAUSE_S)


def why(aborted: assent.Aborted) -> dict[str, str | None]:
    """Say it in the words of the shop."""
    if aborted.veto:
        return {"code": aborted.veto.code, "reason": aborted.veto.reason}
    if aborted.participant == "stock" and aborted.code == "expectation_failed":
        return {"code": "sold_out", "reason": "there are not enough left"}
    return {"code": aborted.code, "reason": aborted.detail}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Keep the connections: to the coordinator, and to the service's own stores for reading."""
    async with (
        assent.AsyncClient() as app.state.client,
        asyncpg.create_pool(os.environ["ORDERS_POSTGRES"], command_timeout=2) as app.state.rows,
        redis.asyncio.from_url(os.environ["ORDERS_REDIS"], socket_timeout=2) as app.state.cache,
    ):
        await app.state.rows.execute(SCHEMA)
        yield


app = FastAPI(title="orders", lifespan=lifespan)


@app.post("/orders")
async def place(order: Order) -> JSONResponse:
    """Answer 200: sold; 409: refused, nothing is paid; 503: not known, send the same again."""
    try:
        said = await asyncio.wait_for(buy(order), ANSWER_WITHIN_S)
    except asyncio.TimeoutError:
        return JSONResponse({"outcome": "unknown", "reason": "send the same order again"}, 503)
    return JSONResponse(said, 200 if said["outcome"] == "sold" else 409)


@app.get("/orders/{number}")
async def read(number: str) -> dict[str, Any]:
    """Return an order, from the cache: a row is never without its copy."""
    copy = await app.state.cache.get(f"order:{number}")
    if copy is None:
        raise HTTPException(404, f"there is no order {number}")
    return json.loads(copy)


@app.get("/books")
async def books() -> dict[str, int]:
    """Count rows and copies. Each is read by itself, so a purchase may lie between the two."""
    row = await app.state.rows.fetchrow(
        "SELECT count(*) AS rows, coalesce(sum(paid), 0)::bigint AS paid FROM orders"
    )
    copies = [key async for key in app.state.cache.scan_iter("order:*", count=1_000)]
    return {**row, "copies": len(copies)}


@app.get("/livez")
async def livez() -> dict[str, str]:
    """Say that the process works."""
    return {}


if __name__ == "__main__":
    host, port = os.environ.get("ORDERS_LISTEN", "127.0.0.1:8000").split(":")
    uvicorn.run(app, host=host, port=int(port), log_level="warning")
