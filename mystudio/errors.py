"""The errors of mystudio. A message says what was expected, what came and what to do."""

import errno

from selfscan.errors import SelfscanError


class StudioError(Exception):
    """Root of mystudio's errors. The message says what was expected, what came and what to do."""


def reason(error: object, most: int = 200) -> str:
    """Return a library's message about an untrusted file as one short printable line of at most ``most`` characters."""
    text = "".join(c if c.isprintable() else "?" for c in " ".join(str(error).split()))
    return text[:most] or type(error).__name__


class UnsafeCheckpoint(StudioError):
    """A checkpoint contains code or calls that reading must not run; nothing in it was executed."""


class BadCheckpoint(StudioError):
    """A checkpoint is damaged or not a StyleGAN2 generator."""


class BadData(StudioError):
    """Training data is missing, damaged, or does not fit."""


class BadArtifact(StudioError):
    """An artifact folder is missing, damaged, of another type or of another version."""


class BadClips(StudioError):
    """The clips of a scan are too many, or one of them was given twice."""


class BadArchive(StudioError):
    """A file is damaged, hostile, or not an avatar archive; nothing was extracted."""


class ArtifactBusy(StudioError):
    """Another process is writing this artifact."""


class BadRecipe(StudioError):
    """A recipe or option is unknown or out of range."""


class ConsentRequired(StudioError):
    """The scan has no consent record, which is needed to make an avatar."""


class TooFewImages(StudioError):
    """An engine needs more images of a person than the scan holds."""


class BadEngine(StudioError):
    """A module registered as an engine does not implement the engine protocol."""


class NotOffered(StudioError):
    """The engine of an avatar does not support an operation, such as edits."""


class BadEdit(StudioError):
    """An edit names a direction that the avatar does not offer, or a strength that is not a number."""


class TrainingDiverged(StudioError):
    """Steps kept giving non-finite values after rolling back."""


class SigningFailed(StudioError):
    """A key, certificate or file cannot be used for signing."""


class NotVerified(StudioError):
    """A file carries no mark, or its mark does not match its content."""


class NotConfirmed(StudioError):
    """The confirmation question was not answered with yes."""


class OutputFailed(StudioError):
    """A result could not be written (disk full, no permission); existing files are unchanged."""


class BadJob(StudioError):
    """A job is unknown, is not described as its kind needs, or is in a state that does not allow a request."""


class BadQueue(StudioError):
    """The file of the job queue is damaged, of a newer version, or something else; it was not changed."""


class BadCluster(StudioError):
    """Ray is not installed, its cluster cannot be reached, or it is not safe."""


class NoDisplay(StudioError):
    """A window was requested, but there is no screen."""


def memory_ran_out(error: BaseException) -> bool:
    """Return whether an error means out of memory, of a GPU or of the machine; each library has its own message.

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


def sentence(error: BaseException, otherwise: str = "run again with --debug and report it") -> str:
    """Return one clear sentence for any error; ``otherwise`` says what to do about one that nobody expected."""
    text = reason(error, 10_000)  # escapes control characters in foreign names
    if isinstance(error, (SelfscanError, StudioError)):
        return text
    if memory_ran_out(error):
        return "memory ran out; close other programs, or use smaller batches (see `mystudio recipe show`)"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        place = f"{error.filename} could not be written: " if error.filename else ""
        return f"{place}the disk is full; free space and try again"
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror or text}; check the path, the permissions and the free space"
    return f"this should not happen ({type(error).__name__}: {text[:300]}); {otherwise}"
