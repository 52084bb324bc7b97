"""The page: what is known of the shop right now, sent to browsers as it changes."""

import json
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from customers import PRICE, Crowd
from parts import PARTS, World, get

PAGE = Path(__file__).parent / "page"
FILES = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
LOOK_EVERY_S = 0.3
LOOK_TIMEOUT_S = 1
STORY_LINES = 200
DOUBTS_SHOWN = 7
DOUBT_TOLD_S = 0.5
"""Each transaction is in doubt from its votes to its end; only what stays so is worth a line."""
BROWSERS_MAX = 16
BEAT_EVERY_S = 5


class Board:
    """Keeps what is known, and serves it."""

    def __init__(self, world: World, crowd: Crowd, items: int, port: int) -> None:
        """Listen on loopback; `port` 0 is any."""
        self.world, self.crowd, self.items = world, crowd, items
        self.began = time.monotonic()
        self.phase = "opening"
        self.verdict: dict[str, Any] | None = None
        self.down: set[str] = set()
        self.kills: dict[str, int] = {}
        self._story: deque[dict[str, Any]] = deque(maxlen=STORY_LINES)
        self._known: dict[str, Any] = {}
        self._doubt_since: dict[str, float] = {}
        self._resolved: deque[dict[str, Any]] = deque(maxlen=DOUBTS_SHOWN)
        self._changed = threading.Condition()
        self._version, self._text = 0, "{}"
        self._browsers = threading.BoundedSemaphore(BROWSERS_MAX)
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/"

    def open(self) -> None:
        """Begin to look, and to serve."""
        for work in (self._server.serve_forever, self._look_on):
            threading.Thread(target=work, daemon=True).start()

    def tell(self, text: str, kind: str = "note") -> None:
        """Add a line to the story, here and on the terminal."""
        at_s = time.monotonic() - self.began
        print(f"[{at_s:6.2f} s] {text}", flush=True)
        self._story.appendleft({"at_s": round(at_s, 1), "text": text, "kind": kind})

    def conclude(self, is_clean: bool, lines: list[str]) -> None:
        """Show how it ended, and see that the browsers have it."""
        self.phase, self.verdict = "closed", {"is_clean": is_clean, "lines": lines}
        self._publish()

    def _look_on(self) -> None:
        with ThreadPoolExecutor(max_workers=5) as pool:
            while self.verdict is None:
                self._look(pool)
                self._publish()
                time.sleep(LOOK_EVERY_S)

    def _look(self, pool: ThreadPoolExecutor) -> None:
        """Ask the services, as any client of them would; who is away keeps what he said last."""
        asked: dict[str, Callable[[], Any]] = {
            "left": lambda: self._ask("stock", "/stock/lamp")["left"],
            "money": lambda: self._ask("payments", "/accounts/shop")["balance"],
            "books": lambda: self._ask("orders", "/books"),
            "doubts": self._ask_doubts,
        }
        heard = {name: pool.submit(question) for name, question in asked.items()}
        for name, answer in heard.items():
            try:
                self._known[name] = {"value": answer.result(), "is_fresh": True}
            except (OSError, ValueError, KeyError):
                self._known[name] = {**self._known.get(name, {"value": None}), "is_fresh": False}

    def _ask(self, part: str, path: str) -> Any:
        headers = self.world.headers if part == "coordinator" else None
        return get(self.world.url(part) + path, LOOK_TIMEOUT_S, headers)

    def _ask_doubts(self) -> list[dict[str, Any]]:
        page = self._ask("coordinator", "/v1/transactions?in_doubt=true&page_size=50")
        doubts = [doubt_of(view) for view in page["transactions"]]
        now, ids = time.monotonic(), {doubt["id"] for doubt in doubts}
        for id_ in self._doubt_since.keys() - ids:
            since_s = now - self._doubt_since[id_]
            if since_s >= DOUBT_TOLD_S:
                view = self._ask("coordinator", f"/v1/transactions/{id_}")
                self._resolved.appendleft({**doubt_of(view), "after_s": round(since_s, 1)})
            del self._doubt_since[id_]
        for id_ in ids:
            self._doubt_since.setdefault(id_, now)
        return doubts

    def _snapshot(self) -> dict[str, Any]:
        known = self._known
        doubts = known.get("doubts", {"value": None, "is_fresh": False})
        shown = doubts["value"] or []
        return {
            "phase": self.phase,
            "at_s": round(time.monotonic() - self.began, 1),
            "items": self.items,
            "price": PRICE,
            "seed": self.crowd.seed,
            "parts": [
                {
                    "name": part.name,
                    "group": part.group,
                    "about": part.about,
                    "is_up": part.name not in self.down,
                    "kills": self.kills.get(part.name, 0),
                }
                for part in PARTS
            ],
            "left": known.get("left"),
            "money": known.get("money"),
            "books": known.get("books"),
            "doubts": {**doubts, "value": shown[:DOUBTS_SHOWN], "count": len(shown)},
            "resolved": list(self._resolved),
            "faces": self.crowd.faces(),
            "counts": self.crowd.counts(),
            "story": list(self._story),
            "verdict": self.verdict,
        }

    def _publish(self) -> None:
        text = json.dumps(self._snapshot())
        with self._changed:
            if text != self._text:
                self._version, self._text = self._version + 1, text
                self._changed.notify_all()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        board = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/events":
                    board._send_events(self)
                elif self.path in FILES:
                    name, kind = FILES[self.path]
                    body = (PAGE / name).read_bytes()
                    self.send_response(200)
                    self.send_header("Content-Type", f"{kind}; charset=utf-8")
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                else:
                    self.send_error(404)

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def _send_events(self, handler: BaseHTTPRequestHandler) -> None:
        """Send each state of things that differs from the one before, until the browser leaves."""
        if not self._browsers.acquire(blocking=False):
            return handler.send_error(503, "enough browsers look on already")
        try:
            handler.send_response(200)
            handler.send_header("Content-Type", "text/event-stream")
            handler.send_header("Cache-Control", "no-store")
            handler.end_headers()
            seen = 0
            while True:
                with self._changed:
                    if self._version == seen:
                        self._changed.wait(BEAT_EVERY_S)
                    is_new, seen, text = self._version > seen, self._version, self._text
                handler.wfile.write(f"data: {text}\n\n".encode() if is_new else b":\n\n")
        # The browser has left.
        except OSError:
            return None
        finally:
            self._browsers.release()


def doubt_of(view: dict[str, Any]) -> dict[str, Any]:
    """Return what the page shows of a transaction."""
    branches = {branch["participant"]: branch["state"] for branch in view["branches"]}
    return {name: view[name] for name in ("id", "state", "outcome")} | {"branches": branches}
