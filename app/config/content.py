"""`validation`, `policy`, `catalog`, `tags`, `health`: what is accepted, listed and watched."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from app.config.section import Section, Status, section, setting
from app.config.values import Count, Flag, Pattern, Span, Text, Texts, Whole, folded, span, zero_means

_ENTRIES: Final = 1000
_INTERVAL: Final = span("10s")
_TIMEOUT: Final = span("5s")

Interval = Annotated[Span, zero_means(_INTERVAL)]
Threshold = Annotated[Count, zero_means(1)]
Platforms = Annotated[Literal["all", "none", "list"], folded()]


class Catalog(Section):
    """`catalog`."""

    maxentries: Annotated[Whole, zero_means(_ENTRIES)] = setting(
        "Repositories in one answer at most.", default=_ENTRIES
    )
    open: Flag = setting(
        "Whoever is let in at all may list the repositories, without a right to `registry:catalog:*`.",
        default=False,
    )


class Tags(Section):
    """`tags`."""

    maxtags: Annotated[Whole, zero_means(_ENTRIES)] = setting("Tags in one answer at most.", default=_ENTRIES)


class Urls(Section):
    """`validation.manifests.urls`."""

    allow: tuple[Pattern, ...] = setting(
        "Patterns (RE2) of which each URL in a manifest must match one. With neither `allow` nor `deny` any URL "
        "may be there, as OCI wants it (Distribution then refuses them all).",
        default=(),
    )
    deny: tuple[Pattern, ...] = setting("Patterns (RE2) that no URL in a manifest may match.", default=())


class Platform(Section):
    """An item of `validation.manifests.indexes.platformlist`."""

    architecture: Text = setting("Architecture, such as `amd64`.", default="")
    os: Text = setting("Operating system, such as `linux`.", default="")


class Indexes(Section):
    """`validation.manifests.indexes`."""

    platforms: Platforms = setting(
        "Which images of an index must exist when it is pushed: `all`, `none`, or those in the `list`.",
        default="all",
    )
    platformlist: tuple[Platform, ...] = setting("The platforms, for `list`.", default=())


class Manifests(Section):
    """`validation.manifests`."""

    urls: Urls = section(Urls, "URLs in manifests.")
    indexes: Indexes = section(Indexes, "Images of an index.")
    referencelimit: Count = setting(
        "Blobs and manifests that one manifest may refer to; 0 is no limit.", default=0
    )
    payloadsizelimit: Count = setting(
        "Bytes of a manifest at most; 0 leaves the 4 MiB that hold for all.", default=0
    )


class Validation(Section):
    """`validation`."""

    disabled: Flag = setting("Check none of this.", default=False)
    enabled: Flag | None = setting(
        "The old opposite of `disabled`.",
        default=None,
        status=Status.DEPRECATED,
        note="deprecated and without effect; use validation.disabled",
    )
    manifests: Manifests = section(Manifests, "Manifests.")


class RepositoryPolicy(Section):
    """`policy.repository`."""

    classes: Texts = setting("Kinds of content allowed: `image`, `plugin`.", default=())


class Policy(Section):
    """`policy`."""

    repository: RepositoryPolicy = section(RepositoryPolicy, "Repositories.", status=Status.LATER)


class StorageHealth(Section):
    """`health.storagedriver`."""

    enabled: Flag = setting(
        "Watch the storage: done always, at each request of `/debug/health`.",
        default=False,
        status=Status.IGNORED,
    )
    interval: Interval = setting("How often.", default=_INTERVAL, status=Status.IGNORED)
    threshold: Threshold = setting("Failures in a row that make the registry unhealthy.", default=1)


class DatabaseHealth(Section):
    """`health.database`."""

    enabled: Flag = setting(
        "Watch the database: done always, at each request of `/debug/health`.",
        default=False,
        status=Status.IGNORED,
    )
    interval: Interval = setting("How often.", default=_INTERVAL, status=Status.IGNORED)
    threshold: Threshold = setting("Failures in a row that make the registry unhealthy.", default=1)
    timeout: Annotated[Span, zero_means(_TIMEOUT)] = setting(
        "How long a check may take; here always 5s.", default=_TIMEOUT, status=Status.IGNORED
    )


class FileHealth(Section):
    """An item of `health.file`."""

    file: Text = setting("Unhealthy while this file exists.", default="")
    interval: Interval = setting("How often.", default=_INTERVAL)
    threshold: Threshold = setting("Failures in a row.", default=1)


class HttpHealth(Section):
    """An item of `health.http`."""

    uri: Text = setting("URL that must answer a HEAD request.", default="", hidden=True)
    headers: dict[str, Texts] = setting("Headers of the request.", default={}, hidden=True)
    statuscode: Whole = setting("Status that it must answer with.", default=200)
    timeout: Span = setting("How long it may take.", default=span("0s"))
    interval: Interval = setting("How often.", default=_INTERVAL)
    threshold: Threshold = setting("Failures in a row.", default=1)


class TcpHealth(Section):
    """An item of `health.tcp`."""

    addr: Text = setting("Address that must accept a connection.", default="")
    timeout: Span = setting("How long it may take.", default=span("0s"))
    interval: Interval = setting("How often.", default=_INTERVAL)
    threshold: Threshold = setting("Failures in a row.", default=1)


class Health(Section):
    """`health`."""

    storagedriver: StorageHealth = section(StorageHealth, "The storage.")
    database: DatabaseHealth = section(DatabaseHealth, "The database.")
    file: tuple[FileHealth, ...] = setting("Files.", default=(), status=Status.LATER)
    http: tuple[HttpHealth, ...] = setting("URLs.", default=(), status=Status.LATER)
    tcp: tuple[TcpHealth, ...] = setting("Addresses.", default=(), status=Status.LATER)
