"""One client of the soak: does as it pleases in repositories of its own, and checks every answer."""

from __future__ import annotations

import json
import random
from collections import Counter
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from app.domain.manifests import OCI_INDEX, OCI_MANIFEST
from tests.soak.shelf import Content, Image, Shelf, make_image
from tests.soak.talk import Talk

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TAGS: Final = tuple(f"v{number}" for number in range(12))
STYLES: Final = ("one", "two", "patch", "chunks", "ranges")
LARGEST_BYTES: Final = 3_000_000
# Small ones are many, large ones are more than the blocks that bytes move in.
SIZES: Final = ((60, 1, 4_000), (33, 4_000, 100_000), (7, 1_000_000, LARGEST_BYTES))
# The oldest goes when there are more, so that a long soak costs a client no more than a short one.
IMAGES_MAX: Final = 30
MOUNTABLE_MAX: Final = 200


class Actor:
    """A client. `mountable` is what all of them offer each other: contents, and who has them for ever."""

    def __init__(self, number: int, seed: int, port: int, mountable: list[tuple[str, Content]]) -> None:
        self.talk = Talk(port)
        self.done: Counter[str] = Counter()
        # Uploads that nobody ends.
        self.left_open = 0
        self.step = ""
        self._random = random.Random(f"{seed}-{number}")
        self._shelves = [Shelf(f"soak/{number}/{part}") for part in ("one", "one/two", "three")]
        self._offer = f"soak/{number}/offer"
        self._mountable = mountable
        steps: tuple[tuple[int, Callable[[Shelf], None]], ...] = (
            (6, self.push_image), (8, self.pull_image), (10, self.head), (6, self.read_ranges), (4, self.list_tags),
            (1, self.list_repositories), (3, self.move_tag), (2, self.delete_tag), (3, self.delete_image),
            (2, self.delete_blob), (1, self.offer), (1, self.abandon), (2, self.cancel), (3, self.leave),
            (3, self.push_referrer), (2, self.list_referrers), (3, self.be_refused),
        )  # fmt: skip
        self._steps = [step for weight, step in steps for _ in range(weight)]

    def warm_up(self) -> None:
        """Move the largest bodies there are, so that memory has seen them before it is measured."""
        self.step = "warm_up"
        for style in STYLES:
            content = self._content(LARGEST_BYTES)
            self._upload(self._offer, content, style)
            answer = self.talk.ask(200, "GET", f"/v2/{self._offer}/blobs/{content.digest}")
            assert len(answer.body) == LARGEST_BYTES

    def act(self) -> None:
        """One step. Raises AssertionError if anything is not as it must be."""
        step, shelf = self._random.choice(self._steps), self._random.choice(self._shelves)
        if not shelf.tags:
            step = self.push_image
        self.step = step.__name__
        step(shelf)
        self.done[self.step] += 1

    def finish(self) -> None:
        """Everything that the client has is there, byte by byte, and it leaves."""
        for shelf in self._shelves:
            for image in shelf.images.values():
                self._pull(shelf, image, image.digest)
            if shelf.blobs:
                self.list_tags(shelf)
        self.talk.close()

    # Pushing.

    def push_image(self, shelf: Shelf) -> None:
        layers = [self._layer(shelf) for _ in range(self._random.randint(1, 3))]
        image = make_image(self._pushed(shelf, self._content(400)), layers)
        self._put(shelf, image, self._random.choice(TAGS))

    def push_referrer(self, shelf: Shelf) -> None:
        subject = self._image(shelf)
        image = make_image(self._pushed(shelf, self._content(50)), [], subject)
        answer = self._put(shelf, image, "")
        assert answer["oci-subject"] == subject.digest

    def offer(self, shelf: Shelf) -> None:
        """Push something that everybody may mount."""
        del shelf
        content = self._content()
        self._upload(self._offer, content)
        self._mountable.append((self._offer, content))
        del self._mountable[:-MOUNTABLE_MAX]

    def move_tag(self, shelf: Shelf) -> None:
        image, tag = self._image(shelf), self._random.choice(TAGS)
        self._put(shelf, image, tag)
        self._pull_manifest(shelf, image, tag)

    def _layer(self, shelf: Shelf) -> Content:
        """A layer that is in the repository afterwards: a new one, one that is there, or somebody else's."""
        chance = self._random.random()
        if chance < 0.2 and shelf.blobs:
            return self._pushed(shelf, self._random.choice(list(shelf.blobs.values())))
        if chance < 0.5 and self._mountable:
            return self._mounted(shelf, *self._random.choice(self._mountable))
        return self._pushed(shelf, self._content())

    def _pushed(self, shelf: Shelf, content: Content) -> Content:
        known = content.digest in shelf.blobs
        self.talk.ask(200 if known else 404, "HEAD", f"/v2/{shelf.name}/blobs/{content.digest}")
        self._upload(shelf.name, content)
        shelf.blobs[content.digest] = content
        return content

    def _mounted(self, shelf: Shelf, source: str, content: Content) -> Content:
        target = f"/v2/{shelf.name}/blobs/uploads/?mount={content.digest}&from={source}"
        answer = self.talk.ask(201, "POST", target)
        assert answer.headers["docker-content-digest"] == content.digest
        shelf.blobs[content.digest] = content
        self.done["mount"] += 1
        return content

    def _upload(self, name: str, content: Content, style: str = "") -> None:
        body, style = content.read(), style or self._random.choice(STYLES)
        uploads, last = f"/v2/{name}/blobs/uploads/", f"?digest={content.digest}"
        if style == "one":
            answer = self.talk.ask(201, "POST", uploads + last, body)
        elif style == "two":
            answer = self.talk.ask(201, "PUT", self._started(name) + last, body)
        else:
            location = self._started(name)
            self._patch(location, body, style)
            answer = self.talk.ask(201, "PUT", location + last)
        assert answer.headers["docker-content-digest"] == content.digest
        self.done[f"upload: {style}"] += 1

    def _patch(self, location: str, body: bytes, style: str) -> None:
        if style == "patch":
            self.talk.ask(202, "PATCH", location, body)
        elif style == "chunks":
            self.talk.ask(202, "PATCH", location, _parts(body, 60_000))
        else:
            middle = len(body) // 2
            for first, part in ((0, body[:middle]), (middle, body[middle:])):
                if part:
                    stated = f"{first}-{first + len(part) - 1}"
                    self.talk.ask(202, "PATCH", location, part, Content_Range=stated)

    def _put(self, shelf: Shelf, image: Image, tag: str) -> dict[str, str]:
        target = f"/v2/{shelf.name}/manifests/{tag or image.digest}"
        answer = self.talk.ask(201, "PUT", target, image.payload, Content_Type=OCI_MANIFEST)
        assert answer.headers["docker-content-digest"] == image.digest
        shelf.add(image)
        if tag:
            shelf.tags[tag] = image.digest
        if len(shelf.images) > IMAGES_MAX:
            self._delete(shelf, next(iter(shelf.images.values())))
        return dict(answer.headers)

    # Pulling.

    def pull_image(self, shelf: Shelf) -> None:
        tag = self._random.choice(list(shelf.tags))
        self._pull(shelf, shelf.images[shelf.tags[tag]], tag)

    def head(self, shelf: Shelf) -> None:
        tag = self._random.choice(list(shelf.tags))
        image = shelf.images[shelf.tags[tag]]
        answer = self.talk.ask(200, "HEAD", f"/v2/{shelf.name}/manifests/{tag}", Accept=OCI_MANIFEST)
        assert answer.headers["docker-content-digest"] == image.digest
        for digest, content in image.contents.items():
            answer = self.talk.ask(200, "HEAD", f"/v2/{shelf.name}/blobs/{digest}")
            assert answer.headers["content-length"] == str(content.size)

    def read_ranges(self, shelf: Shelf) -> None:
        content = self._random.choice(list(self._image(shelf).contents.values()))
        first = self._random.randrange(content.size)
        stop = self._random.randint(first + 1, content.size)
        target, body = f"/v2/{shelf.name}/blobs/{content.digest}", content.read()
        answer = self.talk.ask(206, "GET", target, Range=f"bytes={first}-{stop - 1}")
        assert answer.headers["content-range"] == f"bytes {first}-{stop - 1}/{content.size}"
        assert answer.body == body[first:stop]
        self.talk.ask(416, "GET", target, Range=f"bytes={content.size}-")

    def _pull(self, shelf: Shelf, image: Image, reference: str) -> None:
        self._pull_manifest(shelf, image, reference)
        for digest in image.contents:
            answer = self.talk.ask(200, "GET", f"/v2/{shelf.name}/blobs/{digest}")
            assert f"sha256:{sha256(answer.body).hexdigest()}" == digest

    def _pull_manifest(self, shelf: Shelf, image: Image, reference: str) -> None:
        answer = self.talk.ask(200, "GET", f"/v2/{shelf.name}/manifests/{reference}", Accept=OCI_MANIFEST)
        assert answer.body == image.payload
        assert answer.headers["content-type"] == OCI_MANIFEST

    # Lists.

    def list_tags(self, shelf: Shelf) -> None:
        n = self._random.randint(1, 15)
        assert self._pages(f"/v2/{shelf.name}/tags/list?n={n}", "tags") == sorted(shelf.tags)

    def list_repositories(self, shelf: Shelf) -> None:
        """Others come and go meanwhile; ours are where they must be."""
        found = self._pages("/v2/_catalog?n=7", "repositories")
        assert found == sorted(set(found))
        ours = {other.name for other in self._shelves}
        assert ours.intersection(found) == {other.name for other in self._shelves if other.tags}
        del shelf

    def list_referrers(self, shelf: Shelf) -> None:
        image = self._image(shelf)
        answer = self.talk.ask(200, "GET", f"/v2/{shelf.name}/referrers/{image.digest}")
        assert answer.headers["content-type"] == OCI_INDEX
        entries: list[dict[str, Any]] = json.loads(answer.body)["manifests"]
        assert {entry["digest"] for entry in entries} == shelf.referrers(image)

    def _pages(self, target: str, key: str) -> list[str]:
        found: list[str] = []
        while target:
            answer = self.talk.ask(200, "GET", target)
            found += json.loads(answer.body)[key]
            target = answer.headers.get("link", "").partition("<")[2].partition(">")[0]
        return found

    # Deleting.

    def delete_tag(self, shelf: Shelf) -> None:
        tag = self._random.choice(list(shelf.tags))
        target = f"/v2/{shelf.name}/manifests/{tag}"
        self.talk.ask(202, "DELETE", target)
        del shelf.tags[tag]
        self.talk.ask(404, "GET", target)

    def delete_image(self, shelf: Shelf) -> None:
        self._delete(shelf, self._image(shelf))

    def delete_blob(self, shelf: Shelf) -> None:
        digest = self._random.choice(list(shelf.blobs))
        target = f"/v2/{shelf.name}/blobs/{digest}"
        if shelf.needs(digest):
            self.talk.ask(405, "DELETE", target)
            return
        self.talk.ask(202, "DELETE", target)
        del shelf.blobs[digest]
        self.talk.ask(404, "GET", target)

    def _delete(self, shelf: Shelf, image: Image) -> None:
        target = f"/v2/{shelf.name}/manifests/{image.digest}"
        self.talk.ask(202, "DELETE", target)
        shelf.remove(image)
        self.talk.ask(404, "HEAD", target)

    # What goes wrong every day.

    def abandon(self, shelf: Shelf) -> None:
        """An upload that nobody ever comes back to."""
        self.talk.ask(202, "PATCH", self._started(shelf.name), self._content().read())
        self.left_open += 1

    def cancel(self, shelf: Shelf) -> None:
        location = self._started(shelf.name)
        self.talk.ask(202, "PATCH", location, self._content().read())
        self.talk.ask(204, "DELETE", location)
        self.talk.ask(404, "GET", location)

    def leave(self, shelf: Shelf) -> None:
        """Go away in the middle: of a download, or of what is sent."""
        content = self._content()
        body = content.read()
        half, size = body[: len(body) // 2], len(body) + 1
        kind = self._random.choice(("download", "POST", "PATCH", "PUT", "manifest"))
        if kind == "download":
            largest = max(self._image(shelf).contents.values(), key=lambda found: found.size)
            self.talk.leave_during(f"/v2/{shelf.name}/blobs/{largest.digest}", largest.size // 3)
        elif kind == "POST":
            target = f"/v2/{shelf.name}/blobs/uploads/?digest={content.digest}"
            self.talk.break_off("POST", target, size, half)
        elif kind == "manifest":
            image = self._image(shelf)
            target = f"/v2/{shelf.name}/manifests/{image.digest}"
            self.talk.break_off(
                "PUT", target, len(image.payload), image.payload[:-10], Content_Type=OCI_MANIFEST
            )
        else:
            query = f"?digest={content.digest}" if kind == "PUT" else ""
            self.talk.break_off(kind, self._started(shelf.name) + query, size, half)
            self.left_open += 1
        self.done[f"leave: {kind}"] += 1

    def be_refused(self, shelf: Shelf) -> None:
        """Mistakes that clients make, each answered for what it is."""
        absent = self._content(10).digest
        image = self._image(shelf)
        self.talk.ask(404, "GET", f"/v2/{shelf.name}/blobs/{absent}")
        self.talk.ask(404, "GET", f"/v2/soak/nobody/manifests/{image.digest}")
        self.talk.ask(400, "GET", f"/v2/{shelf.name.upper()}/tags/list")
        self.talk.ask(400, "POST", f"/v2/{shelf.name}/blobs/uploads/?digest={absent}", b"something else")
        self.talk.ask(
            400, "PUT", f"/v2/{shelf.name}/manifests/{absent}", image.payload, Content_Type=OCI_MANIFEST
        )
        missing = make_image(Content(self._random.getrandbits(60), 10), [])
        self.talk.ask(
            400, "PUT", f"/v2/{shelf.name}/manifests/v0", missing.payload, Content_Type=OCI_MANIFEST
        )
        location = self._started(shelf.name)
        self.talk.ask(416, "PATCH", location, b"late", Content_Range="5-8")
        self.talk.ask(400, "PUT", f"{location}?digest={absent}", b"other bytes")

    def _started(self, name: str) -> str:
        """The path of a new upload."""
        answer = self.talk.ask(202, "POST", f"/v2/{name}/blobs/uploads/")
        return f"/v2/{name}/blobs/uploads/{answer.headers['docker-upload-uuid']}"

    def _content(self, size: int = 0) -> Content:
        if not size:
            (_, low, high), *_ = self._random.choices(SIZES, [chance for chance, _, _ in SIZES])
            size = self._random.randint(low, high)
        return Content(self._random.getrandbits(60), size)

    def _image(self, shelf: Shelf) -> Image:
        return self._random.choice(list(shelf.images.values()))


def _parts(body: bytes, size: int) -> Sequence[bytes]:
    return [body[start : start + size] for start in range(0, len(body), size)]
