"""Manifests, their tags and their referrers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from sqlalchemy import ColumnElement, bindparam, func, literal_column, or_, select
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, JSON
from sqlalchemy.types import BigInteger, Text

from app.domain.digest import Digest
from app.domain.errors import ImmutableTag
from app.store.statements import Statement
from app.store.tables import manifests, tags

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from app.domain.manifests import Manifest
    from app.domain.names import RepositoryName, Tag
    from app.store.engine import Connection


def _columns(*names: str) -> list[ColumnElement[Any]]:
    """Columns that a function gives back."""
    return [literal_column(name) for name in names]


PAYLOAD: Final = Statement(
    "manifests.payload",
    select(manifests.c.payload).where(
        manifests.c.repository_id == bindparam("repository_id"), manifests.c.id == bindparam("manifest_id")
    ),
)
KEEP: Final = Statement(
    "manifests.keep",
    select(
        func.keep_manifest(
            bindparam("repository_id", type_=BigInteger), bindparam("manifest_id", type_=BigInteger)
        )
    ),
)
_PUT_TYPES: Final[dict[str, Any]] = {
    "path": Text,
    "digest": BYTEA,
    "media_type": Text,
    "artifact_type": Text,
    "config_media_type": Text,
    "config_digest": BYTEA,
    "subject_digest": BYTEA,
    "payload": BYTEA,
    "total_size": BigInteger,
    "annotations": JSON,
    "blobs": ARRAY(BYTEA),
    "layers": ARRAY(BYTEA),
    "layer_sizes": ARRAY(BigInteger),
    "layer_media_types": ARRAY(Text),
    "children": ARRAY(BYTEA),
    "optional_children": ARRAY(BYTEA),
    "tags": ARRAY(Text),
    "immutable": ARRAY(Text),
}
PUT: Final = Statement(
    "manifests.put",
    select(*_columns("repository_id", "missing_blobs", "missing_children", "immutable_tags")).select_from(
        func.put_manifest(*(bindparam(name, type_=kind) for name, kind in _PUT_TYPES.items()))
    ),
)
DELETE: Final = Statement(
    "manifests.delete",
    select(*_columns("outcome", "tag_names")).select_from(
        func.delete_manifest(bindparam("repository_id", type_=BigInteger), bindparam("digest", type_=BYTEA))
    ),
)
_untagged = (
    tags.delete()
    .where(tags.c.repository_id == bindparam("repository_id"), tags.c.name == bindparam("tag"))
    .returning(tags.c.repository_id, tags.c.manifest_id)
    .cte("untagged")
)
# The function sees what the statement that calls it has deleted by then (PostgreSQL, "Visibility of Data Changes").
UNTAG: Final = Statement(
    "manifests.untag",
    select(_untagged.c.manifest_id, func.settle_has_tags(_untagged.c.repository_id, literal_column("false"))),
)
_matching = (
    select(manifests.c.id, manifests.c.annotations_bytes)
    .where(
        manifests.c.repository_id == bindparam("repository_id"),
        manifests.c.subject_digest == bindparam("subject", type_=BYTEA),
        manifests.c.id > bindparam("after", type_=BigInteger),
        func.coalesce(manifests.c.artifact_type, literal_column("''"))
        == func.coalesce(
            bindparam("artifact_type", type_=Text), manifests.c.artifact_type, literal_column("''")
        ),
    )
    .order_by(manifests.c.id)
    .limit(bindparam("limit", type_=BigInteger))
    .subquery("matching")
)
# The running sum bounds the answer's bytes as well as its entries: annotations may be megabytes each.
_measured = select(
    _matching.c.id,
    func.row_number().over(order_by=_matching.c.id).label("position"),
    func.sum(_matching.c.annotations_bytes).over(order_by=_matching.c.id).label("bytes_so_far"),
    func.count().over().label("matched"),
).subquery("measured")
REFERRERS: Final = Statement(
    "manifests.referrers",
    select(
        manifests.c.id,
        manifests.c.digest,
        manifests.c.media_type,
        manifests.c.payload_bytes,
        manifests.c.artifact_type,
        manifests.c.annotations,
        _measured.c.matched,
    )
    .join(_measured, _measured.c.id == manifests.c.id)
    .where(
        manifests.c.repository_id == bindparam("repository_id"),
        # The first one always comes, or else no page would ever get past it.
        or_(
            _measured.c.position == literal_column("1"),
            _measured.c.bytes_so_far <= bindparam("bytes_max", type_=BigInteger),
        ),
    )
    .order_by(manifests.c.id),
)


@dataclass(frozen=True)
class Referrer:
    """One descriptor of a referrers list; `id` is the cursor for the next page.

    `annotations` is JSON text. `matched` is how many the query found before its bound on bytes.
    """

    id: int
    digest: Digest
    media_type: str
    size: int
    artifact_type: str | None
    annotations: str | None
    matched: int


async def payload(c: Connection, repository_id: int, manifest_id: int) -> bytes | None:
    """The manifest's bytes."""
    return await c.value(PAYLOAD, repository_id=repository_id, manifest_id=manifest_id)


