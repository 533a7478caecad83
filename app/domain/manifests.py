"""Manifests: bytes from a client → what the registry must know of them.

The bytes themselves are stored and served unchanged; this module only reads them. Sources: OCI image spec
(manifest.md, image-index.md, descriptor.md), Docker image manifest v2 schema 2. `parse_manifest` refuses
whatever two readers could understand differently: duplicate keys, a body that is both image and index
(CVE-2021-41190), a `mediaType` that differs from the Content-Type.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

from app.domain.digest import Digest
from app.domain.errors import DigestInvalid, ManifestInvalid
from app.domain.limits import DESCRIPTORS_MAX, SIZE_BYTES_MAX

if TYPE_CHECKING:
    from collections.abc import Mapping

OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
IMAGE_TYPES: Final = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
INDEX_TYPES: Final = frozenset({OCI_INDEX, DOCKER_LIST})
MANIFEST_TYPES: Final = IMAGE_TYPES | INDEX_TYPES
_SCHEMA1_TYPES: Final = frozenset(
    f"application/vnd.docker.distribution.manifest.v1+{suffix}" for suffix in ("json", "prettyjws")
)
# Layers of these types live elsewhere: they carry `urls` and are usually never pushed (OCI image spec, layer.md).
_FOREIGN_LAYER: Final = re.compile(
    r"application/vnd\.(?:oci\.image\.layer\.nondistributable\.|docker\.image\.rootfs\.foreign\.).*"
)
_MEDIA_TYPE: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?")


@dataclass(frozen=True)
class Platform:
    """What a child of an index runs on."""

    architecture: str
    os: str


@dataclass(frozen=True)
class Descriptor:
    """One entry of a manifest. `size` is in bytes, as the manifest states it."""

    media_type: str
    digest: Digest
    size: int
    urls: tuple[str, ...] = ()
    platform: Platform | None = None

    @property
    def is_foreign(self) -> bool:
        """A layer that is fetched from its `urls` and need not be in the registry."""
        return bool(self.urls) and _FOREIGN_LAYER.fullmatch(self.media_type) is not None

    @property
    def is_manifest(self) -> bool:
        """Whether the entry is a manifest or an index, so that it must be one of the repository's manifests."""
        return self.media_type in MANIFEST_TYPES


@dataclass(frozen=True)
class Manifest:
    """What the registry knows of a manifest.

    `blobs` are the config's and layers' descriptors, also an index's entries that are not manifests (BuildKit's
    cache index). `children` are an index's manifests. `artifact_type` is what referrers lists show.
    """

    media_type: str
    payload: bytes
    config: Descriptor | None
    layers: tuple[Descriptor, ...]
    children: tuple[Descriptor, ...]
    subject: Digest | None
    artifact_type: str | None
    annotations: Mapping[str, str] | None

    @property
    def size_bytes(self) -> int:
        """What config and layers state together: the size that users know as the image's."""
        return (self.config.size if self.config else 0) + sum(layer.size for layer in self.layers)


def parse_manifest(payload: bytes, content_type: str | None) -> Manifest:
    """Read `payload` as the type that `content_type` names (parameters are ignored).

    Without a Content-Type the body's own `mediaType`, or else its shape, decides. Raises ManifestInvalid or
    DigestInvalid with a sentence that says what is wrong and where.
    """
    body = _load(payload)
    media_type = _media_type_of(body, content_type)
    if body.get("schemaVersion") != 2 or isinstance(body.get("schemaVersion"), bool):  # noqa: PLR2004
        raise ManifestInvalid(f"schemaVersion must be 2, not {_short(body.get('schemaVersion'))}")
    config, layers, children = (
        _image_parts(body) if media_type in IMAGE_TYPES else (None, *_index_parts(body))
    )
    if (config.size if config else 0) + sum(entry.size for entry in layers) > SIZE_BYTES_MAX:
        raise ManifestInvalid(f"config and layers together state more than {SIZE_BYTES_MAX} bytes")
    return Manifest(
        media_type=media_type,
        payload=payload,
        config=config,
        layers=layers,
        children=children,
        subject=_subject(body) if media_type in (OCI_MANIFEST, OCI_INDEX) else None,
        artifact_type=_artifact_type(body) or (config.media_type if config else None),
        annotations=_annotations(body),
    )


def _load(payload: bytes) -> dict[str, Any]:
    try:
        body: object = json.loads(
            payload.decode("utf-8"), object_pairs_hook=_unique_keys, parse_constant=_no_constant
        )
    except UnicodeDecodeError as error:
        raise ManifestInvalid(f"the manifest is not UTF-8: byte {error.start} cannot be decoded") from None
    except RecursionError:
        raise ManifestInvalid("the manifest is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ManifestInvalid(
            f"the manifest is not JSON: {error.msg} at line {error.lineno} column {error.colno}"
        ) from None
    except ValueError:  # a number of thousands of digits
        raise ManifestInvalid("the manifest holds a number that is too long") from None
    if not isinstance(body, dict):
        raise ManifestInvalid("the manifest must be a JSON object")
    return cast("dict[str, Any]", body)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ManifestInvalid(f"the key {_short(twice)} stands twice in one object")
    return result


