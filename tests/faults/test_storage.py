"""Storage in trouble: clients are told so, nothing is left half-written, and what they try again succeeds."""

from __future__ import annotations

import errno
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from typing import TYPE_CHECKING

import pytest

from app.domain.limits import BLOCK_BYTES
from tests.faults.client import Client, noise, together
from tests.faults.place import THREADS, running
from tests.faults.volume import Volume
from tests.support.registry import digest_of, image

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.client import Answer
    from tests.faults.place import Cluster, Registry
    from tests.support.registry import Image


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Volume]:
    volume = Volume(tmp_path_factory.mktemp("volume") / "mounted")
    yield volume
    volume.close()


@pytest.fixture(scope="module")
def registry(
    cluster: Cluster, volume: Volume, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Registry]:
    with running(cluster, tmp_path_factory.mktemp("registry"), volume.path / "objects") as registry:
        registry.becomes_well()
        yield registry


def pushed(client: Client, name: str) -> Image:
    """An image that is there."""
    one = image(noise(name, 2 * BLOCK_BYTES + 7), config=noise(f"{name}-config", 50))
    client.push(name, "latest", one)
    return one


class Upload:
    """A session, and how far it says that it is."""

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        answer = client.start(name)
        assert answer.status == 202
        self.location = answer.headers["Location"].partition("://")[2].partition("/")[2]

    def patch(self, content: bytes, start: int) -> Answer:
        answer = self._client.ask(
            "PATCH", f"/{self.location}", content, Content_Range=f"{start}-{start + len(content) - 1}"
        )
        self._follow(answer)
        return answer

    def finish(self, content: bytes, digest: str) -> Answer:
        return self._client.ask("PUT", f"/{self.location}{self._more}digest={digest}", content)

    def range(self) -> str:
        answer = self._client.ask("GET", f"/{self.location}")
        assert answer.status == 204
        return answer.headers["Range"]

    @property
    def _more(self) -> str:
        return "&" if "?" in self.location else "?"

    def _follow(self, answer: Answer) -> None:
        if location := answer.headers.get("Location"):
            self.location = location.partition("://")[2].partition("/")[2]


def test_push_when_the_volume_is_full_then_it_is_refused_and_goes_on_from_where_it_was_once_there_is_room(
    registry: Registry, volume: Volume, client: Client
) -> None:
    there = pushed(client, "full/there")
    content, half = noise("full", 4 * BLOCK_BYTES), BLOCK_BYTES // 2
    upload = Upload(client, "full/a")
    assert upload.patch(content[:half], 0).status == 202
    with volume.full(registry):
        for _ in range(2):
            refused = upload.patch(content[half:], half)
            assert refused.is_refusal
            assert refused.detail == "the object storage is full"
            assert upload.range() == f"0-{half - 1}"
        whole = client.push_blob("full/a", noise("full-whole", 3 * BLOCK_BYTES))
        assert whole.is_refusal
        assert "storage" in registry.becomes_unwell()
        client.check("full/there", "latest", there)
    assert upload.patch(content[half:], half).status == 202
    assert upload.finish(b"", digest_of(content)).status == 201
    assert client.get(f"/v2/full/a/blobs/{digest_of(content)}").body == content
    assert client.push_blob("full/a", noise("full-whole", 3 * BLOCK_BYTES)).status == 201
    registry.becomes_well()


def test_push_when_the_volume_is_read_only_then_it_is_refused_and_pulls_go_on(
    registry: Registry, volume: Volume, client: Client
) -> None:
    there = pushed(client, "read-only/there")
    upload = Upload(client, "read-only/a")
    with volume.read_only(registry):
        assert client.push_blob("read-only/a", noise("read-only", 1000)).is_refusal
        assert upload.patch(noise("read-only", 500), 0).is_refusal
        assert upload.finish(b"", digest_of(b"")).is_refusal
        assert "storage" in registry.becomes_unwell()
        client.check("read-only/there", "latest", there)
    assert upload.finish(noise("read-only", 1000), digest_of(noise("read-only", 1000))).status == 201
    registry.becomes_well()


