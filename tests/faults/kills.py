"""Kill every stage at chosen moments (kill -9) and run the same command again; as a program, hundreds of times.

    python tests/faults/kills.py [--rounds 4] [--seed 0] [--kinds time ...] [--stages scan edit ...]

prints the table of docs/faults.md: for each stage the number of kills, of resumed runs, of results equal to those of an
uninterrupted run, and any other observation.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import work
from children import Ended, Studio
from work import STAGES, Stage

KINDS = ("operation", "time", "file")


@dataclass
class Tally:
    """The counts for one stage."""

    kills: int = 0
    kinds: Counter = field(default_factory=Counter)  # kill moments by kind
    resumed: int = 0  # runs that resumed a killed run
    finished: int = 0  # results, each after at least one kill
    equal: int = 0  # results equal to that of an uninterrupted run
    other: list[str] = field(default_factory=list)  # other observations


@dataclass(frozen=True)
class Moment:
    """The moment at which a command is killed."""

    kind: str  # "operation": before its n-th file operation; "time": after s; "file": s after a name appears
    value: float


def kill_once(studio: Studio, command: list[str], place: Path, moment: Moment) -> Ended:
    """Run a command until it is killed, or ends before that."""
    if moment.kind == "operation":
        return studio.run(*command, folder=str(place), kill_at=int(moment.value))
    running = studio.begin(*command)
    if moment.kind == "file":
        before = names(place)
        while names(place) == before:
            if ended := running.wait(0.001):
                return ended
    return running.wait(moment.value) or running.kill()


def names(place: Path) -> set[Path]:
    """Return every path in a folder, which another process may change meanwhile."""
    found, left = set(), [place]
    while left:
        try:
            entries = list(left.pop().iterdir())
        except OSError:
            continue
        found.update(entries)
        left += [path for path in entries if path.is_dir()]
    return found


def redone(stage: Stage, runs: list[Ended]) -> str:
    """Return a message if a run repeated work that a checkpoint held; empty if none did."""
    for name, size in stage.chunks.items():
        if again := done_again(name, size, runs):
            return again
    reached, windows = 0, set()
    for run in runs:
        told = Counter(done for name, done, _ in run.steps if name == "solve")
        solved = {done for done, count in told.items() if count > 1}  # reported again when the window was written
        if again := windows & solved:
            return f"windows {sorted(again)} were solved again"
        windows |= solved
        steps = []
        for number, name in enumerate(stage.journal):
            steps += [(done + number * total) // stage.unit for n, done, total in run.steps if n == name]
        if steps and steps[0] <= (reached - 1) // stage.every * stage.every:
            return f"step {steps[0]} was done again after {reached} steps"
        reached = max([reached, *steps])
    return ""


def done_again(name: str, size: int, runs: list[Ended]) -> str:
    """Return a message if a pass over a clip repeated frames of a stored chunk.

    Progress reports a stored chunk once, at its end.
    """
    reached = 0
    for number, run in enumerate(runs):
        told = [done for n, done, _ in run.steps if n == name]
        kept = (reached - 1) // size * size  # the last chunk may not have been written
        if again := [done for done in told if done < kept and done % size]:
            return f"{name}: frames {again} were done again in run {number + 1} after {reached} frames"
        reached = max([reached, *told])
    return ""


def went_on(stage: Stage, run: Ended) -> bool:
    """Return whether a run resumed from the checkpoints of an earlier run."""
    if stage.journal:
        first = next(((n, done) for n, done, _ in run.steps if n in stage.journal), None)
        return first is None or first != (stage.journal[0], stage.unit)
    if stage.chunks:
        name, size = next(iter(stage.chunks.items()))
        first = next((done for n, done, _ in run.steps if n == name), size)
        if first >= size:
            return True
    told = [done for name, done, _ in run.steps if name == "solve"]
    return told == [4, 8, 8] or stage.also != "" and not any(name == "track" for name, _, _ in run.steps)


def whole(stage: Stage, place: Path, states: list) -> str:
    """Return what is wrong with the result after a kill, or "".

    The result must equal one of ``states``; it may be missing if there was no earlier result.
    """
    made = place / stage.makes
    if stage.name == "base train":  # a run has many checkpoints: the one that its index names must be complete
        if (made / work.checkpoint.INDEX).exists():
            work.checkpoint.load(made)
        return ""
    if not made.exists() and not made.with_name(f".{made.name}.old").exists():
        return "it is gone" if len(states) > 1 else ""
    return "" if stage.state(made) in states else "it is neither the earlier nor the new one"


def series(studio: Studio, stage: Stage, place: Path, moments: list[Moment], expected, earlier=None) -> Tally:
    """Kill a command at each moment in turn and check the result each time; then let it finish, and compare."""
    tally, runs, command = Tally(), [], stage.command(place)
    states = [expected] if earlier is None else [expected, earlier]
    for moment in [*moments, None]:
        run = studio.run(*command) if moment is None else kill_once(studio, command, place, moment)
        runs.append(run)
        tally.resumed += len(runs) > 1 and went_on(stage, run)
        if run.killed:
            tally.kills, tally.kinds[moment.kind] = tally.kills + 1, tally.kinds[moment.kind] + 1
        elif run.code:
            tally.other.append(f"after {moments}: exit {run.code}: {run.stderr.strip().splitlines()[-1:]}")
            return tally
        if fault := whole(stage, place, states):
            tally.other.append(f"after {moment}: {fault}")
        if not run.killed:
            break
    result = stage.state(place / stage.makes)
    tally.finished, tally.equal = 1, int(result == expected)
    if tally.equal == 0:
        tally.other.append(f"after {moments}: another result{difference(result, expected)}")
    if fault := redone(stage, runs):
        tally.other.append(f"after {moments}: {fault}")
    again = studio.run(*command)
    if stage.name not in ("live", "pack") and (again.code or again.steps):
        tally.other.append(f"after {moments}: the finished command did something: {again.steps[:1]} {again.stderr}")
    if left := leftovers(place):
        tally.other.append(f"after {moments}: left behind: {left}")
    return tally


def difference(a, b) -> str:
    """Return where two results differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        return "".join(f"/{key}{difference(a.get(key), b.get(key))}" for key in {**a, **b} if a.get(key) != b.get(key))
    return f": {str(a)[:80]} != {str(b)[:80]} "


