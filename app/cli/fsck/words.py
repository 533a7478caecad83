"""Findings and the summary of `registry fsck` in words, and as JSON."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

from app.cli.words import line, many, mib, number, plain, printable
from app.services.fsck import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.services.fsck import Finding, Summary

LOOKS_WRONG: Final = (
    "nothing was repaired: storage holds none of the objects that the database names. Is the volume mounted, and is it "
    "the right one? If they are lost indeed, add --all-lost"
)


def sentence(finding: Finding, *, is_repair: bool) -> str:
    """One line: the kind, what is wrong, and what becomes of it."""
    text = _SENTENCES[finding.kind](finding)
    return printable(f"{finding.kind.value}: {text}; {_outcome(finding, is_repair=is_repair)}")


def document(finding: Finding) -> str:
    """The same for machines. Facts that a kind does not have are left out."""
    facts = {field.name: getattr(finding, field.name) for field in fields(finding)}
    facts |= {"kind": finding.kind.value}
    return line({"finding": {name: plain(value) for name, value in facts.items() if value not in (None, ())}})


def summary_document(summary: Summary) -> str:
    """The last line for machines."""
    facts: dict[str, Any] = {field.name: getattr(summary, field.name) for field in fields(summary)}
    facts |= {
        "findings": {kind.value: count for kind, count in summary.findings.items()},
        "seconds": round(summary.seconds, 3),
        "is_clean": summary.is_clean,
    }
    return line({"summary": facts})


def summary_lines(summary: Summary) -> list[str]:
    """The last lines for people."""
    checked = (
        f"checked {many(summary.rows, 'row')}, {many(summary.objects, 'object')} ({mib(summary.object_bytes)}), "
        f"{many(summary.manifests, 'manifest')} and {number(summary.repositories)} "
        f"{'repository' if summary.repositories == 1 else 'repositories'} in {summary.seconds:.1f} s"
    )
    lines = [checked]
    if summary.blobs_read:
        lines.append(f"read {many(summary.blobs_read, 'blob')} ({mib(summary.bytes_read)})")
    if summary.awaited:
        lines.append(f"known as lost before, until they are pushed again: {many(summary.awaited, 'blob')}")
    if summary.is_clean:
        lines.append("nothing is wrong")
    else:
        kinds = ", ".join(f"{number(count)} {kind.value}" for kind, count in summary.findings.items())
        count = many(sum(summary.findings.values()), "finding")
        repaired = f"; {number(summary.repaired)} repaired" if summary.repaired else ""
        lines.append(f"{count}: {kinds}{repaired}")
    return lines


def _bytes(count: int | None) -> str:
    return "nothing" if count is None else many(count, "byte")


def _image(finding: Finding) -> str:
    tags = f"tagged {', '.join(finding.tags)}" if finding.is_tagged else "no tag reaches it"
    return f"{finding.repository}@{finding.manifest} ({tags})"


_SENTENCES: Final[dict[Kind, Callable[[Finding], str]]] = {
    Kind.ORPHAN: lambda f: f"no row names the object {f.key} of {_bytes(f.size)}",
    Kind.STRANGER: lambda f: f"{f.key} ({_bytes(f.size)}) is nothing that the registry has written",
    Kind.LOST: lambda f: f"the object {f.key} of blob {f.digest} ({_bytes(f.expected)}) is gone",
    Kind.WRONG_SIZE: lambda f: (
        f"the object {f.key} of blob {f.digest} has {_bytes(f.size)}, not {number(f.expected or 0)}"
    ),
    Kind.WRONG_CONTENT: lambda f: f"the object {f.key} of blob {f.digest} has other bytes: {f.found}",
    Kind.UNREADABLE: lambda f: f"the object {f.key} of blob {f.digest} cannot be read",
    Kind.NAMED_TWICE: lambda f: f"the object {f.key} is named by {' and '.join(f.holders)}",
    Kind.UPLOAD_DAMAGED: lambda f: (
        f"the object {f.key} of an upload has {_bytes(f.size)}, not {number(f.expected or 0)}"
    ),
    Kind.WRONG_PAYLOAD: lambda f: f"the stored bytes of {_image(f)} are not those of its digest",
    Kind.WRONG_ROWS: lambda f: f"the rows of {_image(f)} say something else than its bytes: {f.what}",
    Kind.BLOB_ABSENT: lambda f: f"{_image(f)} needs blob {f.digest}, which has no row",
    Kind.BLOB_UNLINKED: lambda f: f"{_image(f)} needs blob {f.digest}, which its repository has no link to",
    Kind.BLOB_LOST: lambda f: f"{_image(f)} needs blob {f.digest}, whose object is gone or damaged",
    Kind.BLOB_AWAITED: lambda f: (
        f"{_image(f)} needs blob {f.digest}, which is lost and waits to be pushed again"
    ),
    Kind.CHILD_ABSENT: lambda f: f"{_image(f)} needs manifest {f.digest}, which is not among its children",
    Kind.WRONG_CATALOG: lambda f: f"{f.repository} {f.what}",
}
_REPAIRED: Final = {
    Kind.ORPHAN: "repaired: the collectors delete it in a day",
    Kind.WRONG_CATALOG: "repaired",
}
_LOST: Final = "repaired: the next push of the blob uploads it again"
# What is to be done about what --repair leaves alone.
_REMEDIES: Final = {
    Kind.STRANGER: "left alone",
    Kind.UNREADABLE: "restore it, or look at the disk",
    Kind.NAMED_TWICE: "not repaired: pause garbage collection and see docs/fsck.md",
    Kind.UPLOAD_DAMAGED: "its client has to begin anew; the upload expires by itself",
    Kind.WRONG_PAYLOAD: "delete it and push it again",
    Kind.WRONG_ROWS: "delete it and push it again",
    Kind.BLOB_ABSENT: "push the image again",
    Kind.BLOB_UNLINKED: "push the image again",
    Kind.BLOB_LOST: "repair the blob, then push the image again",
    Kind.BLOB_AWAITED: "push the image again",
    Kind.CHILD_ABSENT: "push the child, then the index again",
}


def _outcome(finding: Finding, *, is_repair: bool) -> str:
    if finding.is_repaired:
        return _REPAIRED.get(finding.kind, _LOST)
    if finding.kind in _REMEDIES:
        return _REMEDIES[finding.kind]
    return "not repaired: see docs/fsck.md" if is_repair else "--repair takes care of it"
