"""What happens to jobs, told to every open page over one websocket."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from mystudio.jobs import Job
from mystudio.web.studio import Studio
from mystudio.web.words import seen, share_of, stage_words

PAUSE = 0.4  # s between two looks at the queue
MOST = 64  # pages at once


def told(job: Job) -> dict[str, Any]:
    """A job as the page's script sees it."""
    return {
        "id": job.id,
        "state": str(job.state),
        "share": round(share_of(job), 3),
        "left": job.left if job.left is not None else job.stage_left,
        "stage": stage_words(job.stage),
        "seen": seen(job),
    }


async def follow(socket: WebSocket) -> None:
    """Send changes until the page is closed."""
    studio: Studio = socket.app.state.studio
    if getattr(socket.app.state, "pages", 0) >= MOST:
        await socket.close(1013)
        return
    await socket.accept()
    socket.app.state.pages = getattr(socket.app.state, "pages", 0) + 1
    gone = asyncio.create_task(_until_closed(socket))
    try:
        number, first = 0, True
        while not gone.done():
            found = await run_in_threadpool(studio.queue.changes, number)
            if first or found.number != number:
                number = found.number
                jobs = [told(job) for job in found.jobs]
                await socket.send_json({"number": number, "first": first, "jobs": jobs, "removed": found.removed})
                first = False
            await asyncio.wait([gone], timeout=PAUSE)
    except (WebSocketDisconnect, RuntimeError):
        pass
    finally:
        socket.app.state.pages -= 1
        gone.cancel()
        with suppress(asyncio.CancelledError):
            await gone


async def _until_closed(socket: WebSocket) -> None:
    """Read, and drop, what the page sends, until it closes; it has nothing to say."""
    with suppress(WebSocketDisconnect, RuntimeError):
        while True:
            await socket.receive_text()


events = WebSocketRoute("/events", follow)
