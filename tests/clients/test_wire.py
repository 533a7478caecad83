"""What only a socket can show: framing, interim answers, connections that break, and processes that die."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from hashlib import sha256
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.clients.wire import Answer, Wire
from tests.support.images import make_image
from tests.support.processes import forget_memory_peak, memory_peak_bytes, wait_for
from tests.support.registry import digest_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.served import Served

MIB = 1024 * 1024
LARGE_BYTES = 32 * MIB
SIDE_BY_SIDE = 10
# Some 5 MiB per connection, should all of them meet the same worker, and room for what an allocator keeps. Whole bodies
# would be 160 MiB in one of the two, at least.
GROWTH_BYTES_MAX = 96 * MIB


@pytest.fixture
def wire(registry: Served) -> Iterator[Wire]:
    with Wire(registry.port) as connection:
        yield connection


def some_bytes(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def open_upload(registry: Served, name: str) -> str:
    """A new session's path."""
    answer = registry.client.post(f"{registry.url}/v2/{name}/blobs/uploads/")
    assert answer.status_code == 202, answer.text
    return urlsplit(answer.headers["Location"]).path


def size_of(registry: Served, session: str) -> int:
    """How many bytes the session says it has; it says the same of none and of one."""
    answer = registry.client.get(f"{registry.url}{session}")
    assert answer.status_code == 204, answer.text
    last = int(answer.headers["Range"].removeprefix("0-"))
    return last + 1 if last else 0


def append(registry: Served, session: str, content: bytes, start: int) -> None:
    answer = registry.client.patch(
        f"{registry.url}{session}",
        content=content,
        headers={"Content-Range": f"{start}-{start + len(content) - 1}"},
    )
    assert answer.status_code == 202, answer.text


def finish(registry: Served, name: str, session: str, content: bytes) -> None:
    """Close the session and pull the blob."""
    digest = digest_of(content)
    answer = registry.client.put(f"{registry.url}{session}?digest={digest}")
    assert answer.status_code == 201, answer.text
    assert registry.client.get(f"{registry.url}/v2/{name}/blobs/{digest}").content == content


def wires_to_each_worker(registry: Served, stack: ExitStack) -> list[Wire]:
    """One connection to every worker. Which one takes a new connection is for the kernel to choose."""
    reached: dict[int, Wire] = {}
    for _ in range(100):
        wire = stack.enter_context(Wire(registry.port))
        wire.ask("GET", "/v2/")
        assert wire.answer().status == 200
        reached.setdefault(registry.worker_of(wire.local_port), wire)
        if len(reached) == 2:
            return list(reached.values())
    raise AssertionError(f"of two workers only {set(reached)} took connections")


def chunks(content: bytes, *sizes: int) -> bytes:
    """The content as a chunked body, in chunks of these sizes and one of what is left (RFC 9112, 7.1)."""
    body, rest = b"", content
    for size in (*sizes, len(content) - sum(sizes)):
        body += b"%X;name=value\r\n%s\r\n" % (size, rest[:size])
        rest = rest[size:]
    return body + b"0\r\nTrailer: ignored\r\n\r\n"


def test_chunked_body_when_its_length_is_unknown_then_is_taken_whole(registry: Served, wire: Wire) -> None:
    content = some_bytes(300_000)
    session = open_upload(registry, "wire/chunked")

    wire.ask("PATCH", session, chunks(content, 1, 70_000, 3), Transfer_Encoding="chunked")

    answer = wire.answer()
    assert (answer.status, answer.headers["range"]) == (202, "0-299999")
    finish(registry, "wire/chunked", session, content)


def test_expect_continue_when_the_upload_may_begin_then_is_told_so(registry: Served, wire: Wire) -> None:
    content = some_bytes(100_000)
    session = open_upload(registry, "wire/expect")

    wire.ask("PATCH", session, Content_Length="100000", Expect="100-continue")
    assert wire.answer().status == 100
    wire.send(content)

    assert wire.answer().status == 202
    finish(registry, "wire/expect", session, content)


