"""A camera's looks from the page over a websocket: only the newest one waits, and each is small.

A look is a binary message: its time in s as a float64, then a JPEG. Other messages are small JSON objects.
"""

from __future__ import annotations

import asyncio
import json
import math
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

from starlette.websockets import WebSocket, WebSocketDisconnect

from mystudio.web.pages import sentence
from selfscan.io.picture_stream import MAX_BYTES

TIME = struct.Struct("<d")
MOST_TEXT = 2048  # characters of a message
MOST_WAITING = 16  # messages that are no looks
MOST_A_SECOND = 120  # messages
LONGEST = 24 * 3600.0  # s
PATIENCE = 10.0  # s for an answer to leave
ENDED, TOO_BIG, REFUSED, BUSY = 1000, 1009, 1008, 1013  # codes of a closed websocket

Values = dict[str, Any]
Tell = Callable[[Mapping[str, Any] | bytes], None]


@dataclass(frozen=True)
class Look:
    """What the camera saw at one time."""

    time: float  # s
    jpeg: bytes


class Looks:
    """What the page sent, for the thread that works with it: every message, and of the looks only the newest."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._look: Look | None = None
        self._values: deque[Values] = deque(maxlen=MOST_WAITING)
        self.closed = False  # the page is gone

    def put(self, thing: Look | Values) -> None:
        """Add a message; a look replaces one that waits."""
        with self._changed:
            if isinstance(thing, Look):
                self._look = thing
            else:
                self._values.append(thing)
            self._changed.notify_all()

    def close(self) -> None:
        """End the iteration."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Look | Values]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self.closed or self._values or self._look)
                if self.closed:
                    return
                if self._values:
                    thing: Look | Values = self._values.popleft()
                else:
                    thing, self._look = cast(Look, self._look), None
            yield thing


async def talk(socket: WebSocket, work: Callable[[Looks, Tell], None]) -> None:
    """Let ``work`` answer a page in a thread, until the page closes or ``work`` returns; its error is told.

    Args: work: called with the looks and a function that sends JSON or bytes, and raises an error if the page is gone.
    """
    await socket.accept()
    looks, loop = Looks(), asyncio.get_running_loop()

    def tell(answer: Mapping[str, Any] | bytes) -> None:
        sending = socket.send_bytes(answer) if isinstance(answer, bytes) else socket.send_json(answer)
        asyncio.run_coroutine_threadsafe(sending, loop).result(PATIENCE)

    def run() -> None:
        try:
            work(looks, tell)
        except Exception as error:
            if not looks.closed:  # otherwise the page is gone, and that is the error
                with suppress(Exception):
                    tell({"error": sentence(error)})

    thread = ThreadPoolExecutor(1)  # its own: ``work`` may change its priority
    working = loop.run_in_executor(thread, run)
    reading = asyncio.create_task(_read(socket, looks))
    try:
        await asyncio.wait([working, reading], return_when=asyncio.FIRST_COMPLETED)
        looks.close()
        with suppress(RuntimeError, WebSocketDisconnect):
            await socket.close(reading.result() if reading.done() else ENDED)
        await working
    finally:  # also when the server ends
        looks.close()
        reading.cancel()
        thread.shutdown(wait=False)


async def refuse(socket: WebSocket, code: int) -> None:
    """Close a websocket with a code that the page can read: it gets none from a refused handshake."""
    await socket.accept()
    await socket.close(code)


async def _read(socket: WebSocket, looks: Looks) -> int:
    """Read until the page closes; returns the code with which to close a page that sends what it should not."""
    came: deque[float] = deque(maxlen=MOST_A_SECOND)
    with suppress(WebSocketDisconnect, RuntimeError):
        while True:
            message = await socket.receive()
            if message["type"] != "websocket.receive":
                break
            now = time.monotonic()
            if len(came) == MOST_A_SECOND and now - came[0] < 1:
                return REFUSED
            came.append(now)
            content, text = message.get("bytes"), message.get("text")
            if len(content or b"") > MAX_BYTES + TIME.size or len(text or "") > MOST_TEXT:
                return TOO_BIG
            thing = _look(content) if content is not None else _values(text or "")
            if thing is None:
                return REFUSED
            looks.put(thing)
    return ENDED


def _look(content: bytes) -> Look | None:
    if len(content) < TIME.size:
        return None
    (when,) = TIME.unpack_from(content)
    return Look(when, content[TIME.size :]) if math.isfinite(when) and abs(when) < LONGEST else None


def _values(text: str) -> Values | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return cast(Values, found) if isinstance(found, dict) else None
