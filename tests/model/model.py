"""A container registry in plain Python: dictionaries, and for every request the one right answer.

It knows the OCI distribution specification and the registry's documents, not its code. A method that changes something
says what the client must be told and does it; the others only say. The parts of an answer that the server is free to
choose, such as the id of an upload, are given to the method.

What garbage collection takes, and when, the model leaves open within bounds (`may_go`, `must_go`); `lose` tells it what
has gone, and from then on it is sure of every answer again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote_plus

from app.domain.manifests import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from tests.model.answers import ANY_LENGTH, Expected, done, listing, refusal
from tests.model.keeping import HOUR, Keeping
from tests.model.spans import NOTHING, WHOLE, spans
from tests.support.registry import digest_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.model.pool import Manifest

# What the registry under test is told; small, so that a few entries make several pages.
TAGS_MAX: Final = 3
CATALOG_MAX: Final = 3
DELAY_SECONDS: Final = HOUR
OCTETS: Final = "application/octet-stream"
_BOUNDARY: Final = re.compile(r"multipart/byteranges; boundary=[0-9a-f]{32}")
_MANIFESTS: Final = frozenset({OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST})


@dataclass(frozen=True)
class Chunk:
    """A request's body. `first` and `last` are what Content-Range says, `announced` whether Content-Length is there."""

    content: bytes = b""
    first: int | None = None
    last: int = 0
    announced: bool = True

    @property
    def fits(self) -> bool:
        """Whether there are as many bytes as Content-Range says."""
        return self.first is None or self.last - self.first + 1 == len(self.content)


@dataclass
class Stored:
    """A manifest that was pushed; `arrival` orders them all."""

    manifest: Manifest
    arrival: int


@dataclass
class Repository:
    """What one repository has, by digest, by tag and by the id of an upload."""

    blobs: dict[str, bytes] = field(default_factory=dict[str, bytes])
    manifests: dict[str, Stored] = field(default_factory=dict[str, Stored])
    tags: dict[str, str] = field(default_factory=dict[str, str])
    uploads: dict[str, bytes] = field(default_factory=dict[str, bytes])

    def needs(self, digest: str) -> bool:
        """Whether a manifest needs the blob."""
        return any(digest in stored.manifest.blobs for stored in self.manifests.values())

    def has_as_child(self, digest: str) -> bool:
        """Whether an index needs the manifest."""
        return any(digest in stored.manifest.children for stored in self.manifests.values())

    def missing(self, manifest: Manifest) -> list[str]:
        """What the manifest needs and is not here."""
        absent = [digest for digest in manifest.blobs if digest not in self.blobs]
        return absent + [digest for digest in manifest.children if digest not in self.manifests]


