"""Ours, as `make serve` runs it but for the address; the access log is off there as well. It is open unless told."""

from __future__ import annotations

import re
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import asyncpg

from app.store.engine import Database, Target
from benchmarks import accounts, trees
from benchmarks.contenders import OURS
from benchmarks.errors import BenchError
from benchmarks.running import Running, clean_environment

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from benchmarks.trees import Use

# What `--local` calls its user and its database.
DATABASE: Final = "registry"
# The command `registry`, with the interpreter that runs us.
_REGISTRY: Final = (sys.executable, "-c", "from app.cli import main; main()")
_READY: Final = re.compile(r"^registry: ready on (http://[^\s,]+),", re.MULTILINE)
_SOCKETS: Final = re.compile(r'unix_socket_directories="?([^"\0]+)"?')
_TAGS: Final = """
INSERT INTO tags (repository_id, name, manifest_id)
SELECT t.repository_id, wanted, t.manifest_id
FROM repositories AS r JOIN tags AS t ON t.repository_id = r.id AND t.name = $2, unnest($3::text[]) AS wanted
WHERE r.path = $1
"""
_REPOSITORIES: Final = """
INSERT INTO repositories (path, has_tags, last_published_at)
SELECT wanted, true, now() FROM unnest($1::text[]) AS wanted
"""
# $1 is the source's path, $2 the new ones'.
_CONTENTS: Final = (
    """
    INSERT INTO repository_blobs (repository_id, blob_digest)
    SELECT n.id, b.blob_digest
    FROM repositories AS s JOIN repository_blobs AS b ON b.repository_id = s.id, repositories AS n
    WHERE s.path = $1 AND n.path = ANY ($2::text[])
    """,
    """
    INSERT INTO manifests (repository_id, digest, media_type, config_media_type, config_digest, payload,
                           payload_bytes, total_size)
    SELECT n.id, m.digest, m.media_type, m.config_media_type, m.config_digest, m.payload, m.payload_bytes,
           m.total_size
    FROM repositories AS s JOIN manifests AS m ON m.repository_id = s.id, repositories AS n
    WHERE s.path = $1 AND n.path = ANY ($2::text[])
    """,
    """
    INSERT INTO layers (repository_id, manifest_id, ordinal, digest, size, media_type)
    SELECT n.id, c.id, l.ordinal, l.digest, l.size, l.media_type
    FROM repositories AS s
    JOIN manifests AS m ON m.repository_id = s.id
    JOIN layers AS l ON l.repository_id = m.repository_id AND l.manifest_id = m.id
    JOIN manifests AS c ON c.digest = m.digest
    JOIN repositories AS n ON n.id = c.repository_id
    WHERE s.path = $1 AND n.path = ANY ($2::text[])
    """,
    """
    INSERT INTO tags (repository_id, name, manifest_id)
    SELECT n.id, t.name, c.id
    FROM repositories AS s
    JOIN tags AS t ON t.repository_id = s.id
    JOIN manifests AS m ON m.repository_id = t.repository_id AND m.id = t.manifest_id
    JOIN manifests AS c ON c.digest = m.digest
    JOIN repositories AS n ON n.id = c.repository_id
    WHERE s.path = $1 AND n.path = ANY ($2::text[])
    """,
)


class Ours:
    """See the module."""

    is_guest = False

    def __init__(
        self,
        directory: Path,
        name: str = OURS,
        *,
        environment: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.headers = headers or {}
        self.data = directory / name
        self.blobs = self.data / "objects"
        self.running = Running(
            self.name,
            [*_REGISTRY, "serve", "--local", "--data", str(self.data)],
            clean_environment(REGISTRY_HTTP_ADDR="127.0.0.1:0", **(environment or {})),
            directory / f"{name}.log",
            _url,
        )

    def cpu_seconds(self) -> Use:
        return trees.cpu_seconds(self.running.pid)

    def memory_bytes(self) -> Use:
        return trees.memory_bytes(self.running.pid)

    async def copy_tags(self, repository: str, tag: str, names: Sequence[str]) -> None:
        async with self._database() as database:
            await database.execute(_TAGS, repository, tag, list(names))
            await database.execute("ANALYZE")

    async def copy_repository(self, source: str, names: Sequence[str]) -> None:
        async with self._database() as database:
            async with database.transaction():
                await database.execute(_REPOSITORIES, list(names))
                for statement in _CONTENTS:
                    await database.execute(statement, source, list(names))
            await database.execute("ANALYZE")

    async def add_accounts(self) -> None:
        target = Target(self.socket_directory(), user=DATABASE, database=DATABASE)
        database = await Database.open(target, connections_max=1)
        try:
            await accounts.add(database)
        finally:
            await database.close()

    def socket_directory(self) -> str:
        """Where its PostgreSQL listens. Raises BenchError if it has none."""
        for process in trees.tree(self.running.pid):
            line = Path(f"/proc/{process.pid}/cmdline").read_text(errors="replace")
            if process.program == trees.DATABASE and (found := _SOCKETS.search(line)) is not None:
                return found[1]
        raise BenchError("the registry's PostgreSQL cannot be found among its processes")

    @asynccontextmanager
    async def _database(self) -> AsyncGenerator[Any]:
        connection: Any = await cast("Any", asyncpg).connect(
            host=self.socket_directory(), user=DATABASE, database=DATABASE, timeout=30
        )
        try:
            yield connection
        except asyncpg.PostgresError as error:
            raise BenchError(f"the database does not take what it is to be filled with: {error}") from error
        finally:
            await connection.close()


def _url(said: str) -> str | None:
    found = _READY.search(said)
    return found[1] if found is not None else None