def test_expect_continue_when_the_upload_is_refused_then_the_body_is_not_asked_for(wire: Wire) -> None:
    session = f"/v2/wire/expect/blobs/uploads/{uuid.uuid4()}"

    wire.ask("PATCH", session, Content_Length="100000", Expect="100-continue")
    answer = wire.answer()

    assert (answer.status, json.loads(answer.body)["errors"][0]["code"]) == (404, "BLOB_UPLOAD_UNKNOWN")


def test_upload_when_its_worker_is_killed_then_another_goes_on(registry: Served) -> None:
    first, second, third = some_bytes(MIB, 1), some_bytes(8 * MIB, 2), some_bytes(MIB, 3)
    session = open_upload(registry, "wire/killed")
    append(registry, session, first, 0)
    workers, before = set(registry.workers()), registry.stored_bytes()

    with Wire(registry.port) as wire:
        wire.ask("PATCH", session, second[: 4 * MIB], Content_Length=str(len(second)))
        assert wait_for(lambda: registry.stored_bytes() > before), "the worker is in the middle of it"
        victim = registry.worker_of(wire.local_port)
        os.kill(victim, signal.SIGKILL)
        with pytest.raises(ConnectionError):
            wire.answer()

    with registry.apart() as later:
        assert size_of(later, session) == len(first), "what was acknowledged is there, and no more"
        append(later, session, second, len(first))
        append(later, session, third, len(first + second))
        finish(later, "wire/killed", session, first + second + third)

    replaced = wait_for(lambda: len(now := set(registry.workers())) == 2 and victim not in now)
    assert replaced, f"{workers} became {registry.workers()}"


def test_change_when_made_at_one_worker_then_the_other_shows_it_at_once(registry: Served) -> None:
    first, second = make_image("first"), make_image("second")
    name = "wire/two-workers"
    tag = f"/v2/{name}/manifests/latest"
    with ExitStack() as stack:
        one, other = wires_to_each_worker(registry, stack)

        def ask(wire: Wire, method: str, target: str, body: bytes = b"") -> Answer:
            wire.ask(method, target, body, Content_Type=first.media_type)
            return wire.answer()

        assert ask(other, "GET", tag).status == 404
        for image in (first, second):
            for blob in image.blobs:
                ask(one, "POST", f"/v2/{name}/blobs/uploads/?digest={digest_of(blob)}", blob)
            assert ask(one, "PUT", tag, image.payload).status == 201
            assert ask(other, "GET", tag).body == image.payload
        assert ask(one, "DELETE", tag).status == 202
        assert ask(other, "GET", tag).status == 404
        assert ask(one, "DELETE", f"/v2/{name}/manifests/{first.digest()}").status == 202
        assert ask(other, "GET", f"/v2/{name}/manifests/{first.digest()}").status == 404
        assert ask(other, "GET", f"/v2/{name}/manifests/{second.digest()}").status == 200


@pytest.mark.parametrize("manner", ["closes", "resets"])
def test_upload_when_the_client_leaves_in_the_middle_then_goes_on_where_it_was(
    manner: str, registry: Served
) -> None:
    content = some_bytes(3 * MIB)
    name = f"wire/left-{manner}"
    session = open_upload(registry, name)

    before = registry.stored_bytes()

    with Wire(registry.port) as wire:
        wire.ask("PATCH", session, content[: 2 * MIB], Content_Length=str(len(content)))
        assert wait_for(lambda: registry.stored_bytes() > before)
        if manner == "resets":
            wire.reset()

    taken = wait_for(lambda: size_of(registry, session))
    assert 0 < taken <= 2 * MIB
    append(registry, session, content[taken:], taken)
    finish(registry, name, session, content)


def test_connection_when_a_request_was_refused_then_serves_the_next_one(wire: Wire) -> None:
    wire.ask("POST", "/v2/NOT-A-NAME/blobs/uploads/", some_bytes(1000))
    refused = wire.answer()
    wire.ask("GET", "/v2/")

    assert (refused.status, json.loads(refused.body)["errors"][0]["code"]) == (400, "NAME_INVALID")
    assert wire.answer().status == 200


