"""The settings: one frozen tree of all keys of Distribution v2, v3 and the GitLab registry, and our own.

Defaults are Distribution's, else the GitLab registry's; where ours differs the key's description says so. The
tree survives JSON (`model_dump_json`, `model_validate_json`), secrets included, and hides them from `repr`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, cast, get_args

from pydantic import BeforeValidator, Field, model_validator

from app.config.auth import Auth
from app.config.background import Compatibility, Gc, RateLimiter
from app.config.content import Catalog, Health, Policy, Tags, Validation
from app.config.database import Database
from app.config.http import Http  # noqa: TC001
from app.config.log import Level, Log
from app.config.outward import Middlewares, Notifications, Profiling, Proxy, Reporting
from app.config.redis import Redis
from app.config.section import Section, Status, bare, section, setting
from app.config.storage import REFUSED, SERVED_DRIVERS, Storage
from app.config.tls import LetsEncrypt
from app.config.yamltext import Plain, is_mapping

LATER: Final = Status.LATER
_LEVELS: Final = frozenset(get_args(bare(Level)))


def _spelling(value: Any) -> Any:
    return value.text if isinstance(value, Plain) else str(value)


class Settings(Section):
    """The whole configuration."""

    version: Annotated[Literal["0.1"], BeforeValidator(_spelling)] = Field(
        description="Version of the format. The environment cannot set it."
    )
    log: Log = section(Log, "Logs.")
    loglevel: Level | None = setting(
        "The old place of `log.level`; holds only if that is not given.",
        default=None,
        status=Status.DEPRECATED,
        note="deprecated; use log.level",
    )
    http: Http = Field(description="The HTTP server.")
    storage: Storage = Field(description="The storage.")
    database: Database = section(Database, "The metadata database.")
    catalog: Catalog = section(Catalog, "Lists of repositories.")
    tags: Tags = section(Tags, "Lists of tags.")
    validation: Validation = section(Validation, "What may be pushed.")
    policy: Policy = section(Policy, "What may be pushed.")
    health: Health = section(Health, "What `/debug/health` watches.")
    auth: Auth = section(Auth, "Access control.")
    gc: Gc = section(Gc, "Online garbage collection.")
    redis: Redis = section(Redis, "Redis.", status=LATER)
    notifications: Notifications = section(Notifications, "Webhooks.", status=LATER)
    proxy: Proxy = section(Proxy, "Pull-through cache.", status=LATER, note=REFUSED)
    middleware: Middlewares = section(Middlewares, "Middleware.", status=LATER)
    rate_limiter: RateLimiter = section(RateLimiter, "Rate limits.", status=LATER)
    reporting: Reporting = section(Reporting, "Error reporting.", status=LATER)
    profiling: Profiling = section(Profiling, "Profiling.", status=LATER)
    compatibility: Compatibility = section(Compatibility, "Old formats.")

    @model_validator(mode="before")
    @classmethod
    def _old_loglevel(cls, data: Any) -> Any:
        """`loglevel` is `log.level` where that is not given."""
        if not isinstance(data, Mapping):
            return data
        keys = dict(cast("Mapping[str, Any]", data))
        old, log = keys.get("loglevel"), keys.get("log")
        given: Any = {} if log is None else log
        if (
            isinstance(old, str)
            and old.lower() in _LEVELS
            and is_mapping(given)
            and given.get("level") is None
        ):
            keys["log"] = {**given, "level": old}
        return keys

    def unserved(self) -> tuple[str, ...]:
        """Why `registry serve` must not start with these settings: one sentence each, none if it may."""
        driver, tls = self.storage.driver, self.http.tls
        reasons = {
            f"storage.{driver}: this storage driver is not supported yet; use filesystem": (
                driver not in SERVED_DRIVERS
            ),
            "proxy.remoteurl: the pull-through cache is not supported yet": bool(self.proxy.remoteurl),
            "http.tls.letsencrypt: not supported yet; without http.tls.certificate nothing is encrypted": (
                tls.letsencrypt != LetsEncrypt() and not tls.enabled
            ),
            "database.host: required, because the metadata is kept in PostgreSQL": not self.database.host,
        }
        return tuple(sentence for sentence, holds in reasons.items() if holds)