def _no_constant(name: str) -> NoReturn:
    raise ManifestInvalid(f"{name} is not a JSON value")


def _media_type_of(body: dict[str, Any], content_type: str | None) -> str:
    stated: Any = body.get("mediaType")
    if stated is not None and not isinstance(stated, str):
        raise ManifestInvalid("mediaType must be a string")
    sent = (content_type or "").partition(";")[0].strip(" \t").lower()
    media_type = sent or stated or (OCI_INDEX if "manifests" in body else OCI_MANIFEST)
    if media_type in _SCHEMA1_TYPES or body.get("schemaVersion") == 1:
        raise ManifestInvalid("manifest schema v1 unsupported")
    if media_type not in MANIFEST_TYPES:
        raise ManifestInvalid(f"unsupported manifest media type and no default available: {media_type[:255]}")
    if stated != media_type and (stated is not None or media_type in (DOCKER_MANIFEST, DOCKER_LIST)):
        raise ManifestInvalid(f"the body's mediaType is {_short(stated)}, the Content-Type is {media_type}")
    return media_type


def _image_parts(
    body: dict[str, Any],
) -> tuple[Descriptor, tuple[Descriptor, ...], tuple[Descriptor, ...]]:
    if "manifests" in body:
        raise ManifestInvalid("an image manifest has no `manifests`: that is an index")
    if "config" not in body:
        raise ManifestInvalid("an image manifest needs a `config`")
    return _descriptor(body["config"], "config"), _descriptors(body.get("layers"), "layers"), ()


def _index_parts(body: dict[str, Any]) -> tuple[tuple[Descriptor, ...], tuple[Descriptor, ...]]:
    for key in ("config", "layers"):
        if key in body:
            raise ManifestInvalid(f"an index has no `{key}`: that is an image manifest")
    if "manifests" not in body:
        raise ManifestInvalid("an index needs `manifests`, which may be empty")
    entries = _descriptors(body["manifests"], "manifests")
    return tuple(e for e in entries if not e.is_manifest), tuple(e for e in entries if e.is_manifest)


def _descriptors(value: object, where: str) -> tuple[Descriptor, ...]:
    if value is None:  # Go writes a nil slice as null
        return ()
    if not isinstance(value, list):
        raise ManifestInvalid(f"`{where}` must be a list")
    entries = cast("list[object]", value)
    if len(entries) > DESCRIPTORS_MAX:
        raise ManifestInvalid(f"`{where}` has {len(entries)} entries, at most {DESCRIPTORS_MAX} are allowed")
    return tuple(_descriptor(entry, f"{where}[{i}]") for i, entry in enumerate(entries))


def _descriptor(value: object, where: str) -> Descriptor:
    if not isinstance(value, dict):
        raise ManifestInvalid(f"`{where}` must be a descriptor (an object)")
    entry = cast("dict[str, Any]", value)
    size = entry.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= SIZE_BYTES_MAX:
        raise ManifestInvalid(f"`{where}.size` must be a whole number of bytes, not {_short(size)}")
    return Descriptor(
        media_type=_media_type(entry.get("mediaType"), f"{where}.mediaType"),
        digest=_digest(entry.get("digest"), f"{where}.digest"),
        size=size,
        urls=_urls(entry.get("urls"), f"{where}.urls"),
        platform=_platform(entry.get("platform"), f"{where}.platform"),
    )


def _media_type(value: object, where: str) -> str:
    if not isinstance(value, str) or _MEDIA_TYPE.fullmatch(value) is None:
        raise ManifestInvalid(
            f"`{where}` must be a media type of at most 255 characters, not {_short(value)}"
        )
    return value


def _digest(value: object, where: str) -> Digest:
    if not isinstance(value, str):
        raise ManifestInvalid(f"`{where}` must be a digest, not {_short(value)}")
    try:
        return Digest.parse(value)
    except DigestInvalid as error:
        raise ManifestInvalid(f"`{where}`: {error.detail}") from None


def _urls(value: object, where: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(url, str) for url in cast("list[object]", value)):
        raise ManifestInvalid(f"`{where}` must be a list of strings")
    return tuple(cast("list[str]", value))


def _platform(value: object, where: str) -> Platform | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ManifestInvalid(f"`{where}` must be an object")
    entry = cast("dict[str, Any]", value)
    architecture, os = entry.get("architecture", ""), entry.get("os", "")
    if not isinstance(architecture, str) or not isinstance(os, str):
        raise ManifestInvalid(f"`{where}`: architecture and os must be strings")
    return Platform(architecture, os)


def _subject(body: dict[str, Any]) -> Digest | None:
    value = body.get("subject")
    return None if value is None else _descriptor(value, "subject").digest


def _artifact_type(body: dict[str, Any]) -> str | None:
    value = body.get("artifactType")
    return None if value in (None, "") else _media_type(value, "artifactType")


def _annotations(body: dict[str, Any]) -> Mapping[str, str] | None:
    value = body.get("annotations")
    if value is None:
        return None
    if not isinstance(value, dict) or not all(
        isinstance(v, str) for v in cast("dict[str, object]", value).values()
    ):
        raise ManifestInvalid("`annotations` must be an object of strings")
    return cast("dict[str, str]", value)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."  # noqa: PLR2004
