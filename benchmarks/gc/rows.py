"""The content as rows of our database, written past the triggers and foreign keys; then the reviews, which are due.

What a push or a tag that moved on would have enqueued is due for up to an hour: each untagged manifest, each dangling
blob, and as many layers that tagged images need. What the collectors themselves make suspect falls due at once; what
clients push keeps its delay.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from benchmarks.gc.content import CONFIG_TYPE, LAYER_TYPE, repositories
from benchmarks.images import MANIFEST_TYPE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from benchmarks.gc.content import Blob, Image, Repository, Size

# Repositories whose rows are made and copied at a time.
_AT_A_TIME: Final = 20
_SPAN: Final = timedelta(hours=1)
_COLUMNS: Final = {
    "repositories": ("id", "path", "has_tags"),
    "blobs": ("digest", "size", "storage_key"),
    "repository_blobs": ("repository_id", "blob_digest"),
    "manifests": (
        *("repository_id", "id", "digest", "media_type", "config_media_type", "config_digest"),
        *("payload", "payload_bytes", "total_size"),
    ),
    "layers": ("repository_id", "manifest_id", "ordinal", "digest", "size", "media_type"),
    "tags": ("repository_id", "name", "manifest_id"),
    "gc_blob_review_queue": ("digest", "review_after", "event"),
    "gc_manifest_review_queue": ("repository_id", "manifest_id", "review_after", "event"),
}
_AFTERWARDS: Final = (
    "SELECT setval('manifests_id_seq', (SELECT max(id) FROM manifests))",
    "SELECT setval(pg_get_serial_sequence('repositories', 'id'), (SELECT max(id) FROM repositories))",
    """
    UPDATE gc_review_after_defaults SET value = '0'
    WHERE event IN ('layer_delete', 'manifest_delete', 'manifest_list_delete', 'subject_delete')
    """,
    "SET session_replication_role = origin",
    "VACUUM ANALYZE",
)


async def write_rows(connection: Any, size: Size) -> None:
    """Fill the empty database that `connection`, a superuser's, leads to."""
    await connection.execute("SET session_replication_role = replica")
    batch = _Batch()
    for number, repository in enumerate(repositories(size), 1):
        batch.add(number, repository)
        if number % _AT_A_TIME == 0:
            await batch.copy(connection)
    await batch.copy(connection)
    for statement in _AFTERWARDS:
        await connection.execute(statement)


class _Batch:
    """The rows of some repositories."""

    def __init__(self) -> None:
        self._rows: dict[str, list[tuple[Any, ...]]] = {table: [] for table in _COLUMNS}
        self._random = random.Random(0)  # noqa: S311  (nothing secret)
        self._now = datetime.now(UTC)
        self._manifests = 0

    def add(self, number: int, repository: Repository) -> None:
        """Add the rows of one repository, whose id is its number."""
        rows = self._rows
        rows["repositories"].append((number, repository.name, True))
        for blob in repository.blobs.values():
            rows["blobs"].append((_digest(blob), len(blob.content), blob.key))
            rows["repository_blobs"].append((number, _digest(blob)))
        for image in repository.images:
            self._add_image(number, image)
        self._review((_digest(blob), "blob_upload") for blob in repository.dangling)

    async def copy(self, connection: Any) -> None:
        """Write them, and forget them."""
        for table, rows in self._rows.items():
            await connection.copy_records_to_table(table, records=rows, columns=_COLUMNS[table])
            rows.clear()

    def _add_image(self, number: int, image: Image) -> None:
        self._manifests += 1
        rows, manifest, config = self._rows, image.manifest, image.config
        total = sum(len(blob.content) for blob in (config, *image.layers))
        rows["manifests"].append(
            (
                *(number, self._manifests, _digest(manifest), MANIFEST_TYPE, CONFIG_TYPE, _digest(config)),
                *(manifest.content, len(manifest.content), total),
            )
        )
        rows["layers"] += [
            (number, self._manifests, at, _digest(layer), len(layer.content), LAYER_TYPE)
            for at, layer in enumerate(image.layers)
        ]
        if image.is_tagged:
            rows["tags"].append((number, image.tag, self._manifests))
            self._review((_digest(layer), "layer_delete") for layer in image.layers)
        else:
            due = (number, self._manifests, self._some_time(), "tag_switch")
            rows["gc_manifest_review_queue"].append(due)

    def _review(self, suspects: Iterable[tuple[bytes, str]]) -> None:
        self._rows["gc_blob_review_queue"] += [
            (digest, self._some_time(), event) for digest, event in suspects
        ]

    def _some_time(self) -> datetime:
        """When a review fell due: in another order than the rows lie."""
        return self._now - self._random.random() * _SPAN


def _digest(blob: Blob) -> bytes:
    return b"\x01" + blob.hash
