"""What the benchmark says can be relied on: its arithmetic, its reading of wrk, and that a wrong answer fails a case.

Nothing is timed, and neither wrk nor the peer is needed.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks import asking, cases, children, files, generating, generator, seeds, trees, wrk
from benchmarks.errors import BenchError, CaseError
from benchmarks.figures import CaseResult, Measurement, Ratios, RowResult, Spread, ratios, spread
from benchmarks.images import digest_of, image
from benchmarks.loads import Load
from benchmarks.programs import CHECKOUT
from benchmarks.report import busy_generators, document, table
from benchmarks.trees import Use

if TYPE_CHECKING:
    from collections.abc import Generator

GOOD = {
    "requests": 20000,
    "bytes": 30000000,
    "microseconds": 5000000,
    "connect": 0,
    "read": 0,
    "write": 0,
    "timeout": 0,
    "status": 0,
    "p50": 800,
    "p99": 2400,
}


def printed(**changes: float) -> str:
    """What wrk with one of our scripts prints."""
    figures = json.dumps(GOOD | changes)
    return f"Running 5s test @ http://127.0.0.1:5000\n  1 threads and 16 connections\nfigures {figures}\n"


def result(ours: list[float], peer: list[float], cpu: float = 2.0) -> RowResult:
    def measured(values: list[float]) -> list[Measurement]:
        return [Measurement(Load(1000 * value, 1000.0, 10.0), Use(cpu, 0.0)) for value in values]

    case = CaseResult("some-case", {"ours": measured(ours), "peer": measured(peer)})
    return RowResult("some-case", "requests/s", case, {"ours": ours, "peer": peer})


def test_spread_of_several_rounds_is_their_median_and_ends() -> None:
    assert spread([30.0, 10.0, 20.0]) == Spread(20.0, 10.0, 30.0)
    assert spread([30.0, 10.0, 20.0]).percent == 100.0


def test_ratios_of_rounds_in_turns_are_taken_both_ways() -> None:
    # One slow moment that hit both sides in the third round: the pairs do not see it.
    assert ratios([30.0, 20.0, 6.0], [10.0, 10.0, 2.0]) == Ratios(of_medians=2.0, of_pairs=3.0)


def test_ratios_when_a_round_has_no_counterpart_then_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        ratios([1.0, 2.0], [1.0])


def test_cpu_time_when_divided_then_is_that_of_a_thousand_operations() -> None:
    assert Measurement(Load(500, 5.0), Use(2.0, 1.0)).cpu_per_thousand == 4.0


def test_table_when_printed_then_has_medians_spread_ratios_and_failures() -> None:
    row = result([3000.0, 2000.0, 2500.0], [1000.0, 1000.0, 1000.0])

    heading, ours, peer, failure = table(
        [row], [CaseResult("other-case", {}, "peer: 3 answers")]
    ).splitlines()

    assert heading.split()[:3] == ["case", "unit", "median"]
    assert ours.split() == [
        *("some-case", "requests/s", "ours", "2,500", "2,000", "3,000", "40", "%", "2.5", "2.5"),
        *("0.0008", "1", "%"),
    ]
    assert peer.split() == ["peer", "1,000", "1,000", "1,000", "0", "%", "0.002", "1", "%"]
    assert failure == "other-case: FAILED: peer: 3 answers"


def test_row_when_compared_with_another_contender_then_shows_the_ratios_to_that_one() -> None:
    row = result([4000.0, 1000.0], [1000.0, 1000.0])
    turned = RowResult("turned", row.unit, row.case, row.values, beside="ours")

    _, _, peer = table([turned], []).splitlines()

    assert peer.split()[-5:-3] == ["0.4", "0.625"]
    assert turned.ratios("ours") is None
    assert turned.ratios("peer") == Ratios(of_medians=0.4, of_pairs=0.625)


def test_generator_when_it_takes_most_of_a_core_then_is_named() -> None:
    idle, busy = CaseResult("idle"), CaseResult("busy")
    idle.measurements["ours"] = [Measurement(Load(1, 5.0, 1.0), Use(1.0, 0.0))]
    busy.measurements["ours"] = [Measurement(Load(1, 5.0, 4.5), Use(1.0, 0.0))]

    assert busy_generators([idle, busy]) == ["busy"]


def test_wrk_when_all_went_well_then_gives_exact_figures() -> None:
    assert wrk.parse(printed()) == GOOD


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"status": 3}, "3 answers were not 2xx"),
        ({"wrong": 1}, "1 answers were not the expected ones"),
        ({"connect": 2}, "2 connections failed"),
        ({"read": 2}, "2 reads failed"),
        ({"write": 2}, "2 writes failed"),
        ({"timeout": 5}, "5 requests had no answer in time"),
        ({"exhausted": 1}, "1 threads ran out of content"),
        ({"requests": 0}, "no answer at all"),
    ],
)
def test_wrk_when_something_went_wrong_then_fails_the_case(changes: dict[str, float], words: str) -> None:
    with pytest.raises(CaseError, match=words):
        wrk.parse(printed(**changes))


def test_wrk_when_a_script_says_what_was_wrong_then_so_does_the_failure() -> None:
    with pytest.raises(CaseError, match="PUT was answered with 500"):
        wrk.parse(f"wrong PUT was answered with 500\n{printed(wrong=1)}")


def test_wrk_when_it_prints_no_figures_then_fails_the_case() -> None:
    with pytest.raises(CaseError, match="unable to connect"):
        wrk.parse("unable to connect to 127.0.0.1:1 Connection refused\n")


class Answers(BaseHTTPRequestHandler):
    """A server with one answer."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    status = 200
    seen: list[str]

    def answer(self) -> None:
        self.seen.append(self.command)
        self.send_response(self.status)
        self.send_header("Content-Length", "7")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(b"content")

    do_GET = do_HEAD = answer  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def answering(status: int = 200) -> Generator[tuple[str, list[str]]]:
    """The URL of a server that answers so, and the methods that it was asked with."""
    seen: list[str] = []
    handler = type("Some", (Answers,), {"status": status, "seen": seen})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", seen
        finally:
            server.shutdown()
            thread.join()