def leftovers(place: Path) -> list[str]:
    """Return the names of files that may exist only while a command runs."""
    return sorted(
        p.name
        for p in names(place)
        if p.name.endswith((".old", ".new", ".lock", ".partial", ".part", ".deleted"))
        and not (p.parent.suffix == ".run" and p.suffix == ".part")
        or ".part." in p.name
    )


def deleted(studio: Studio, template: Path, place: Path, moments: list[Moment]) -> Tally:
    """Kill ``avatar delete``: every folder is complete or removed, and the same command finishes the work."""
    tally, gone = Tally(), ("me.avatar", "me.scan", "hello.take", "turned.take", "report")
    shutil.copytree(template, place)
    before = {name: work.artifact(place / name) for name in gone}
    for moment in [*moments, None]:
        command = ("avatar", "delete", str(place / "me.avatar"), "--with-scan", "--with-takes", "--yes")
        run = studio.run(*command) if moment is None else kill_once(studio, command, place, moment)
        if run.killed:
            tally.kills, tally.kinds[moment.kind] = tally.kills + 1, tally.kinds[moment.kind] + 1
        elif run.code:
            tally.other.append(f"after {moments}: exit {run.code}: {run.stderr.strip().splitlines()[-1:]}")
            return tally
        left = [name for name in gone if (place / name).exists()]
        tally.resumed += 0 < len(left) < len(gone) and run.killed
        if any(work.artifact(place / name) != before[name] for name in left) or (left and "me.avatar" not in left):
            tally.other.append(f"after {moment}: half a deletion: {left}")
        if not left:
            break
    if not any((place / ".me.avatar.deleted").parent.glob(".*.deleted")) or studio.run(*command).code == 0:
        tally.finished = 1
    rest = {p.name for p in place.iterdir()} - {p.name for p in template.iterdir()}
    if run.killed:  # killed after the last folder: no later run removes the empty locks
        rest = {name for name in rest if not name.endswith(".lock")}
    tally.equal = int(not rest and all((place / p.name).exists() for p in template.iterdir() if p.name not in gone))
    if not tally.equal:
        tally.other.append(f"after {moments}: left behind: {rest}")
    return tally


