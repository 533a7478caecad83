"""`registry gc explain`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from app.cli import words
from app.cli.gc.place import Place, paused
from app.cli.settings import config_argument
from app.domain.digest import Algorithm, Digest
from app.domain.errors import RegistryError
from app.domain.names import parse_name, parse_tag
from app.services import gc_explain

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from app.domain.names import Reference, RepositoryName
    from app.services.gc_explain import BlobExplained, Explanation, ManifestExplained, Verdict
    from app.store.gc_holders import Receipt, Reviews, Some

# Something is unused and no review is pending, which should never be.
STRANDED: Final = 3
NOTHING: Final = 1


def _address(_: click.Context, __: click.Parameter, value: str) -> tuple[RepositoryName | None, Reference]:
    try:
        return parse_address(value)
    except RegistryError as error:
        raise click.BadParameter(words.printable(str(error.detail))) from error


def parse_address(text: str) -> tuple[RepositoryName | None, Reference]:
    """What REPOSITORY@DIGEST, REPOSITORY:TAG or DIGEST mean. Raises RegistryError, click.BadParameter."""
    name, at, digest = text.partition("@")
    if at:
        return parse_name(name), Digest.parse(digest)
    name, colon, tag = text.rpartition(":")
    if not colon:
        raise click.BadParameter("expected REPOSITORY@DIGEST, REPOSITORY:TAG or DIGEST")
    if name in {algorithm.label for algorithm in Algorithm}:
        return None, Digest.parse(text)
    return parse_name(name), parse_tag(tag)


@click.command(name="explain")
@click.option("--json", "is_json", is_flag=True, help="Print one JSON document, with exact bytes.")
@click.argument("what", callback=_address, metavar="WHAT")
@config_argument
@click.pass_context
def command(
    context: click.Context,
    *,
    is_json: bool,
    what: tuple[RepositoryName | None, Reference],
    config: Path | None,
) -> None:
    """Say why something is kept, when it goes, or what became of it.

    WHAT is REPOSITORY@DIGEST, REPOSITORY:TAG, or a DIGEST alone, wherever it is. CONFIG is the configuration file that
    serve uses; without it REGISTRY_CONFIGURATION_PATH names it.

    Exit code 1: there is no such thing and never was, as far as the receipts go back. Exit code 3: it is unused but no
    review is pending, so that it will not go by itself, which is a defect.
    """
    place = Place(config)
    keep = place.settings.gc.manifests.keepuntagged
    found = place.observe(lambda observer: gc_explain.explain(observer, *what, keep_untagged=keep))
    if is_json:
        click.echo(words.document(_document(found, place.hindrances)))
    else:
        for line in _lines(found, what, place.hindrances):
            click.echo(line)
    if any(verdict.outcome == "stranded" for verdict in found.verdicts):
        context.exit(STRANDED)
    if not found.verdicts and not found.receipts:
        context.exit(NOTHING)


def _document(found: Explanation, hindrances: tuple[str, ...]) -> dict[str, Any]:
    return {**words.plain(found), "hindrances": list(hindrances)}


def _lines(
    found: Explanation, what: tuple[RepositoryName | None, Reference], hindrances: tuple[str, ...]
) -> Iterator[str]:
    if not found.verdicts:
        yield _missing(found, what)
    for manifest in found.manifests:
        yield from _manifest(manifest, found)
    if found.holders is not None and found.holders.count > len(found.manifests):
        count = words.number(found.holders.count, is_least=found.holders.is_least)
        yield f"{count} repositories have this manifest, of which these are some"
    if found.blob is not None:
        yield from _blob(found.blob, found)
    if found.receipts:
        yield from _receipts(found)
    if any(verdict.outcome == "goes" for verdict in found.verdicts):
        notes = (paused(found.control, found.now),) if found.control.is_paused else ()
        yield from (f"note: {line}" for line in (*notes, *hindrances))


def _missing(found: Explanation, what: tuple[RepositoryName | None, Reference]) -> str:
    name, reference = what
    if name is None:
        return f"there is no manifest and no blob {reference}"
    if not found.has_repository:
        return f"there is no repository {name}"
    if isinstance(reference, Digest):
        return f"{name} has no manifest {reference}, and there is no such blob"
    return f"{name} has no tag {reference}"


def _fields(pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Names and values below each other; a value's further lines are aligned with its first."""
    for name, value in pairs:
        first, *rest = value.split("\n")
        yield f"  {name:<11}{first}".rstrip()
        yield from (f"  {'':<11}{line}" for line in rest)


