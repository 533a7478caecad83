"""Whether each repository is listed in the catalog exactly while it has tags.

A delete of the last tag takes the repository out in a transaction of its own, just after; so what is listed without
tags is looked at a few times before it counts.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from app.services.fsck.findings import Finding, Kind, Phase
from app.store import census, repositories

if TYPE_CHECKING:
    from app.services.fsck.ledger import Ledger
    from app.store.census import Repository
    from app.store.engine import Database

PAGE: Final = 1000
LOOKS: Final = 4
LOOK_SECONDS: Final = 0.25


async def check_catalog(database: Database, ledger: Ledger, *, repair: bool) -> None:
    """Walk through all repositories."""
    ledger.began(Phase.CATALOG, 0)
    last = 0
    while page := await _page(database, last, PAGE):
        last = page[-1].id
        suspects = [one for one in page if one.has_tags != one.tagged]
        ledger.summary.suspicions += len(suspects)
        for wrong in await _still_wrong(database, suspects):
            await _settle(database, ledger, wrong, repair=repair)
        ledger.summary.repositories += len(page)
        ledger.advanced(len(page))


async def _page(database: Database, after: int, limit: int) -> list[Repository]:
    return await database.read(lambda c: census.catalog(c, after, limit))


async def _still_wrong(database: Database, suspects: list[Repository]) -> list[Repository]:
    for _ in range(LOOKS):
        if suspects:
            await asyncio.sleep(LOOK_SECONDS)
        suspects = [one for one in suspects if one in await _page(database, one.id - 1, 1)]
    return suspects


async def _settle(database: Database, ledger: Ledger, wrong: Repository, *, repair: bool) -> None:
    if repair:
        if wrong.tagged:
            await database.write(lambda c: census.list_repository(c, wrong.id))
        await database.write(lambda c: repositories.settle_has_tags(c, wrong.id))
    what = "has tags and is not listed" if wrong.tagged else "is listed and has no tags"
    ledger.found(
        Finding(kind=Kind.WRONG_CATALOG, repository=wrong.path, what=what, is_repaired=repair),
    )
