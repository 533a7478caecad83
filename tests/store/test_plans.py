"""How PostgreSQL carries out every statement of the store on a database of thousands of rows.

Two witnesses. EXPLAIN shows the plan of the statement itself. The server's own counters show what really was read,
also inside of functions, triggers and foreign keys: no sequential scan of a table that grows, few rows, and one
partition of each table but where a statement has business in two.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import importlib
import json
import pkgutil
import re
from collections import defaultdict
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, cast
from uuid import UUID, uuid4

import pytest

import app.store
from app.store.statements import Statement
from tests.store.seed import BUSY, digest, seed, uuid
from tests.support.postgres import connected, create, drop

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.store.engine import Target

# The rows that a statement reads beside those that it gives back.
ROWS_MAX: Final = 60
HOUR: Final = dt.timedelta(hours=1)
# Tables that do not grow.
SMALL: Final = {"gc_review_after_defaults", "gc_control", "signing_keys"}
# Statements about a table that is so small here that to read it all is cheaper, which the engine forbids.
FEW_HERE: Final = {
    "gc_holders.parents", "census.manifests", "census.tags_above", "census.lose", "census.list",
}  # fmt: skip
NAME, OTHER, NEW = "group/project-1", "group/project-2", "group/new"
# Of repository 1: a manifest that is a child, an index that nothing needs, a blob that no manifest needs.
CHILD, PARENT, FREE = BUSY * 99, BUSY * 100, BUSY * 150
TEN: Final = [BUSY * n for n in range(120, 130)]
LONG_AGO: Final = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
LONG_HENCE: Final = dt.datetime(2120, 1, 1, tzinfo=dt.UTC)
TEN_BLOBS: Final = [digest("blob", n) for n in TEN]
ANYWHERE: Final = {
    "blobs": 4,
    "repository_blobs": 4,
    "manifests": 4,
    "layers": 4,
    "manifest_references": 4,
    "tags": 4,
}


@dataclass(frozen=True)
class Sample:
    """Values of a statement, and how many partitions of a table it may touch where that is more than one."""

    values: dict[str, Any]
    partitions: dict[str, int] = field(default_factory=dict[str, int])
    rows_max: int = ROWS_MAX


def sample(partitions: dict[str, int] | None = None, rows_max: int = ROWS_MAX, **values: Any) -> Sample:
    return Sample(values, partitions or {}, rows_max)


def but(values: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**values, **changes}


def put(**changes: Any) -> Sample:
    layers = [digest("blob", n) for n in TEN]
    values: dict[str, Any] = {
        "path": NAME,
        "digest": digest("new", 1),
        "media_type": "application/vnd.oci.image.manifest.v1+json",
        "artifact_type": "application/vnd.example",
        "config_media_type": "application/vnd.oci.image.config.v1+json",
        "config_digest": digest("empty", 0),
        "subject_digest": digest("manifest", PARENT),
        "payload": b"{}",
        "total_size": 5,
        "annotations": "{}",
        "blobs": sorted({*layers, digest("empty", 0)}),
        "layers": layers,
        "layer_sizes": [1] * len(layers),
        "layer_media_types": ["application/vnd.oci.image.layer.v1.tar"] * len(layers),
        "children": [],
        "optional_children": [],
        "tags": ["latest", "v60-1", "v120-1"],
        "immutable": [],
    } | changes
    # A digest may be in any partition of the blobs; eleven of them are read row by row, and checked once more.
    return Sample(values, {"blobs": 4}, rows_max=ROWS_MAX + 40)


def asked(*references: Any, path: str = NAME, partitions: dict[str, int] | None = None) -> Sample:
    """So many questions about repository 1 in one statement."""
    count = len(references)
    return sample(
        partitions,
        repository_ids=[1] * count,
        paths=[path] * count,
        references=list(references),
        grace=HOUR,
    )


NO_BLOBS: Final[dict[str, Any]] = {
    "config_digest": None, "blobs": [], "layers": [], "layer_sizes": [], "layer_media_types": [],
}  # fmt: skip
UPLOAD: Final[dict[str, Any]] = {"id": uuid("upload", BUSY), "path": NAME}
MINE: Final[dict[str, Any]] = {"upload": uuid("upload", BUSY), "mine": uuid("writer", BUSY)}
SECRET_HASH: Final = "sha256:" + "0" * 64
NEW_ACCOUNT: Final[dict[str, Any]] = {
    "kind": "robot", "is_admin": False, "description": "", "label": "", "lifetime": HOUR,
}  # fmt: skip
LOGIN: Final[dict[str, Any]] = {"address": "192.0.2.1"}

SAMPLES: Final[dict[str, list[Sample]]] = {
    "blobs.keep": [sample(digest=digest("blob", BUSY * n)) for n in (1, 48)],
    "blobs.mount": [
        sample({"repository_blobs": 2}, source=1, target=2, digest=digest("blob", FREE)),
        # Whose it is nobody says: one probe in each partition, until one has it.
        sample({"repository_blobs": 4}, source=None, target=2, digest=digest("blob", FREE)),
        sample(source=1, target=3000, digest=digest("nothing", 0)),
    ],
    "blobs.unlink": [
        sample(repository_id=1, digest=digest("blob", FREE)),
        sample(repository_id=1, digest=digest("blob", BUSY * 60)),
        *(sample(repository_id=BUSY + n, digest=digest("empty", 0)) for n in range(1, 9)),
        sample(repository_id=3000, digest=digest("empty", 0)),
    ],
    "collecting.blobs": [
        # Every reference to a blob may be in any partition.
        sample(ANYWHERE, limit=limit, begin=begin, storage_delay=HOUR)
        for limit, begin in ((5, None), (10, LONG_AGO))
    ],
    "collecting.manifests": [
        sample(ANYWHERE, limit=limit, begin=begin, keep_untagged=keep_untagged)
        for limit, begin, keep_untagged in ((5, None, False), (5, LONG_AGO, False), (10, None, True))
    ],
    "collecting.put_off_blob_review": [sample()],
    "collecting.put_off_manifest_review": [sample()],
    "collecting.expire_uploads": [
        sample(limit=5, age=age, grace=HOUR) for age in (-HOUR, dt.timedelta(days=7))
    ],
    "collecting.take_tombstones": [sample(limit=10, lease=HOUR)],
    "collecting.settle_tombstones": [sample(keys=[f"gone/{n}" for n in range(1, 11)])],
    "collecting.put_off_tombstones": [sample(keys=[f"gone/{n}" for n in range(1, 11)])],
    "collecting.prune_receipts": [
        sample(limit=10, age=age) for age in (dt.timedelta(hours=12), dt.timedelta(days=90))
    ],
    "collecting.is_paused": [sample()],
    "collecting.set_paused": [sample(is_paused=True, reason="why"), sample(is_paused=False, reason="")],
    "collecting.set_review_after": [sample(delay=HOUR)],
    "collecting.next_blob": [sample()],
    "collecting.next_manifest": [sample()],
    "collecting.next_tombstone": [sample()],
    "collecting.oldest_upload": [sample()],
    "collecting.oldest_receipt": [sample()],
    "lookups.repositories": [sample(paths=[NAME]), sample(paths=[NEW, NAME, OTHER])],
    "lookups.manifests_by_tag": [
        asked("v60-1"),
        asked("none"),
        asked("v60-1", path=OTHER),
        asked(*(f"v{BUSY * n}-2" for n in range(1, 41))),
    ],
    "lookups.manifests_by_digest": [
        asked(digest("manifest", CHILD)),
        asked(digest("manifest", CHILD), path=OTHER),
        asked(digest("nothing", 0)),
        asked(*(digest("manifest", BUSY * n) for n in range(1, 41))),
    ],
    "lookups.blobs_by_digest": [
        asked(digest("blob", FREE)),
        asked(digest("empty", 0)),
        asked(digest("empty", 0), path=OTHER),
        asked(digest("nothing", 0)),
        asked(*(digest("blob", BUSY * n) for n in range(1, 41)), partitions={"blobs": 4}),
    ],
    "manifests.payload": [sample(repository_id=1, manifest_id=CHILD), sample(repository_id=1, manifest_id=1)],
    "manifests.keep": [
        sample(repository_id=1, manifest_id=CHILD),
        sample(repository_id=1, manifest_id=BUSY * 48),
        sample(repository_id=1, manifest_id=1),
    ],
    "manifests.put": [
        put(),
        put(tags=[]),
        *(put(tags=["v60-1", "new"], immutable=[tag]) for tag in ("v60-1", "new")),
        put(digest=digest("manifest", CHILD)),
        put(layers=[], layer_sizes=[], layer_media_types=[], blobs=[digest("nothing", 0)]),
        put(**NO_BLOBS, children=[digest("manifest", BUSY * n) for n in range(20, 40)]),
        put(**NO_BLOBS, children=[digest("nothing", 0)], optional_children=[digest("manifest", BUSY)]),
        put(**NO_BLOBS, path=NEW, subject_digest=None),
    ],
    "manifests.delete": [
        sample(repository_id=1, digest=digest("manifest", PARENT)),
        sample(repository_id=1, digest=digest("manifest", CHILD)),
        sample(repository_id=1, digest=digest("nothing", 0)),
    ],
    "manifests.untag": [sample(repository_id=1, tag="v60-1"), sample(repository_id=1, tag="none")],
    "manifests.referrers": [
        sample(
            repository_id=1,
            subject=digest("manifest", BUSY * 3),
            artifact_type=kind,
            after=0,
            limit=10,
            bytes_max=9,
        )
        for kind in (None, "application/vnd.oci.image.config.v1+json")
    ],
    "repositories.find": [sample(path=NAME), sample(path=NEW)],
    "repositories.ensure": [sample(path=NAME), sample(path=NEW)],
    "repositories.catalog": [sample(last=last, limit=10) for last in ("", "group/project-2", "z")],
    "repositories.tags": [sample(repository_id=1, last=last, limit=10) for last in ("", "v3", "z")],
    "repositories.settle_has_tags": [sample(repository_id=1), sample(repository_id=BUSY + 1)],
    "uploads.start": [
        sample(id=uuid4(), path=path, storage_key=f"k-{path}", algorithm=1, started_by="me", writer=uuid4())
        for path in (NAME, NEW)
    ],
    "uploads.find": [sample(**UPLOAD), sample(**but(UPLOAD, path=OTHER))],
    "uploads.claim": [
        sample(**UPLOAD, new_writer=uuid4(), start=None),
        sample(**UPLOAD, new_writer=uuid4(), start=0),
        sample(**UPLOAD, new_writer=uuid4(), start=7),
    ],
    "uploads.save": [sample(**MINE, new_size=7, new_state=b"state")],
    "uploads.intend": [sample(key="a new key", grace=HOUR)],
    "uploads.adopt": [
        sample(**MINE, key="gone/77", old_key=f"uploads/{BUSY}", old_size=7),
        sample(**but(MINE, mine=uuid4()), key="gone/77", old_key=f"uploads/{BUSY}", old_size=7),
    ],
    "uploads.drop": [
        sample(**UPLOAD, mine=None, reason="upload_cancelled", grace=HOUR),
        sample(**UPLOAD, mine=uuid4(), reason="upload_cancelled", grace=HOUR),
    ],
    "uploads.finish": [
        sample(
            id=uuid("upload", BUSY),
            repository_id=1,
            writer=uuid("writer", BUSY),
            digest=digest(kind, FREE),
            size=7,
        )
        for kind in ("new", "blob")
    ],
    "collecting.suspect_manifests": [
        sample(ANYWHERE, limit=10, repository_id=r, manifest_id=m) for r, m in ((0, 0), (1, CHILD), (3000, 1))
    ],
    "collecting.suspect_blobs": [
        sample(ANYWHERE, limit=10, digest=after) for after in (b"", TEN_BLOBS[0], b"\xff")
    ],
    # Of each queue as many as are due here.
    "queues.states": [sample(rows_max=1_000)],
    # What garbage collection looks like. Those that count or list many take as many as they are told to, and with them
    # what is due at the same instant: 250 reviews, and here all the uploads.
    "gc_counts.now": [sample()],
    "gc_counts.control": [sample()],
    "gc_counts.delays": [sample()],
    "gc_counts.estimates": [sample()],
    "gc_counts.blob_queue": [sample(most=20)],
    "gc_counts.manifest_queue": [sample(most=20)],
    "gc_counts.objects": [sample(most=20)],
    "gc_counts.receipts_since": [sample(age=HOUR * 12, most=20)],
    "gc_due.due_blobs": [
        sample(rows_max=600, until=LONG_HENCE, after=after, last=0, limit=10) for after in (None, LONG_AGO)
    ],
    "gc_due.due_manifests": [
        sample(rows_max=600, until=LONG_HENCE, after=after, last=0, limit=10) for after in (None, LONG_AGO)
    ],
    "gc_due.due_objects": [
        sample(rows_max=300, until=LONG_HENCE, after=after, last_key="", limit=10)
        for after in (None, LONG_AGO)
    ],
    "gc_due.old_uploads": [
        sample(rows_max=5_010, until=LONG_HENCE, age=HOUR, after=None, last_id=uuid("upload", 0), limit=10)
    ],
    "gc_due.unused_blobs": [sample(ANYWHERE, digests=TEN_BLOBS)],
    "gc_due.unused_manifests": [sample(repositories=[1] * 3, manifests=[CHILD, PARENT, 1])],
    "gc_due.needed_bytes": [sample(ANYWHERE, repositories=[1] * 2, manifests=[CHILD, PARENT])],
    "gc_holders.tagged": [sample(repository_id=1, tag="v60-1"), sample(repository_id=1, tag="none")],
    "gc_holders.manifest": [sample(repository_id=1, digest=digest("manifest", CHILD))],
    "gc_holders.repositories_of_manifest": [
        sample(ANYWHERE, digest=digest("manifest", CHILD), most=20, shown=10)
    ],
    "gc_holders.tags": [sample(repository_id=1, manifest_id=CHILD, most=20, shown=10)],
    "gc_holders.parents": [sample(repository_id=1, manifest_id=CHILD, most=20, shown=10)],
    "gc_holders.referrers": [sample(repository_id=1, digest=digest("manifest", BUSY * 3), most=20, shown=10)],
    "gc_holders.blob": [sample(digest=digest("blob", FREE))],
    "gc_holders.is_linked": [sample(repository_id=1, digest=digest("blob", FREE))],
    "gc_holders.links": [sample(ANYWHERE, digest=digest("empty", 0), most=20, shown=10)],
    "gc_holders.users": [
        sample(ANYWHERE, digest=one, most=20, shown=5) for one in (digest("empty", 0), TEN_BLOBS[0])
    ],
    "gc_holders.blob_reviews": [sample(digest=digest("blob", FREE), most=20, shown=10)],
    "gc_holders.manifest_reviews": [sample(repository_id=1, manifest_id=CHILD, most=20, shown=10)],
    "gc_holders.receipts": [sample(digest=TEN_BLOBS[0], path=path, shown=10) for path in (None, NAME)],
    # What `registry fsck` asks: pages of a whole table, in the order of a key that goes through all partitions.
    "census.blobs": [sample({"blobs": 4}, digests=TEN_BLOBS)],
    "census.blobs_after": [sample({"blobs": 4}, last=last, limit=10) for last in (b"", TEN_BLOBS[0])],
    "census.uploads": [sample(keys=[f"uploads/{n}" for n in range(1, 11)])],
    "census.manifests": [
        sample(ANYWHERE, repository_id=r, manifest_id=m, limit=3, bytes_max=10_000)
        for r, m in ((0, 0), (1, CHILD), (BUSY, BUSY * 100))
    ],
    # A chain of a hundred subjects, up to its end.
    "census.tags_above": [
        sample(rows_max=220, repository_id=1, manifest_id=m) for m in (CHILD, PARENT, BUSY * 4)
    ],
    "census.catalog": [sample({"tags": 4}, after=after, limit=10) for after in (0, 2_995)],
    "census.lose": [
        sample({"blobs": 4}, digests=[TEN_BLOBS[0]], keys=[key], object_bytes=[3], grace=HOUR)
        for key in (f"objects/{TEN[0]}", "another")
    ],
    "census.entomb": [sample(keys=["a new key", "gone/1"], sizes=[1, 2], grace=HOUR)],
    "census.list": [sample(repository_id=n) for n in (1, 3, 3000)],
    # Who may do what.
    "accounts.add": [
        sample(**but(NEW_ACCOUNT, name=name, hash=secret_hash))
        for name in ("account-7", "new")
        for secret_hash in (None, SECRET_HASH)
    ],
    "accounts.find": [sample(name="account-7"), sample(name="nobody")],
    "accounts.page": [
        sample(kind=kind, last=last, limit=10) for kind in ("person", "robot") for last in ("", "b", "z")
    ],
    "accounts.set_disabled": [sample(name="account-7", is_disabled=on) for on in (True, False)],
    "accounts.set_admin": [sample(name="account-7", new_is_admin=True)],
    "accounts.remove": [sample(name="account-7"), sample(name="nobody")],
    "accounts.any_exists": [sample()],
    "accounts.set_password": [sample(account_id=n, hash="$argon2id$x") for n in (7, 10)],
    "accounts.add_secret": [
        sample(account_id=n, hash=SECRET_HASH, label="", lifetime=HOUR, most=most)
        for n, most in ((7, 20), (10, 20), (10, 1))
    ],
    "accounts.remove_secret": [sample(account_id=10, secret_id=n) for n in (10, 11)],
    "accounts.secrets": [sample(account_id=10)],
    "accounts.mark_used": [sample(secret_id=10)],
    "accounts.credentials": [sample(name="account-7"), sample(name="nobody")],
    "accounts.anonymous": [sample()],
    "grants.add": [
        sample(account_id=account, pattern=pattern, actions=["pull"])
        for account in (7, None)
        for pattern in ("team-7/**", "new/**")
    ],
    "grants.remove": [
        sample(account_id=account, pattern=pattern, actions=["pull"])
        for account, pattern in ((7, "team-7/**"), (7, "none"), (None, "public/1/**"), (None, "none"))
    ],
    "grants.of_account": [sample(account_id=7)],
    "grants.of_everybody": [sample()],
    "grants.page": [sample(after=after, limit=10) for after in (0, 1_000)],
    "refresh_tokens.add": [
        sample(
            hash=b"\x07" * 32,
            secret_id=n,
            service="registry",
            client_id="docker",
            lifetime=HOUR,
            most=10,
            prune=10,
        )
        for n in (7, 1_000_000)
    ],
    "refresh_tokens.find": [sample(hash=sha256(text).digest()) for text in (b"token7", b"nothing")],
    "refresh_tokens.revoke_all": [sample(account_id=7)],
    "signing_keys.announce": [sample(id="kid", algorithm="ES256", public_key="PEM", lifetime=HOUR)],
    "signing_keys.distrust": [sample(id="kid")],
    "signing_keys.retire": [sample(id="kid", lifetime=HOUR)],
    "signing_keys.trusted": [sample()],
    # An address from which thousands have logged in, and an account that many addresses have tried.
    "logins.state": [
        sample(**but(LOGIN, account=account), known=HOUR, window=dt.timedelta(minutes=15), cap=10)
        for account in ("account-7", "root", "nobody")
    ],
    "logins.failed": [
        sample(**but(LOGIN, account=account), window=HOUR, keep=HOUR, prune=10)
        for account in ("account-7", "nobody")
    ],
    "logins.succeeded": [
        sample(**but(LOGIN, account=account), pause=pause, keep=HOUR, prune=10)
        for account, pause in (("account-7", HOUR), ("account-7", HOUR * 0), ("nobody", HOUR))
    ],
}
# They read tables from end to end, and why that is right.
WHOLE: Final = {
    "health.names_objects": "ends at the first blob that has an object, once at the start",
    "census.named": "fsck compares every row that names an object with the storage's listing",
    "census.holders": "fsck asks it once for thousands of keys without a row, and keys of blobs have no index",
    "census.named_about": "PostgreSQL's own statistics, one row per table, once per fsck",
    "census.manifests_about": "PostgreSQL's own statistics, one row per table, once per fsck",
}


def statements() -> dict[str, Statement]:
    """Every Statement constant of every module of the store, by its name."""
    found: dict[str, Statement] = {}
    for module in pkgutil.iter_modules(app.store.__path__, "app.store."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, Statement):
                assert found.setdefault(value.name, value) is value, f"two statements are called {value.name}"
    return found


STATEMENTS: Final = statements()
CASES: Final = [
    pytest.param(STATEMENTS[name], one, id=f"{name}-{number}")
    for name, samples in SAMPLES.items()
    if name in STATEMENTS
    for number, one in enumerate(samples, start=1)
]


@pytest.fixture(scope="module")
def seeded(
    postgres_server: Target, migrated_database: tuple[Target, Any], request: pytest.FixtureRequest
) -> Iterator[Target]:
    worker = getattr(request.config, "workerinput", {}).get("workerid", "alone")

    async def make() -> Target:
        target = await create(postgres_server, f"seeded_{worker}", template="registry_template")
        async with connected(target) as connection:
            await seed(connection)
        return target

    target = asyncio.run(make())
    yield target
    asyncio.run(drop(postgres_server, target.database))


def test_samples_when_statements_are_listed_then_each_has_some() -> None:
    assert set(STATEMENTS) == {*SAMPLES, *WHOLE}


# What EXPLAIN says


def literal(value: Any) -> str:
    """The value as SQL text whose type PostgreSQL infers."""
    match value:
        case None:
            return "NULL"
        case bytes():
            return f"'\\x{value.hex()}'"
        case list():
            elements = cast("list[Any]", value)
            return "'{" + ",".join(f'"{_element(one)}"' for one in elements) + "}'"
        case dt.timedelta():
            return f"'{value.total_seconds()} seconds'"
        case str() | UUID() | dt.datetime():
            return f"'{value}'"
        case _:
            return str(value)


def _element(value: Any) -> str:
    return f"\\\\x{value.hex()}" if isinstance(value, bytes) else str(value)


async def explain(connection: Any, statement: Statement, values: dict[str, Any]) -> Any:
    """The generic plan, carried out and undone."""
    await connection.execute("SET plan_cache_mode = force_generic_plan")
    await connection.execute(f"PREPARE looked_at AS {statement.text}")
    transaction = connection.transaction()
    await transaction.start()
    try:
        arguments = ", ".join(literal(value) for value in statement.arguments(values))
        call = f"({arguments})" if arguments else ""
        return json.loads(
            await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE looked_at{call}")
        )[0]["Plan"]
    finally:
        await transaction.rollback()


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def parent_of(relation: str) -> str:
    return re.sub(r"_p\d+$", "", relation)


@pytest.mark.parametrize(("statement", "one"), CASES)
def test_plan_when_explained_then_it_has_no_sequential_scan_and_carries_out_one_partition(
    seeded: Target, statement: Statement, one: Sample
) -> None:
    async def scenario() -> None:
        async with connected(seeded) as connection:
            if statement.name in FEW_HERE:
                await connection.execute("SET enable_seqscan = off")
            plan = await explain(connection, statement, one.values)
        touched: dict[str, set[str]] = defaultdict(set)
        for node in nodes(plan):
            relation = node.get("Relation Name")
            if relation is None or node["Node Type"] == "ModifyTable" or node["Actual Loops"] == 0:
                continue
            if relation in SMALL:
                continue
            assert node["Node Type"] != "Seq Scan", json.dumps(plan, indent=1)
            touched[parent_of(relation)].add(relation)
        for table, partitions in touched.items():
            assert len(partitions) <= one.partitions.get(table, 1), json.dumps(plan, indent=1)

    asyncio.run(scenario())


# What the counters say

COUNTERS: Final = """
    SELECT relname, coalesce(seq_scan, 0), coalesce(idx_scan, 0),
        coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)
    FROM pg_stat_xact_user_tables
