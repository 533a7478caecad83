"""Bodies that are shorter or longer than they say, and clients that leave in the middle, through the real server.

What arrived of a PATCH stays and can be gone on from; of a manifest or a blob in one request nothing is left.
Distribution #4489 and its kind: 201 for bytes that never came.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import pytest

from tests.support.processes import wait_for
from tests.support.registry import digest_of, image

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.badinput.wire import Attacked

CONTENT: Final = b"0123456789"
DIGEST: Final = digest_of(CONTENT)
# A session's own rows and files, and what its end leaves to the collector.
SESSION: Final = frozenset({"blob_uploads", "gc_storage_deletions", "repositories", "file objects"})


def closes(registry: Attacked, payload: bytes, begun: Callable[[], bool] = lambda: True) -> None:
    registry.leave(payload, begun, reset=False)


def resets(registry: Attacked, payload: bytes, begun: Callable[[], bool] = lambda: True) -> None:
    registry.leave(payload, begun, reset=True)


def ends(registry: Attacked, payload: bytes, begun: Callable[[], bool] = lambda: True) -> None:
    """Say that nothing more will come and wait for the answer: there is none, or it says what is missing."""
    del begun
    exchange = registry.send(payload, ends=True)
    assert exchange.closed
    assert exchange.statuses in ([], [400])


LEAVES: Final = {leave.__name__: leave for leave in (closes, resets, ends)}


def sized(method: str, target: str, body: bytes, length: int, *lines: str) -> bytes:
    head = "".join(f"{line}\r\n" for line in ("Host: registry.test", f"Content-Length: {length}", *lines))
    return f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode() + body


def chunked(method: str, target: str, body: bytes) -> bytes:
    """A chunk of which two bytes are missing."""
    head = f"{method} {target} HTTP/1.1\r\nHost: registry.test\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head.encode() + b"%x\r\n%b" % (len(body) + 2, body)


def open_session(registry: Attacked, name: str) -> str:
    answer = registry.served.client.post(f"{registry.served.url}/v2/{name}/blobs/uploads/")
    assert answer.status_code == 202, answer.text
    return urlsplit(answer.headers["Location"]).path


def stands_at(registry: Attacked, session: str) -> str:
    """The Range that the session's status has."""
    answer = registry.served.client.get(f"{registry.served.url}{session}")
    assert answer.status_code == 204, answer.text
    return answer.headers["Range"]


@pytest.mark.parametrize("manner", LEAVES)
@pytest.mark.parametrize("framing", [sized, chunked])
def test_patch_when_its_body_breaks_off_then_what_came_is_kept_and_the_upload_goes_on(
    plain: Attacked, framing: Callable[..., bytes], manner: str
) -> None:
    name = f"broken/{framing.__name__}-{manner}"
    session = open_session(plain, name)
    with plain.survives(changes=SESSION):
        more = (9,) if framing is sized else ()
        LEAVES[manner](plain, framing("PATCH", session, CONTENT[:4], *more))
        assert wait_for(lambda: stands_at(plain, session) == "0-3")
    url = f"{plain.served.url}{session}?digest={DIGEST}"
    assert plain.served.client.put(url, content=CONTENT[4:]).status_code == 201
    assert plain.served.client.get(f"{plain.served.url}/v2/{name}/blobs/{DIGEST}").content == CONTENT


@pytest.mark.parametrize("manner", LEAVES)
def test_put_of_an_upload_when_its_body_breaks_off_then_is_no_blob_and_goes_on(
    plain: Attacked, manner: str
) -> None:
    name = f"broken/put-{manner}"
    session = open_session(plain, name)
    with plain.survives(changes=SESSION):
        LEAVES[manner](plain, sized("PUT", f"{session}?digest={DIGEST}", CONTENT[:4], len(CONTENT)))
        assert wait_for(lambda: stands_at(plain, session) == "0-3")
        assert plain.served.client.get(f"{plain.served.url}/v2/{name}/blobs/{DIGEST}").status_code == 404
    url = f"{plain.served.url}{session}?digest={DIGEST}"
    assert plain.served.client.put(url, content=CONTENT[4:]).status_code == 201


