"""jobs list, show, add, cancel, pause, resume, retry, order, remove, run: the queue of the studio folder."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mystudio.commands.added import KINDS, work_of
from mystudio.commands.options import Command, common
from mystudio.commands.terminal import answer, clock
from mystudio.commands.where import runner_of, where_options

if TYPE_CHECKING:
    from mystudio.jobs import Job, Queue

BASE = "people128"  # the default of `personalize`
LAST = 4000  # bytes of the log that `jobs show` prints


def studio_option(command):
    """--studio."""
    return click.option(
        "--studio",
        type=click.Path(path_type=Path),
        metavar="FOLDER",
        help="The studio folder, whose queue is meant; default: $MYSTUDIO_STUDIO, or mystudio in your home.",
    )(command)


@click.group(short_help="The queue: jobs that wait, run, pause and continue.")
def jobs():
    """Let stages run one after the other, also when this terminal is closed.

    \b
    $ mystudio jobs add scan me.mp4 -o me.scan --i-am-the-person-or-have-consent "Ada Example"
    $ mystudio jobs add personalize me.scan -o me.avatar
    $ mystudio jobs run                                      work until nothing is left
    $ mystudio jobs list

    A job that needs the result of another one waits for it. Whatever is stopped or killed continues where it was.
    """


@jobs.command("list", cls=Command)
@studio_option
@common
def list_(studio):
    """Show all jobs: what runs, what waits and why, what has ended.

    $ mystudio jobs list
    """
    with _queue(studio) as queue:
        found = queue.jobs()
        folder = queue.studio
    order = ["running", "waiting", "paused", "failed", "cancelled", "done"]
    found.sort(key=lambda job: order.index(job.state))
    lines = [_line(job, folder) for job in found] or [f"There are no jobs in {folder}; `mystudio jobs add` adds one."]
    answer("\n".join(lines), studio=folder, jobs=[job.facts() for job in found])


@jobs.command(cls=Command)
@click.argument("job", type=int, metavar="JOB")
@studio_option
@common
def show(job, studio):
    """Show one job with its log. Its files, options, state and times come first, then the end of the log.

    $ mystudio jobs show 3
    """
    with _queue(studio) as queue:
        found, log = queue.job(job), queue.log(job, -LAST).text
        folder = queue.studio
    work = found.work
    lines = [
        _line(found, folder),
        *(f"  {name}: {path}" for name, path in work.inputs.items()),
        f"  result: {work.out}",
        *(f"  {name}: {value}" for name, value in work.options.items()),
        *([f"  after: {', '.join(map(str, found.after))}"] if found.after else []),
        f"  added {_when(found.added)}, started {found.tries} times, ran {clock(found.spent)}",
        *([f"  preview: {found.preview}"] if found.preview else []),
        f"  log: {found.log}",
        *(f"    {line}" for line in log.splitlines()),
    ]
    answer("\n".join(lines), job=found.facts(), log=log)


@jobs.command(
    cls=Command,
    context_settings={"allow_interspersed_args": False},  # what follows STAGE is the stage's
    short_help="Add a stage to the queue, with the words of its command.",
)
@click.option("--studio", type=click.Path(path_type=Path), metavar="FOLDER", help="The studio folder.")
@click.option("--after", type=int, multiple=True, metavar="JOB", help="Wait for this job too; may be repeated.")
@click.option("--title", default="", metavar="TEXT", help="Words of your own about the job.")
@click.option("--light/--heavy", default=None, help="Whether it may run beside a heavy job; default: edits may.")
@click.option("--first", is_flag=True, help="Before all other jobs.")
@click.argument("stage", type=click.Choice(KINDS), metavar="STAGE")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="WORDS...")
@common
def add(studio, after, title, light, first, stage, words):
    """Add a job: STAGE and WORDS are what would follow `mystudio` to run it at once.

    An input that does not exist yet is waited for, if a job makes it. Options of the queue stand before STAGE.

    $ mystudio jobs add reenact me.avatar driver.mp4 -o hello.take
    $ mystudio jobs add --after 3 --first render hello.take -o hello.mp4 --view side-by-side
    """
    work = work_of(stage, list(words))
    with _queue(studio) as queue:
        job = queue.add(work, after=after, title=title, light=light, first=first)
    waits = f"; it {job.waits_for}" if job.waits_for else ""
    answer(f"Job {job.id}: {stage} -> {job.work.out}{waits}. `mystudio jobs run` works.", job=job.facts())


def _verb(name: str, words: str, example: str) -> None:
    """Add a command that does one thing to each of several jobs."""

    @jobs.command(name, cls=Command, help=f"{words}\n\n$ {example}")
    @click.argument("numbers", type=int, nargs=-1, required=True, metavar="JOB...")
    @studio_option
    @common
    def command(numbers, studio):
        with _queue(studio) as queue:
            act: Callable[[int], Job | None] = getattr(queue, name)
            found = [act(number) for number in numbers]
        lines = [_sentence(job) if job else f"Job {number} is removed." for number, job in zip(numbers, found)]
        answer("\n".join(lines), jobs=[job.facts() if job else number for number, job in zip(numbers, found)])


_verb("pause", "Let jobs rest. One that runs stops within seconds and keeps what is done.", "mystudio jobs pause 3")
_verb("resume", "Let paused jobs go on.", "mystudio jobs resume 3")
_verb(
    "cancel",
    "Stop jobs. What is done stays beside the result, and `mystudio jobs retry` continues it.",
    "mystudio jobs cancel 3 4",
)
_verb(
    "retry",
    "Let failed or cancelled jobs go on. They continue where they stopped; jobs that wait for them follow.",
    "mystudio jobs retry 3",
)
_verb(
    "remove",
    "Remove ended jobs from the list, with their logs. Their results stay. What a failed or cancelled one has kept "
    "beside its result is deleted.",
    "mystudio jobs remove 1 2",
)


@jobs.command(cls=Command)
@click.argument("job", type=int, metavar="JOB")
@click.option("--before", type=int, metavar="JOB", help="Start it before this job.")
@click.option("--first", is_flag=True, help="Start it before all others.")
@studio_option
@common
def order(job, before, first, studio):
    """Change the order in which jobs start. Without an option the job goes to the end.

    $ mystudio jobs order 5 --first
    """
    if first and before is not None:
        raise click.UsageError("expected --first or --before, got both")
    with _queue(studio) as queue:
        if first:
            before = next((other.id for other in queue.jobs() if other.id != job), None)
        queue.move(job, before)
        rest = [other.id for other in queue.jobs() if other.state in ("waiting", "paused")]
    answer(f"The order is {', '.join(map(str, rest)) or 'empty'}.", order=rest)


@jobs.command(cls=Command)
@where_options
@click.option(
    "--heavy", type=click.IntRange(1), help="Heavy jobs at once; default: 1, with Ray what there is room for."
)
@click.option("--light", type=click.IntRange(0), default=1, show_default=True, help="Light jobs at once, besides.")
@click.option(
    "--idle",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    metavar="SECONDS",
    help="Wait so long for more jobs before it ends.",
)
@studio_option
@common
def run(where, store, segments, heavy, light, idle, studio):
    """Work on the queue until nothing is left to do. Ctrl-C stops in order: the same command goes on.

    Each job runs in a process of its own. A job whose process is killed is started again and continues.

    $ mystudio jobs run
    $ mystudio jobs run --on ray://10.0.0.1:6379 --store s3://bucket/files
    """
    from mystudio.jobs import studio_folder
    from mystudio.jobs.worker import Worker

    stop, ran = threading.Event(), dict[int, dict[str, Any]]()

    def tell(job: Job, words: str) -> None:
        click.echo(f"{time.strftime('%H:%M:%S')} job {job.id} ({job.work.kind}) {words}", err=True)
        ran[job.id] = {"job": job.id, "kind": job.work.kind, "state": words.partition(":")[0]}

    folder = studio_folder(studio)
    with runner_of(where, store, segments, folder) as (runner, room):
        worker = Worker(folder, tell, heavy or room, light, runner)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: stop.set())
        worker.run(stop, idle)
    with _queue(folder) as queue:
        rest = [job for job in queue.jobs() if job.state not in ("done", "cancelled")]
    lines = [_line(job, folder) for job in rest] or ["Nothing is left to do."]
    answer("\n".join(lines), ran=list(ran.values()), left=[job.facts() for job in rest])


def _queue(studio: Path | None) -> Queue:
    from mystudio.jobs import Queue

    return Queue(studio)


def _line(job: Job, studio: Path) -> str:
    out = job.out.relative_to(studio) if job.out.is_relative_to(studio) else job.out
    words = f" ({job.title})" if job.title else ""
    return f"{job.id:4d}  {job.state:9}  {job.work.kind:11}  {out}{words}{_facts(job)}"


def _facts(job: Job) -> str:
    if job.error or job.waits_for:
        return f"; {job.error or job.waits_for}"
    if job.state == "running":
        asked = f", to be {job.asked}" if job.asked else ""
        steps = f" {job.done}/{job.total}" if job.total else ""
        return f"; {job.stage or 'starts'}{steps}{asked}, {_left(job)}"
    if job.state == "waiting" and job.left is not None:
        return f"; takes about {clock(job.left)}"
    return f"; took {clock(job.spent)}" if job.state == "done" else ""


def _left(job: Job) -> str:
    if job.left is not None:
        return f"{clock(job.left)} left"
    part = f"{clock(job.stage_left)} left of this part, " if job.stage_left is not None else ""
    return f"{part}time left of the whole job is not known yet"


def _sentence(job: Job) -> str:
    if job.asked:
        return f"Job {job.id} is running and stops within seconds; then it is {job.asked}."
    return f"Job {job.id} is {job.state}{_facts(job)}."


def _when(time_: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(time_))


@jobs.command(cls=Command, short_help="Say how long the first avatar of a scan takes here.")
@click.argument("scan", type=click.Path(path_type=Path), metavar="SCAN")
@click.option(
    "--recipe",
    "recipes",
    multiple=True,
    default=("default",),
    show_default=True,
    metavar="NAME",
    help="Settings of the stage; may be repeated.",
)
@studio_option
@common
def estimate(scan, recipes, studio):
    """Say how long the first avatar of SCAN would take here, after a trial of some seconds.

    The trial does a few steps of the real work and makes nothing. The queue keeps the result. Once a job of the kind
    has run, its own time counts instead.

    $ mystudio jobs estimate me.scan
    """
    from mystudio.engines import DEFAULT
    from mystudio.jobs import Work
    from mystudio.jobs.child import yielding
    from mystudio.pipeline import run_forecast
    from mystudio.recipe import resolve
    from mystudio.storage.artifacts import load
    from selfscan.types import Scan

    begun = time.process_time()  # a job starts its process and imports the same
    yielding()
    size, lines, rows = int(load(scan, Scan).images.shape[1]), [], {}
    with _queue(studio) as queue:
        for recipe in recipes:
            seconds = run_forecast(scan, BASE, resolve(recipe), engine=DEFAULT)
            if seconds is not None:
                seconds += begun
                options = {} if recipe == "default" else {"recipe": recipe}
                queue.keep_forecast(Work("personalize", {"scan": scan}, "", options), size, seconds)
                lines.append(f"{recipe}: at most about {clock(seconds)}, estimated from a trial of some seconds.")
                rows[recipe] = seconds
    answer("\n".join(lines) or f"The engine {DEFAULT} cannot be estimated.", scan=scan, seconds=rows)
