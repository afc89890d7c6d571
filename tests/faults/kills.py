"""kill -9 at chosen moments of every stage, and the same command again; also a program that does it hundreds of times.

    python tests/faults/kills.py [--rounds 4] [--seed 0] [--kinds time ...] [--stages scan edit ...]

prints the table of docs/faults.md: for each stage the kills, how often the next run went on from what was there, how
many results equalled the undisturbed one, and whatever else happened.
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
    """What happened to one stage."""

    kills: int = 0
    kinds: Counter = field(default_factory=Counter)  # kill moments by kind
    resumed: int = 0  # runs that went on from what a killed one had left
    finished: int = 0  # results, each after at least one kill
    equal: int = 0  # of them, those that equal the undisturbed result
    other: list[str] = field(default_factory=list)  # anything else


@dataclass(frozen=True)
class Moment:
    """When a command is killed."""

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
    """Every path in a folder that another process changes."""
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
    """What a run did again although it had been kept; empty if nothing."""
    for name, size in stage.chunks.items():
        if again := done_again(name, size, runs):
            return again
    reached, windows = 0, set()
    for run in runs:
        told = Counter(done for name, done, _ in run.steps if name == "solve")
        solved = {done for done, count in told.items() if count > 1}  # told again when the window was written
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
    """What a run did again in a pass over a clip. Chunks that were kept are told as a whole, at their ends."""
    reached = 0
    for number, run in enumerate(runs):
        told = [done for n, done, _ in run.steps if n == name]
        kept = (reached - 1) // size * size  # the last chunk may not have been written
        if again := [done for done in told if done < kept and done % size]:
            return f"{name}: frames {again} were done again in run {number + 1} after {reached} frames"
        reached = max([reached, *told])
    return ""


def went_on(stage: Stage, run: Ended) -> bool:
    """Whether a run began with what another one had left."""
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
    """What is wrong with the result after a kill; empty if it is absent where none was, or one of ``states``."""
    made = place / stage.makes
    if stage.name == "base train":  # grows: whatever checkpoint is named must be whole
        if (made / work.checkpoint.INDEX).exists():
            work.checkpoint.load(made)
        return ""
    if not made.exists() and not made.with_name(f".{made.name}.old").exists():
        return "it is gone" if len(states) > 1 else ""
    return "" if stage.state(made) in states else "it is neither the earlier nor the new one"


def series(studio: Studio, stage: Stage, place: Path, moments: list[Moment], expected, earlier=None) -> Tally:
    """Kill a command at each moment in turn, the result checked after each; then let it end, and compare."""
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
    """Where two results differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        return "".join(f"/{key}{difference(a.get(key), b.get(key))}" for key in {**a, **b} if a.get(key) != b.get(key))
    return f": {str(a)[:80]} != {str(b)[:80]} "


def leftovers(place: Path) -> list[str]:
    """Names that only exist while a command works."""
    return sorted(
        p.name
        for p in names(place)
        if p.name.endswith((".old", ".new", ".lock", ".partial", ".part", ".deleted"))
        and not (p.parent.suffix == ".run" and p.suffix == ".part")
        or ".part." in p.name
    )


def deleted(studio: Studio, template: Path, place: Path, moments: list[Moment]) -> Tally:
    """Kill ``avatar delete``: every folder is whole or gone, and the same command goes on."""
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
    if run.killed:  # when all was gone: nobody comes back to remove the empty locks
        rest = {name for name in rest if not name.endswith(".lock")}
    tally.equal = int(not rest and all((place / p.name).exists() for p in template.iterdir() if p.name not in gone))
    if not tally.equal:
        tally.other.append(f"after {moments}: left behind: {rest}")
    return tally


def campaign(rounds: int, seed: int, root: Path, chosen: list[str], kinds: list[str]) -> dict[str, Tally]:
    """Kill every stage at moments of these kinds; at every file operation at least once, if that is one."""
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
    """Series of kill moments: each file operation once, in twos; then mixed ones, one to four in a row."""
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
    """Sum up."""
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
