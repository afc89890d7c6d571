"""Text files as people's editors write them: UTF-8 or UTF-16, with or without a byte order mark, any line ends."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

_MARK = "\ufeff"
_MARKS = (  # the marks of UTF-32 come first: the one of UTF-16 LE is the beginning of the one of UTF-32 LE
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_text(path: str | Path) -> str:
    """Read a text file that a person may have written or saved again; see ``decoded``.

    Raises: OSError; ValueError: it is no text in an encoding that can be recognised.
    """
    return decoded(Path(path).read_bytes())


def decoded(content: bytes) -> str:
    """Decode the bytes of a text file: lines end with ``\\n``, and no byte order mark is left.

    The byte order mark decides between UTF-8, UTF-16 and UTF-32. Without one the text is UTF-8, or UTF-16 if every
    second one of its first bytes is zero, as in Latin text. Marks at the beginning of later lines come from joined
    files and are removed too.

    Raises: ValueError: the bytes are no such text.
    """
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), None) or _without_mark(content)
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"not {'UTF-8' if encoding.startswith('utf-8') else encoding.upper()} at byte {error.start}; "
            "save it as UTF-8"
        ) from None
    lines = re.sub(r"\r\n?", "\n", text)
    return lines.removeprefix(_MARK).replace(f"\n{_MARK}", "\n")


def _without_mark(content: bytes) -> str:
    first = content[:64]
    if len(first) >= 4 and len(content) % 2 == 0:
        if not any(first[1::2]) and all(first[::2]):
            return "utf-16-le"
        if not any(first[::2]) and all(first[1::2]):
            return "utf-16-be"
    return "utf-8"
