"""Remembered repository ids: they save a look-up, and never answer for a repository that was renamed or replaced."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import pytest

from app.domain.digest import Digest
from app.domain.errors import BlobUnknown, ManifestUnknown, NameUnknown
from app.domain.names import RepositoryName, Tag
from app.services.repository_ids import REMEMBERED_MAX, RepositoryIds
from tests.services.support import CALLER, chunk, content, run
from tests.support.registry import image, open_registry

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from app.store.engine import Target
    from tests.support.registry import Registry

OLD, NEW = RepositoryName("team/old"), RepositoryName("team/new")
TAG: Final = Tag("t")
OURS, THEIRS = image(b"our layer"), image(b"their layer")


def digest(content: bytes) -> Digest:
    return Digest.of(content)


async def rename(registry: Registry, old: str, new: str) -> None:
    await registry.rows("UPDATE repositories SET path = $2 WHERE path = $1", old, new)


async def assert_serves(registry: Registry, name: RepositoryName, ours: bool) -> None:
    """Everything that is read by name is of the one image and not of the other."""
    here, elsewhere = (OURS, THEIRS) if ours else (THEIRS, OURS)
    pull, listings = registry.services.pull, registry.services.listings
    for reference in (TAG, digest(here.payload)):
        for found in (await pull.manifest(name, reference), await pull.manifest_head(name, reference)):
            assert found.digest == digest(here.payload)
            assert await pull.payload(found) == here.payload
    with pytest.raises(ManifestUnknown):
        await pull.manifest(name, digest(elsewhere.payload))
    assert await content(registry, digest(here.blobs[1]), name) == here.blobs[1]
    for read in (pull.blob, pull.blob_head):
        with pytest.raises(BlobUnknown):
            await read(name, digest(elsewhere.blobs[1]))
    assert (await listings.tags(name, "", 10)).entries == [TAG]


async def assert_unknown(registry: Registry, name: RepositoryName) -> None:
    pull, remove = registry.services.pull, registry.services.remove
    with pytest.raises(NameUnknown):
        await pull.manifest(name, TAG)
    with pytest.raises(NameUnknown):
        await pull.manifest_head(name, digest(OURS.payload))
    with pytest.raises(NameUnknown):
        await pull.blob(name, digest(OURS.blobs[1]))
    with pytest.raises(NameUnknown):
        await pull.blob_head(name, digest(OURS.blobs[1]))
    with pytest.raises(NameUnknown):
        await registry.services.listings.tags(name, "", 10)
    with pytest.raises(NameUnknown):
        await remove.tag(name, TAG)
    with pytest.raises(NameUnknown):
        await remove.manifest(name, digest(OURS.payload))
    with pytest.raises(NameUnknown):
        await remove.blob(name, digest(OURS.blobs[1]))


def test_reads_when_the_repository_was_renamed_then_the_old_name_is_unknown_and_the_new_one_serves(
    database: Target, tmp_path: Path
) -> None:
    async def scenario(registry: Registry) -> None:
        await registry.push_image(OLD, TAG, OURS)
        await assert_serves(registry, OLD, ours=True)
        await rename(registry, OLD, NEW)
        await assert_unknown(registry, OLD)
        await assert_serves(registry, NEW, ours=True)
        await rename(registry, NEW, OLD)
        await assert_serves(registry, OLD, ours=True)
        await assert_unknown(registry, NEW)

    run(database, tmp_path, scenario)


@asynccontextmanager
async def another(database: Target, root: Path) -> AsyncGenerator[Registry]:
    """Another process: what it learns, the first does not."""
    async with open_registry(database, root) as registry:
        yield registry


def test_reads_when_another_repository_took_the_name_then_it_alone_is_served(
    database: Target, tmp_path: Path
) -> None:
    async def scenario(registry: Registry) -> None:
        await registry.push_image(OLD, TAG, OURS)
        await assert_serves(registry, OLD, ours=True)
        async with another(database, tmp_path) as other:
            await rename(other, OLD, NEW)
            await other.push_image(OLD, TAG, THEIRS)
        await assert_serves(registry, OLD, ours=False)
        await assert_serves(registry, NEW, ours=True)

    run(database, tmp_path, scenario)


def test_reads_when_two_repositories_swap_their_names_then_each_name_serves_the_other_ones(
    database: Target, tmp_path: Path
) -> None:
    async def scenario(registry: Registry) -> None:
        await registry.push_image(OLD, TAG, OURS)
        await registry.push_image(NEW, TAG, THEIRS)
        await assert_serves(registry, OLD, ours=True)
        await assert_serves(registry, NEW, ours=False)
        for old, new in ((OLD, "between"), (NEW, OLD), ("between", NEW)):
            await rename(registry, old, new)
        await assert_serves(registry, OLD, ours=False)
        await assert_serves(registry, NEW, ours=True)

    run(database, tmp_path, scenario)


def test_reads_when_the_repository_was_deleted_and_made_again_then_the_old_content_is_gone(
    database: Target, tmp_path: Path
) -> None:
    async def scenario(registry: Registry) -> None:
        await registry.push_image(OLD, TAG, OURS)
        await assert_serves(registry, OLD, ours=True)
        await registry.rows("DELETE FROM repositories WHERE path = $1", OLD)
        await assert_unknown(registry, OLD)
        async with another(database, tmp_path) as other:
            await other.push_image(OLD, TAG, THEIRS)
        await assert_serves(registry, OLD, ours=False)

    run(database, tmp_path, scenario)


def test_pushes_when_the_repository_was_renamed_then_they_go_to_the_one_that_has_the_name(
    database: Target, tmp_path: Path
) -> None:
    async def scenario(registry: Registry) -> None:
        await registry.push_image(OLD, TAG, OURS)
        async with another(database, tmp_path) as other:
            await rename(other, OLD, NEW)
        await registry.push_image(OLD, TAG, THEIRS)
        await assert_serves(registry, OLD, ours=False)
        await assert_serves(registry, NEW, ours=True)

    run(database, tmp_path, scenario)


def test_session_when_its_repository_is_renamed_then_it_goes_on_under_the_new_name(
    database: Target, tmp_path: Path
) -> None:
    async def scenario(registry: Registry) -> None:
        push = registry.services.push_blob
        upload = await push.start(OLD, digest(b"").algorithm, CALLER)
        await push.append(OLD, upload, chunk(b"first "))
        await rename(registry, OLD, NEW)
        await push.append(NEW, upload, chunk(b"second"))
        await push.finish(NEW, upload, digest(b"first second"), chunk())
        assert await content(registry, digest(b"first second"), NEW) == b"first second"
        with pytest.raises(NameUnknown):
            await registry.services.pull.blob(OLD, digest(b"first second"))

    run(database, tmp_path, scenario)


def test_ids_when_more_repositories_are_used_than_are_remembered_then_the_oldest_is_forgotten(
    database: Target, tmp_path: Path
) -> None:
    async def scenario(registry: Registry) -> None:
        asked: list[int] = []

        async def ask(repository_id: int) -> int:
            asked.append(repository_id)
            return repository_id

        ids = RepositoryIds(registry.database)
        ids.remember(OLD, 1)
        ids.remember(NEW, 2)
        for n in range(REMEMBERED_MAX - 1):
            ids.remember(RepositoryName(f"r{n}"), n)
        assert await ids.find_in(NEW, ask) == 2
        with pytest.raises(NameUnknown):
            await ids.find_in(OLD, ask)
        assert asked == [2]

    run(database, tmp_path, scenario)
