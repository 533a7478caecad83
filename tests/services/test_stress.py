"""Several seconds of everything at once: whatever the order, the invariants hold and no client sees a surprise."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from time import monotonic
from typing import TYPE_CHECKING, Final

from app.blobs.drivers.memory import Memory
from app.domain.digest import Digest
from app.domain.errors import (
    BlobUnknown,
    ManifestBlobUnknown,
    ManifestReferenced,
    ManifestUnknown,
    NameUnknown,
    RegistryError,
    Unsupported,
)
from app.domain.names import RepositoryName, Tag
from tests.services.support import CALLER, chunk, run
from tests.support.postgres import connected
from tests.support.registry import descriptor, image, index

if TYPE_CHECKING:
    from pathlib import Path

    from app.store.engine import Target
    from tests.support.registry import Image, Registry

SECONDS: Final = 5.0
ACTORS: Final = 8
NAMES: Final = [RepositoryName(name) for name in ("a", "b", "c")]
TAGS: Final = [Tag(f"t{n}") for n in range(6)]
BLOBS: Final = [b"{}", *(b"blob %d" % n * 50 for n in range(19))]
# What a client may be told while others delete. Nothing else may happen.
EXPECTED: Final = (
    BlobUnknown, ManifestBlobUnknown, ManifestReferenced, ManifestUnknown, NameUnknown, Unsupported,
)  # fmt: skip


class Actor:
    """A client that does as it pleases."""

    def __init__(self, registry: Registry, seed: str, pushed: list[Image]) -> None:
        self._services = registry.services
        self._random = random.Random(seed)
        self._pushed = pushed
        self.done: Counter[str] = Counter()

    async def act(self, until: float) -> None:
        steps = (
            *(self.push_blob,) * 6, *(self.push_image,) * 5, self.push_index, self.push_referrer, *(self.retag,) * 4,
            *(self.untag,) * 3, *(self.delete,) * 4, *(self.mount,) * 3, *(self.unlink,) * 4, *(self.pull,) * 4,
        )  # fmt: skip
        while monotonic() < until:
            step = self._random.choice(steps)
            try:
                await step(self._random.choice(NAMES))
            except EXPECTED as error:
                self.done[f"{step.__name__}: {type(error).__name__}"] += 1
            except RegistryError as error:
                raise AssertionError(f"{step.__name__}: {error!r} because of {error.__cause__!r}") from error
            else:
                self.done[step.__name__] += 1

    async def push_blob(self, name: RepositoryName) -> None:
        blob = self._random.choice(BLOBS)
        await self._services.push_blob.whole(name, Digest.of(blob), chunk(blob), CALLER)

    async def push_image(self, name: RepositoryName) -> None:
        pushed = image(
            *self._random.choices(BLOBS, k=self._random.randint(0, 4)), config=self._random.choice(BLOBS[:3])
        )
        for blob in pushed.blobs:
            if self._random.random() < 0.9:
                await self._services.push_blob.whole(name, Digest.of(blob), chunk(blob), CALLER)
        await self._put(name, pushed)

    async def push_index(self, name: RepositoryName) -> None:
        if self._pushed:
            await self._put(name, index(*self._random.choices(self._pushed, k=self._random.randint(0, 3))))

    async def push_referrer(self, name: RepositoryName) -> None:
        if self._pushed:
            subject = self._random.choice(self._pushed)
            await self._put(
                name,
                image(config=b"{}", subject=descriptor(subject.payload, subject.media_type), annotations={}),
            )

    async def retag(self, name: RepositoryName) -> None:
        if self._pushed:
            await self._put(name, self._random.choice(self._pushed))

    async def untag(self, name: RepositoryName) -> None:
        await self._services.remove.tag(name, self._random.choice(TAGS))

    async def delete(self, name: RepositoryName) -> None:
        if self._pushed:
            await self._services.remove.manifest(name, Digest.of(self._random.choice(self._pushed).payload))

    async def mount(self, name: RepositoryName) -> None:
        source, blob = self._random.choice([*NAMES, None]), self._random.choice(BLOBS)
        await self._services.push_blob.mount(name, Digest.of(blob), source, CALLER)

    async def unlink(self, name: RepositoryName) -> None:
        await self._services.remove.blob(name, Digest.of(self._random.choice(BLOBS)))

    async def pull(self, name: RepositoryName) -> None:
        found = await self._services.pull.manifest_head(name, self._random.choice(TAGS))
        assert Digest.of(await self._services.pull.payload(found)) == found.digest
        await self._services.pull.blob_head(name, Digest.of(self._random.choice(BLOBS)))

    async def _put(self, name: RepositoryName, pushed: Image) -> None:
        digest = Digest.of(pushed.payload)
        tags = self._random.sample(TAGS, self._random.randint(0, 3))
        await self._services.push_manifest.put(name, digest, tags, pushed.payload, pushed.media_type)
        self._pushed.append(pushed)
        del self._pushed[:-40]


async def count_deadlocks(database: Target) -> int:
    async with connected(database) as connection:
        return await connection.fetchval(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        )


def test_everything_at_once_when_it_is_over_then_the_invariants_hold_and_nobody_saw_a_surprise(
    database: Target, tmp_path: Path
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - shown when the test fails
    done: Counter[str] = Counter()
    deadlocks = asyncio.run(count_deadlocks(database))

    async def scenario(registry: Registry) -> None:
        async with connected(database) as connection:
            # Reviews that are always due, so that whatever is confirmed is also touched.
            await connection.execute("UPDATE gc_review_after_defaults SET value = interval '1 second'")
        pushed: list[Image] = []
        actors = [Actor(registry, f"{seed}-{n}", pushed) for n in range(ACTORS)]
        async with asyncio.TaskGroup() as group:
            for actor in actors:
                group.create_task(actor.act(monotonic() + SECONDS))
        for actor in actors:
            done.update(actor.done)

    run(database, tmp_path, scenario, Memory())
    print(dict(sorted(done.items())))  # noqa: T201
    # One order of locks for all: nobody's transaction had to be tried again.
    assert asyncio.run(count_deadlocks(database)) == deadlocks
    succeeded = {step for step in done if ":" not in step}
    assert succeeded >= {
        "push_blob",
        "push_image",
        "push_index",
        "retag",
        "untag",
        "delete",
        "mount",
        "unlink",
        "pull",
    }
