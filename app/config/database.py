"""`database`: the PostgreSQL server with the metadata. It is always used, whatever `enabled` says."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator

from app.config.section import Section, Status, section, setting
from app.config.values import (
    NO_SECRET,
    Count,
    Duration,
    Flag,
    Secret,
    Span,
    Text,
    Texts,
    Whole,
    folded,
    refusal,
    shown,
    span,
    zero_means,
)
from app.config.yamltext import plain

POOL_OPEN: Final = 10
_PORT: Final = 5432
_PORT_MAX: Final = 65535
_QUEUE: Final = span("5s")


def _enabled(value: Any) -> Any:
    """YAML's own true and false, or the text of any of the three."""
    bare = plain(value)
    if isinstance(bare, bool):
        return str(bare).lower()
    if isinstance(bare, str) and bare.lower() in {"true", "false", "prefer"}:
        return bare.lower()
    raise refusal(f"must be true, false or prefer, not {shown(value)}")


def _port(value: int) -> int:
    if value > _PORT_MAX:
        raise refusal(f"must be a port up to {_PORT_MAX}, not {value}")
    return value


Enabled = Annotated[Literal["true", "false", "prefer"], BeforeValidator(_enabled)]
Port = Annotated[Count, AfterValidator(_port), zero_means(_PORT)]
SslMode = Annotated[Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"], folded()]


class Pool(Section):
    """`database.pool`, of each process."""

    maxidle: Count = setting("Connections kept open while nothing uses them, at most `maxopen`.", default=0)
    maxopen: Annotated[Count, zero_means(POOL_OPEN)] = setting(
        "Connections of one process at most. 0 is the default as well: there is no pool without a bound.",
        default=POOL_OPEN,
    )
    maxlifetime: Span = setting("Age at which a connection is replaced; 0 is never.", default=span("0s"))
    maxidletime: Span = setting(
        "How long an unused connection stays open; 0 is for ever.", default=span("0s")
    )
    queuetimeout: Annotated[Span, zero_means(_QUEUE)] = setting(
        "How long a request waits for a connection before it gets a 503.", default=_QUEUE
    )


class BackgroundMigrations(Section):
    """`database.backgroundmigrations`."""

    enabled: Flag = setting(
        "The GitLab registry's background migrations, which there are none of here.", default=False
    )
    maxjobretries: Whole = setting("Tries of a job.", default=0)
    jobinterval: Duration = setting("Wait between two jobs.", default=span("1m"))


class LoadBalancing(Section):
    """`database.loadbalancing`."""

    enabled: Flag = setting("Send reads to replicas.", default=False)
    hosts: Texts = setting("The replicas.", default=())
    nameserver: Text = setting("Name server that knows the replicas.", default="localhost")
    port: Whole = setting("Its port.", default=8600)
    record: Text = setting("SRV record of the replicas.", default="")
    replicacheckinterval: Duration = setting("How often replicas are checked.", default=span("1m"))


class RowCounts(Section):
    """`database.metrics`."""

    enabled: Flag = setting("Count the rows of the tables for the metrics.", default=False)
    interval: Duration = setting("How often.", default=span("10s"))
    leaseduration: Duration = setting("How long one process has the task.", default=span("30s"))


class Database(Section):
    """`database`."""

    enabled: Enabled = setting(
        "`true`, `false` or `prefer`. Without effect: the database is always used, so `host` is needed.",
        default="false",
    )
    host: Text = setting(
        "Host name, or the directory of a Unix socket. `registry serve` needs it.", default=""
    )
    port: Port = setting("Port.", default=_PORT)
    user: Text = setting("User; not given: that of the operating system.", default="")
    password: Secret = setting("Password.", default=NO_SECRET)
    dbname: Text = setting("Database; not given: the user's name.", default="")
    sslmode: SslMode = setting(
        "`disable`, `allow`, `prefer`, `require`, `verify-ca` or `verify-full`, as in libpq.",
        default="prefer",
    )
    sslcert: Text = setting("File with the client certificate (PEM).", default="")
    sslkey: Text = setting("File with the client's key (PEM).", default="")
    sslrootcert: Text = setting("File with the CA of the server's certificate (PEM).", default="")
    connecttimeout: Span = setting("Longest wait for a new connection; 0 is 10s.", default=span("0s"))
    draintimeout: Duration = setting(
        "Connections close once the requests are done (`http.draintimeout`).",
        default=span("0s"),
        status=Status.IGNORED,
    )
    preparedstatements: Flag = setting(
        "Keep prepared statements. Faster; leave it off behind PgBouncer in transaction mode.", default=False
    )
    primary: Text = setting("Host that migrations go to.", default="", status=Status.LATER)
    pool: Pool = section(Pool, "The connection pool of each process.")
    backgroundmigrations: BackgroundMigrations = section(
        BackgroundMigrations, "Background migrations.", status=Status.IGNORED
    )
    loadbalancing: LoadBalancing = section(LoadBalancing, "Reads from replicas.", status=Status.LATER)
    metrics: RowCounts = section(RowCounts, "Row counts.", status=Status.LATER)
