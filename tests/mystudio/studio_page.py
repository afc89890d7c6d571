"""Where the tests' studio page is, and who asks for it."""

from __future__ import annotations

from pathlib import Path

PORT = 8765
ADDRESS = f"http://127.0.0.1:{PORT}"
OWN = {"Origin": ADDRESS}  # of the page's own requests
SOCKET = f"ws://127.0.0.1:{PORT}/events"


def files_of(folder: Path) -> set[str]:
    """Every file below a folder but the queue's."""
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {name for name in found if not name.startswith("jobs/")}