def heads(url: str) -> Load:
    return asyncio.run(
        generating.run(url, "heads", seconds=0.2, connections=2, paths=["/v2/a/manifests/x"], accept="a/b")
    )


def test_generator_when_answers_are_right_then_counts_them() -> None:
    with answering(200) as (url, seen):
        load = heads(url)

    assert set(seen) == {"HEAD"}
    assert 0 < load.operations <= len(seen)
    assert load.latencies_ms["p50"] <= load.latencies_ms["p99"]


@pytest.mark.parametrize("status", [204, 301, 404, 503])
def test_generator_when_an_answer_is_not_the_expected_one_then_fails_the_case(status: int) -> None:
    with (
        answering(status) as (url, _),
        pytest.raises(CaseError, match=f"HEAD /v2/a/manifests/x HTTP/1.1: {status} instead of 200"),
    ):
        heads(url)


def test_generator_when_it_pushes_then_sends_what_docker_sends() -> None:
    script = generator.pushes(generator.Job("pushes", "h", 80, 1, 1.0, repository="a"), 0)
    answer = b"HTTP/1.1 202 Accepted\r\nLocation: http://h/v2/a/blobs/uploads/1?state=x\r\n"

    requests = [next(script).content] + [script.send(answer).content for _ in range(44)]

    lines = [request.split(b" ", 2)[:2] for request in requests]
    assert [method for method, _ in lines] == [*[b"HEAD", b"POST", b"PATCH", b"PUT"] * 11, b"PUT"]
    patches = [request.partition(b"\r\n\r\n")[2] for request in requests if request.startswith(b"PATCH ")]
    digests = [digest_of(body.partition(b"\r\n")[2].removesuffix(b"\r\n0\r\n\r\n")) for body in patches]
    uploads = [path.decode() for method, path in lines[:-1] if method == b"PUT"]
    assert uploads == [f"/v2/a/blobs/uploads/1?state=x&digest={digest}" for digest in digests]
    assert len(set(digests)) == 11
    assert all(f'"{digest}"'.encode() in requests[-1] for digest in digests)
    assert len(requests) == generator.REQUESTS_PER_IMAGE


