"""Which tags a caller may push and delete, by the rules of its token (GitLab's protected and immutable tags).

Protection goes by the tag's name alone, so it is decided before anything is looked up. Whether an immutable tag is
there already only the database can tell, in the transaction that writes (`put_manifest`).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from app.domain.errors import ImmutableTag, ProtectedManifest, ProtectedTag

if TYPE_CHECKING:
    from collections.abc import Collection

    from app.domain.access import TagRules
    from app.domain.names import Tag


async def check_push(rules: TagRules | None, tags: Collection[Tag]) -> frozenset[Tag]:
    """The immutable ones among `tags`, which may be pushed only while they do not exist. Raises ProtectedTag."""
    if rules is None:
        return frozenset()
    immutable: set[Tag] = set()
    for tag in tags:
        if rules.is_push_denied(tag):
            raise ProtectedTag(f'tag "{tag}" is protected')
        if rules.is_immutable(tag):
            immutable.add(tag)
        # The worst patterns take some 10 ms for one tag, and there may be many tags.
        await asyncio.sleep(0)
    return frozenset(immutable)


def check_delete(rules: TagRules | None, tag: Tag) -> None:
    """Raises ProtectedTag, ImmutableTag, whether the tag exists or not."""
    if rules is None:
        return
    if rules.is_delete_denied(tag):
        raise ProtectedTag(f'tag "{tag}" is protected')
    if rules.is_immutable(tag):
        raise ImmutableTag(f'tag "{tag}" is immutable')


def check_manifest_delete(rules: TagRules | None) -> None:
    """Raises ProtectedManifest while any tag is protected or immutable: its tags would go with the manifest."""
    if rules is not None and rules.guards_manifests:
        raise ProtectedManifest
