"""Text that others wrote: made valid for files, and harmless for a terminal.

A string may hold halves of surrogate pairs (from JSON escapes, or from file names that are not
UTF-8), which no file can keep, and control characters, which a terminal obeys.
"""

import unicodedata

JOINERS = "\u200c\u200d"  # within emoji and words of some scripts; they steer nothing


def valid_text(text: str) -> str:
    """The text with each half of a surrogate pair replaced by U+FFFD; all else as it is."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def is_valid(text: str) -> bool:
    """Whether UTF-8 can hold the text."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def printable(text: object, keep: str = "") -> str:
    """The text for a log line or an error: what would steer the terminal stands as an escape.

    Args:
      text: whatever is to be shown.
      keep: control characters that stay, such as a newline.
    """
    text = str(text)
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if _is_harmless(c) or c in keep else _escape(c) for c in text)


def same_name(name: str) -> str:
    """The form in which names are matched: macOS decomposes letters (NFD) that others do not."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _is_harmless(character: str) -> bool:
    return (
        character.isprintable()
        or character in JOINERS
        or unicodedata.category(character) == "Zs"  # spaces of other widths
    )


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
