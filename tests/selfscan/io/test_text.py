"""Text files of any editor: encodings, byte order marks and line ends give the same text."""

import codecs

import pytest

from selfscan.io.text import decoded, read_text

TEXT = "# Ä, é, 字\nsmile = [[0.0, 0.0]]\n"
FORMS = {
    "UTF-8": TEXT.encode(),
    "UTF-8 with a mark": codecs.BOM_UTF8 + TEXT.encode(),
    "UTF-16 little": codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le"),
    "UTF-16 big": codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
    "UTF-32 little": codecs.BOM_UTF32_LE + TEXT.encode("utf-32-le"),
    "UTF-32 big": codecs.BOM_UTF32_BE + TEXT.encode("utf-32-be"),
    "CRLF": TEXT.replace("\n", "\r\n").encode(),
    "CRLF with a mark": codecs.BOM_UTF8 + TEXT.replace("\n", "\r\n").encode(),
    "UTF-16 with CRLF": codecs.BOM_UTF16_LE + TEXT.replace("\n", "\r\n").encode("utf-16-le"),
    "lone CR": TEXT.replace("\n", "\r").encode(),
    "two joined files": codecs.BOM_UTF8 + TEXT.replace("\n", "\n\ufeff", 1).encode(),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_text(form, tmp_path):
    (tmp_path / "a.txt").write_bytes(FORMS[form])
    assert read_text(tmp_path / "a.txt") == TEXT


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_is_recognised_in_latin_text(encoding):
    assert decoded("smile = [[0.0, 1.0]]\n".encode(encoding)) == "smile = [[0.0, 1.0]]\n"


def test_marks_inside_a_line_and_short_texts_stay():
    assert decoded("a\ufeffb".encode()) == "a\ufeffb" and decoded(b"") == "" and decoded(b"a\0") == "a\0"


@pytest.mark.parametrize("content", [b"caf\xe9 = 1", codecs.BOM_UTF16_LE + b"a", b"\x80\x02}q\x00."])
def test_other_bytes_are_no_text(content):
    with pytest.raises(ValueError, match="not UTF-.* at byte .*; save it as UTF-8"):
        decoded(content)