def campaign(rounds: int, seed: int, root: Path, chosen: list[str], kinds: list[str]) -> dict[str, Tally]:
    """Kill every stage at moments of these kinds; the kind "operation" covers every file operation."""
    template = root / work.NAME
    studio = Studio(root / "home")
    work.prepare(template)
    work.make_all(studio, template)
    tallies = {}
    for stage in (stage for name, stage in STAGES.items() if name in chosen):
        tallies[stage.name], chance = (total := Tally()), random.Random(f"{seed} {stage.name}")
        expected = stage.state(template / stage.makes)
        trial = work.without(template, root / "trial", stage)
        began = time.monotonic()
        operations = len(studio.run(*stage.command(trial), folder=str(trial)).files)
        seconds = time.monotonic() - began
        shutil.rmtree(trial)
        start = work.without(template, root / "start", stage)
        earlier = None
        if stage.before is not None:
            ended = studio.run(*stage.command(start, earlier=True))
            assert ended.code == 0, ended.stderr
            earlier = stage.state(start / stage.makes)
        for moments in plans(operations, seconds, rounds, chance, kinds):
            place = root / "places" / work.NAME
            shutil.copytree(start, place)
            add(total, series(studio, stage, place, moments, expected, earlier))
            shutil.rmtree(place)
        shutil.rmtree(start)
        report(stage.name, total)
    tallies["delete"] = total = Tally()
    for moments in plans(24, 0.2, rounds, random.Random(seed), kinds) if "delete" in chosen else ():
        add(total, deleted(studio, template, root / "places" / work.NAME, moments))
        shutil.rmtree(root / "places" / work.NAME)
    if "delete" in chosen:
        report("delete", total)
    studio.close()
    return tallies


def plans(
    operations: int, seconds: float, rounds: int, chance: random.Random, kinds: Sequence[str] = KINDS
) -> list[list[Moment]]:
    """Yield series of kill moments: every file operation once, in pairs; then mixed series of one to four kills."""
    order = [Moment("operation", k) for k in range(operations)] if "operation" in kinds else []
    chance.shuffle(order)
    made = [order[k : k + 2] for k in range(0, len(order), 2)]
    draw = {
        "time": lambda: chance.uniform(0.02, seconds),
        "file": lambda: chance.uniform(0, 0.03),
        "operation": lambda: chance.randrange(operations),
    }
    for _ in range(rounds):
        made.append([Moment(kind, draw[kind]()) for kind in chance.choices(kinds, k=chance.randint(1, 4))])
    return made


def add(total: Tally, one: Tally) -> None:
    """Add up the counts."""
    for name in ("kills", "resumed", "finished", "equal", "other"):
        setattr(total, name, getattr(total, name) + getattr(one, name))
    total.kinds.update(one.kinds)


def report(name: str, t: Tally) -> None:
    """One row of the table."""
    kinds = [str(t.kinds[kind]) for kind in KINDS]
    print(
        f"| {name} | {t.kills} | {' / '.join(kinds)} | {t.resumed} | {t.equal} of {t.finished} | {len(t.other)} |",
        flush=True,
    )
    for text in t.other[:12]:
        print(f"    {text}", file=sys.stderr, flush=True)


def main() -> None:
    """Run the campaign and print its table."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--rounds", type=int, default=4, help="mixed series a stage, after those of every operation")
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="of moments")
    words.add_argument("--stages", nargs="+", choices=[*STAGES, "delete"], default=[*STAGES, "delete"])
    given = words.parse_args()
    print(
        "| stage | kills | at a file operation / a random moment / after a new name | next run went on "
        "| bit-equal | other answers |\n|---|---|---|---|---|---|",
        flush=True,
    )
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        tallies = campaign(given.rounds, given.seed, Path(folder), given.stages, given.kinds)
    total = sum(t.kills for t in tallies.values())
    print(f"\n{total} kills, {sum(len(t.other) for t in tallies.values())} other answers")


if __name__ == "__main__":
    main()
