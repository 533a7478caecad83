"""Log lines: one per event, whatever it says, and none that a client could have written."""

from __future__ import annotations

import json
import logging
import os
import re
from typing import Any

import pytest

from app.runtime import logs
from app.runtime.logs import Access, LineHandler, TextFormatter, configure
from app.runtime.metrics import Metrics
from app.runtime.observe import Observer
from app.runtime.request_ids import REQUEST_ID, request_id

pytestmark = pytest.mark.usefixtures("logging_as_before")

NASTY = 'a"b\\c\r\n127.0.0.1 - - [x] "GET / HTTP/1.1" 200 0\x1b[2J\x00\x7f\x85\u2028\udc80é'
TEXT_LINE = re.compile(
    r'(\S+) - \S+ \[[^\]]+\] "((?:[^"\\]|\\.)*)" (\d+) (\d+) "((?:[^"\\]|\\.)*)" "((?:[^"\\]|\\.)*)" (\S+) (\S+)'
)


def entry(**values: Any) -> Access:
    usual = Access("id-1", "GET", "/v2/", "HTTP/1.1", 200, 2, 0.0012345, "10.0.0.1", "docker/27", "")
    return usual._replace(**values)


def test_text_line_then_it_has_time_level_and_message(capfd: pytest.CaptureFixture[str]) -> None:
    configure(fields={"service": "registry", "place": "rack 7"})
    logging.getLogger("x").warning("it is %s", "so", extra={"digest": "sha256:1"})
    out, err = capfd.readouterr()
    assert out == ""
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z WARN  it is so digest=sha256:1 service=registry "
        r'place="rack 7"\n',
        err,
    )


def test_json_line_then_it_has_time_level_message_and_fields(capfd: pytest.CaptureFixture[str]) -> None:
    configure(formatter="json", output="stdout", fields={"service": "registry", "level": "mine"})
    token = REQUEST_ID.set("id-1")
    logging.getLogger("x").error("it is %s", "so", extra={"object": {"k": [1]}, "odd": 1j})
    REQUEST_ID.reset(token)
    out, err = capfd.readouterr()
    line = json.loads(out)
    assert err == ""
    assert line.pop("time").endswith("Z")
    assert line == {
        "service": "registry",
        "level": "error",
        "msg": "it is so",
        "request_id": "id-1",
        "object": {"k": [1]},
        "odd": "1j",
    }


@pytest.mark.parametrize(
    ("level", "written"),
    [("error", 1), ("warn", 2), ("info", 3), ("debug", 4), ("trace", 4)],
)
def test_level_then_less_important_lines_are_left_out(
    level: str, written: int, capfd: pytest.CaptureFixture[str]
) -> None:
    configure(level=level)
    for number in (logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG):
        logging.getLogger("x").log(number, "line")
    assert capfd.readouterr().err.count("\n") == written


@pytest.mark.parametrize("formatter", ["text", "json"])
def test_message_when_it_has_line_breaks_then_it_stays_one_line(
    formatter: logs.Format, capfd: pytest.CaptureFixture[str]
) -> None:
    configure(formatter=formatter)
    logging.getLogger("x").error("%s", NASTY, extra={"value": NASTY})
    err = capfd.readouterr().err
    assert err.count("\n") == 1
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\x85\u2028]", err)


def test_text_traceback_when_the_error_has_line_breaks_then_every_line_is_behind_a_tab(
    capfd: pytest.CaptureFixture[str],
) -> None:
    configure()
    try:
        raise ValueError(NASTY)
    except ValueError:
        logging.getLogger("x").exception("failed")
    first, *rest = capfd.readouterr().err.splitlines()
    assert first.endswith(" ERROR failed")
    assert rest[0] == "\tTraceback (most recent call last):"
    assert all(line.startswith("\t") for line in rest)


def test_json_traceback_then_it_is_a_field(capfd: pytest.CaptureFixture[str]) -> None:
    configure(formatter="json")
    try:
        raise ValueError("reason")
    except ValueError:
        logging.getLogger("x").exception("failed")
    line = json.loads(capfd.readouterr().err)
    assert line["msg"] == "failed"
    assert line["error"].endswith("ValueError: reason")


def test_text_access_line_then_it_is_the_combined_format_and_more(capfd: pytest.CaptureFixture[str]) -> None:
    configure(access="text")
    logs.access(entry())
    out, err = capfd.readouterr()
    assert err == ""
    found = TEXT_LINE.fullmatch(out.removesuffix("\n"))
    assert found is not None
    assert found.groups() == (
        *("10.0.0.1", "GET /v2/ HTTP/1.1", "200", "2", "-", "docker/27"),
        *("0.001234", "id-1"),
    )


