"""The demo person in the studio: the packaged recording of somebody who does not exist, up to a moving face."""

from __future__ import annotations

import shutil

from mystudio.demo import BASE, FOLDER, PERSON
from mystudio.jobs import Work
from mystudio.web import work
from mystudio.web.library.people import Person
from mystudio.web.studio import Studio

RECORDING, DRIVER, AVATAR = "demo-recording.mp4", "demo-driver.mp4", "first.avatar"
OPTIONS = ["scan.frames=40"]  # fewer images than the recipe quick chooses: a face moves sooner
MINUTES = 1.5  # until the first avatar: half of it tuning; the last avatar takes longer than a draft


def start(studio: Studio) -> Person:
    """Make the demo person, or return the one that is there, and queue scan, a first avatar, a take and its clip."""
    there = next((person for person in studio.people if person.card.demo), None)
    person = there or studio.people.add(PERSON, True, fictional=True, demo=True)
    for name, source, folder in ((RECORDING, "scan.mp4", person.recordings), (DRIVER, "driver.mp4", person.drivers)):
        folder.mkdir(mode=0o700, exist_ok=True)
        if not (folder / name).exists():
            shutil.copyfile(FOLDER / source, folder / name)
    if there is None:
        recipe = {"recipe": "quick", "options": OPTIONS}
        work.scan(studio, person, [person.recordings / RECORDING], recipe)
        first = {"base": BASE, "minutes": MINUTES, "recipe": "quick"}
        training = Work("personalize", {"scan": person.scan}, person.folder / AVATAR, first)
        studio.queue.add(training, title=f"First avatar of {person.card.name}")
        work.drive(studio, person, person.drivers / DRIVER, name="hello.take", avatar=person.folder / AVATAR)
    return person
