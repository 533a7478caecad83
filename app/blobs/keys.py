"""Where objects live.

    <root>
    ├── objects/                         one object per upload session, whatever its content
    │   └── 3f/                          the first two digits of the name: 256 directories, evenly filled
    │       └── 3f0c…e1 (32 hex digits)  a random UUID; never a digest, so that it is never used a second time
    ├── health/                          what health checks write, read and delete; never listed
    │   └── 32 hex digits
    ├── docker/registry/v2/…             keys of an imported tree stay as they are
    └── lock, config.yml, postgres/, …   of `registry serve --local`, which keeps all that it has in one place

Only keys that `check_key` lets pass reach storage: relative, plain, and short enough for every backend.
"""

from __future__ import annotations

import re
import uuid
from typing import Final

from app.blobs.driver import KeyInvalid

HEALTH_PREFIX: Final = "health/"
# What stands in the root beside the objects.
NOT_OBJECTS: Final = frozenset({
    HEALTH_PREFIX, "lock", "config.yml", "signing-key.pem", "postgres/", "postgres.log", "postgres.log.1",
})  # fmt: skip
# S3's bound on a key, and the file systems' on one name in a path.
KEY_BYTES_MAX: Final = 1024
KEY_PART_BYTES_MAX: Final = 255

_KEY: Final = re.compile(r"objects/([0-9a-f]{2})/\1[0-9a-f]{30}")
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f\\]")


def new_key() -> str:
    """A key that no object has had and none will have again."""
    name = uuid.uuid4().hex
    return f"objects/{name[:2]}/{name}"


def new_health_key() -> str:
    """A key for one health check."""
    return HEALTH_PREFIX + uuid.uuid4().hex


def is_key(text: str) -> bool:
    """Whether `new_key` could have made it."""
    return _KEY.fullmatch(text) is not None


def check_key(key: str) -> None:
    """Raise KeyInvalid unless `key` names an object under the root, whatever its tree."""
    try:
        encoded = key.encode()
    except UnicodeEncodeError as error:
        raise KeyInvalid from error
    if len(encoded) > KEY_BYTES_MAX or _UNPRINTABLE.search(key) is not None:
        raise KeyInvalid
    for part in encoded.split(b"/"):
        if part in (b"", b".", b"..") or len(part) > KEY_PART_BYTES_MAX:
            raise KeyInvalid