def test_json_access_line_then_it_has_every_field(capfd: pytest.CaptureFixture[str]) -> None:
    configure(access="json", fields={"service": "registry"})
    logs.access(entry(referer="there"))
    line = json.loads(capfd.readouterr().out)
    assert line.pop("time").endswith("Z")
    assert line == {
        "service": "registry",
        "level": "info",
        "msg": "access",
        "request_id": "id-1",
        "method": "GET",
        "path": "/v2/",
        "protocol": "HTTP/1.1",
        "status": 200,
        "bytes": 2,
        "seconds": 0.001234,
        "client": "10.0.0.1",
        "user_agent": "docker/27",
        "referer": "there",
        "user": "",
        "auth_type": "",
        "projects": [],
    }


def test_access_line_when_the_caller_is_known_then_says_who(capfd: pytest.CaptureFixture[str]) -> None:
    known = entry(user="a lice", auth_type="build", projects=("team/app",) * 20)
    configure(access="text")
    logs.access(known)
    assert capfd.readouterr().out.startswith("10.0.0.1 - a\\x20lice [")
    configure(access="json")
    logs.access(known)
    line = json.loads(capfd.readouterr().out)
    assert (line["user"], line["auth_type"], line["projects"]) == ("a lice", "build", ["team/app"] * 8)


@pytest.mark.parametrize(
    "field", ["method", "path", "agent", "referer", "client", "protocol", "user", "auth_type"]
)
def test_access_line_when_a_client_sends_line_breaks_and_quotes_then_nothing_is_forged(
    field: str, capfd: pytest.CaptureFixture[str]
) -> None:
    configure(access="text")
    logs.access(entry(**{field: NASTY}))
    text = capfd.readouterr().out
    assert text.count("\n") == 1
    assert re.fullmatch(r"[ -~]+\n", text)
    if field not in {"client", "user"}:
        assert TEXT_LINE.fullmatch(text.removesuffix("\n"))
    configure(access="json")
    logs.access(entry(**{field: NASTY}))
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 1
    assert NASTY in json.loads(lines[0]).values()


def test_access_line_when_headers_are_huge_then_it_fits_into_a_pipe_in_one_piece(
    capfd: pytest.CaptureFixture[str],
) -> None:
    huge = "\x00" * 60_000
    for formatter in ("text", "json"):
        configure(access=formatter)
        logs.access(entry(path="/" + "p" * 60_000, agent="a" * 60_000, referer="r" * 60_000))
        assert len(capfd.readouterr().out) < 4096
        logs.access(entry(agent=huge))
        assert len(capfd.readouterr().out) < 4096


def test_access_log_when_it_is_off_then_nothing_is_written(capfd: pytest.CaptureFixture[str]) -> None:
    configure(access=None)
    assert not logs.access_wanted()
    logs.access(entry())
    assert capfd.readouterr() == ("", "")


def test_lines_when_their_reader_is_gone_then_nothing_fails() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    handler = LineHandler(writing, TextFormatter({}))
    handler.handle(logging.makeLogRecord({"msg": "lost"}))
    os.close(writing)


def test_lines_when_their_reader_stalls_then_the_line_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_STALL_SECONDS", 0.01)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    handler = LineHandler(writing, TextFormatter({}))
    for _ in range(3):
        handler.handle(logging.makeLogRecord({"msg": "x" * 100_000}))
    os.close(writing)
    os.close(reading)


@pytest.mark.parametrize("given", [b"a", b"A-b_c.9", b"x" * 128])
def test_request_id_when_the_client_gives_a_good_one_then_it_is_kept(given: bytes) -> None:
    assert request_id(given) == given.decode()


@pytest.mark.parametrize(
    "given", [None, b"", b"x" * 129, b"a b", b"a\n", b"a\r\nb", b"\xc3\xa9", b'"', b"a/b"]
)
def test_request_id_when_there_is_no_good_one_then_it_is_new(given: bytes | None) -> None:
    first, second = request_id(given), request_id(given)
    assert re.fullmatch(r"[0-9a-f]{32}", first)
    assert first != second


def test_observer_when_a_request_ends_then_its_line_tells_all_of_it(
    capfd: pytest.CaptureFixture[str],
) -> None:
    configure(access="json")
    observer = Observer(Metrics())
    scope = {
        "method": "GET",
        "path": "/v2/é",
        "raw_path": b"/v2/%C3%A9",
        "query_string": b"n=1",
        "http_version": "2",
        "client": ("::1", 4),
        "headers": [(b"user-agent", b"\xc3\xa9\n"), (b"x-request-id", b"mine")],
    }
    assert observer.began(scope) == "mine"
    observer.ended(scope, route="tags", status=200, seconds=0.5, received=0, sent=7)
    line = json.loads(capfd.readouterr().out)
    assert line["path"] == "/v2/%C3%A9?n=1"
    assert line["request_id"] == "mine"
    assert line["user_agent"] == "Ã©\n"
    assert (line["protocol"], line["client"], line["bytes"]) == ("HTTP/2", "::1", 7)
