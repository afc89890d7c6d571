"""Start the server: a port, the printed address, the browser, and a worker that is started again if it dies."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import webbrowser
from collections.abc import Callable
from pathlib import Path

from mystudio.errors import StudioError
from mystudio.jobs import State, start_worker
from mystudio.web.guard import LOOPBACK, Guard
from mystudio.web.server import guarded
from mystudio.web.studio import Studio

PAUSE = 1.0  # s between two looks for work
IDLE = 60.0  # s without work after which a worker ends
STOP = 15.0  # s in which it stores what is done


def serve(folder: Path, host: str, port: int, opens: bool, worker: bool, tell: Callable[[str], None]) -> None:
    """Serve a studio until Ctrl-C.

    Args:
        port: 0 = any free one. opens: open the browser. worker: run the jobs, too. tell: takes sentences for the user.
    Raises: StudioError: the port is in use, or the address is not this machine's.
    """
    listening = _listen(host, port)
    port = listening.getsockname()[1]
    studio = Studio(folder, trials=worker)
    app = guarded(studio, port, host)
    address = f"http://{_shown(host)}:{port}/?token={app.token}"
    tell(f"The studio is open: {address}")
    tell(f"Its folder is {folder}. Ctrl-C ends the server; jobs go on at the next start.")
    if host not in LOOPBACK:
        tell(
            "The network can reach it: whoever sees this address can use everything in the folder. Traffic is readable."
        )
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_run(app, listening, studio, worker, address if opens else ""))


async def _run(app: Guard, listening: socket.socket, studio: Studio, work: bool, opens: str) -> None:
    import uvicorn

    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        ws_max_size=1 << 22,
        limit_concurrency=256,
        timeout_graceful_shutdown=3,
    )
    server = uvicorn.Server(config)
    helper = asyncio.create_task(_work(studio)) if work else None
    if opens:
        asyncio.get_running_loop().call_later(0.5, lambda: webbrowser.open(opens))
    try:
        await server.serve(sockets=[listening])
    finally:
        if helper:
            helper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await helper


async def _work(studio: Studio) -> None:
    """Keep a worker while there is work, in a process of its own: jobs neither slow the page down nor die with it.

    At the end of the server, a worker of ours stops in order; the next start goes on with its jobs.
    """
    worker: subprocess.Popen[bytes] | None = None
    try:
        while True:
            if worker is None or worker.poll() is not None:  # one that starts is not known to the queue yet
                worker = await asyncio.to_thread(_worker, studio)
            await asyncio.sleep(PAUSE)
    finally:
        if worker and worker.poll() is None:
            worker.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.wait(STOP)


def _worker(studio: Studio) -> subprocess.Popen[bytes] | None:
    """Start a worker if there is work and none lives; on a full disk, perhaps there is space later."""
    with contextlib.suppress(StudioError):
        if studio.queue.jobs(State.WAITING, State.RUNNING):
            return start_worker(studio.folder, IDLE)
    return None


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name != "nt":  # there it would let another program take the port
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(128)  # whoever opens the printed address at once waits, and is not refused
    except OSError as error:
        made.close()
        raise StudioError(
            f"{host}:{port} cannot be used ({error.strerror or error}); another studio may run there: use its page, or "
            "choose another --port"
        ) from error
    return made


def _shown(host: str) -> str:
    return "127.0.0.1" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
