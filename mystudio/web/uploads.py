"""Uploads: streamed to the disk block by block, with limits on size, count, rate and time."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect, Request

from mystudio.errors import OutputFailed, StudioError
from mystudio.web.library import names

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

LARGEST = 4 << 30  # bytes of one upload
MOST_FILES = 1000  # in one folder
AT_ONCE = 4  # uploads
IDLE = 30.0  # s without a byte
SLOWEST = 20_000.0  # bytes a second, on average after the first minute
SPARE = 1 << 30  # bytes that stay free on the disk


class Uploads:
    """Takes uploads of a studio; counts those in progress."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._active = 0
        shutil.rmtree(folder, ignore_errors=True)  # parts that a kill left
        folder.mkdir(mode=0o700, parents=True)

    async def store(self, request: Request, target: Path, given: str, endings: tuple[str, ...]) -> Path:
        """Write the body of a request as a new file in ``target``; it appears there whole or not at all.

        Args:
            given: the file's name on the sender's side; only its ending is checked, and its words are kept.
            endings: of the files that are taken.
        Raises: StudioError: the name, the size or the sender is not as expected. OutputFailed: the disk is full.
        """
        ending = next((e for e in sorted(endings, key=len, reverse=True) if given.lower().endswith(e)), None)
        if ending is None:
            raise StudioError(f"expected a file that ends with {', '.join(endings)}; choose another file")
        async with self.received(request) as part:
            if sum(1 for _ in names.listed(target)) >= MOST_FILES:
                raise StudioError(f"expected at most {MOST_FILES} files in one place; delete some first")
            target.mkdir(mode=0o700, parents=True, exist_ok=True)
            place = target / names.new_name(given, ending)
            os.rename(part, place)
        return place

    @asynccontextmanager
    async def received(self, request: Request) -> AsyncGenerator[Path]:
        """Receive a body into a temporary file, which is deleted at the end unless it was moved.

        Raises: as ``store``.
        """
        size = self._checked(request)
        part = self._folder / names.new_name("part")
        self._active += 1
        try:
            try:
                await _receive(request, part, size)
            except OSError as error:
                raise OutputFailed(f"the file could not be written ({error.strerror or error}); free space") from error
            yield part
        finally:
            self._active -= 1
            with suppress(OSError):
                part.unlink(missing_ok=True)

    def _checked(self, request: Request) -> int:
        """Return the length that a request states, or refuse it before anything is read."""
        length = request.headers.get("content-length", "")
        if not length.isascii() or not length.isdecimal() or not 0 < int(length) <= LARGEST:
            raise StudioError(f"expected a file of at most {LARGEST >> 30} GB that states its size; use a shorter clip")
        if self._active >= AT_ONCE:
            raise StudioError(f"expected at most {AT_ONCE} uploads at once; wait until one has ended")
        if shutil.disk_usage(self._folder).free < int(length) + SPARE:
            raise OutputFailed("the disk is nearly full; free space and drop the file again")
        return int(length)


async def _receive(request: Request, part: Path, size: int) -> None:
    blocks, count, began = request.stream().__aiter__(), 0, time.monotonic()
    with open(part, "xb") as file:
        while True:
            try:
                block = await asyncio.wait_for(blocks.__anext__(), IDLE)
            except StopAsyncIteration:
                break
            except (asyncio.TimeoutError, ClientDisconnect):
                raise StudioError("the upload stopped before its end; drop the file again") from None
            count += len(block)
            if count > size:
                raise StudioError("the upload is longer than it stated; drop the file again")
            if count < SLOWEST * (time.monotonic() - began - 60):
                raise StudioError("the upload is too slow; drop the file again on a faster connection")
            await asyncio.to_thread(file.write, block)
    if count != size:
        raise StudioError("the upload stopped before its end; drop the file again")
