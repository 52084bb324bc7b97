"""The customers: each wants a lamp, and asks with the same order number until he is told."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from parts import post

PRICE = 40
RICH, POOR = 200, 30
"""What customers have at the beginning. A poor one cannot pay."""

POOR_ONE_IN, RESELLER_ONE_IN = 12, 14
RESELLER_WANTS = 4
"""A reseller orders so many at once; the payments service lets a customer buy two."""

PURCHASES_MAX = 2
CALM = 0.85
"""In this part of the sale, before word gets round, there come as many customers as lamps."""

ANSWER_TIMEOUT_S = 15
GIVES_UP_AFTER_S = 600
"""So long as a busy machine may take to start what was killed, and to serve all of them."""

PAUSE_S = (0.2, 0.8)

OPEN = ("waiting", "asking", "again")
"""What an order is while its customer does not know."""


@dataclass
class Order:
    """One order, and what its customer knows of it."""

    number: str
    customer: int
    wave: int
    """He comes when so many processes have been killed."""
    delay_s: float
    state: str = "waiting"
    """One of `OPEN`; or `sold`; or why it was refused."""
    asked: int = 0


@dataclass
class Crowd:
    """All customers."""

    seed: int
    customers: int
    items: int
    waves: int
    orders_url: Callable[[], str]
    orders: list[Order] = field(default_factory=list)
    balances: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Draw who they are, and when they come.

        Those whom the lamps suffice for come one by one, so that something is sold until shortly
        before the end; all others come then.
        """
        draw = random.Random(self.seed)
        self._wave = threading.Condition()
        self._waves_begun = 0
        self._threads: list[threading.Thread] = []
        for customer in range(self.customers):
            is_poor = draw.randrange(POOR_ONE_IN) == 0
            is_reseller = not is_poor and draw.randrange(RESELLER_ONE_IN) == 0
            self.balances[customer] = POOR if is_poor else RICH
            come = CALM * customer / self.items
            if come > CALM:
                come = CALM + (1 - CALM) * (customer - self.items) / (self.customers - self.items)
            for n in range(RESELLER_WANTS if is_reseller else 1):
                number = f"{self.seed}-{customer}-{n}"
                wave = min(int(come * self.waves), self.waves - 1)
                self.orders.append(Order(number, customer, wave, draw.uniform(0, 1)))

    def come(self) -> None:
        """Let them come to the shop."""
        for order in self.orders:
            thread = threading.Thread(target=self._shop, args=[order], daemon=True)
            self._threads.append(thread)
            thread.start()

    def next_wave(self) -> None:
        """Let those in who come now."""
        with self._wave:
            self._waves_begun += 1
            self._wave.notify_all()

    def are_done(self) -> bool:
        """Return whether each has his answer, or has given up."""
        return not any(thread.is_alive() for thread in self._threads)

    def counts(self) -> Counter[str]:
        """Count the orders by what their customers know."""
        return Counter(order.state for order in self.orders)

    def faces(self) -> list[str]:
        """Return one word for each customer: what is open, else the best that he was told."""
        faces = ["waiting"] * self.customers
        ranks = ["waiting", "sold_out", "overdraft", "fraud", "sold", "asking", "again"]
        for order in self.orders:
            state = order.state if order.state in ranks else "again"
            if ranks.index(state) > ranks.index(faces[order.customer]):
                faces[order.customer] = state
        return faces

    def _shop(self, order: Order) -> None:
        with self._wave:
            self._wave.wait_for(lambda: self._waves_begun > order.wave)
        draw = random.Random(order.number)
        time.sleep(order.delay_s)
        deadline = time.monotonic() + GIVES_UP_AFTER_S
        order.state = "asking"
        while time.monotonic() < deadline:
            told = self._ask(order)
            if told is not None:
                order.state = told
                return
            order.state = "again"
            time.sleep(draw.uniform(*PAUSE_S))

    def _ask(self, order: Order) -> str | None:
        """Send the order once; None if that did not tell him anything."""
        order.asked += 1
        body = {
            "number": order.number,
            "customer": order.customer,
            "item": "lamp",
            "quantity": 1,
        }
        try:
            status, said = post(f"{self.orders_url()}/orders", body, ANSWER_TIMEOUT_S)
        # A connection that broke tells nothing, and neither does half an answer.
        except (OSError, ValueError):
            return None
        if status == 200 and said.get("outcome") == "sold":
            return "sold"
        if status == 409 and said.get("outcome") == "refused":
            return str(said["code"])
        return None
