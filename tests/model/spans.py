"""A second reading of `Range` (RFC 9110 §14), which knows nothing of the registry's own."""

from __future__ import annotations

from typing import Final

WHOLE: Final = "whole"
NOTHING: Final = "nothing"


def spans(header: str, size: int) -> list[range] | str:
    """The positions of each range that a body of `size` bytes has; WHOLE or NOTHING (416) if it is not to be cut.

    More bytes than the body has are not worth several parts: then it is WHOLE again.
    """
    unit, _, wanted = header.partition("=")
    if unit != "bytes" or not size:
        return WHOLE
    found = [_span(text.strip(), size) for text in wanted.split(",")]
    if None in found:
        return NOTHING
    present = [span for span in found if span]
    if len(present) > 1 and sum(map(len, present)) > size:
        return WHOLE
    return present or NOTHING


def _span(text: str, size: int) -> range | None:
    """The positions that `text` asks for and the body has. None: the text is malformed."""
    first, dash, last = text.partition("-")
    if not dash or not f"{first}{last}".isdigit():
        return None
    if not first:
        return range(size)[-int(last) :] if int(last) else range(0)
    if last and int(last) < int(first):
        return None
    return range(size)[int(first) : int(last) + 1 if last else None]
