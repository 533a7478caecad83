"""`storage`: exactly one driver, and what is allowed with what lies in it."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final

from pydantic import model_validator

from app.config.objectstores import S3, Azure, Gcs  # noqa: TC001
from app.config.section import Section, Status, facts, section, setting
from app.config.values import (
    Duration,
    Flag,
    FreeMap,
    Text,
    Texts,
    Whole,
    at_least,
    checked,
    refusal,
    span,
)

REFUSED: Final = "not supported yet; `registry serve` refuses to start with it"
_THREADS_LEAST: Final = 25


class Filesystem(Section):
    """`storage.filesystem`."""

    rootdirectory: Annotated[
        Text, checked(lambda text: None if text.strip() else "must name a directory")
    ] = setting("Directory that holds the blobs.", default="/var/lib/registry")
    maxthreads: Annotated[Whole, at_least(_THREADS_LEAST)] = setting(
        "File operations under way at once, per process; fewer than 25 count as 25.", default=100
    )


class InMemory(Section):
    """`storage.inmemory`."""


class Delete(Section):
    """`storage.delete`."""

    enabled: Flag = setting("Allow manifests and blobs to be deleted.", default=False)


class Redirect(Section):
    """`storage.redirect`."""

    disable: Flag = setting(
        "Never send clients to the storage: the drivers served now never do.",
        default=False,
        status=Status.IGNORED,
    )
    expirydelay: Duration = setting("How long a redirect's URL holds.", default=span("20m"))
    exceptions: Texts = setting("Patterns of repositories that are not redirected.", default=())


class Cache(Section):
    """`storage.cache`."""

    blobdescriptor: Text = setting("`redis` or `inmemory`.", default="")
    blobdescriptorsize: Whole = setting("Entries of the cache in memory.", default=10000)
    layerinfo: Text = setting("The old name of `blobdescriptor`.", default="")


class UploadPurging(Section):
    """`storage.maintenance.uploadpurging`."""

    enabled: Flag = setting("Remove uploads that were given up.", default=True)
    age: Duration = setting("How old they must be.", default=span("168h"))
    interval: Duration = setting(
        "How often to look; here the collectors look when the oldest is due.",
        default=span("24h"),
        status=Status.IGNORED,
    )
    dryrun: Flag = setting("Remove nothing; `registry gc plan` says what would be removed.", default=False)


class ReadOnly(Section):
    """`storage.maintenance.readonly`."""

    enabled: Flag = setting("Refuse every write (405); reads go on.", default=False)


class Maintenance(Section):
    """`storage.maintenance`."""

    uploadpurging: UploadPurging = section(UploadPurging, "Removal of old uploads.")
    readonly: ReadOnly = section(ReadOnly, "Read-only mode.")


class TagLookup(Section):
    """`storage.tag`."""

    concurrencylimit: Whole = setting(
        "Link files read at once in Distribution; here tags are in the database.", default=0
    )


class Storage(Section):
    """`storage`."""

    by_name: ClassVar[bool] = True

    filesystem: Filesystem | None = setting("A directory.", default=None)
    inmemory: InMemory | None = setting(
        "Memory, for tests: everything is gone at the end. Takes no keys.", default=None
    )
    s3: S3 | None = setting(
        "Amazon S3 and what speaks its API.", default=None, status=Status.LATER, note=REFUSED
    )
    s3aws: S3 | None = setting(
        "The same as `storage.s3`.", default=None, status=Status.LATER, note=REFUSED, same_as="storage.s3"
    )
    s3_v2: S3 | None = setting(
        "The same as `storage.s3`.", default=None, status=Status.LATER, note=REFUSED, same_as="storage.s3"
    )
    gcs: Gcs | None = setting("Google Cloud Storage.", default=None, status=Status.LATER, note=REFUSED)
    azure: Azure | None = setting("Azure Blob Storage.", default=None, status=Status.LATER, note=REFUSED)
    azure_v2: Azure | None = setting(
        "The same as `storage.azure`.",
        default=None,
        status=Status.LATER,
        note=REFUSED,
        same_as="storage.azure",
    )
    swift: FreeMap | None = setting(
        "OpenStack Swift, of Distribution v2.", default=None, status=Status.LATER, note=REFUSED, hidden=True
    )
    oss: FreeMap | None = setting(
        "Alibaba OSS, of Distribution v2.", default=None, status=Status.LATER, note=REFUSED, hidden=True
    )
    delete: Delete = section(Delete, "Deletion.")
    maintenance: Maintenance = section(Maintenance, "Upkeep.")
    redirect: Redirect = section(Redirect, "Redirects to the storage.", status=Status.LATER)
    cache: Cache = section(Cache, "Distribution's cache; here that is the database.", status=Status.IGNORED)
    tag: TagLookup = section(TagLookup, "Tag lookup.", status=Status.IGNORED)

    @model_validator(mode="after")
    def _one_driver(self) -> Storage:
        chosen = self._chosen()
        if not chosen:
            raise refusal("names no driver; write filesystem: and its rootdirectory")
        if len(chosen) > 1:
            raise refusal(
                f"names {len(chosen)} drivers ({', '.join(chosen)}); keep one "
                "(to replace the file's driver by a variable, set REGISTRY_STORAGE to the new one's name)"
            )
        return self

    def _chosen(self) -> list[str]:
        return [name for name in DRIVER_NAMES if getattr(self, name) is not None]

    @property
    def driver(self) -> str:
        """The driver's own name: `s3` also for `s3aws` and `s3_v2`."""
        name = self._chosen()[0]
        return facts(type(self).model_fields[name]).same_as.removeprefix("storage.") or name

    @property
    def parameters(self) -> dict[str, Any]:
        """The driver's section, defaults filled in."""
        chosen = getattr(self, self._chosen()[0])
        return dict(chosen)


DRIVER_NAMES: Final = (
    "filesystem",
    "inmemory",
    "s3",
    "s3aws",
    "s3_v2",
    "gcs",
    "azure",
    "azure_v2",
    "swift",
    "oss",
)
SERVED_DRIVERS: Final = frozenset({"filesystem", "inmemory"})
