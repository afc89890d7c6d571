"""Real self-scans, driven by their own held-out seconds and by other people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mystudio.bench import clips, comparison
from mystudio.bench.ledger import Ledger
from mystudio.bench.sheet import sheet_of
from mystudio.bench.studio import ABSOLUTE, PLAIN, STRAIGHT, Person, Studio, Variant, open_take, values_of
from mystudio.errors import StudioError

SCANS = ("scan-turning", "scan-glasses", "scan-longhair")
DRIVERS = ("driver-mouth", "driver-largepose")
SELF = (PLAIN, STRAIGHT, ABSOLUTE)


@dataclass(frozen=True)
class RealCase:
    """Which clips are measured, and their length."""

    folder: Path  # folder of the clips
    consent: str  # name of the person shown, or who has consented
    scans: Sequence[str] = SCANS
    drivers: Sequence[str] = DRIVERS
    seconds: float = 6.0  # length of each driving clip of another person

    def clip(self, name: str) -> Path:
        """Return the path of a clip.

        Raises: StudioError: the file is missing.
        """
        path = self.folder / f"{name}.mp4"
        if not path.is_file():
            raise StudioError(f"expected the clip {path}, it is not there; give the folder that holds it")
        return path

    def person(self, name: str) -> Person:
        """Return a scanned person; every fifth second of the clip is held out."""
        return Person(name, self.clip(name), self.consent, options=(f"scan.hold_out_every={clips.EVERY}",))


def run(studio: Studio, ledger: Ledger, case: RealCase) -> list[str]:
    """Measure all clips; returns the keys of all rows."""
    for name in (*case.scans, *case.drivers):
        case.clip(name)  # a missing clip is reported before hours of work
    keys = []
    for name in case.scans:
        keys += driven_by_itself(studio, ledger, case.person(name), "real", SELF, {"scan": name})
        for driver in case.drivers:
            keys += _cross(studio, ledger, case, name, driver)
    return keys


def driven_by_itself(
    studio: Studio, ledger: Ledger, person: Person, part: str, variants: Sequence[Variant], labels: Mapping[str, str]
) -> list[str]:
    """Measure self-reenactment of the held-out seconds in several variants, and draw a contact sheet."""
    driver = clips.held_out(person.video, studio.out / "clips" / f"{person.name}-held-out.mp4")
    keys, takes, new = [], {}, False
    for variant in variants:

        def measure(steps: list[str], variant=variant) -> dict:
            take = studio.take(person, driver, variant, steps)
            values = values_of(studio.report(take, "same", steps))
            avatar, made, performance, _ = open_take(take)
            return values | {
                "jitter": comparison.jitter_within_shots(avatar, made, performance.observation, studio.device)
            }

        keys.append(f"{part}/{person.name}-self/{variant.name}")
        row = ledger.measure(
            keys[-1],
            studio.settings(person, variant, driver),
            {"table": "self", **labels, "codes": variant.title},
            measure,
        )
        new |= row["new"]
        if "error" not in row:
            takes[variant.title] = studio.take_path(person, driver, variant)
    _draw(studio.out / "sheets" / f"{part}-{person.name}-self.png", takes, new, studio, "driver = truth")
    return keys


def _cross(studio: Studio, ledger: Ledger, case: RealCase, name: str, driver_name: str) -> list[str]:
    person, source = case.person(name), case.clip(driver_name)
    driver = clips.first_seconds(source, studio.out / "clips" / f"{driver_name}-{case.seconds:g}s.mp4", case.seconds)
    keys, takes, new = [], {}, False
    for variant in (PLAIN, STRAIGHT):

        def measure(steps: list[str], variant=variant) -> dict:
            return values_of(studio.report(studio.take(person, driver, variant, steps), None, steps))

        keys.append(f"real/{name}-by-{driver_name}/{variant.name}")
        row = ledger.measure(
            keys[-1],
            studio.settings(person, variant, driver),
            {"table": "cross", "scan": name, "driver": driver_name, "codes": variant.title},
            measure,
        )
        new |= row["new"]
        if "error" not in row:
            takes[variant.title] = studio.take_path(person, driver, variant)
    _draw(studio.out / "sheets" / f"real-{name}-by-{driver_name}.png", takes, new, studio)
    return keys


def _draw(path: Path, takes: dict[str, Path], new: bool, studio: Studio, first_row: str = "driver") -> None:
    if takes and (new or not path.is_file()):
        sheet_of(path, takes, device=studio.device, first_row=first_row)
