"""SQLAlchemy Core's picture of the tables that statements name. The truth is `db/schema`; a test compares the two."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    Uuid,
)
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, INTERVAL, JSON, JSONB, TIMESTAMP

METADATA: Final = MetaData()
_MOMENT: Final = TIMESTAMP(timezone=True)

repositories: Final = Table(
    "repositories",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("path", Text(collation="C"), nullable=False),
    Column("name", Text, nullable=False),
    Column("has_tags", Boolean, nullable=False),
    Column("created_at", _MOMENT, nullable=False),
    Column("updated_at", _MOMENT),
    Column("last_published_at", _MOMENT),
)
blobs: Final = Table(
    "blobs",
    METADATA,
    Column("digest", BYTEA, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("storage_key", Text),
    Column("created_at", _MOMENT, nullable=False),
)
repository_blobs: Final = Table(
    "repository_blobs",
    METADATA,
    Column("repository_id", BigInteger, primary_key=True),
    Column("blob_digest", BYTEA, primary_key=True),
    Column("created_at", _MOMENT, nullable=False),
)
manifests: Final = Table(
    "manifests",
    METADATA,
    Column("repository_id", BigInteger, primary_key=True),
    Column("id", BigInteger, primary_key=True),
    Column("digest", BYTEA, nullable=False),
    Column("media_type", Text, nullable=False),
    Column("artifact_type", Text),
    Column("config_media_type", Text),
    Column("config_digest", BYTEA),
    Column("subject_digest", BYTEA),
    Column("payload", BYTEA, nullable=False),
    Column("payload_bytes", Integer, nullable=False),
    Column("total_size", BigInteger, nullable=False),
    Column("annotations", JSON),
    Column("annotations_bytes", Integer, nullable=False),
    Column("created_at", _MOMENT, nullable=False),
)
tags: Final = Table(
    "tags",
    METADATA,
    Column("repository_id", BigInteger, primary_key=True),
    Column("name", Text(collation="C"), primary_key=True),
    Column("manifest_id", BigInteger, nullable=False),
    Column("created_at", _MOMENT, nullable=False),
    Column("updated_at", _MOMENT),
)
blob_uploads: Final = Table(
    "blob_uploads",
    METADATA,
    Column("id", Uuid, primary_key=True),
    Column("repository_id", BigInteger, nullable=False),
    Column("storage_key", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("algorithm", SmallInteger, nullable=False),
    Column("hash_state", LargeBinary),
    Column("parts", JSONB),
    Column("writer", Uuid),
    Column("started_by", Text, nullable=False),
    Column("started_at", _MOMENT, nullable=False),
    Column("updated_at", _MOMENT, nullable=False),
)
gc_blob_review_queue: Final = Table(
    "gc_blob_review_queue",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("digest", BYTEA, nullable=False),
    Column("review_after", _MOMENT, nullable=False),
    Column("review_count", Integer, nullable=False),
    Column("event", Text, nullable=False),
    Column("created_at", _MOMENT, nullable=False),
)
gc_manifest_review_queue: Final = Table(
    "gc_manifest_review_queue",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("repository_id", BigInteger, nullable=False),
    Column("manifest_id", BigInteger, nullable=False),
    Column("review_after", _MOMENT, nullable=False),
    Column("review_count", Integer, nullable=False),
    Column("event", Text, nullable=False),
    Column("created_at", _MOMENT, nullable=False),
)
gc_storage_deletions: Final = Table(
    "gc_storage_deletions",
    METADATA,
    Column("storage_key", Text, primary_key=True),
    Column("digest", BYTEA),
    Column("size", BigInteger),
    Column("reason", Text, nullable=False),
    Column("not_before", _MOMENT, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("created_at", _MOMENT, nullable=False),
)
gc_review_after_defaults: Final = Table(
    "gc_review_after_defaults",
    METADATA,
    Column("event", Text, primary_key=True),
    Column("value", INTERVAL, nullable=False),
)
gc_control: Final = Table(
    "gc_control",
    METADATA,
    Column("only_row", Boolean, primary_key=True),
    Column("is_paused", Boolean, nullable=False),
    Column("reason", Text, nullable=False),
    Column("changed_at", _MOMENT, nullable=False),
)
gc_receipts: Final = Table(
    "gc_receipts",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("digest", BYTEA),
    Column("repository_id", BigInteger),
    Column("repository", Text),
    Column("event", Text, nullable=False),
    Column("suspected_at", _MOMENT, nullable=False),
    Column("bytes", BigInteger),
    Column("storage_key", Text),
    Column("deleted_at", _MOMENT, nullable=False),
    Column("removed_at", _MOMENT),
)
accounts: Final = Table(
    "accounts",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("name", Text(collation="C"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("is_admin", Boolean, nullable=False),
    Column("disabled_at", _MOMENT),
    Column("created_at", _MOMENT, nullable=False),
    Column("description", Text, nullable=False),
)
account_secrets: Final = Table(
    "account_secrets",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("account_id", BigInteger, nullable=False),
    Column("hash", Text, nullable=False),
    Column("label", Text, nullable=False),
    Column("created_at", _MOMENT, nullable=False),
    Column("expires_at", _MOMENT),
    Column("last_used_at", _MOMENT),
)
grants: Final = Table(
    "grants",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("account_id", BigInteger),
    Column("pattern", Text(collation="C"), nullable=False),
    Column("actions", ARRAY(Text), nullable=False),
    Column("created_at", _MOMENT, nullable=False),
)
refresh_tokens: Final = Table(
    "refresh_tokens",
    METADATA,
    Column("hash", BYTEA, primary_key=True),
    Column("account_id", BigInteger, nullable=False),
    Column("secret_id", BigInteger, nullable=False),
    Column("service", Text, nullable=False),
    Column("client_id", Text, nullable=False),
    Column("created_at", _MOMENT, nullable=False),
    Column("expires_at", _MOMENT, nullable=False),
    Column("last_used_at", _MOMENT),
)
signing_keys: Final = Table(
    "signing_keys",
    METADATA,
    Column("kid", Text, primary_key=True),
    Column("algorithm", Text, nullable=False),
    Column("public_key", Text, nullable=False),
    Column("created_at", _MOMENT, nullable=False),
    Column("expires_at", _MOMENT, nullable=False),
    Column("distrusted_at", _MOMENT),
)
login_failures: Final = Table(
    "login_failures",
    METADATA,
    Column("address", Text(collation="C"), primary_key=True),
    Column("account", Text(collation="C"), primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("last_failed_at", _MOMENT),
    Column("succeeded_at", _MOMENT),
    Column("forget_after", _MOMENT, nullable=False),
)
