"""`registry gc status`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from app.cli import words
from app.cli.gc.place import Place, paused
from app.cli.settings import config_argument
from app.services import gc_status

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from app.services.gc_status import Line, Status
    from app.store.gc_counts import QueueCounts


@click.command(name="status")
@click.option("--json", "is_json", is_flag=True, help="Print one JSON document, with exact bytes.")
@config_argument
def command(*, is_json: bool, config: Path | None) -> None:
    """Say what waits to be reviewed or deleted, what is late, and what was deleted in the last 24 hours.

    CONFIG is the configuration file that serve uses; without it REGISTRY_CONFIGURATION_PATH names it.

    A review is a suspicion that something is unused. OVERDUE: due for more than 24 hours. STUCK: put off more than ten
    times. Of each queue the first million that fall due are counted; what lies behind them is estimated, marked by ~.
    """
    place = Place(config)
    found = place.observe(gc_status.status)
    if is_json:
        click.echo(words.document(_document(found, place.hindrances)))
        return
    for line in lines(found, place.hindrances):
        click.echo(line)


def _document(found: Status, hindrances: tuple[str, ...]) -> dict[str, Any]:
    return {
        "now": words.plain(found.now),
        "paused": found.control.is_paused,
        "paused_since": words.plain(found.control.changed_at) if found.control.is_paused else None,
        "paused_reason": found.control.reason if found.control.is_paused else None,
        "hindrances": list(hindrances),
        "overdue": found.overdue,
        "review_delays_seconds": words.plain(found.delays),
        "manifests": words.plain(found.manifests),
        "blobs": words.plain(found.blobs),
        "objects": words.plain(found.objects),
        "deleted_24h": {"is_partial": found.is_deleted_partial, "groups": words.plain(found.deleted)},
    }


def lines(found: Status, hindrances: tuple[str, ...]) -> Iterator[str]:
    """The status as text."""
    yield paused(found.control, found.now)
    yield from hindrances
    if found.overdue:
        yield f"{words.many(found.overdue, 'review')} overdue for more than 24 hours; the view gc_overdue lists them"
    yield from _queue("reviews of manifests", found.manifests, found)
    yield from _queue("reviews of blobs", found.blobs, found)
    yield from _objects(found)
    yield from _deleted(found)
    yield from _delays(found)


def _title(name: str, line: Line[Any]) -> str:
    if not line.is_partial:
        return f"{name}: {words.number(line.total)}"
    counted = sum(group.waiting for group in line.groups)
    return (
        f"{name}: ~{words.number(line.total)} (the {words.number(counted)} that fall due first are counted)"
    )


def _queue(name: str, line: Line[QueueCounts], found: Status) -> Iterable[str]:
    yield ""
    yield _title(name, line)
    if line.groups:
        yield from words.table(
            ("EVENT", "REVIEWS>", "DUE>", "OVERDUE>", "STUCK>", "NEXT DUE>"),
            (
                (
                    words.printable(group.event),
                    *(words.number(n) for n in (group.reviews, group.due, group.overdue, group.stuck)),
                    words.since(group.next_due, found.now),
                )
                for group in line.groups
            ),
        )


def _objects(found: Status) -> Iterable[str]:
    yield ""
    yield _title("objects to delete from storage", found.objects)
    if found.objects.groups:
        yield from words.table(
            ("REASON", "OBJECTS>", "DUE>", "SIZE>", "ATTEMPTS>", "NEXT DUE>"),
            (
                (
                    group.reason,
                    words.number(group.objects),
                    words.number(group.due),
                    words.mib(group.bytes),
                    words.number(group.attempts),
                    words.since(group.next_due, found.now),
                )
                for group in found.objects.groups
            ),
        )


def _deleted(found: Status) -> Iterable[str]:
    count = sum(group.deleted for group in found.deleted)
    yield ""
    yield f"deleted in the last 24 hours: {words.number(count, is_least=found.is_deleted_partial)}"
    if found.deleted:
        yield from words.table(
            ("KIND", "DELETED>", "SIZE>", "STILL IN STORAGE>"),
            (
                (
                    group.kind,
                    words.number(group.deleted),
                    words.mib(group.bytes),
                    words.mib(group.pending_bytes) if group.pending else "-",
                )
                for group in found.deleted
            ),
        )


def _delays(found: Status) -> Iterable[str]:
    yield ""
    if len(set(found.delays.values())) == 1:
        yield f"reviews fall due {words.span(next(iter(found.delays.values())))} after the event"
        return
    yield "reviews fall due after"
    yield from words.table(
        ("EVENT", "DELAY>"), ((event, words.span(delay)) for event, delay in found.delays.items())
    )
