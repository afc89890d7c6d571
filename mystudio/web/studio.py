"""A studio: its folder, its people, its jobs, and what the page needs of them in one place."""

from __future__ import annotations

import threading
from pathlib import Path

from mystudio.jobs import Queue
from mystudio.web.guard import read_secret
from mystudio.web.library.facts import Reader
from mystudio.web.library.people import People
from mystudio.web.preview import Previews
from mystudio.web.trials import Trials
from mystudio.web.uploads import Uploads


class Studio:
    """Everything behind the page.

    Args: folder: the studio folder; it is made where it is missing. trials: measure how long training takes.
    """

    def __init__(self, folder: Path, trials: bool = False):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder = folder
        self.secret = read_secret(folder)
        self.people = People(folder / "people")
        self.people.sweep()
        self.uploads = Uploads(folder / ".uploads")
        self.queue = Queue(folder)
        self.facts = Reader()
        self.previews = Previews()
        self.trials = Trials(self.queue, trials)
        self.choosing = threading.Lock()  # images of scans are left out one after the other
        self.drawing = threading.Lock()  # one picture at a time: torch uses all cores

    def close(self) -> None:
        """End the processes of trials and previews, and close the queue's file."""
        self.trials.stop()
        self.previews.close()
        self.queue.close()
