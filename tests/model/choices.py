"""What the rules choose from: labels from fixed lists, so that a failing example reads like a story and shrinks well.

Repositories are named by what comes behind the example's prefix, blobs by content@algorithm, manifests by a tag or by
kind@algorithm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from hypothesis import strategies as st

from app.domain.manifests import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from tests.model.pool import CONTENTS, GHOST, MANIFESTS, SBOM_TYPE
from tests.support.registry import CONFIG_TYPE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.model.player import Player

T = TypeVar("T")
# Each is the beginning of another one, and their order in bytes is none that a dictionary has.
NAMES: Final = ("", "/a", "/a-a", "/a/a")
NEVER: Final = "/never"
TAGS: Final = ("v1", "v10", "V1", "_.-a", "latest")
ACCEPTS: Final[dict[str, tuple[str, ...]]] = {
    "anything": (),
    "all": (OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST),
    "OCI": (OCI_MANIFEST, OCI_INDEX),
    "Docker": (DOCKER_MANIFEST, DOCKER_LIST),
    "Docker without lists": (DOCKER_MANIFEST,),
    "JSON": ("application/json",),
}
RANGES: Final = (
    "bytes=0-0", "bytes=1-3", "bytes=2-", "bytes=-1", "bytes=-5", "bytes=0-99999999", "bytes=9-", "bytes=69999-70000",
    "bytes=70000-", "bytes=65536-65600", "bytes=0-1,4-5", "bytes=-2,0-0", "bytes=0-5,3-", "bytes=1-1,99999-",
    "bytes=5-3", "bytes=-0", "bytes=x-", "bytes=", "items=0-1",
)  # fmt: skip
# Parts of what an upload still lacks.
PARTS: Final = ("nothing", "a byte", "half", "the rest")
STATED: Final = (*["no range"] * 3, *["the right range"] * 3, "too early", "too late", "too long")
CLOSING: Final = (*["right"] * 7, "wrong", "missing", "malformed")
ALGORITHMS: Final = ("sha256", "sha512")
BY: Final = (*ALGORITHMS, "another digest", *TAGS)
SLOTS: Final = (1, 2, 3)
# What has a digest, and the algorithm of the one that is meant.
BLOBS: Final = tuple(f"{label}@{algorithm}" for label in CONTENTS for algorithm in ALGORITHMS)
DIGESTS: Final = tuple(f"{label}@{algorithm}" for label in MANIFESTS for algorithm in ALGORITHMS)
# What an example may have most of.
MOODS: Final = ("everything", "uploads", "pushes", "pulls", "deletes", "lists", "collects")
KINDS: Final = (None, "", SBOM_TYPE, CONFIG_TYPE, "a/b+c", "no/such")

a_name = st.sampled_from(NAMES)
a_content = st.sampled_from(CONTENTS)
a_manifest = st.sampled_from(MANIFESTS)
a_tag = st.sampled_from(TAGS)
an_algorithm = st.sampled_from(("sha256", "sha256", "sha512"))
# The repository through which an upload is asked for, if not its own.
another_name = st.sampled_from((*[None] * 15, *NAMES, NEVER))
any_name = st.sampled_from((None, None, *NAMES, NEVER))
a_limit = st.sampled_from((None, 0, 1, 2, 3, 4, 1000))
a_method = st.sampled_from(("GET", "HEAD"))


def mostly(there: Callable[[Player], Sequence[T]], every: Sequence[T]) -> st.SearchStrategy[T]:
    """Three times out of four something that is there at that moment, else anything."""
    anything = st.sampled_from(every)

    def choose(player: Player) -> st.SearchStrategy[T]:
        found = there(player)
        return (
            st.integers(0, 3).flatmap(lambda n: st.sampled_from(found) if n < 3 else anything)
            if found
            else anything
        )

    return st.runner().flatmap(choose)


a_slot = mostly(lambda player: player.open_slots(), SLOTS)
a_tagged_name = mostly(lambda player: player.tagged_names(), NAMES)
a_blob = mostly(lambda player: player.blobs_there(), [(n, b) for n in NAMES for b in BLOBS])
# From where it is, from where it may not be, and from where nothing is.
a_mountable = st.one_of(
    a_blob,
    mostly(lambda player: player.blobs_somewhere(), [(n, b) for n in NAMES for b in BLOBS]),
    st.tuples(st.sampled_from((*NAMES, NEVER)), st.sampled_from(BLOBS)),
)
a_reference = mostly(
    lambda player: player.references_there(), [(n, r) for n in NAMES for r in (*TAGS, *DIGESTS)]
)
a_subject = mostly(
    lambda player: player.subjects_there(),
    [(n, s) for n in (*NAMES, NEVER) for s in ("image", "index", GHOST)],
)
