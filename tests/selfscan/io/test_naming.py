"""Names made from other names fit the file system and stay apart."""

import os
from pathlib import Path

import pytest

from selfscan.io.naming import LONGEST, bounded, derived


def test_a_name_that_fits_is_only_extended():
    assert derived(Path("/x/me.take"), ".", ".lock") == Path("/x/.me.take.lock")
    assert derived(Path("/x/a.b.mp4"), after=".part.mp4", stem="a.b") == Path("/x/a.b.part.mp4")
    middle = "a" * (LONGEST - 6)
    assert bounded(".", middle, ".lock") == f".{middle}.lock"


@pytest.mark.parametrize("letter", ["a", "é", "驱", "😀"])
def test_a_name_that_does_not_fit_ends_in_a_digest(letter):
    names = [letter * (LONGEST // len(letter.encode())) + tail for tail in ("", "a", "b")]
    found = [bounded(".", name, role) for name in names for role in (".lock", ".new", ".partial.deleted")]
    assert len(set(found)) == len(found)
    for name in found:
        assert len(os.fsencode(name)) <= LONGEST and name.startswith(f".{letter * 20}") and "\ufffd" not in name
    assert found[0].endswith(".lock") and found == [
        bounded(".", name, role) for name in names for role in (".lock", ".new", ".partial.deleted")
    ]


def test_the_longest_names_can_be_made_in_a_folder(tmp_path):
    for letter in ("a", "é", "驱", "😀"):
        path = tmp_path / (letter * (LONGEST // len(letter.encode())))
        twice = derived(derived(path, ".", ".x"), ".", ".y")
        for made in (derived(path, ".", ".lock"), derived(path, after=".partial"), twice):
            made.write_bytes(b"x")
    assert len(list(tmp_path.iterdir())) == 12
