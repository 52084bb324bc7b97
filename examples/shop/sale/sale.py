"""The last lamps: customers buy what is left while processes die, and then the books are checked.

    make shop           (in containers)
    make shop-local     (as processes of this machine)

Prints the address of a page that shows it all. Ends with 0 if the books are right.
"""

import argparse
import random
import sys
import time
from pathlib import Path

import books
from board import Board
from containers import Containers
from customers import Crowd
from parts import PARTS, NotStarted, World, post, wait_until
from processes import Processes

DOWN_S = (0.5, 1.0)
"""How long a killed part stays down, and how long it is quiet before the next one."""

CROWD_WITHIN_S = 660
OPENING_WITHIN_S = 30
BROWSERS_READ_S = 1.5
"""How long the page is served after the end, for those who look on."""


def main() -> int:
    """Play the sale, and return the exit code."""
    options = arguments()
    world = Containers() if options.docker else Processes(options.programs, options.python)
    draw = random.Random(options.seed)
    victims = [part.name for part in PARTS] * options.rounds
    draw.shuffle(victims)
    victims = victims[: options.kills] if options.kills else victims
    crowd = Crowd(
        options.seed, options.customers, options.items, len(victims), lambda: world.url("orders")
    )
    is_clean = False
    try:
        wanted = f"{options.customers} customers, {options.items} lamps, {len(victims)} kills"
        print(f"seed {options.seed}: {wanted}")
        board = Board(world, crowd, options.items, options.port)
        board.open()
        print(f"look on at {board.url}", flush=True)
        is_clean = play(world, crowd, board, victims, draw, options.items)
        if options.keep:
            print(f"the shop stays open: {board.url} (Ctrl-C ends it)", flush=True)
            while True:
                time.sleep(1)
        time.sleep(BROWSERS_READ_S)
        return 0 if is_clean else 1
    except KeyboardInterrupt:
        is_clean = True
        return 130
    finally:
        world.stop(is_clean)


def play(
    world: World, crowd: Crowd, board: Board, victims: list[str], draw: random.Random, items: int
) -> bool:
    """Open the shop, let the crowd in, kill, revive, and check the books."""
    board.tell(f"the shop is being built: {len(PARTS)} {world.what}")
    world.start()
    fill(world, crowd, items)
    board.phase = "selling"
    board.tell(f"open: {items} lamps, {len(crowd.balances)} customers")
    crowd.come()
    for victim in victims:
        crowd.next_wave()
        time.sleep(draw.uniform(*DOWN_S))
        kill(world, board, victim, draw.uniform(*DOWN_S))
    board.tell("everything is up; the last customers get their answers")
    wait_until("the customers' answers", crowd.are_done, CROWD_WITHIN_S)
    board.phase = "settling"
    facts = books.read(world, crowd, items)
    findings = books.judge(facts)
    lines = findings or books.summary(facts)
    for line in lines:
        board.tell(line, "good" if not findings else "bad")
    board.tell("the books are right" if not findings else "THE BOOKS ARE WRONG")
    board.conclude(not findings, lines)
    return not findings


def fill(world: World, crowd: Crowd, items: int) -> None:
    """Put the lamps on the shelf and the money into the accounts, in one transaction."""
    accounts = [
        ("balance:shop", 0),
        *((f"balance:{one}", held) for one, held in crowd.balances.items()),
    ]
    words = [str(word) for account in accounts for word in account]
    body = {
        "name": "opening",
        "branches": [
            {"participant": "stock", "ops": [{"cmd": ["SET", "stock:lamp", items]}]},
            {"participant": "payments", "ops": [{"cmd": ["MSET", *words]}]},
        ],
    }
    headers = {"Idempotency-Key": "opening", **world.headers}
    url = f"{world.url('coordinator')}/v1/transactions"
    wait_until("the opening", lambda: post(url, body, 10, headers)[0] == 200, OPENING_WITHIN_S)


def kill(world: World, board: Board, victim: str, down_s: float) -> None:
    """Kill one, and start it again."""
    world.kill(victim)
    board.down.add(victim)
    board.kills[victim] = board.kills.get(victim, 0) + 1
    board.tell(f"{world.how_killed} {victim}", "kill")
    time.sleep(down_s)
    began = time.monotonic()
    world.revive(victim)
    board.down.discard(victim)
    board.tell(f"{victim} is back, after {time.monotonic() - began:.1f} s", "back")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="200 customers buy the last 50 lamps")
    parser.add_argument("--customers", type=int, default=200)
    parser.add_argument("--items", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=1, help="how often each process is killed")
    parser.add_argument("--kills", type=int, default=0, help="at most so many kills")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(100_000))
    parser.add_argument("--port", type=int, default=0, help="of the page")
    parser.add_argument("--keep", action="store_true", help="leave the shop open at the end")
    parser.add_argument("--docker", action="store_true", help="in containers, by ../compose.yaml")
    parser.add_argument("--programs", type=Path, default=Path("target/demo"))
    parser.add_argument("--python", type=Path, default=Path(sys.executable))
    options = parser.parse_args()
    options.programs, options.python = options.programs.resolve(), options.python.absolute()
    return options


if __name__ == "__main__":
    try:
        sys.exit(main())
    except NotStarted as error:
        sys.exit(str(error))