def _manifest(one: ManifestExplained, found: Explanation) -> Iterator[str]:
    row = one.row
    subject = "none"
    if row.subject is not None:
        subject = f"{row.subject}, which is {'' if one.has_subject else 'not '}there"
    yield f"manifest {one.repository}@{row.digest}"
    yield from _fields(
        (
            ("type", words.printable(row.media_type)),
            ("size", f"{words.mib(row.bytes)}; it names {words.mib(row.needed_bytes)}"),
            ("pushed", _moment(row.created_at, found)),
            ("tags", _some(one.tags, ", ")),
            ("indexes", _some(one.indexes, "\n")),
            ("subject", subject),
            ("referrers", _some(one.referrers, "\n")),
            ("reviews", _reviews(one.reviews, found)),
        )
    )
    yield from _verdict(one.verdict, found)


def _blob(one: BlobExplained, found: Explanation) -> Iterator[str]:
    row = one.row
    yield f"blob {row.digest}"
    yield from _fields(
        (
            ("size", words.mib(row.bytes)),
            ("object", row.storage_key or "lost: the blob counts as absent until somebody pushes it again"),
            ("pushed", _moment(row.created_at, found)),
            ("linked by", _some(one.links, "\n")),
            ("needed by", _some(one.manifests, "\n")),
            ("reviews", _reviews(one.reviews, found)),
        )
    )
    if one.is_linked is False:
        yield f"{found.repository} has no link to it, so that there it does not exist."
    yield from _verdict(one.verdict, found)


def _some(few: Some[Any], separator: str) -> str:
    if not few.count:
        return "none"
    names = separator.join(words.printable(str(one)) for one in few.shown)
    if few.count == len(few.shown):
        return names
    return f"{names}{separator}and more: {words.number(few.count, is_least=few.is_least)} in all"


def _reviews(reviews: Reviews, found: Explanation) -> str:
    if not reviews.pending.count:
        return "none pending"
    lines = [
        f"{review.event}, due {_moment(review.due, found)}"
        + (f", put off {words.many(review.put_off, 'time')}" if review.put_off else "")
        for review in reviews.pending.shown
    ]
    if reviews.pending.count > len(lines):
        lines.append(
            f"and more: {words.number(reviews.pending.count, is_least=reviews.pending.is_least)} in all"
        )
    return "\n".join(lines)


def _verdict(verdict: Verdict, found: Explanation) -> Iterator[str]:
    match verdict.outcome:
        case "kept":
            yield f"kept: {'; '.join(verdict.reasons)}."
        case "goes":
            assert verdict.at is not None
            tense = "due" if verdict.at > found.now else "due since"
            yield f"goes at its next review, {tense} {_moment(verdict.at, found)}: nothing needs it."
        case "stranded":
            yield "unused, but no review is pending: it will not go by itself."
            yield "This is a defect, unless gc.manifests.keepuntagged was set when it was reviewed."
            yield "registry gc suspect has it reviewed."


def _receipts(found: Explanation) -> Iterator[str]:
    yield "deleted before:" if found.verdicts else "deleted:"
    for receipt in found.receipts:
        where = f" of {words.printable(receipt.repository)}" if receipt.repository else ""
        yield f"  {receipt.kind}{where}, {_moment(receipt.deleted_at, found)}"
        size = "unknown" if receipt.bytes is None else words.mib(receipt.bytes)
        pairs = [("why", f"{receipt.event} {_moment(receipt.suspected_at, found)}"), ("size", size)]
        if receipt.kind != "manifest":
            pairs.append(("object", _object(receipt, found)))
        yield from (f"  {line}" for line in _fields(pairs))


def _object(receipt: Receipt, found: Explanation) -> str:
    key = receipt.storage_key
    if key is None:
        return "had been lost"
    if receipt.removed_at is not None:
        return f"{key}, removed {_moment(receipt.removed_at, found)}"
    if receipt.object_due is None:
        return f"{key}, not yet removed"
    tried = f", tried {words.many(receipt.attempts, 'time')}" if receipt.attempts else ""
    return f"{key}, not yet removed: due {_moment(receipt.object_due, found)}{tried}"


def _moment(when: Any, found: Explanation) -> str:
    return f"{words.moment(when)} ({words.since(when, found.now)})"