def test_look_at_an_answer_when_it_is_not_the_expected_one_then_fails_the_case() -> None:
    with (
        answering(500) as (url, _),
        asking.connected(url) as client,
        pytest.raises(CaseError, match="GET /v2/: 500 instead of 200: content"),
    ):
        client.ask("GET", "/v2/", expect=200)


def test_cases_when_seeds_are_wanted_then_are_known_ones_and_names_are_unique() -> None:
    every = cases.every_case()

    assert {need for case in every for need in case.needs} == set(seeds.SEEDS)
    assert len({case.name for case in every}) == len(every)


def test_cases_when_chosen_by_pattern_then_keep_their_order() -> None:
    assert [case.name for case in cases.chosen(["tags-100k", "blob-get-1*"])] == [
        *("blob-get-1k", "blob-get-1m", "tags-100k"),
    ]
    with pytest.raises(BenchError, match="no case is called nonsense"):
        cases.chosen(["nonsense"])


def test_cases_when_listed_in_the_document_then_none_is_missing() -> None:
    written = (CHECKOUT / "docs" / "performance.md").read_text()

    assert [case.name for case in cases.every_case() if f"`{case.name}`" not in written] == []


def test_large_file_when_renewed_then_its_digest_is_that_of_its_bytes(tmp_path: Path) -> None:
    (file,) = files.make(tmp_path, 1, 3_000_000)

    first = file.renew()

    assert first == digest_of(file.path.read_bytes())
    assert file.renew() != first
    assert file.path.stat().st_size == 3_000_000


def test_small_blobs_when_written_as_lines_then_have_the_digests_that_the_script_will_send(
    tmp_path: Path,
) -> None:
    files.lines_of_blobs(tmp_path, files=2, lines=3, size=1024)

    lines = [line.split() for name in "01" for line in (tmp_path / name).read_text().splitlines()]
    assert len({digest for _, digest in lines}) == 6
    assert all(digest_of(head.encode().ljust(1024, b".")) == digest for head, digest in lines)


def test_images_when_variants_of_one_then_share_their_blobs_only() -> None:
    assert image("a", variant="1").blobs == image("a", variant="2").blobs
    assert image("a", variant="1").manifest != image("a", variant="2").manifest


def test_tree_when_a_child_works_and_ends_then_its_time_is_counted_once() -> None:
    before = trees.cpu_seconds(os.getpid()).total
    asyncio.run(children.run([sys.executable, "-c", "import time\nwhile time.process_time() < 0.3: pass"]))
    grown = trees.cpu_seconds(os.getpid()).total - before

    assert 0.28 <= grown < 5
    assert trees.memory_bytes(os.getpid()).total > 1_000_000


def test_child_when_nobody_waits_for_it_any_more_then_is_ended(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    code = (
        f"import os, pathlib, time; pathlib.Path({str(note)!r}).write_text(str(os.getpid())); time.sleep(60)"
    )

    async def work() -> None:
        task = asyncio.create_task(children.run([sys.executable, "-c", code]))
        while not note.exists() or not note.read_text():
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])

    began = time.monotonic()
    asyncio.run(work())

    assert not Path(f"/proc/{note.read_text()}").exists()
    assert time.monotonic() - began < 30


def test_child_when_it_fails_then_so_does_the_case() -> None:
    with pytest.raises(CaseError, match="ended with 3: no luck"):
        asyncio.run(children.run([sys.executable, "-c", "import sys; print('no luck'); sys.exit(3)"]))


def test_document_when_written_as_json_then_has_every_measurement() -> None:
    row = result([2.0, 4.0], [1.0, 1.0])

    written = json.loads(json.dumps(document([row], [row.case], {"rounds": 2})))

    assert written["rows"][0]["contenders"]["ours"]["ratios"] == {"of_medians": 3.0, "of_pairs": 3.0}
    assert len(written["cases"][0]["measurements"]["peer"]) == 2
