"""A path that a preset's regular expression finds, for messages that people can read."""

from __future__ import annotations

import re

_NAME = "name"

# What one piece of an expression may stand for; groups are resolved afterwards.
_PIECES = re.compile(
    r"(?P<name>\[\^/\][+*]|\\[1-9])"
    r"|(?P<digit>\\d)(?:\{(?P<digits>\d+)(?:,\d*)?\}|[+*])?"
    r"|\[(?P<letter>\w)[^\]]*\](?:\{(?P<letters>\d+)(?:,\d*)?\}|[+*])?"
    r"|(?P<anything>\.\*)"
    r"|\\(?P<sign>\W)"
    r"|\w\?"
)
_GROUP = re.compile(r"\((?:\?:|\?P<\w+>)?(?P<first>[^()|]*)[^()]*\)(?P<optional>[?*]?)")


def path_example(pattern: re.Pattern[str]) -> str:
    r"""Return a path that an expression finds, or the expression itself where it is too intricate.

    >>> path_example(re.compile(r"(?:.*/)?top_potsdam_(?P<id>\d+_\d+)_RGB\.tiff?"))
    'top_potsdam_1_1_RGB.tif'
    >>> path_example(re.compile(r"(?=a).(?P<id>b)"))
    '(?=a).(?P<id>b)'
    """
    text = _PIECES.sub(_piece, pattern.pattern)
    while (shorter := _GROUP.sub(lambda group: "" if group["optional"] else group["first"], text)) != text:
        text = shorter
    return text if pattern.fullmatch(text) else pattern.pattern


def _piece(match: re.Match[str]) -> str:
    """Return the shortest text that a piece of an expression stands for."""
    if match["name"]:
        return _NAME
    if match["digit"]:
        return "1" * int(match["digits"] or 1)
    if match["letter"]:
        return match["letter"] * int(match["letters"] or 1)
    return match["sign"] or ""