def test_requests_when_sent_without_waiting_then_are_answered_in_order(registry: Served, wire: Wire) -> None:
    content = some_bytes(1000)
    digest = digest_of(content)
    paths = (f"/v2/wire/in-order/blobs/{digest}", "/v2/wire/in-order/tags/list", "/v2/")

    wire.ask("POST", f"/v2/wire/in-order/blobs/uploads/?digest={digest}", content)
    for path in paths:
        wire.ask("GET", path)

    answers = [wire.answer() for _ in range(4)]
    assert [answer.status for answer in answers] == [201, 200, 200, 200]
    assert answers[1].body == content


def test_large_upload_when_refused_early_then_the_client_reads_why(registry: Served, wire: Wire) -> None:
    session = f"/v2/wire/unknown/blobs/uploads/{uuid.uuid4()}"

    wire.ask("PATCH", session, bytes(32 * MIB))

    answer = wire.answer()
    assert (answer.status, json.loads(answer.body)["errors"][0]["code"]) == (404, "BLOB_UPLOAD_UNKNOWN")


def test_head_when_the_answer_would_have_a_body_then_sends_none(registry: Served, wire: Wire) -> None:
    content = some_bytes(1000)
    digest = digest_of(content)
    registry.client.post(f"{registry.url}/v2/wire/head/blobs/uploads/?digest={digest}", content=content)
    found, missing = f"/v2/wire/head/blobs/{digest}", f"/v2/wire/head/manifests/{digest}"

    wire.ask("HEAD", found)
    wire.ask("HEAD", missing)
    wire.ask("GET", "/v2/", Connection="close")

    answer = wire.answer(head=True)
    assert (answer.status, answer.headers["content-length"]) == (200, "1000")
    assert wire.answer(head=True).status == 404
    assert wire.answer().status == 200
    assert wire.rest() == b""


@pytest.fixture
def flat_memory(registry: Served) -> Iterator[None]:
    """Check that no worker grows by more than a few blocks per connection while the test runs."""
    workers = registry.workers()
    for pid in workers:
        forget_memory_peak(pid)
    before = {pid: memory_peak_bytes(pid) for pid in workers}
    yield
    grown = {pid: memory_peak_bytes(pid) - before[pid] for pid in workers}
    assert max(grown.values()) < GROWTH_BYTES_MAX, grown


@pytest.mark.usefixtures("flat_memory")
def test_memory_when_large_uploads_run_side_by_side_then_stays_flat(registry: Served) -> None:
    filling = some_bytes(MIB)

    def upload(number: int) -> int:
        blocks = [number.to_bytes(8, "big") + filling[8:], *([filling] * (LARGE_BYTES // MIB - 1))]
        digest = sha256()
        for block in blocks:
            digest.update(block)
        connection = http.client.HTTPConnection("127.0.0.1", registry.port, timeout=60)
        target = f"/v2/wire/large/blobs/uploads/?digest=sha256:{digest.hexdigest()}"
        connection.request("POST", target, body=iter(blocks), headers={"Content-Length": str(LARGE_BYTES)})
        status = connection.getresponse().status
        connection.close()
        return status

    with ThreadPoolExecutor(SIDE_BY_SIDE) as threads:
        assert list(threads.map(upload, range(SIDE_BY_SIDE))) == [201] * SIDE_BY_SIDE


@pytest.mark.usefixtures("flat_memory")
def test_memory_when_clients_ask_for_much_and_read_nothing_then_stays_flat(registry: Served) -> None:
    content = bytes(LARGE_BYTES)
    digest = digest_of(content)
    registry.client.post(f"{registry.url}/v2/wire/large/blobs/uploads/?digest={digest}", content=content)

    with ExitStack() as stack:
        wires = [stack.enter_context(Wire(registry.port)) for _ in range(SIDE_BY_SIDE)]
        for wire in wires:
            wire.ask("GET", f"/v2/wire/large/blobs/{digest}")
        assert [wire.answer(head=True).status for wire in wires] == [200] * SIDE_BY_SIDE
        # Nothing tells that a server does not read ahead: a moment is what it would take.
        time.sleep(0.5)
