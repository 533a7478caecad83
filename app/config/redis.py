"""`redis`: the keys of Distribution v3 (go-redis' own names), of v2 and of the GitLab registry together."""

from __future__ import annotations

from app.config.section import Section, Status, section, setting
from app.config.values import NO_SECRET, Duration, Flag, Secret, Text, Texts, Whole, span

_NONE = span("0s")


class RedisTls(Section):
    """`redis.tls`."""

    enabled: Flag | None = setting("Connect over TLS.", default=None)
    insecure: Flag = setting("Do not verify the server's name.", default=False)
    certificate: Text = setting("File with the client certificate.", default="")
    key: Text = setting("File with the client's key.", default="")
    rootcas: Texts = setting("Files with the CAs of the server.", default=())
    clientcas: Texts = setting("Distribution's other name of `rootcas`.", default=())


class RedisPool(Section):
    """`redis.pool`."""

    size: Whole = setting("Connections at most.", default=10)
    maxlifetime: Duration = setting("Age at which a connection is replaced.", default=_NONE)
    idletimeout: Duration = setting("How long an unused connection stays open.", default=_NONE)
    maxidle: Whole = setting("Unused connections kept (v2).", default=0)
    maxactive: Whole = setting("Connections at most (v2).", default=0)


class RedisServer(Section):
    """What `redis` and each of its parts say of a server."""

    addr: Text = setting("Address; several, separated by commas, for Sentinel and Cluster.", default="")
    mainname: Text = setting("Sentinel's name of the main server.", default="")
    username: Text = setting("User.", default="")
    password: Secret = setting("Password.", default=NO_SECRET)
    sentinelusername: Text = setting("User at Sentinel.", default="")
    sentinelpassword: Secret = setting("Password at Sentinel.", default=NO_SECRET)
    db: Whole = setting("Database number.", default=0)
    dialtimeout: Duration = setting("Longest wait for a connection.", default=_NONE)
    readtimeout: Duration = setting("Longest wait for an answer.", default=_NONE)
    writetimeout: Duration = setting("Longest wait to send.", default=_NONE)
    tls: RedisTls = section(RedisTls, "TLS.")
    pool: RedisPool = section(RedisPool, "Connections.")


class RedisPart(RedisServer):
    """`redis.cache` and the others like it."""

    enabled: Flag = setting("Use this server.", default=False)


class Redis(RedisServer):
    """`redis`."""

    enabled: Flag = setting("Without meaning at this level.", default=False, status=Status.IGNORED)
    addrs: Texts = setting("Addresses (v3).", default=())
    mastername: Text = setting("Sentinel's name of the main server (v3).", default="")
    clientname: Text = setting("Name that the connections give themselves.", default="")
    protocol: Whole = setting("Version of the protocol.", default=3)
    maxretries: Whole = setting("Tries after the first one.", default=3)
    minretrybackoff: Duration = setting("Shortest wait before a try.", default=span("8ms"))
    maxretrybackoff: Duration = setting("Longest wait before a try.", default=span("512ms"))
    contexttimeoutenabled: Flag = setting("Requests' own time-outs hold.", default=False)
    poolfifo: Flag = setting("Use the connections in turn.", default=False)
    poolsize: Whole = setting("Connections at most; 0 is ten per core.", default=0)
    pooltimeout: Duration = setting("Longest wait for a connection of the pool.", default=_NONE)
    minidleconns: Whole = setting("Unused connections kept at least.", default=0)
    maxidleconns: Whole = setting("Unused connections kept at most.", default=0)
    maxactiveconns: Whole = setting("Connections at most, over all.", default=0)
    connmaxidletime: Duration = setting("How long an unused connection stays open.", default=span("30m"))
    connmaxlifetime: Duration = setting("Age at which a connection is replaced.", default=_NONE)
    maxredirects: Whole = setting("Redirects followed in a cluster.", default=3)
    readonly: Flag = setting("Read from replicas of a cluster.", default=False)
    routebylatency: Flag = setting("Read from the nearest node.", default=False)
    routerandomly: Flag = setting("Read from any node.", default=False)
    cache: RedisPart = section(RedisPart, "The server for cached repositories.")
    ratelimiter: RedisPart = section(
        RedisPart, "The server for rate limits; keys as in `redis.cache`.", same_as="redis.cache"
    )
    loadbalancing: RedisPart = section(
        RedisPart, "The server for load balancing; keys as in `redis.cache`.", same_as="redis.cache"
    )
    load_balancing: RedisPart = section(
        RedisPart,
        "How the GitLab registry's own example misspells `redis.loadbalancing`.",
        status=Status.IGNORED,
        same_as="redis.cache",
    )