@pytest.mark.parametrize("manner", LEAVES)
@pytest.mark.parametrize("framing", [sized, chunked])
def test_manifest_when_its_body_breaks_off_then_changes_nothing(
    plain: Attacked, framing: Callable[..., bytes], manner: str
) -> None:
    """Not even when what came is a whole manifest: the client has not said that it is all."""
    plain.served.client.post(
        f"{plain.served.url}/v2/broken/blobs/uploads/?digest={digest_of(b'{}')}", content=b"{}"
    )
    payload = image().payload
    more = (len(payload) + 1,) if framing is sized else ()
    with plain.survives():
        for body in (payload, payload[:-1], b""):
            LEAVES[manner](plain, framing("PUT", "/v2/broken/manifests/latest", body, *more))
        target = f"{plain.served.url}/v2/broken/manifests/latest"
        assert plain.served.client.get(target).status_code == 404


@pytest.mark.parametrize("manner", LEAVES)
def test_blob_in_one_request_when_its_body_breaks_off_then_nothing_is_left_but_for_the_collector(
    plain: Attacked, manner: str
) -> None:
    name = f"broken/whole-{manner}"
    target = f"/v2/{name}/blobs/uploads/?digest={DIGEST}"
    with plain.survives(changes=frozenset({"gc_storage_deletions", "repositories", "file objects"})):
        for body in (CONTENT, b""):
            LEAVES[manner](
                plain, sized("POST", target, body, len(CONTENT) + 1), lambda: plain.sessions(name) == 1
            )
            # The session that it is inside is gone once the server has noticed.
            assert wait_for(lambda: plain.sessions(name) == 0)
    assert plain.served.client.get(f"{plain.served.url}/v2/{name}/blobs/{DIGEST}").status_code == 404


@pytest.mark.parametrize("leave", [closes, resets])
def test_upload_when_refused_and_its_client_leaves_then_nothing_fails(
    plain: Attacked, leave: Callable[..., None]
) -> None:
    """There is nobody left to be told, which is no fault of anybody's."""
    with plain.survives():
        for target in (
            "/v2/UPPER/blobs/uploads/",
            f"/v2/a/blobs/uploads/x?digest={DIGEST}",
            "/v2/a/manifests/-x",
        ):
            for method in ("PUT", "POST", "PATCH"):
                leave(plain, sized(method, target, CONTENT, 10_000))


def test_body_when_longer_than_it_says_then_the_rest_is_no_part_of_it(plain: Attacked) -> None:
    session = open_session(plain, "longer")
    hidden = b"GET /hidden HTTP/1.1\r\nHost: registry.test\r\n\r\n"
    with plain.survives(changes=SESSION):
        exchange = plain.send(sized("PATCH", session, CONTENT + b"surplus\r\n\r\n", len(CONTENT)))
        assert (exchange.statuses, exchange.closed) == ([202, 400], True)
        assert exchange.replies[0].headers["range"] == "0-9"
        exchange = plain.send(sized("PATCH", session, hidden, 4, "Connection: close"))
        assert exchange.statuses == [202]
    assert stands_at(plain, session) == "0-13"


def test_range_and_length_when_they_disagree_with_what_comes_then_none_of_it_counts(plain: Attacked) -> None:
    session = open_session(plain, "disagree")
    with plain.survives(changes=SESSION):
        for framing in (
            sized("PATCH", session, CONTENT[:4], 4, "Content-Range: 0-9"),
            sized("PATCH", session, CONTENT, 10, "Content-Range: 0-3"),
            sized("PUT", f"{session}?digest={DIGEST}", CONTENT, 10, "Content-Range: 0-3"),
        ):
            exchange = plain.send(framing, answers=1)
            assert exchange.statuses == [400]
            assert exchange.replies[0].errors[0]["code"] == "SIZE_INVALID"
        closes(plain, sized("PATCH", session, CONTENT[:4], 10, "Content-Range: 0-9"))
        assert wait_for(lambda: stands_at(plain, session) == "0-3")
    url = f"{plain.served.url}{session}?digest={DIGEST}"
    assert plain.served.client.put(url, content=CONTENT[4:]).status_code == 201


def test_manifest_when_over_its_bound_then_gets_413_and_the_client_reads_it(plain: Attacked) -> None:
    large = b" " * (4 * 1024 * 1024 + 1)
    lengths = {
        "stated": sized("PUT", "/v2/large/manifests/x", large, len(large)),
        "chunked": chunked("PUT", "/v2/large/manifests/x", large) + b"  \r\n0\r\n\r\n",
    }
    with plain.survives():
        for case, payload in lengths.items():
            exchange = plain.send(payload, answers=1)
            assert (case, exchange.statuses) == (case, [413])
            assert exchange.replies[0].errors[0]["code"] == "MANIFEST_INVALID"
            assert "at most 4194304 bytes" in exchange.replies[0].errors[0]["detail"]
