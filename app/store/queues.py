"""How the queues of garbage collection stand, at a cost that does not grow with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import func, literal_column, select, union_all
from sqlalchemy.types import Text

from app.store.statements import Statement
from app.store.tables import gc_blob_review_queue, gc_manifest_review_queue, gc_storage_deletions

if TYPE_CHECKING:
    from app.store.engine import Connection

# Nobody acts differently on a million than on this, and counting a million takes a tenth of a second.
COUNTED_MAX: Final = 100_000


@dataclass(frozen=True)
class QueueState:
    """A queue: how many of it are due (COUNTED_MAX: or more), and for how long the oldest has been (0: none is)."""

    queue: str
    due: int
    oldest_due_seconds: float


def _state(name: str, moment: Any) -> Any:
    due = (
        select(moment.label("moment"))
        .where(moment <= func.now())
        .order_by(moment)
        .limit(literal_column(str(COUNTED_MAX)))
        .subquery(f"due_{name}")
    )
    age = func.coalesce(func.extract("epoch", func.now() - func.min(due.c.moment)), literal_column("0"))
    return select(
        literal_column(f"'{name}'", Text).label("queue"), func.count().label("due"), age.label("age")
    )


STATES: Final = Statement(
    "queues.states",
    union_all(
        _state("manifests", gc_manifest_review_queue.c.review_after),
        _state("blobs", gc_blob_review_queue.c.review_after),
        _state("objects", gc_storage_deletions.c.not_before),
    ),
)


async def states(c: Connection) -> list[QueueState]:
    """Both review queues and the tombstones."""
    return [QueueState(queue, due, float(age)) for queue, due, age in await c.all(STATES)]