"""


async def read(
    connection: Any, statement: Statement, values: dict[str, Any]
) -> dict[str, tuple[int, int, int]]:
    """Table or partition → (sequential scans, index scans, rows) of one execution, which is undone."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        before = {row[0]: row[1:] for row in await connection.fetch(COUNTERS)}
        await connection.fetch(statement.text, *statement.arguments(values))
        after = {row[0]: row[1:] for row in await connection.fetch(COUNTERS)}
    finally:
        await transaction.rollback()
    changed = {
        name: tuple(now - then for now, then in zip(after[name], before[name], strict=True)) for name in after
    }
    return {name: counts for name, counts in changed.items() if any(counts)}


@pytest.mark.parametrize("mode", ["force_generic_plan", "auto"], ids=["generic", "pgbouncer"])
@pytest.mark.parametrize(("statement", "one"), CASES)
def test_execution_when_counted_then_few_rows_of_one_partition_are_read_by_index(
    seeded: Target, statement: Statement, one: Sample, mode: str
) -> None:
    async def scenario() -> None:
        async with connected(seeded) as connection:
            await connection.execute(f"SET plan_cache_mode = {mode}")
            # As the engine sets it: what is asked here is whether an index serves; the bound on rows says how well.
            await connection.execute("SET enable_seqscan = off")
            counts = await read(connection, statement, one.values)
        touched: dict[str, set[str]] = defaultdict(set)
        for relation, (sequential, _, rows) in counts.items():
            table = parent_of(relation)
            if table in SMALL:
                continue
            touched[table].add(relation)
            assert sequential == 0, f"{relation} was read from end to end"
            assert rows <= one.rows_max, f"{rows} rows of {relation} were read"
        for table, partitions in touched.items():
            assert len(partitions) <= one.partitions.get(table, 1), f"{table}: {sorted(partitions)}"

    asyncio.run(scenario())


def test_counters_when_a_statement_reads_a_table_from_end_to_end_then_they_show_it(seeded: Target) -> None:
    """The witness itself."""

    async def scenario() -> None:
        async with connected(seeded) as connection, connection.transaction():
            before = {row[0]: row[1:] for row in await connection.fetch(COUNTERS)}
            await connection.fetch("SELECT count(*) FROM tags WHERE name LIKE '%x%'")
            after = {row[0]: row[1:] for row in await connection.fetch(COUNTERS)}
        scans = {name: after[name][0] - before[name][0] for name in after if name.startswith("tags_p")}
        assert scans == {f"tags_p{n}": 1 for n in range(4)}

    asyncio.run(scenario())
