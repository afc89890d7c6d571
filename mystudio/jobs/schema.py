"""The queue's file: its tables, older versions of them, and SQLite's errors as sentences."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from mystudio.errors import BadQueue, OutputFailed, StudioError, reason

APPLICATION = 0x6D795354  # "myST": marks the file as ours
PATIENCE = 20.0  # s to wait for another process that writes
#: statements that make the next version of the tables; never change one that was released, add another
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (  # 1
        "CREATE TABLE counter (change INTEGER NOT NULL)",  # one row: the number of the last change
        "INSERT INTO counter VALUES (0)",
        """CREATE TABLE job (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            kind TEXT NOT NULL,
            inputs TEXT NOT NULL,              -- JSON: name -> path
            out TEXT NOT NULL,
            options TEXT NOT NULL,             -- JSON
            title TEXT NOT NULL,
            light INTEGER NOT NULL,
            place REAL NOT NULL,               -- order in which waiting jobs start
            state TEXT NOT NULL,
            asked TEXT,                        -- state that a running job was asked to take
            note TEXT NOT NULL DEFAULT '',     -- why it waits, apart from other jobs
            not_before REAL NOT NULL DEFAULT 0,
            stage TEXT NOT NULL DEFAULT '',
            done INTEGER NOT NULL DEFAULT 0,
            total INTEGER NOT NULL DEFAULT 0,
            remaining REAL,                    -- s
            stage_remaining REAL,              -- s
            preview INTEGER NOT NULL DEFAULT 0, -- number of previews; 0 = there is none
            error TEXT NOT NULL DEFAULT '',
            worker TEXT NOT NULL DEFAULT '',
            tries INTEGER NOT NULL DEFAULT 0,
            crashes INTEGER NOT NULL DEFAULT 0, -- without getting further
            added REAL NOT NULL,
            started REAL,
            ended REAL,
            beat REAL,
            spent REAL NOT NULL DEFAULT 0,
            change INTEGER NOT NULL
        )""",
        "CREATE INDEX job_by_change ON job (change)",
        "CREATE INDEX job_by_state ON job (state, place)",
        """CREATE TABLE dependency (
            job INTEGER NOT NULL REFERENCES job (id) ON DELETE CASCADE,
            other INTEGER NOT NULL REFERENCES job (id) ON DELETE CASCADE,
            PRIMARY KEY (job, other)
        ) WITHOUT ROWID""",
        "CREATE INDEX dependency_by_other ON dependency (other)",
        "CREATE TABLE removed (id INTEGER PRIMARY KEY, change INTEGER NOT NULL)",
        """CREATE TABLE worker (
            token TEXT PRIMARY KEY, process INTEGER NOT NULL, host TEXT NOT NULL, started REAL NOT NULL,
            beat REAL NOT NULL
        )""",
        # how long the parts of a job took; ``whole``: the job is done. Rows of done jobs outlive their jobs
        """CREATE TABLE pace (
            job INTEGER NOT NULL, position INTEGER NOT NULL, stage TEXT NOT NULL, kind TEXT NOT NULL,
            variant TEXT NOT NULL, machine TEXT NOT NULL, units INTEGER NOT NULL, seconds REAL NOT NULL,
            whole INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (job, stage)
        ) WITHOUT ROWID""",
        "CREATE INDEX pace_by_kind ON pace (kind, variant, machine, whole)",
    ),
    (  # 2: how far a job was when it crashed, so that crashes on the way do not add up
        "ALTER TABLE job ADD COLUMN crash_part INTEGER NOT NULL DEFAULT -1",  # position in ``pace``
        "ALTER TABLE job ADD COLUMN crash_done INTEGER NOT NULL DEFAULT 0",
    ),
    (  # 3: how long a job would take, from a trial of some seconds
        """CREATE TABLE forecast (
            kind TEXT NOT NULL, variant TEXT NOT NULL, machine TEXT NOT NULL, size INTEGER NOT NULL,
            seconds REAL NOT NULL, made REAL NOT NULL, PRIMARY KEY (kind, variant, machine, size)
        ) WITHOUT ROWID""",
    ),
)
VERSION = len(MIGRATIONS)


def connect(file: Path) -> sqlite3.Connection:
    """Open the queue's file; a missing one is made, and an older one gets the tables of today.

    Raises:
        BadQueue: the file is damaged, no queue, or of a newer version; it is left as it is.
        OutputFailed: it cannot be written.
    """
    with told(file):
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputFailed(
                f"{file.parent} could not be made ({error.strerror or error}); choose another studio folder"
            ) from error
        db = sqlite3.connect(file, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
        try:
            db.row_factory = sqlite3.Row
            _migrate(db, file)
            db.execute("PRAGMA journal_mode = WAL")  # a drive without shared memory keeps the journal it has
            db.execute("PRAGMA synchronous = FULL")  # what `add` has answered outlives a power cut
            db.execute("PRAGMA foreign_keys = ON")
        except BaseException:
            db.close()
            raise
        return db


def _migrate(db: sqlite3.Connection, file: Path) -> None:
    db.execute("BEGIN")  # one snapshot: another process may be making the file
    try:
        version = _version(db, file)
    finally:
        db.execute("ROLLBACK")
    if version == VERSION:
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        for statements in MIGRATIONS[_version(db, file) :]:  # another process may have done it meanwhile
            for statement in statements:
                db.execute(statement)
        db.execute(f"PRAGMA application_id = {APPLICATION}")
        db.execute(f"PRAGMA user_version = {VERSION}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _version(db: sqlite3.Connection, file: Path) -> int:
    """The version of the tables; 0 = an empty file. Raises BadQueue."""
    (version,), (application,) = (db.execute(f"PRAGMA {key}").fetchone() for key in ("user_version", "application_id"))
    (tables,) = db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
    if application != APPLICATION and (tables or application or version):
        raise BadQueue(f"{file} is no queue of mystudio; move it or choose another studio folder")
    if version > VERSION:
        raise BadQueue(f"{file} is of version {version}, expected at most {VERSION}; update mystudio")
    return int(version)


@contextmanager
def told(file: Path) -> Generator[None]:
    """Turn SQLite's errors into ours.

    Raises: BadQueue, OutputFailed.
    """
    try:
        yield
    except StudioError:
        raise
    except sqlite3.OperationalError as error:
        words = str(error)
        if "locked" in words:
            raise OutputFailed(
                f"{file} is locked by another process for {PATIENCE:.0f} s; end that process and try again"
            ) from error
        if any(word in words for word in ("full", "readonly", "unable to open", "I/O", "authorized")):
            raise OutputFailed(
                f"{file} could not be used ({words}); free space, check the permissions, or choose another "
                "studio folder"
            ) from error
        raise BadQueue(_damaged(file, error)) from error
    except sqlite3.DatabaseError as error:
        raise BadQueue(_damaged(file, error)) from error


def _damaged(file: Path, error: Exception) -> str:
    return (
        f"{file} is damaged ({reason(error)}); move it away and add the jobs again: results and checkpoints are in "
        "other files, so nothing that was computed is lost"
    )
