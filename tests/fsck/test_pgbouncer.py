"""The check behind PgBouncer in transaction mode: a cursor lives in one transaction, no statement outlives one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from app.services.fsck import Kind
from app.store import census
from tests.store.test_pgbouncer import bouncer  # noqa: F401 - a fixture
from tests.support.fsck import run_fsck
from tests.support.registry import image, open_registry

if TYPE_CHECKING:
    from pathlib import Path

    from app.store.engine import Target

pytestmark = pytest.mark.needs("pgbouncer")


def test_fsck_when_it_is_behind_pgbouncer_then_it_finds_and_repairs_the_same(
    bouncer: Target,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(census, "ROWS_PER_FETCH", 4)

    async def scenario() -> None:
        async with open_registry(bouncer, tmp_path, prepared_statements=False) as registry:
            pushed = await registry.push_image("a/b", "latest", image(*(b"%d" % n for n in range(20))))
            for _ in range(3):
                result = await run_fsck(bouncer, registry.driver, prepared_statements=False, share=1.0)
                assert result.findings == []
                assert result.summary.objects == len(pushed.blobs)
            rows = await registry.rows("SELECT storage_key FROM blobs LIMIT 1")
            (tmp_path / rows[0]["storage_key"]).unlink()
            result = await run_fsck(bouncer, registry.driver, prepared_statements=False, repair=True)
            assert result.kinds == ["blob_awaited", "lost"]
            assert result.one(Kind.LOST).is_repaired

    asyncio.run(scenario())
