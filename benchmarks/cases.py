"""The cases, in the order in which they are measured. docs/performance.md says what each is and what loads it."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from benchmarks import accounts, seeds
from benchmarks.errors import BenchError
from benchmarks.kinds import (
    Case,
    Fetches,
    Gets,
    ImagePushes,
    LargePushes,
    Manifests,
    Memory,
    SmallPushes,
    blob_path,
)
from benchmarks.tokens import FirstLogins, Issues, Refreshes, WithToken

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_PAGE: Final = 100
_LISTINGS_AT_ONCE: Final = 4


def every_case() -> list[Case]:
    """All of them."""
    names = seeds.catalog_names()
    middle = len(names) // 2
    return [
        *_manifest_cases(),
        Gets(
            "blob-get-1k",
            "requests/s",
            needs=("blobs",),
            path=blob_path(seeds.SMALL_BYTES),
            right=lambda body: body == seeds.blob(seeds.SMALL_BYTES),
            answer_bytes=seeds.SMALL_BYTES,
        ),
        Gets(
            "blob-get-1m",
            "MiB/s",
            needs=("blobs",),
            path=blob_path(seeds.MEDIUM_BYTES),
            right=lambda body: body == seeds.blob(seeds.MEDIUM_BYTES),
            answer_bytes=seeds.MEDIUM_BYTES,
        ),
        Fetches("blob-get-256m", "MiB/s", needs=("large blob",), worth=256),
        SmallPushes("blob-push-1k", "pushes/s"),
        LargePushes("blob-push-256m", "MiB/s", worth=256),
        ImagePushes("image-push", "images/s"),
        _tags("tags-100", "few tags", seeds.FEW_TAGS),
        # The peer takes long for each.
        _tags("tags-100k", "many tags", seeds.MANY_TAGS, pace=4.0),
        _catalog("catalog-10k", "", lambda found: len(found) == _PAGE),
        _catalog(
            "catalog-10k-middle",
            f"&last={names[middle]}",
            lambda found: found == names[middle + 1 : middle + 1 + _PAGE],
            pace=2.0,
        ),
        Memory("memory", "MiB", fresh=True),
        *_token_cases(),
    ]


def chosen(patterns: Sequence[str]) -> list[Case]:
    """Those whose name fits one of the patterns; all of them if there is none. Raises BenchError if none fits."""
    every = every_case()
    for pattern in patterns:
        if not any(fnmatchcase(case.name, pattern) for case in every):
            raise BenchError(
                f"no case is called {pattern}; there are {', '.join(case.name for case in every)}"
            )
    return [case for case in every if not patterns or any(fnmatchcase(case.name, p) for p in patterns)]


def _manifest_cases() -> list[Case]:
    return [
        Manifests(
            f"manifest-{method.lower()}-{name}-{connections}",
            "requests/s",
            needs=("images",),
            method=method,
            tags=tags,
            connections=connections,
        )
        for method in ("GET", "HEAD")
        for name, tags in (("hot", 1), ("1000", seeds.TAGS))
        for connections in (16, 64)
    ]


def _token_cases() -> list[Case]:
    return [
        *(
            WithToken(
                f"manifest-get-token-{connections}",
                "requests/s",
                needs=("images",),
                connections=connections,
            )
            for connections in (16, 64)
        ),
        Issues("token-robot", "tokens/s", needs=("accounts",), account=accounts.ROBOT),
        Issues("token-person", "tokens/s", needs=("accounts",), account=accounts.PERSON),
        Issues("token-anonymous", "tokens/s", needs=("accounts",)),
        Refreshes("token-refresh", "tokens/s", needs=("accounts",), account=accounts.PERSON),
        FirstLogins("token-first-login", "ms", needs=("accounts",)),
    ]


def _tags(name: str, need: str, count: int, pace: float = 1.0) -> Case:
    return Gets(
        name,
        "requests/s",
        needs=(need,),
        pace=pace,
        connections=_LISTINGS_AT_ONCE,
        path=f"/v2/{seeds.listed_repository(count)}/tags/list?n={_PAGE}",
        right=lambda body: _is_page(json.loads(body)["tags"], seeds.listed_tags(count)),
    )


def _catalog(name: str, query: str, right: Callable[[list[str]], bool], pace: float = 1.0) -> Case:
    return Gets(
        name,
        "requests/s",
        needs=("catalog",),
        pace=pace,
        connections=_LISTINGS_AT_ONCE,
        path=f"/v2/_catalog?n={_PAGE}{query}",
        right=lambda body: right(json.loads(body)["repositories"]),
    )


def _is_page(tags: list[str], every: list[str]) -> bool:
    """Whether it is the first page, or all of them in whatever order: so the peer answers whatever `n` says."""
    return tags == every[:_PAGE] or sorted(tags) == every
