"""Every manifest: its bytes are what its digest says, its rows what its bytes say, what it needs is there (I1).

Those that no tag reaches too, since they can be pulled by digest; a finding says which it is.

A page comes from one moment, in which a manifest is whole or is not: no transaction leaves half of one. What looks
wrong is read once more all the same, and told if it is still wrong in the same way.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from app.domain.digest import Digest
from app.domain.errors import RegistryError
from app.domain.manifests import parse_manifest
from app.services.fsck.findings import Finding, Kind, Phase
from app.store import census

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from app.domain.manifests import Descriptor, Manifest
    from app.services.fsck.ledger import Ledger
    from app.store.census import ManifestRow
    from app.store.engine import Database

PAGE: Final = 500
PAGE_BYTES_MAX: Final = 16 * 1024 * 1024


@dataclass(frozen=True)
class Fault:
    """Something wrong with a manifest: which blob or child, or what of its rows."""

    kind: Kind
    digest: Digest | None = None
    what: str | None = None


async def check_manifests(
    database: Database, ledger: Ledger, is_required: Callable[[Descriptor], bool]
) -> None:
    """Walk through all of them. `is_required`: whether that child of an index must be there."""
    ledger.began(Phase.MANIFESTS, await database.read(census.manifests_about))
    repository_id = manifest_id = 0
    while page := await _page(database, repository_id, manifest_id, PAGE):
        repository_id, manifest_id = page[-1].repository_id, page[-1].id
        for row in page:
            if suspected := set(faults(row, is_required, ledger.lost)):
                ledger.summary.suspicions += len(suspected)
                await _look_again(database, ledger, row, suspected, is_required)
        ledger.summary.manifests += len(page)
        ledger.advanced(len(page))


def faults(row: ManifestRow, is_required: Callable[[Descriptor], bool], lost: set[bytes]) -> Iterator[Fault]:
    """What is wrong with it. `lost`: blobs that this run has found without their bytes."""
    digest = Digest.unpack(row.digest)
    if Digest.of(row.payload, digest.algorithm) != digest:
        yield Fault(Kind.WRONG_PAYLOAD)
    else:
        try:
            manifest = parse_manifest(row.payload, row.media_type)
        except RegistryError as error:
            yield Fault(Kind.WRONG_ROWS, what=f"the media type, or the bytes cannot be read: {error.detail}")
        else:
            if wrong := ", ".join(_differences(row, manifest)):
                yield Fault(Kind.WRONG_ROWS, what=wrong)
            yield from _absent_children(row, manifest, is_required)
    for kind, digests in (
        (Kind.BLOB_ABSENT, row.absent),
        (Kind.BLOB_UNLINKED, row.unlinked),
        (Kind.BLOB_LOST, sorted(lost.intersection(_needs(row)).difference(row.lost))),
        (Kind.BLOB_AWAITED, row.lost),
    ):
        for packed in digests:
            yield Fault(kind, Digest.unpack(packed))


def _needs(row: ManifestRow) -> list[bytes]:
    return row.layers if row.config_digest is None else [*row.layers, row.config_digest]


def _differences(row: ManifestRow, manifest: Manifest) -> Iterator[str]:
    """What the rows say otherwise than the bytes."""
    config = manifest.config
    layers = [layer for layer in manifest.layers if not layer.is_foreign]
    compared = {
        "the config": (row.config_digest, config.digest.packed if config else None),
        "the config's media type": (row.config_media_type, config.media_type if config else None),
        "the layers": (
            list(zip(row.layers, row.layer_sizes, strict=True)),
            [(layer.digest.packed, layer.size) for layer in layers],
        ),
        "the subject": (row.subject_digest, manifest.subject.packed if manifest.subject else None),
        "the artifact type": (row.artifact_type, manifest.artifact_type),
        "the payload's size": (row.payload_bytes, len(row.payload)),
        "the image's size": (row.total_size, manifest.size_bytes),
    }
    for what, (stored, stated) in compared.items():
        if stored != stated:
            yield what
    if Counter(row.children) - Counter({child.digest.packed for child in manifest.children}):
        yield "the children"


def _absent_children(
    row: ManifestRow, manifest: Manifest, is_required: Callable[[Descriptor], bool]
) -> Iterator[Fault]:
    stated = {child.digest.packed: child for child in manifest.children}
    for packed in stated.keys() - set(row.children):
        if is_required(stated[packed]):
            yield Fault(Kind.CHILD_ABSENT, stated[packed].digest)


async def _page(database: Database, repository_id: int, manifest_id: int, limit: int) -> list[ManifestRow]:
    return await database.read(
        lambda c: census.manifests(c, repository_id, manifest_id, limit=limit, bytes_max=PAGE_BYTES_MAX)
    )


async def _look_again(
    database: Database,
    ledger: Ledger,
    row: ManifestRow,
    suspected: set[Fault],
    is_required: Callable[[Descriptor], bool],
) -> None:
    now = await _page(database, row.repository_id, row.id - 1, 1)
    if not now or (now[0].repository_id, now[0].id) != (row.repository_id, row.id):
        return
    tags = await database.read(lambda c: census.tags_above(c, row.repository_id, row.id))
    for fault in faults(now[0], is_required, ledger.lost):
        # A lost blob that nothing tagged needs goes with the manifest, or comes back with a push.
        if fault in suspected and (tags or fault.kind not in (Kind.BLOB_LOST, Kind.BLOB_AWAITED)):
            ledger.found(
                Finding(
                    kind=fault.kind,
                    digest=fault.digest,
                    what=fault.what,
                    repository=row.path,
                    manifest=Digest.unpack(row.digest),
                    is_tagged=bool(tags),
                    tags=tuple(tags),
                )
            )
