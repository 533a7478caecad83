"""What the tests of bad input share: a refusal is checked whole, and "nothing changed" means rows and files."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from app.domain import errors
from app.domain.errors import RegistryError
from tests.http.support import ask, refused
from tests.support.postgres import connected

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    import httpx

    from app.store.engine import Target
    from tests.support.registry import Registry

# What a client is told may quote what it sent, but not give it back by the megabyte.
DETAIL_CHARS_MAX: Final = 3000
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
MESSAGES: Final = {
    (kind.code, (kind.__doc__ or "").strip())
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, RegistryError)
}
# To which a HEAD that says "it exists" appends, so that what a push relies on stays for a while.
QUEUES: Final = frozenset({"gc_blob_review_queue", "gc_manifest_review_queue"})

_TABLES: Final = """
    SELECT c.relname AS name FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname = 'public' ORDER BY 1
"""
_SUM: Final = "SELECT '{0}' AS name, md5(string_agg(t::text, '|' ORDER BY t::text)) AS sum FROM {0} AS t"


class Ledger:
    """Tells what a registry holds, again and again, on one connection."""

    def __init__(self, connection: Any, root: Path) -> None:
        self._connection = connection
        self._root = root
        self._statement = ""

    async def look(self) -> dict[str, Any]:
        """Every table with the sum of its rows, every file below `root` with its size and when it changed last."""
        if not self._statement:
            tables = [row["name"] for row in await self._connection.fetch(_TABLES)]
            self._statement = " UNION ALL ".join(_SUM.format(name) for name in tables)
        held: dict[str, Any] = {
            row["name"]: row["sum"] for row in await self._connection.fetch(self._statement)
        }
        for path in self._root.rglob("*"):
            if path.is_file() and not path.is_symlink():
                status = path.stat()
                held[f"file {path.relative_to(self._root)}"] = (status.st_size, status.st_mtime_ns)
        return held


@asynccontextmanager
async def opened_ledger(target: Target, root: Path) -> AsyncGenerator[Ledger]:
    """The ledger of the registry on this database and directory."""
    async with connected(target) as connection:
        yield Ledger(connection, root)


async def holdings(target: Target, root: Path) -> dict[str, Any]:
    """What `Ledger.look` tells, once."""
    async with opened_ledger(target, root) as ledger:
        return await ledger.look()


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """The tables and files that are not the same."""
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


@asynccontextmanager
async def unchanged(registry: Registry, root: Path) -> AsyncGenerator[None]:
    """Check that what is done inside leaves every row and every file as it is."""
    before = await holdings(registry.target, root)
    yield
    assert differences(before, await holdings(registry.target, root)) == []


def assert_refused(answer: httpx.Response, kind: type[RegistryError], *words: str) -> None:
    """The answer is this refusal: status, code and message of its class, and a detail that has all of `words`."""
    detail = json.dumps(refused(answer, kind.status, kind.code), ensure_ascii=False)
    for entry in answer.json()["errors"]:
        assert entry["message"] == (kind.__doc__ or "").strip()
        assert entry.get("detail"), "it does not say what was wrong"
    assert len(detail) <= DETAIL_CHARS_MAX
    for word in words:
        assert word in detail, f"{word!r} is not in {detail[:300]}"


async def expect_refusal(
    registry: Registry,
    method: str,
    target: str,
    kind: type[RegistryError],
    *words: str,
    headers: tuple[tuple[str, str], ...] = (),
    body: bytes = b"",
) -> None:
    """One request, sent as it is, gets this refusal; a HEAD gets its status and no body."""
    answer = await ask(registry, method, target, headers, body)
    assert (method, target[:200], answer.status_code) == (method, target[:200], kind.status), answer.text[
        :500
    ]
    if method != "HEAD":
        assert_refused(answer, kind, *words)


def assert_well_formed(answer: httpx.Response, *, method: str) -> None:
    """Whatever was asked: no 5xx, and a refusal is an OCI error document with codes and messages of ours."""
    assert answer.status_code < 500, answer.text[:500]
    if answer.status_code < 400 or method == "HEAD":
        return
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Content-Length"] == str(len(answer.content))
    document = answer.json()
    assert document.keys() == {"errors"}
    assert document["errors"]
    for entry in document["errors"]:
        assert entry.keys() <= {"code", "message", "detail"}
        assert (entry["code"], entry["message"]) in MESSAGES
        assert len(json.dumps(entry.get("detail"))) <= DETAIL_CHARS_MAX * 2