async def keep(c: Connection, repository_id: int, manifest_id: int) -> bool:
    """Give the manifest a grace period. False: it is gone."""
    return await c.value(KEEP, repository_id=repository_id, manifest_id=manifest_id)


@dataclass(frozen=True)
class Missing:
    """What a manifest needs and the repository does not have."""

    blobs: list[Digest]
    children: list[Digest]


async def put(
    c: Connection,
    name: RepositoryName,
    manifest: Manifest,
    digest: Digest,
    tag_names: Sequence[Tag],
    *,
    optional_children: frozenset[Digest] = frozenset(),
    immutable: Collection[Tag] = (),
) -> int | Missing:
    """Store the manifest with everything that belongs to it and tag it, in one transaction and one round trip.

    Returns the repository's id, or what is missing, in which case nothing was written. The repository is created
    if need be. Children in `optional_children` may be missing. Raises ImmutableTag, and has written nothing, if one of
    the tags that are `immutable` is there already, on whichever manifest.
    """
    config = manifest.config
    layers = [layer for layer in manifest.layers if not layer.is_foreign]
    blobs = {entry.digest.packed for entry in ((*layers, config) if config else layers)}
    children = {child.digest for child in manifest.children}
    annotated = manifest.subject is not None and manifest.annotations is not None
    row = await c.one(
        PUT,
        path=name,
        digest=digest.packed,
        media_type=manifest.media_type,
        artifact_type=manifest.artifact_type,
        config_media_type=config.media_type if config else None,
        config_digest=config.digest.packed if config else None,
        subject_digest=manifest.subject.packed if manifest.subject else None,
        payload=manifest.payload,
        total_size=manifest.size_bytes,
        annotations=json.dumps(manifest.annotations) if annotated else None,
        blobs=sorted(blobs),
        layers=[layer.digest.packed for layer in layers],
        layer_sizes=[layer.size for layer in layers],
        layer_media_types=[layer.media_type for layer in layers],
        children=[d.packed for d in children - optional_children],
        optional_children=[d.packed for d in children & optional_children],
        tags=sorted(set(tag_names)),
        immutable=sorted(set(immutable).intersection(tag_names)),
    )
    assert row is not None
    repository_id, missing_blobs, missing_children, immutable_tags = row
    if immutable_tags:
        raise ImmutableTag(", ".join(f'tag "{tag}" is immutable' for tag in sorted(immutable_tags)))
    if missing_blobs is None and missing_children is None:
        return repository_id
    return Missing(
        *([Digest.unpack(d) for d in sorted(digests or ())] for digests in (missing_blobs, missing_children))
    )


async def delete(
    c: Connection, repository_id: int, digest: Digest
) -> tuple[Literal["deleted", "unknown", "referenced"], list[Tag]]:
    """Delete the manifest and its tags, whose names come back."""
    row = await c.one(DELETE, repository_id=repository_id, digest=digest.packed)
    assert row is not None
    return row[0], row[1] or []


async def untag(c: Connection, repository_id: int, tag: Tag) -> bool:
    """Delete the tag. False: there was none."""
    return await c.one(UNTAG, repository_id=repository_id, tag=tag) is not None


async def referrers(
    c: Connection,
    repository_id: int,
    subject: Digest,
    *,
    artifact_type: str | None,
    after: int,
    limit: int,
    bytes_max: int,
) -> list[Referrer]:
    """Up to `limit` referrers in the order of their arrival, as long as their annotations stay within `bytes_max`."""
    rows = await c.all(
        REFERRERS,
        repository_id=repository_id,
        subject=subject.packed,
        artifact_type=artifact_type,
        after=after,
        limit=limit,
        bytes_max=bytes_max,
    )
    return [Referrer(row[0], Digest.unpack(row[1]), *row[2:]) for row in rows]
