"""The check of everything (`registry fsck`), while the registry and its collectors work.

    check(...)      objects, contents if wanted, manifests, catalog, in this order
    findings        what it can find
    verdicts        when a suspicion about an object is proven, and what is repaired

Objects come first: what is repaired there the manifests' walk then names, with the images that need it.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

from app.services.fsck.catalog import check_catalog
from app.services.fsck.contents import Contents
from app.services.fsck.findings import Finding, Kind, Listener, Phase, StorageLooksWrong, Summary
from app.services.fsck.ledger import Ledger
from app.services.fsck.manifests import check_manifests
from app.services.fsck.objects import compare_objects
from app.services.fsck.verdicts import Verdicts

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.blobs.driver import Driver
    from app.domain.manifests import Descriptor
    from app.runtime.threads import Threads
    from app.store.engine import Database, Target

__all__ = ["Finding", "Kind", "Listener", "Phase", "Plan", "StorageLooksWrong", "Summary", "check"]


def _every_child(child: Descriptor) -> bool:
    del child
    return True


@dataclass(frozen=True)
class Plan:
    """What to do. `share` of the blobs are read and hashed, 1 being all.

    `is_loss_believed`: repair although storage holds nothing that the database names. `is_required` says which
    children of an index must be there.
    """

    share: float = 0.0
    repair: bool = False
    is_loss_believed: bool = False
    is_required: Callable[[Descriptor], bool] = _every_child


async def check(
    *, target: Target, database: Database, driver: Driver, hashers: Threads, plan: Plan, listener: Listener
) -> Summary:
    """Check everything. Raises Unavailable, StorageError; StorageLooksWrong before anything is repaired."""
    began = monotonic()
    ledger = Ledger(listener)
    verdicts = Verdicts(database, driver, hashers, ledger, repair=plan.repair)
    if plan.repair and not plan.is_loss_believed:
        await verdicts.ensure_storage_is_right()
    await compare_objects(target, database, driver, verdicts, ledger)
    if plan.share:
        await Contents(database, driver, hashers, verdicts, ledger).check(plan.share)
    await check_manifests(database, ledger, plan.is_required)
    await check_catalog(database, ledger, repair=plan.repair)
    ledger.summary.seconds = monotonic() - began
    return ledger.summary