@pytest.mark.parametrize("call", ["write", "sync"])
def test_push_when_the_disk_fails_once_then_it_is_refused_and_the_same_request_succeeds_the_next_time(
    registry: Registry, client: Client, call: str
) -> None:
    name, content = f"once/{call}", noise(f"once-{call}", 2 * BLOCK_BYTES + 5)
    upload = Upload(client, name)
    assert upload.patch(content[:BLOCK_BYTES], 0).status == 202
    attempts = [
        lambda: upload.patch(content[BLOCK_BYTES:-5], BLOCK_BYTES),
        lambda: upload.finish(content[-5:], digest_of(content)),
        lambda: client.push_blob(name, noise(f"once-whole-{call}", 1000)),
    ]
    for attempt in attempts:
        with registry.disk(f"{call}.{errno.EIO}.1"):
            refused = attempt()
            assert refused.is_refusal
            assert refused.detail == "the object storage is not available"
            assert not list(registry.faults.iterdir())
        assert attempt().status in {201, 202}
    assert client.get(f"/v2/{name}/blobs/{digest_of(content)}").body == content


def test_pull_when_the_disk_fails_before_the_first_byte_then_it_is_refused_and_the_next_one_succeeds(
    registry: Registry, client: Client
) -> None:
    there = pushed(client, "first/there")
    target = f"/v2/first/there/blobs/{digest_of(there.blobs[1])}"
    with registry.disk(f"read.{errno.EIO}.1"):
        assert client.get(target).is_refusal
        assert client.get(target).body == there.blobs[1]


def test_pull_when_the_disk_fails_in_the_middle_then_the_connection_is_cut_and_the_next_one_succeeds(
    registry: Registry, client: Client
) -> None:
    content = noise("middle", 6 * BLOCK_BYTES)
    assert client.push_blob("middle/a", content).status == 201
    target = f"/v2/middle/a/blobs/{digest_of(content)}"
    with registry.disk("read.slow.200"), Client(registry.address) as other:
        answer = other.begin("GET", target)
        assert answer.status == 200
        assert answer.read(1) == content[:1]
        # Some blocks are under way by now, and not all of them.
        (registry.faults / f"read.{errno.EIO}").touch()
        with pytest.raises((OSError, HTTPException)):
            answer.read()
    assert client.get(target).body == content


def test_registry_when_the_disk_is_slow_then_only_those_who_need_it_wait_and_its_threads_are_bounded(
    registry: Registry, client: Client
) -> None:
    there = pushed(client, "slow/there")
    before = most = registry.threads()
    with registry.disk("write.slow.300"), ThreadPoolExecutor(120) as pool:
        pushes = [
            pool.submit(_push, registry, f"slow/p{number}", noise(f"slow-{number}", 1000))
            for number in range(120)
        ]
        quick: list[Answer] = []
        while not all(push.done() for push in pushes):
            most = max(most, registry.threads())
            quick.append(client.get("/v2/slow/there/manifests/latest"))
        assert {push.result().status for push in pushes} == {201}
    assert {answer.status for answer in quick} == {200}
    quick.sort(key=lambda answer: answer.seconds)
    assert quick[len(quick) // 2].seconds < 0.3
    # Those of the storage, and a few for hashes.
    assert before < most <= before + THREADS + 10
    client.check("slow/there", "latest", there)


def _push(registry: Registry, name: str, content: bytes) -> Answer:
    with Client(registry.address) as client:
        return client.push_blob(name, content)


def _push_many(registry: Registry, name: str) -> list[Answer]:
    return together(24, lambda number: _push(registry, f"{name}/a", noise(f"{name}-{number}", 1000)))


def test_registry_when_its_directory_vanishes_then_nothing_is_put_in_its_place_until_it_is_back(
    registry: Registry, client: Client
) -> None:
    there = pushed(client, "vanished/there")
    upload = Upload(client, "vanished/a")
    # With so many connections each of the workers has stored something.
    assert {answer.status for answer in _push_many(registry, "seen")} == {201}
    elsewhere = registry.root.with_name("elsewhere")
    registry.root.rename(elsewhere)
    try:
        answers = _push_many(registry, "vanished")
        assert all(answer.is_refusal for answer in answers)
        assert upload.patch(noise("vanished", 500), 0).is_refusal
        assert client.get(f"/v2/vanished/there/blobs/{digest_of(there.blobs[1])}").is_refusal
        assert client.get("/v2/vanished/there/manifests/latest").status == 200
        assert "storage" in registry.becomes_unwell()
        assert not registry.root.exists()
    finally:
        elsewhere.rename(registry.root)
    client.check("vanished/there", "latest", there)
    assert upload.finish(noise("vanished", 500), digest_of(noise("vanished", 500))).status == 201
    registry.becomes_well()
