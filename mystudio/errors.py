"""The errors of mystudio. A message says what was expected, what came and what to do."""

import errno


class StudioError(Exception):
    """Root of mystudio's errors. The message says what was expected, what came and what to do."""


def reason(error: object, most: int = 200) -> str:
    """A library's message about a foreign file, as one short printable line."""
    text = "".join(c if c.isprintable() else "?" for c in " ".join(str(error).split()))
    return text[:most] or type(error).__name__


class UnsafeCheckpoint(StudioError):
    """A checkpoint asks for code to be run; nothing in it was executed."""


class BadCheckpoint(StudioError):
    """A checkpoint is damaged or not a StyleGAN2 generator."""


class BadData(StudioError):
    """Training data is missing, damaged, or does not fit."""


class BadArtifact(StudioError):
    """An artifact folder is missing, damaged, of another type or of another version."""


class BadArchive(StudioError):
    """An avatar archive is damaged, hostile, or not one; nothing of it was placed."""


class ArtifactBusy(StudioError):
    """Another process is writing this artifact."""


class BadRecipe(StudioError):
    """A recipe or option is unknown or out of range."""


class ConsentRequired(StudioError):
    """An avatar may only be made from a scan with a consent record."""


class BadEngine(StudioError):
    """A module that is named as an engine does not fulfil the engine protocol."""


class NotOffered(StudioError):
    """The engine of an avatar does not offer what was asked of it, such as edits."""


class BadEdit(StudioError):
    """An edit names a direction that the avatar does not offer, or a strength that is not a number."""


class TrainingDiverged(StudioError):
    """Steps kept giving non-finite values after rolling back."""


class SigningFailed(StudioError):
    """A key, a certificate or a file is not fit for signing."""


class NotVerified(StudioError):
    """A file carries no mark, or one that does not fit it."""


class NotConfirmed(StudioError):
    """The question whether to go on was not answered with yes."""


class OutputFailed(StudioError):
    """A result could not be written (disk full, no permission); what existed before is whole."""


class NoDisplay(StudioError):
    """A window was asked for and there is no screen to show it on."""


def memory_ran_out(error: BaseException) -> bool:
    """Whether an error means out of memory, of a GPU or of the machine; each library has its own message.

    oneDNN reports only that it could not make or run a primitive. Such ambiguous errors count as out of memory, because
    a retry with less is cheap.
    """
    text = str(error).lower()
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or isinstance(error, OSError)
        and error.errno == errno.ENOMEM
        or any(
            words in text
            for words in (
                "allocate memory",
                "bad_alloc",
                "out of memory",
                "insufficient memory",
                "not enough memory",
                "start new thread",
                "could not create a primitive",
                "could not execute a primitive",
                "could not create a memory",
            )
        )
    )
