"""What clients do while the registry dies: each scene can be played again from its start, whatever came before.

A scene prepares what it needs, says `stage.begin()`, and from then on every step is a crash point. Names and contents
are a scene's own, the same in every run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from app.domain.limits import BLOCK_BYTES
from tests.crashes.client import noise
from tests.support.registry import descriptor, digest_of, image, index

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from tests.crashes.client import Client, Upload

    class Stage(Protocol):
        """Where a scene is played."""

        def begin(self) -> None:
            """From now on steps are crash points."""
            ...

        def wait_until_claimed(self, upload: Upload) -> None:
            """Return once a request holds the session. Raises Crashed if the registry is gone."""
            ...

    Scene = Callable[[Client, Stage], None]


def whole(client: Client, stage: Stage) -> None:
    """A blob in one POST; a second one of more than a block."""
    stage.begin()
    client.put_blob("whole/a", noise("one", 70_000))
    client.put_blob("whole/a", noise("two", BLOCK_BYTES + 1000))


def chunks(client: Client, stage: Stage) -> None:
    """POST, two PATCHes, and a PUT with the rest."""
    stage.begin()
    upload = client.start("chunks/a", noise("chunks", 150_000))
    client.patch(upload, 60_000)
    client.patch(upload, 120_000)
    client.finish(upload)


def streamed(client: Client, stage: Stage) -> None:
    """POST, one PATCH with everything, and a PUT without a body: what docker does. And an empty blob."""
    stage.begin()
    upload = client.start("streamed/a", noise("streamed", BLOCK_BYTES + 5))
    client.patch(upload, len(upload.content))
    client.finish(upload)
    client.finish(client.start("streamed/a", b""))


def overtaken(client: Client, stage: Stage) -> None:
    """A second request takes a session over while the first one is still sending."""
    content = noise("overtaken", BLOCK_BYTES + 300_000)
    upload = client.start("overtaken/a", content)
    client.patch(upload, 50_000)
    stage.begin()
    slow = client.begin_patch(upload, len(content), BLOCK_BYTES + 10_000)
    with slow:
        stage.wait_until_claimed(upload)
        client.patch(upload, 120_000)
        status = client.end_patch(slow, content[50_000 + BLOCK_BYTES + 10_000 :])
        assert status == 416
    client.finish(upload)


def shared(client: Client, stage: Stage) -> None:
    """A blob is mounted, and uploaded again elsewhere: the second object becomes a tombstone."""
    content = noise("shared", 40_000)
    client.put_blob("shared/a", content)
    stage.begin()
    client.mount("shared/b", digest_of(content), "shared/a")
    client.put_blob("shared/c", content)
    client.finish(client.start("shared/a", content))


def given_up(client: Client, stage: Stage) -> None:
    """A session is cancelled; another one ends with a wrong digest."""
    stage.begin()
    upload = client.start("given-up/a", noise("given up", 30_000))
    client.patch(upload, 20_000)
    client.cancel(upload)
    upload = client.start("given-up/a", noise("rejected", 30_000))
    client.patch(upload, 20_000)
    client.finish(upload, digest=digest_of(b"something else"))


ONE: Final = image(noise("one", 3000), noise("two", 3000), config=b'{"of": "one"}')
TWO: Final = image(noise("two", 3000), noise("three", 3000), config=b'{"of": "two"}')


def images(client: Client, stage: Stage) -> None:
    """An image by tag; another one by its digest with tags beside it; and the first one once more."""
    for blob in dict.fromkeys((*ONE.blobs, *TWO.blobs)):
        client.put_blob("images/a", blob)
    stage.begin()
    client.put("images/a", "latest", ONE)
    client.put("images/a", TWO.digest(), TWO, "v1", "v2")
    client.put("images/a", ONE.digest(), ONE)


def whole_image(client: Client, stage: Stage) -> None:
    """A push from its first blob on, into a registry that has nothing."""
    stage.begin()
    client.push("push/a", "latest", ONE)


def indexes(client: Client, stage: Stage) -> None:
    """An index of two images, and about one of them an artifact, which comes before its subject."""
    for blob in dict.fromkeys((*ONE.blobs, *TWO.blobs)):
        client.put_blob("indexes/a", blob)
    signature = image(
        noise("signature", 500),
        config=b"{}",
        subject=descriptor(ONE.payload, ONE.media_type),
        artifactType="a/b",
    )
    for blob in signature.blobs:
        client.put_blob("indexes/a", blob)
    stage.begin()
    client.put("indexes/a", signature.digest(), signature)
    client.put("indexes/a", ONE.digest(), ONE)
    client.put("indexes/a", TWO.digest(), TWO)
    client.put("indexes/a", "all", index(ONE, TWO))


def tags(client: Client, stage: Stage) -> None:
    """A tag moves, and goes; it was the repository's last."""
    client.push("tags/a", "latest", ONE)
    client.push("tags/a", TWO.digest(), TWO)
    stage.begin()
    client.put("tags/a", "latest", TWO)
    client.untag("tags/a", "latest")


def deletions(client: Client, stage: Stage) -> None:
    """A manifest goes with its tags, then a blob that it needed."""
    client.push("deletions/a", "latest", ONE)
    client.put("deletions/a", "stable", ONE)
    stage.begin()
    client.delete("deletions/a", ONE)
    client.unlink("deletions/a", ONE.blobs[1])


SCENES: Final[tuple[Scene, ...]] = (
    whole,
    chunks,
    streamed,
    overtaken,
    shared,
    given_up,
    images,
    whole_image,
    indexes,
    tags,
    deletions,
)
