"""Coverage-guided fuzzing of a family of readers with atheris (the optional extra ``fuzz``); see docs/safety.md.

The first byte of an input chooses the reader, and the rest is its file. The first run adds valid files to the corpus.
Options are those of libFuzzer (-max_total_time=SECONDS, -runs=N, -rss_limit_mb=N), and --corpus DIR and --keep DIR.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import atheris


def run(family: str) -> None:
    """Fuzz until libFuzzer's limits; each misbehaviour is saved as a file and reported once, and the run goes on."""
    options = argparse.ArgumentParser(description=f"fuzz the readers of the family {family!r}")
    options.add_argument("--corpus", type=Path, default=Path(tempfile.gettempdir()) / f"mystudio-fuzz-{family}")
    options.add_argument("--keep", type=Path, help="folder for what misbehaves; CORPUS.found without it")
    given, rest = options.parse_known_args()
    os.environ["MYSTUDIO_HOME"] = tempfile.mkdtemp()
    with atheris.instrument_imports(include=["mystudio", "selfscan"], enable_loader_override=False):
        from readers import READERS
    from watch import Misbehaviour, outcome

    readers, place = READERS[family], Path(tempfile.mkdtemp())
    keep = given.keep or given.corpus.with_suffix(".found")
    _plant(readers, given.corpus)
    late = ("ctypes.dlopen", "exec", "os.mkdir")
    for reader in readers:
        for seed in reader.seeds():
            outcome(reader.read, seed, place, 1 << 20, (*reader.allowed, *late), 600.0)
    tally, told, start = {"executions": 0, "read": 0, "refused": 0, "misbehaved": 0}, set(), time.monotonic()
    noted = [start]

    def one(data: bytes) -> None:
        if not data:
            return
        reader = readers[data[0] % len(readers)]
        tally["executions"] += 1
        try:
            refused = outcome(reader.read, data[1:], place, reader.megabytes, reader.allowed, reader.seconds)
            tally["read" if refused is None else "refused"] += 1
        except Misbehaviour as error:
            tally["misbehaved"] += 1
            kind = (reader.name, str(error)[:60])
            if kind not in told and len(told) < 200:
                told.add(kind)
                keep.mkdir(parents=True, exist_ok=True)
                (keep / f"{len(told):03d}-{reader.name.replace(' ', '_').replace('/', '_')}").write_bytes(data[1:])
                print(f"{family}: {reader.name}: {error}", file=sys.stderr, flush=True)
        if time.monotonic() - noted[0] > 2:
            noted[0] = time.monotonic()
            _note(keep, family, tally, start)

    atheris.Setup([sys.argv[0], *rest, "-max_len=65536", str(given.corpus)], one)
    atheris.Fuzz()


def _plant(readers, corpus: Path) -> None:
    corpus.mkdir(parents=True, exist_ok=True)
    for number, reader in enumerate(readers):
        for k, seed in enumerate(reader.seeds()):
            (corpus / f"honest-{number}-{k}").write_bytes(bytes([number]) + seed)


def _note(keep: Path, family: str, tally: dict, start: float) -> None:
    """Write the counts to a file, because libFuzzer ends the process itself."""
    keep.mkdir(parents=True, exist_ok=True)
    counts = ", ".join(f"{number} {name}" for name, number in tally.items())
    (keep / "tally.txt").write_text(f"{family}: {counts} in {time.monotonic() - start:.0f} s\n")
