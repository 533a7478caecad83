"""The shortest round trip: what was pushed is what is pulled."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.support.registry import open_registry

if TYPE_CHECKING:
    from pathlib import Path

    from app.store.engine import Target


def test_image_when_pushed_then_pulled_byte_by_byte(database: Target, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_registry(database, tmp_path) as registry:
            image = await registry.push_image("a/b", "latest")
            answer = await registry.client.get("/v2/a/b/manifests/latest")
            assert answer.status_code == 200
            assert answer.content == image.payload
            assert answer.headers["Docker-Content-Digest"] == image.digest()

    asyncio.run(scenario())
