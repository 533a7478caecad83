"""What a check can find, and whom it tells.

A finding is proven: it was suspected, and looked at again in an order that leaves no other explanation. It carries
facts; the sentences are the command line's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from app.domain.digest import Digest


class Kind(Enum):
    """What is wrong. The values are what machines read, so they stay."""

    # Objects and the rows that name them.
    ORPHAN = "orphan"
    STRANGER = "stranger"
    LOST = "lost"
    WRONG_SIZE = "wrong_size"
    WRONG_CONTENT = "wrong_content"
    UNREADABLE = "unreadable"
    NAMED_TWICE = "named_twice"
    UPLOAD_DAMAGED = "upload_damaged"
    # Manifests and what they need.
    WRONG_PAYLOAD = "wrong_payload"
    WRONG_ROWS = "wrong_rows"
    BLOB_ABSENT = "blob_absent"
    BLOB_UNLINKED = "blob_unlinked"
    BLOB_LOST = "blob_lost"
    BLOB_AWAITED = "blob_awaited"
    CHILD_ABSENT = "child_absent"
    # Repositories.
    WRONG_CATALOG = "wrong_catalog"


class Phase(Enum):
    """What the check is at. `contents` only with a share to read."""

    OBJECTS = "objects"
    CONTENTS = "contents"
    MANIFESTS = "manifests"
    CATALOG = "catalog"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something wrong. Which facts it has depends on its kind; sizes are bytes.

    `is_tagged`: whether the manifest can be reached from a tag, of which `tags` are up to three. `is_repaired`: it was
    set right, as far as that is possible without the bytes.
    """

    kind: Kind
    is_repaired: bool = False
    key: str | None = None
    digest: Digest | None = None
    size: int | None = None
    expected: int | None = None
    found: Digest | None = None
    # Who name the key: "blob sha256:…", "upload", "tombstone".
    holders: tuple[str, ...] = ()
    repository: str | None = None
    manifest: Digest | None = None
    is_tagged: bool | None = None
    tags: tuple[str, ...] = ()
    # Which of a manifest's rows are wrong, what the catalog says.
    what: str | None = None


@dataclass
class Summary:
    """What was looked at. `bytes` are those that were read."""

    rows: int = 0
    objects: int = 0
    object_bytes: int = 0
    manifests: int = 0
    repositories: int = 0
    blobs_read: int = 0
    bytes_read: int = 0
    # Blobs that were known as lost when the check began; those that something tagged needs are findings besides.
    awaited: int = 0
    suspicions: int = 0
    repaired: int = 0
    seconds: float = 0.0
    findings: dict[Kind, int] = field(default_factory=dict[Kind, int])

    @property
    def is_clean(self) -> bool:
        """Whether nothing was found."""
        return not self.findings


class Listener(Protocol):
    """Is told what is found, as soon as it is proven, and how far the check is."""

    def found(self, finding: Finding) -> None: ...

    def began(self, phase: Phase, about: int) -> None:
        """A phase begins, of `about` steps; 0 if nobody knows."""
        ...

    def advanced(self, steps: int) -> None: ...


class StorageLooksWrong(Exception):
    """Storage holds nothing that the database names, so that nothing is repaired on its word."""
