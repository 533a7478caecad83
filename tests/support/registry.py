"""A registry in this process: the real application on a real database and a directory, behind an HTTP client.

async with open_registry(database, tmp_path) as registry:
    await registry.push_image("a/b", "latest")
    answer = await registry.client.get("/v2/a/b/manifests/latest")
"""

from __future__ import annotations

import hashlib
import json
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import httpx

from app.blobs.drivers.filesystem import Filesystem
from app.domain.access import ANYONE, Caller
from app.domain.manifests import OCI_INDEX, OCI_MANIFEST
from app.http.app import Application
from app.http.call import ApiRules, Services
from app.runtime.threads import Threads
from app.services.listings import Listings
from app.services.pull import Pull
from app.services.push_blob import PushBlob
from app.services.push_manifest import ManifestRules, PushManifest
from app.services.remove import Remove
from app.services.repository_ids import RepositoryIds
from app.store.engine import Database, Target
from tests.support.postgres import connected

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
    from pathlib import Path

    from starlette.types import Scope

    from app.blobs.driver import Driver
    from app.services.access.controller import Controller, Presented
    from app.wiring.admission import Access

CONFIG_TYPE: Final = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE: Final = "application/vnd.oci.image.layer.v1.tar"


def digest_of(content: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


def descriptor(content: bytes, media_type: str, algorithm: str = "sha256", **more: Any) -> dict[str, Any]:
    return {
        "mediaType": media_type,
        "digest": digest_of(content, algorithm),
        "size": len(content),
        **more,
    }


def encoded(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document).encode()


@dataclass(frozen=True)
class Image:
    """A manifest and the blobs that it needs."""

    payload: bytes
    media_type: str
    blobs: tuple[bytes, ...] = ()

    def digest(self, algorithm: str = "sha256") -> str:
        return digest_of(self.payload, algorithm)


def image(
    *layers: bytes,
    config: bytes = b"{}",
    config_type: str = CONFIG_TYPE,
    algorithm: str = "sha256",
    **more: Any,
) -> Image:
    """An OCI image manifest; `more` are further fields, such as subject, artifactType, annotations."""
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(config, config_type, algorithm),
        "layers": [descriptor(layer, LAYER_TYPE, algorithm) for layer in layers],
        **more,
    }
    return Image(encoded(document), document["mediaType"], (config, *layers))


def index(*children: Image, algorithm: str = "sha256", **more: Any) -> Image:
    """An OCI index of the children."""
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [descriptor(c.payload, c.media_type, algorithm) for c in children],
        **more,
    }
    return Image(encoded(document), document["mediaType"])


@dataclass
class Seen:
    """The observer of the tests: what was said of each request."""

    requests: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def began(self, scope: Scope) -> str:
        del scope
        return "test-request"

    def ended(self, scope: Scope, **facts: Any) -> None:
        self.requests.append({"method": scope["method"], "path": scope["path"], **facts})


@dataclass(frozen=True)
class Fixed:
    """The access controller of the tests: every request is from one caller."""

    who: Caller

    async def caller(self, presented: Presented) -> Caller:
        del presented
        return self.who

    def challenge(self, scopes: str, error: str, url: Any) -> str:
        del url
        return f'Bearer realm="http://tokens.test",service="test",scope="{scopes}",error="{error}"'


@dataclass(frozen=True)
class Registry:
    """The running application and what it runs on."""

    app: Application
    client: httpx.AsyncClient
    services: Services
    database: Database
    driver: Driver
    target: Target
    seen: Seen

    async def push_blob(self, name: str, content: bytes, algorithm: str = "sha256") -> str:
        digest = digest_of(content, algorithm)
        answer = await self.client.post(f"/v2/{name}/blobs/uploads/?digest={digest}", content=content)
        assert answer.status_code == 201, answer.text
        return digest

    async def put_manifest(self, name: str, reference: str, manifest: Image) -> httpx.Response:
        return await self.client.put(
            f"/v2/{name}/manifests/{reference}",
            content=manifest.payload,
            headers={"Content-Type": manifest.media_type},
        )

    async def push_image(
        self, name: str, reference: str, manifest: Image | None = None, algorithm: str = "sha256"
    ) -> Image:
        """Push the image with its blobs, under a tag or a digest."""
        manifest = manifest or image(b"a layer")
        for blob in dict.fromkeys(manifest.blobs):
            await self.push_blob(name, blob, algorithm)
        answer = await self.put_manifest(name, reference, manifest)
        assert answer.status_code == 201, answer.text
        return manifest

    async def rows(self, sql: str, *arguments: Any) -> list[dict[str, Any]]:
        """What the database says, asked past the application."""
        async with connected(self.target) as connection:
            return [dict(row) for row in await connection.fetch(sql, *arguments)]


@asynccontextmanager
async def open_registry(
    target: Target,
    root: Path,
    *,
    driver: Driver | None = None,
    rules: ApiRules | None = None,
    manifest_rules: ManifestRules | None = None,
    caller: Caller | None = None,
    controller: Controller | None = None,
    with_access: Callable[[Database, AsyncExitStack], Awaitable[Access]] | None = None,
    prepared_statements: bool = True,
) -> AsyncGenerator[Registry]:
    """The registry on `target` and the directory `root`. Deleting is allowed unless `rules` say otherwise.

    Every request is from `caller`, or who may do what is up to `controller`, or to what `with_access` builds.
    """
    async with AsyncExitStack() as stack:
        database = await Database.open(target, connections_max=8, prepared_statements=prepared_statements)
        stack.push_async_callback(database.close)
        driver = driver or Filesystem(root)
        stack.push_async_callback(driver.close)
        hashers = Threads("hash", 2)
        stack.push_async_callback(hashers.close)
        ids, seen = RepositoryIds(database), Seen()
        services = Services(
            Pull(database, driver, ids),
            PushBlob(database, driver, ids, hashers),
            PushManifest(database, ids, manifest_rules or ManifestRules()),
            Remove(database, ids),
            Listings(database, ids),
        )
        if with_access is not None:
            access = await with_access(database, stack)
            controller, services = access.controller, replace(services, tokens=access.tokens)
        app = Application(
            services, rules or ApiRules(delete_enabled=True), controller or Fixed(caller or ANYONE), seen
        )
        transport = httpx.ASGITransport(app=app)
        client = await stack.enter_async_context(
            httpx.AsyncClient(transport=transport, base_url="http://registry.test")
        )
        yield Registry(app, client, services, database, driver, target, seen)