class Model:
    """All repositories, as a client at `base` (scheme and host) sees them."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.repositories: dict[str, Repository] = {}
        # Every blob that the registry holds, whether or not a repository still has it.
        self.stored: dict[str, bytes] = {}
        self.keeping = Keeping(DELAY_SECONDS)
        self._arrivals = count()

    # Uploads.

    def received(self, name: str, upload: str) -> bytes:
        """What the session has; nothing where there is none."""
        return self._uploads(name).get(upload, b"")

    def start(self, name: str, upload: str) -> Expected:
        """POST that opens a session, which the server calls `upload`."""
        self._ensure(name).uploads[upload] = b""
        self.keeping.use_upload("upload", name, upload, recorded=True)
        return Expected(202, {**self._session(name, upload), "content-length": "0"})

    def post(self, name: str, digest: str, content: bytes) -> Expected:
        """POST with everything in it. The repository is there afterwards even if the digest is wrong."""
        self._ensure(name)
        return self._finished(name, digest, content)

    def mount(self, name: str, digest: str, source: str | None, upload: str) -> Expected:
        """POST with `mount`, and `from` if there is a source. Without one the registry looks everywhere."""
        known = self._blobs_anywhere() if source is None else self._blobs(source)
        if digest not in known:
            return self.start(name, upload)
        self._ensure(name).blobs[digest] = known[digest]
        self.keeping.confirm("stored", digest)
        return self._created(name, "blobs", digest)

    def status(self, name: str, upload: str) -> Expected:
        """GET or HEAD of a session."""
        if upload not in self._uploads(name):
            return refusal(404, "BLOB_UPLOAD_UNKNOWN")
        return Expected(204, self._session(name, upload))

    def patch(self, name: str, upload: str, chunk: Chunk) -> Expected:
        """PATCH of a session."""
        refused = self._refused_chunk(name, upload, chunk)
        if refused is not None:
            return refused
        self._uploads(name)[upload] += chunk.content
        self.keeping.use_upload("upload", name, upload, recorded=True)
        return Expected(202, {**self._session(name, upload), "content-length": "0"})

    def put(self, name: str, upload: str, digest: str | None, chunk: Chunk) -> Expected:
        """PUT that closes a session. `digest` None: it is missing or malformed. A wrong one ends the session."""
        if digest is None:
            return refusal(400, "DIGEST_INVALID")
        refused = self._refused_chunk(name, upload, chunk)
        if refused is not None:
            return refused
        return self._finished(name, digest, self._uploads(name).pop(upload) + chunk.content)

    def cancel(self, name: str, upload: str) -> Expected:
        """DELETE of a session."""
        if self._uploads(name).pop(upload, None) is None:
            return refusal(404, "BLOB_UPLOAD_UNKNOWN")
        return done(204, docker_upload_uuid=upload)

    def _refused_chunk(self, name: str, upload: str, chunk: Chunk) -> Expected | None:
        if chunk.announced and not chunk.fits:
            return refusal(400, "SIZE_INVALID")
        if upload not in self._uploads(name):
            return refusal(404, "BLOB_UPLOAD_UNKNOWN")
        self.keeping.use_upload("upload", name, upload, recorded=False)
        if chunk.first is not None and chunk.first != len(self.received(name, upload)):
            return refusal(416, "RANGE_INVALID", **self._session(name, upload))
        return None if chunk.fits else refusal(400, "SIZE_INVALID")

    def _finished(self, name: str, digest: str, content: bytes) -> Expected:
        if digest != digest_of(content, digest.partition(":")[0]):
            return refusal(400, "DIGEST_INVALID")
        self._ensure(name).blobs[digest] = content
        if digest in self.stored:
            self.keeping.confirm("stored", digest)
        else:
            self.stored[digest] = content
            self.keeping.suspect("stored", digest)
        return self._created(name, "blobs", digest)

    # Blobs.

    def blob(self, name: str, digest: str, *, wanted: str = "", known: str = "") -> Expected:
        """GET of a blob; `wanted` is its Range, `known` what If-None-Match names."""
        if name not in self.repositories:
            return refusal(404, "NAME_UNKNOWN")
        content = self._blobs(name).get(digest)
        if content is None:
            return refusal(404, "BLOB_UNKNOWN")
        headers = {
            "docker-content-digest": digest,
            "etag": f'"{digest}"',
            "cache-control": "max-age=31536000",
            "accept-ranges": "bytes",
        }
        if known == digest:
            return Expected(304, headers)
        return _cut(content, spans(wanted, len(content)) if wanted else WHOLE, headers)

    def delete_blob(self, name: str, digest: str) -> Expected:
        """DELETE of a blob, which must not be needed."""
        if name not in self.repositories:
            return refusal(404, "NAME_UNKNOWN")
        if self.repositories[name].needs(digest):
            return refusal(405, "UNSUPPORTED", allow="GET, HEAD")
        if self._blobs(name).pop(digest, None) is None:
            return refusal(404, "BLOB_UNKNOWN")
        return done(202)

    # Manifests.

    def missing(self, name: str, manifest: Manifest) -> list[str]:
        """The blobs, then the children, that the manifest needs and the repository does not have."""
        return self.repositories.get(name, Repository()).missing(manifest)

    def put_manifest(self, name: str, manifest: Manifest, reference: str, tags: Sequence[str]) -> Expected:
        """PUT under a tag or a digest; `tags` are those of the query, which only go with a digest."""
        by_digest = ":" in reference
        if tags and not by_digest:
            return refusal(400, "TAG_INVALID")
        digest = manifest.digest(reference.partition(":")[0]) if by_digest else manifest.digest()
        if by_digest and digest != reference:
            return refusal(400, "DIGEST_INVALID")
        absent = self.missing(name, manifest)
        if absent:
            return refusal(400, *(("MANIFEST_BLOB_UNKNOWN", missing) for missing in absent))
        repository = self._ensure(name)
        if digest in repository.manifests:
            self.keeping.confirm("manifest", name, digest)
        else:
            repository.manifests[digest] = Stored(manifest, next(self._arrivals))
            self.keeping.appeared("manifest", name, digest)
        for tag in tags if by_digest else [reference]:
            self._untag(name, tag, unless=digest)
            repository.tags[tag] = digest
        told = {} if manifest.subject is None else {"oci-subject": manifest.subject}
        if tags:
            told["oci-tag"] = ", ".join(dict.fromkeys(tags))
        created = self._created(name, "manifests", digest)
        return Expected(created.status, {**created.headers, **told})

    def manifest(self, name: str, reference: str, accept: Sequence[str] = (), known: str = "") -> Expected:
        """GET of a manifest; `accept` are the types of its Accept, `known` is what If-None-Match names."""
        if name not in self.repositories:
            return refusal(404, "NAME_UNKNOWN")
        repository = self.repositories[name]
        digest = reference if ":" in reference else repository.tags.get(reference, "")
        if digest not in repository.manifests:
            return refusal(404, "MANIFEST_UNKNOWN")
        manifest = repository.manifests[digest].manifest
        if digest != reference and _knows_no_lists(accept) and manifest.media_type == DOCKER_LIST:
            if manifest.amd64 is None:
                return refusal(404, "MANIFEST_UNKNOWN")
            digest = manifest.amd64
            manifest = repository.manifests[digest].manifest
        if accept and manifest.media_type in {OCI_MANIFEST, OCI_INDEX} - set(accept):
            return refusal(404, "MANIFEST_UNKNOWN")
        headers = {"docker-content-digest": digest, "etag": f'"{digest}"'}
        if known == digest:
            return Expected(304, headers)
        headers |= {"content-type": manifest.media_type, "content-length": str(len(manifest.payload))}
        return Expected(200, headers, manifest.payload)

    def etag(self, name: str, reference: str) -> str:
        """What a client that has got the manifest may ask whether it is still that one."""
        return str(self.manifest(name, reference).headers.get("docker-content-digest", ""))

    def delete_manifest(self, name: str, reference: str) -> Expected:
        """DELETE of a tag alone, or of a manifest with every tag that it has."""
        if name not in self.repositories:
            return refusal(404, "NAME_UNKNOWN")
        repository = self.repositories[name]
        if ":" not in reference:
            gone = self._untag(name, reference)
            return done(202) if gone else refusal(404, "MANIFEST_UNKNOWN")
        if reference not in repository.manifests:
            return refusal(404, "MANIFEST_UNKNOWN")
        if repository.has_as_child(reference):
            return refusal(409, "MANIFEST_REFERENCED")
        repository.tags = {tag: digest for tag, digest in repository.tags.items() if digest != reference}
        self._lose_manifest(name, reference)
        return done(202)

    # Lists.

    def tags(self, name: str, n: int | None, last: str) -> Expected:
        """GET of the tags: at most TAGS_MAX, in the order of their bytes."""
        if name not in self.repositories:
            return refusal(404, "NAME_UNKNOWN")
        limit = TAGS_MAX if n is None else min(n, TAGS_MAX)
        page, link = _page(list(self.repositories[name].tags), f"/v2/{name}/tags/list", last, limit)
        return listing({"name": name, "tags": page}, **link)

    def catalog(self, n: int | None, last: str) -> Expected:
        """GET of the repositories that have tags. More than CATALOG_MAX may not be asked for."""
        limit = CATALOG_MAX if n is None else n
        if limit > CATALOG_MAX:
            return refusal(400, "PAGINATION_NUMBER_INVALID")
        tagged = [name for name, repository in self.repositories.items() if repository.tags]
        page, link = _page(tagged, "/v2/_catalog", last, limit)
        return listing({"repositories": page}, **link)

    def referrers(
        self, name: str, subject: str, kind: str | None, n: int | None, pages_before: int
    ) -> Expected:
        """GET of one page of what names `subject`, of the artifact type `kind` if that is not None."""
        every = self.repositories.get(name, Repository()).manifests.items()
        found = sorted(
            (stored.arrival, _referrer(digest, stored.manifest))
            for digest, stored in every
            if stored.manifest.subject == subject and kind in (None, stored.manifest.artifact_type or "")
        )
        limit = len(found) + 1 if n is None else max(1, n)
        begin = limit * pages_before
        page = [entry for _, entry in found[begin : begin + limit]]
        headers: dict[str, Any] = {} if kind is None else {"oci_filters_applied": "artifactType"}
        if begin + limit < len(found):
            kept = "" if kind is None else f"&artifactType={quote_plus(kind)}"
            rest = re.escape(f"&n={limit}{kept}") + '>; rel="next"'
            headers["link"] = re.compile(re.escape(f"</v2/{name}/referrers/{subject}?last=") + r"\d+" + rest)
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": page}
        return listing(document, OCI_INDEX, **headers)

    # Garbage collection.

    def told(self, target: str, digest: str) -> None:
        """A HEAD of `target` was answered with "it is there", and with this digest."""
        name, collection, _ = target.removeprefix("/v2/").rsplit("/", 2)
        self.keeping.confirm(*(("stored", digest) if collection == "blobs" else ("manifest", name, digest)))

    def unused(self) -> set[tuple[str, ...]]:
        """What nothing uses at this moment, each as the fact that it is there."""
        found: set[tuple[str, ...]] = set()
        needed: set[str] = set()
        for name, repository in self.repositories.items():
            used = set(repository.tags.values())
            for digest, stored in repository.manifests.items():
                needed |= stored.manifest.blobs.keys()
                used |= stored.manifest.children.keys()
                if stored.manifest.subject in repository.manifests:
                    used.add(digest)
            found |= {("manifest", name, digest) for digest in repository.manifests.keys() - used}
        return found | {("stored", digest) for digest in self.stored.keys() - needed}

    def may_go(self) -> set[tuple[str, ...]]:
        """What a collector may take now: unused, and nobody was told of it or began to suspect it of late."""
        return {what for what in self.unused() | self._sessions() if self.keeping.may_go(what)}

    def must_go(self) -> set[tuple[str, ...]]:
        """What a whole pass must take now."""
        return {what for what in self.unused() | self._sessions() if self.keeping.must_go(what)}

    def lose(self, gone: Iterable[tuple[str, ...]]) -> None:
        """Collectors have taken these."""
        for kind, *what in sorted(gone):
            if kind == "manifest":
                self._lose_manifest(*what)
            elif kind == "stored":
                self._lose_blob(*what)
            elif kind == "upload":
                name, upload = what
                del self.repositories[name].uploads[upload]

    def unreachable(self) -> set[tuple[str, ...]]:
        """What no tag leads to, nor a manifest that was spared, on whatever way."""
        found: set[tuple[str, ...]] = set()
        needed: set[str] = set()
        for name, repository in self.repositories.items():
            reached = self._reached(name)
            found |= {("manifest", name, digest) for digest in repository.manifests.keys() - reached}
            needed.update(*(repository.manifests[digest].manifest.blobs for digest in reached))
        return found | {("stored", digest) for digest in self.stored.keys() - needed}

    def _reached(self, name: str) -> set[str]:
        manifests = self.repositories[name].manifests
        spared = {digest for digest in manifests if ("manifest", name, digest) in self.keeping.spared}
        reached: set[str] = set()
        coming = {*self.repositories[name].tags.values(), *spared}
        while coming:
            reached |= coming
            coming = {child for digest in coming for child in manifests[digest].manifest.children} | {
                digest for digest, stored in manifests.items() if stored.manifest.subject in reached
            }
            coming -= reached
        return reached

    def _sessions(self) -> set[tuple[str, ...]]:
        return {
            ("upload", name, upload)
            for name, repository in self.repositories.items()
            for upload in repository.uploads
        }

    def _untag(self, name: str, tag: str, *, unless: str = "") -> bool:
        """Take the tag away, unless it is at that digest. Returns whether it was somewhere."""
        tags = self.repositories[name].tags
        if tag in tags and tags[tag] != unless:
            self.keeping.suspect("manifest", name, tags.pop(tag))
            return True
        return False

    def _lose_manifest(self, name: str, digest: str) -> None:
        manifests = self.repositories[name].manifests
        manifest = manifests.pop(digest).manifest
        referrers = [other for other, stored in manifests.items() if stored.manifest.subject == digest]
        for other in (*manifest.children, *referrers):
            self.keeping.suspect("manifest", name, other)
        for blob in manifest.blobs:
            self.keeping.suspect("stored", blob)

    def _lose_blob(self, digest: str) -> None:
        del self.stored[digest]
        for repository in self.repositories.values():
            repository.blobs.pop(digest, None)

    # What is there, for whoever looks at all of it.

    def facts(self) -> set[tuple[str, ...]]:
        """Everything that there is, one fact each."""
        found: set[tuple[str, ...]] = {("stored", digest) for digest in self.stored}
        for name, repository in self.repositories.items():
            found.add(("repository", name))
            found |= {("blob", name, digest) for digest in repository.blobs}
            found |= {("manifest", name, digest) for digest in repository.manifests}
            found |= {("tag", name, tag, digest) for tag, digest in repository.tags.items()}
            found |= {("upload", name, upload, str(len(held))) for upload, held in repository.uploads.items()}
        return found

    def _ensure(self, name: str) -> Repository:
        return self.repositories.setdefault(name, Repository())

    def _uploads(self, name: str) -> dict[str, bytes]:
        return self.repositories[name].uploads if name in self.repositories else {}

    def _blobs(self, name: str) -> dict[str, bytes]:
        return self.repositories[name].blobs if name in self.repositories else {}

    def _blobs_anywhere(self) -> dict[str, bytes]:
        return {digest: blob for held in self.repositories.values() for digest, blob in held.blobs.items()}

    def _session(self, name: str, upload: str) -> dict[str, str]:
        last = max(0, len(self.received(name, upload)) - 1)  # the header cannot say that there is nothing
        return {
            "location": f"{self.base}/v2/{name}/blobs/uploads/{upload}",
            "range": f"0-{last}",
            "docker-upload-uuid": upload,
        }

    def _created(self, name: str, collection: str, digest: str) -> Expected:
        location = f"{self.base}/v2/{name}/{collection}/{digest}"
        return done(201, location=location, docker_content_digest=digest)


def _cut(content: bytes, wanted: list[range] | str, headers: dict[str, str]) -> Expected:
    size = len(content)
    if wanted == NOTHING:
        return refusal(416, "RANGE_INVALID", content_range=f"bytes */{size}")
    if isinstance(wanted, str):
        return Expected(200, {**headers, "content-type": OCTETS, "content-length": str(size)}, content)
    if len(wanted) == 1:
        (span,) = wanted
        part = content[span.start : span.stop]
        told = {
            "content-type": OCTETS,
            "content-length": str(len(part)),
            "content-range": _content_range(span, size),
        }
        return Expected(206, {**headers, **told}, part)
    parts = tuple((_content_range(span, size), content[span.start : span.stop]) for span in wanted)
    return Expected(206, {**headers, "content-type": _BOUNDARY, "content-length": ANY_LENGTH}, parts=parts)


def _content_range(span: range, size: int) -> str:
    return f"bytes {span.start}-{span.stop - 1}/{size}"


def _knows_no_lists(accept: Sequence[str]) -> bool:
    """A client that says which manifests it takes, and takes no Docker list."""
    return not _MANIFESTS.isdisjoint(accept) and DOCKER_LIST not in accept


def _referrer(digest: str, manifest: Manifest) -> dict[str, Any]:
    known: dict[str, Any] = {
        "mediaType": manifest.media_type,
        "size": len(manifest.payload),
        "digest": digest,
        "annotations": manifest.annotations,
        "artifactType": manifest.artifact_type,
    }
    return {key: value for key, value in known.items() if value is not None}


def _page(names: list[str], path: str, last: str, limit: int) -> tuple[list[str], dict[str, str]]:
    """The names of a page, which are ASCII, and the Link to the next one if there is more and it gets anywhere."""
    rest = sorted(name for name in names if name > last)
    page = rest[:limit]
    if len(rest) <= limit or not page:
        return page, {}
    return page, {"link": f'<{path}?last={quote_plus(page[-1])}&n={limit}>; rel="next"'}
