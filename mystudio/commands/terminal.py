"""Terminal output: progress, answers, and failures as one clear sentence."""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Sequence
from typing import Any

import click

from mystudio.errors import sentence as sentence

JSON, DEBUG, RESUME = "mystudio.json", "mystudio.debug", "mystudio.resume"  # keys in the root context's ``meta``
PLAIN_SECONDS = 10.0  # between two lines of one stage if the output is not a terminal


class Failure(click.ClickException):
    """A failure, reported in one sentence; exit code 1."""

    exit_code = 1

    def __init__(self, message: str, context: click.Context | None = None):
        super().__init__(message)
        self.context = context

    def show(self, file=None) -> None:
        """Write the sentence to stderr, and with --json the JSON object to stdout."""
        click.echo(f"error: {self.message}", err=True)
        context = click.get_current_context(silent=True) or self.context
        if context is not None and context.find_root().meta.get(JSON):
            click.echo(json.dumps({"ok": False, "error": self.message}))


class StudioGroup(click.Group):
    """The root group: lists commands in the order of the work, and turns errors into a Failure."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order in which they were added."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; for one that belongs to a group, name the whole call."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            inner = [name for name, group in self.commands.items() if args[0] in getattr(group, "commands", ())]
            if inner:
                calls = " or ".join(f"`{ctx.command_path} {name} {args[0]}`" for name in inner)
                raise click.UsageError(f"No such command '{args[0]}'. Did you mean {calls}?", ctx) from error
            raise

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            failure = f"stopped; {ctx.meta.get(RESUME) or 'nothing was changed, run the same command again'}"
        except BrokenPipeError:
            raise
        except Exception as error:  # a user sees a traceback only with --debug
            if ctx.meta.get(DEBUG):
                traceback.print_exc()
            failure = sentence(error)
        raise Failure(failure, ctx)


def answer(sentences: str, **values: Any) -> None:
    """Print the result: sentences, or with --json one JSON object on the last line of stdout."""
    if click.get_current_context().find_root().meta.get(JSON):
        click.echo(json.dumps({"ok": True, **values}, default=str))
    else:
        click.echo(sentences)


def warned(warnings: Sequence[str]) -> str:
    """Return a line for each warning about a clip, to be added to an answer."""
    return "".join(f"\nNote: {text}" for text in warnings)


def can_resume(text: str) -> None:
    """Set the advice that is printed after Ctrl-C."""
    click.get_current_context().find_root().meta[RESUME] = text


def progress():
    """Return the progress callable for this terminal: bars with the time left, or plain lines when piped."""
    return _Bars() if sys.stderr.isatty() else _Lines()


class _Bars:
    """One tqdm bar per stage."""

    def __init__(self):
        self.stage, self.bar = None, None

    def __call__(self, stage: str, done: int, total: int) -> None:
        from tqdm import tqdm

        if self.bar is None or stage != self.stage:
            self._close()
            self.stage, self.bar = stage, tqdm(desc=stage, total=total or None, initial=done, leave=False)
        self.bar.total = total or None
        self.bar.update(done - self.bar.n)
        if total and done >= total:
            self._close()

    def tell(self, sentence: str) -> None:
        """Print a sentence above the bar."""
        from tqdm import tqdm

        tqdm.write(sentence, file=sys.stderr)

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()
        self.stage, self.bar = None, None


class _Lines:
    """Prints a line every ``PLAIN_SECONDS`` with the time left."""

    def __init__(self):
        self.stage = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if stage != self.stage:
            self.stage, self.start, self.first, self.last = stage, now, done, now
        elif done < total and now - self.last < PLAIN_SECONDS:
            return
        self.last = now
        rate = (done - self.first) / max(now - self.start, 1e-6)
        left = f", {clock((total - done) / rate)} left" if rate > 0 and done < total else ""
        took = f", took {clock(now - self.start)}" if done >= total else ""
        click.echo(f"{stage} {done}/{total}{left}{took}", err=True)

    def tell(self, sentence: str) -> None:
        """Print a sentence as a line of its own."""
        click.echo(sentence, err=True)


def clock(seconds: float) -> str:
    """Return a duration in s as m:ss or h:mm:ss."""
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
