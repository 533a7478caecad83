"""What lies in the registries before anything is measured: the same on both sides, byte by byte.

Small things are pushed; what would take minutes is copied past the API, by SQL on our side and file by file on the
peer's, from something that was pushed.
"""

from __future__ import annotations

import asyncio
from functools import cache
from typing import TYPE_CHECKING, Final

from benchmarks import asking
from benchmarks.images import KIB, MANIFEST_TYPE, MIB, Image, digest_of, image, noise

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from benchmarks.asking import Client
    from benchmarks.contenders import Seedable

IMAGES: Final = "bench/images"
BLOBS: Final = "bench/blobs"
PUSHES: Final = "bench/pushes"
HOT_TAG: Final = "latest"
TAGS: Final = 1000
SMALL_BYTES: Final = KIB
MEDIUM_BYTES: Final = MIB
LARGE_BYTES: Final = 256 * MIB
FEW_TAGS: Final = 100
MANY_TAGS: Final = 100_000
REPOSITORIES: Final = 10_000


@cache
def image_of_tag(number: int) -> Image:
    """The image of one of the thousand tags: all have the same layers, each its own manifest."""
    return image(IMAGES, variant=tag_name(number))


@cache
def hot_image() -> Image:
    """The image of the hot tag."""
    return image(IMAGES)


def tag_name(number: int) -> str:
    """One of the thousand tags; the wrk script knows the form."""
    return f"t{number:04}"


def blob(size: int) -> bytes:
    """The blob of that size."""
    return noise("small", size) if size <= MEDIUM_BYTES else noise("large", MIB) * (size // MIB)


@cache
def blob_digest(size: int) -> str:
    """Its digest."""
    return digest_of(blob(size))


def listed_repository(tags: int) -> str:
    """The repository with that many tags."""
    return f"bench/tags-{tags}"


def listed_tags(count: int) -> list[str]:
    """Its tags, in order."""
    return [f"v{number:06}" for number in range(count)]


def catalog_names() -> list[str]:
    """The repositories that make the catalog long, all in one group."""
    return [f"catalog/project-{number:05}" for number in range(REPOSITORIES)]


async def _seed_images(contender: Seedable) -> None:
    manifests = {tag_name(number): image_of_tag(number).manifest for number in range(TAGS)}
    await _push(contender, IMAGES, hot_image(), {HOT_TAG: hot_image().manifest, **manifests})


async def _seed_blobs(contender: Seedable) -> None:
    await _push(contender, BLOBS, Image(b"", (blob(SMALL_BYTES), blob(MEDIUM_BYTES))), {})


async def _seed_large_blob(contender: Seedable) -> None:
    await _push(contender, BLOBS, Image(b"", (blob(LARGE_BYTES),)), {})


async def _seed_few_tags(contender: Seedable) -> None:
    await _seed_tags(contender, FEW_TAGS)


async def _seed_many_tags(contender: Seedable) -> None:
    await _seed_tags(contender, MANY_TAGS)


async def _seed_tags(contender: Seedable, count: int) -> None:
    repository = listed_repository(count)
    first, *others = listed_tags(count)
    content = image(repository)
    await _push(contender, repository, content, {first: content.manifest})
    await contender.copy_tags(repository, first, others)


async def _seed_catalog(contender: Seedable) -> None:
    first, *others = catalog_names()
    content = image(first, layers=1)
    await _push(contender, first, content, {HOT_TAG: content.manifest})
    await contender.copy_repository(first, others)


async def _seed_accounts(contender: Seedable) -> None:
    await contender.add_accounts()


# In this order, whichever of them are wanted.
SEEDS: Final[dict[str, Callable[[Seedable], Awaitable[None]]]] = {
    "images": _seed_images,
    "blobs": _seed_blobs,
    "large blob": _seed_large_blob,
    "few tags": _seed_few_tags,
    "many tags": _seed_many_tags,
    "catalog": _seed_catalog,
    "accounts": _seed_accounts,
}


async def _push(contender: Seedable, repository: str, content: Image, manifests: dict[str, bytes]) -> None:
    await asyncio.to_thread(_push_all, contender, repository, content.blobs, manifests)


def _push_all(
    contender: Seedable, repository: str, blobs: Sequence[bytes], manifests: dict[str, bytes]
) -> None:
    with asking.connected(contender.running.url, contender.headers) as client:
        for content in blobs:
            _push_blob(client, repository, content)
        for tag, manifest in manifests.items():
            client.ask(
                "PUT",
                f"/v2/{repository}/manifests/{tag}",
                expect=201,
                headers={"Content-Type": MANIFEST_TYPE},
                body=manifest,
            )


def _push_blob(client: Client, repository: str, content: bytes) -> None:
    answer = client.ask("POST", f"/v2/{repository}/blobs/uploads/", expect=202)
    location = asking.with_digest(answer.headers["location"], digest_of(content))
    client.ask(
        "PUT", location, expect=201, headers={"Content-Type": "application/octet-stream"}, body=content
    )
