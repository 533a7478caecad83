"""`registry gc plan`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from app.cli import words
from app.cli.gc.place import Place, paused
from app.cli.settings import config_argument
from app.services.gc_plan import Plan, PlanRules
from app.store import gc_counts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from app.services.gc_plan import Going
    from app.store.gc_counts import Control
    from app.store.observing import Observer


@click.command(name="plan")
@click.option(
    "--json", "is_json", is_flag=True, help="Print one JSON document per line; the last one is the sum."
)
@click.option(
    "--limit", type=click.IntRange(min=0), help="Stop after so many of each kind.  [default: list all]"
)
@config_argument
def command(*, is_json: bool, limit: int | None, config: Path | None) -> None:
    """Say what would be deleted now, how many bytes that frees, and why. Nothing is deleted.

    CONFIG is the configuration file that serve uses; without it REGISTRY_CONFIGURATION_PATH names it.

    Each line is a manifest, a blob, an object in storage or an upload that was given up: its bytes, what made it
    suspect, when that was, and its name. The judgement is the collectors' own, made without locks, so that what happens
    meanwhile may change it.
    """
    place = Place(config)
    rules = PlanRules(place.settings.gc.manifests.keepuntagged, place.upload_age)
    tell = _tell_json if is_json else _tell

    async def work(observer: Observer) -> None:
        now = await observer.look(gc_counts.now)
        plan = Plan(observer, rules, limit)
        is_headed = False
        async for one in plan.going():
            if not (is_json or is_headed):
                click.echo(_HEAD)
                is_headed = True
            click.echo(tell(one))
        control = await observer.look(gc_counts.control)
        if is_json:
            click.echo(words.line(_sum_document(plan, control, place.hindrances)))
            return
        for line in _sum(plan):
            click.echo(line)
        for line in (*([paused(control, now)] if control.is_paused else []), *place.hindrances):
            click.echo(f"note: {line}")

    place.observe(work)


# Widths that hold all but the largest, since lines are printed as they are found.
_LINE: Final = "{:<8}  {:>14}  {:<20}  {:<23}  {}"
_HEAD: Final = _LINE.format("KIND", "SIZE", "WHY", "SINCE", "NAME")


def _tell(one: Going) -> str:
    size, since = words.mib(one.bytes), words.moment(one.since)
    return _LINE.format(one.kind, size, one.event, since, words.printable(one.name))


def _tell_json(one: Going) -> str:
    return words.line(words.plain(one))


def _sum_document(plan: Plan, control: Control, hindrances: tuple[str, ...]) -> dict[str, Any]:
    return {
        "kind": "sum",
        "is_cut": plan.is_cut,
        "count": sum(one.count for one in plan.sums.values()),
        "bytes": sum(one.bytes for one in plan.sums.values()),
        "later_bytes_max": plan.later_bytes,
        "needless_reviews": plan.needless,
        "keep_untagged": plan.rules.keep_untagged,
        "paused": control.is_paused,
        "hindrances": list(hindrances),
        "groups": [
            {"kind": kind, "event": event, "count": one.count, "bytes": one.bytes}
            for (kind, event), one in plan.sums.items()
        ],
    }


def _sum(plan: Plan) -> Iterator[str]:
    if plan.sums:
        yield ""
        yield from words.table(
            ("KIND", "WHY", "COUNT>", "SIZE>"),
            (
                (kind, event, words.number(one.count), words.mib(one.bytes))
                for (kind, event), one in plan.sums.items()
            ),
            indent="",
        )
        yield ""
    else:
        yield "nothing would be deleted now"
    if plan.is_cut:
        yield "stopped at --limit: there is more"
    if plan.later_bytes:
        yield f"later: up to {words.mib(plan.later_bytes)} of blobs, which become suspect once these manifests are gone"
    if plan.needless:
        yield f"{words.many(plan.needless, 'due review')} will find nothing to delete"
    if plan.rules.keep_untagged:
        yield "gc.manifests.keepuntagged is set: no manifest is deleted"
    if plan.rules.upload_age is None:
        yield "storage.maintenance.uploadpurging is off: no upload is given up"
