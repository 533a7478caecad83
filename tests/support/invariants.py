"""What must hold whenever nobody is at work: the checks that end every scenario.

    await assert_invariants(target)            what the database alone can say
    await assert_invariants(target, driver)    and what is in storage

I1: everything that a tagged manifest needs is there. I2: every object is named by exactly one row. The needs are
read from the manifests' own bytes, not from the tables that the code under test has filled.
"""

from __future__ import annotations

from collections import Counter
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

from app.domain.digest import Digest
from app.domain.manifests import Manifest, parse_manifest
from tests.support.postgres import connected

if TYPE_CHECKING:
    from app.blobs.driver import Driver
    from app.store.engine import Target

_KEYS: Final = """
    SELECT storage_key, 'blob ' || encode(digest, 'hex') AS holder FROM blobs
    UNION ALL SELECT storage_key, 'upload ' || id FROM blob_uploads
    UNION ALL SELECT storage_key, 'tombstone ' || reason FROM gc_storage_deletions
"""
# Whatever can be reached from a tag: children, and manifests whose subject can be reached.
_LIVE: Final = """
    WITH RECURSIVE live (repository_id, id, digest) AS (
        SELECT m.repository_id, m.id, m.digest
        FROM tags AS t JOIN manifests AS m ON m.repository_id = t.repository_id AND m.id = t.manifest_id
        UNION
        SELECT m.repository_id, m.id, m.digest
        FROM live AS l JOIN manifests AS m ON m.repository_id = l.repository_id AND (m.subject_digest = l.digest
            OR m.id IN (SELECT child_id FROM manifest_references AS r
                        WHERE r.repository_id = l.repository_id AND r.parent_id = l.id))
    ) SELECT m.repository_id, m.id, m.digest, m.media_type, m.payload
      FROM live AS l JOIN manifests AS m USING (repository_id, id)
"""


async def assert_invariants(target: Target, driver: Driver | None = None) -> None:
    """All of them."""
    await assert_every_key_named_once(target, driver)
    await assert_every_tagged_manifest_is_complete(target, driver)
    await assert_catalog_is_right(target)


async def assert_every_key_named_once(target: Target, driver: Driver | None = None) -> None:
    """I2: no key has two rows, and no object is without one."""
    async with connected(target) as connection:
        rows = await connection.fetch(_KEYS)
    holders: dict[str, list[str]] = {}
    for key, holder in rows:
        holders.setdefault(key, []).append(holder)
    twice = {key: found for key, found in holders.items() if len(found) > 1}
    assert not twice, f"named by more than one row: {twice}"
    if driver is not None:
        nameless = set(await _sizes(driver)) - set(holders)
        assert not nameless, f"objects that no row names: {sorted(nameless)}"


async def assert_every_tagged_manifest_is_complete(target: Target, driver: Driver | None = None) -> None:
    """I1: rows, links and, with a driver, the objects of the right length."""
    async with connected(target) as connection:
        live = await connection.fetch(_LIVE)
        links = {
            tuple(row)
            for row in await connection.fetch("SELECT repository_id, blob_digest FROM repository_blobs")
        }
        blobs = {row[0]: row for row in await connection.fetch("SELECT digest, size, storage_key FROM blobs")}
        rows = _Rows(
            layers=await _grouped(
                connection, "SELECT repository_id, manifest_id, digest FROM layers ORDER BY ordinal"
            ),
            children=await _grouped(connection, _CHILDREN),
        )
    sizes = None if driver is None else await _sizes(driver)
    for repository_id, manifest_id, digest, media_type, payload in live:
        name = Digest.unpack(digest)
        assert Digest.of(payload, name.algorithm) == name, f"the payload of {name} is another manifest's"
        manifest = parse_manifest(payload, media_type)
        rows.compare(repository_id, manifest_id, manifest)
        for needed in _blobs_of(manifest):
            assert (repository_id, needed.packed) in links, f"{name} needs {needed}, which has no link"
            assert needed.packed in blobs, f"{name} needs {needed}, which has no row"
            if sizes is not None:
                _, size, key = blobs[needed.packed]
                assert sizes.get(key) == size, f"{name} needs {needed}: its object {key} is damaged"


async def assert_catalog_is_right(target: Target) -> None:
    """The flag of every repository says whether it has tags."""
    async with connected(target) as connection:
        wrong = await connection.fetch(
            "SELECT path, has_tags FROM repositories AS r"
            " WHERE has_tags <> EXISTS (SELECT FROM tags WHERE repository_id = r.id)"
        )
    assert not wrong, f"the catalog is wrong about {[tuple(row) for row in wrong]}"


_CHILDREN: Final = """
    SELECT r.repository_id, r.parent_id, m.digest FROM manifest_references AS r
    JOIN manifests AS m ON m.repository_id = r.repository_id AND m.id = r.child_id
"""
_Grouped = dict[tuple[int, int], list[bytes]]


class _Rows:
    """What the tables say that manifests consist of."""

    def __init__(self, layers: _Grouped, children: _Grouped) -> None:
        self._layers = layers
        self._children = children

    def compare(self, repository_id: int, manifest_id: int, manifest: Manifest) -> None:
        """The rows of a manifest are what its bytes say."""
        layers = [layer.digest.packed for layer in manifest.layers if not layer.is_foreign]
        assert self._layers.get((repository_id, manifest_id), []) == layers
        children = {child.digest.packed for child in manifest.children}
        assert Counter(self._children.get((repository_id, manifest_id), [])) == Counter(children)


def _blobs_of(manifest: Manifest) -> list[Digest]:
    layers = [layer.digest for layer in manifest.layers if not layer.is_foreign]
    return [*layers, manifest.config.digest] if manifest.config else layers


async def _grouped(connection: Any, sql: str) -> _Grouped:
    found: _Grouped = {}
    for repository_id, manifest_id, digest in await connection.fetch(sql):
        found.setdefault((repository_id, manifest_id), []).append(digest)
    return found


async def _sizes(driver: Driver) -> dict[str, int]:
    async with aclosing(driver.list()) as objects:
        return {found.key: found.size async for found in objects}
