"""Repository names, tags and references (OCI distribution spec, "Pulling manifests").

Each `parse_*` takes what a client sent and gives back a value that is safe in a statement, a header or a URL.
`fullmatch` is deliberate: `$` would let a trailing newline through.
"""

from __future__ import annotations

import re
from typing import Final, NewType

from app.domain.digest import Digest
from app.domain.errors import NameInvalid, TagInvalid
from app.domain.limits import NAME_CHARS_MAX, TAG_CHARS_MAX

RepositoryName = NewType("RepositoryName", str)
Tag = NewType("Tag", str)
Reference = Tag | Digest

_COMPONENT: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME: Final = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG: Final = re.compile(rf"[a-zA-Z0-9_][a-zA-Z0-9._-]{{0,{TAG_CHARS_MAX - 1}}}")


def parse_name(text: str) -> RepositoryName:
    """The repository name. Raises NameInvalid."""
    if len(text) > NAME_CHARS_MAX:
        raise NameInvalid(
            f"a repository name has at most {NAME_CHARS_MAX} characters, this one has {len(text)}"
        )
    if _NAME.fullmatch(text) is None:
        raise NameInvalid(
            f"{text!r}: expected lower-case letters and digits, joined by '.', '_', '__' or '-', in parts joined by '/'"
        )
    return RepositoryName(text)


def parse_tag(text: str) -> Tag:
    """The tag. Raises TagInvalid."""
    if _TAG.fullmatch(text) is None:
        raise TagInvalid(
            f"{text[: TAG_CHARS_MAX + 32]!r}: expected a letter, digit or '_', then at most {TAG_CHARS_MAX - 1} of"
            " letters, digits, '_', '.' and '-'"
        )
    return Tag(text)


def parse_reference(text: str) -> Reference:
    """The digest if `text` has a colon, else the tag. Raises DigestInvalid or TagInvalid."""
    return Digest.parse(text) if ":" in text else parse_tag(text)
