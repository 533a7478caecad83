"""A database with enough in it that PostgreSQL plans as it would in earnest: thousands of rows, analyzed."""

from __future__ import annotations

from hashlib import md5, sha256
from typing import Any, Final
from uuid import UUID

REPOSITORIES: Final = 3_000
BLOBS: Final = 12_000
# Repositories that hold anything: numbers 1 to BUSY, with 100 manifests each. Manifest n is repository 1 + n % BUSY's,
# its layers are the blobs n + BUSY, n + 2 BUSY, … and ("empty", 0), which half of them have as config as well; from
# BUSY * 50 on every fifth is an index of n - BUSY and n - 2 BUSY. Twenty more repositories are linked to ("empty", 0).
BUSY: Final = 60
# Number n may pull from and push to `team-n/**`, and has one secret and one refresh token (`tokenn`). Every tenth is a
# robot. All have logged in from one address, and as many others have failed to log in as `root`, one a minute.
ACCOUNTS: Final = 5_000

_DIGEST: Final = "CREATE FUNCTION d(kind text, n bigint) RETURNS bytea LANGUAGE sql IMMUTABLE AS"
_SEED: Final = f"""
    SET session_replication_role = replica;
    {_DIGEST} $$ SELECT '\\x01'::bytea || sha256((kind || n)::bytea) $$;
    INSERT INTO repositories (path, has_tags, last_published_at)
        SELECT 'group/project-' || n, n % 3 = 1, now() FROM generate_series(1, {REPOSITORIES}) n;
    INSERT INTO blobs (digest, size, storage_key)
        SELECT d('blob', n), n, 'objects/' || n FROM generate_series(1, {BLOBS}) n;
    INSERT INTO repository_blobs (repository_id, blob_digest)
        SELECT 1 + n % {BUSY}, d('blob', n) FROM generate_series(1, {BLOBS}) n;
    INSERT INTO manifests (repository_id, id, digest, media_type, config_media_type, config_digest, subject_digest,
                           payload, payload_bytes, total_size)
        SELECT 1 + n % {BUSY}, n, d('manifest', n), 'application/vnd.oci.image.manifest.v1+json',
               'application/vnd.oci.image.config.v1+json', d('blob', n),
               CASE WHEN n % 4 = 0 THEN d('manifest', n - {BUSY}) END, repeat('x', 700)::bytea, 700, 5000
        FROM generate_series(1, {BUSY} * 100) n;
    INSERT INTO layers (repository_id, manifest_id, ordinal, digest, size, media_type)
        SELECT 1 + n % {BUSY}, n, o, d('blob', n + {BUSY} * o), 100, 'application/vnd.oci.image.layer.v1.tar+gzip'
        FROM generate_series(1, {BUSY} * 100) n, generate_series(1, 4) o;
    INSERT INTO manifest_references (repository_id, parent_id, child_id)
        SELECT 1 + n % {BUSY}, n, n - {BUSY} * c FROM generate_series({BUSY} * 50, {BUSY} * 100) n,
            generate_series(1, 2) c WHERE n % 5 = 0;
    INSERT INTO tags (repository_id, name, manifest_id)
        SELECT 1 + n % {BUSY}, 'v' || n || '-' || t, n FROM generate_series(1, {BUSY} * 100) n, generate_series(1, 2) t;
    INSERT INTO blobs (digest, size, storage_key) VALUES (d('empty', 0), 2, 'objects/empty');
    INSERT INTO repository_blobs (repository_id, blob_digest)
        SELECT n, d('empty', 0) FROM generate_series(1, {BUSY} + 20) n;
    INSERT INTO layers (repository_id, manifest_id, ordinal, digest, size, media_type)
        SELECT 1 + n % {BUSY}, n, 5, d('empty', 0), 2, 'application/vnd.oci.empty.v1+json'
        FROM generate_series(1, {BUSY} * 100) n;
    UPDATE manifests SET config_digest = d('empty', 0) WHERE id % 2 = 0;
    INSERT INTO blob_uploads (id, repository_id, storage_key, writer)
        SELECT md5('upload' || n)::uuid, 1 + n % {BUSY}, 'uploads/' || n, md5('writer' || n)::uuid
        FROM generate_series(1, 5000) n;
    INSERT INTO gc_blob_review_queue (digest, review_after, event)
        SELECT d('blob', n), now() + (n % 48) * interval '1 hour', 'blob_upload' FROM generate_series(1, {BLOBS}) n;
    INSERT INTO gc_manifest_review_queue (repository_id, manifest_id, review_after, event)
        SELECT 1 + n % {BUSY}, n, now() + (n % 48) * interval '1 hour', 'manifest_upload'
        FROM generate_series(1, {BUSY} * 100) n;
    INSERT INTO gc_storage_deletions (storage_key, reason, not_before)
        SELECT 'gone/' || n, 'blob_unused', now() + (n % 48) * interval '1 hour' FROM generate_series(1, 5000) n;
    INSERT INTO gc_receipts (kind, event, suspected_at, storage_key, deleted_at)
        SELECT 'blob', 'layer_delete', now(), 'gone/' || n, now() - (n % 48) * interval '1 hour'
        FROM generate_series(1, 5000) n;
    INSERT INTO accounts (name, kind) SELECT 'account-' || n, CASE WHEN n % 10 = 0 THEN 'robot' ELSE 'person' END
        FROM generate_series(1, {ACCOUNTS}) n;
    INSERT INTO account_secrets (account_id, hash)
        SELECT n, 'sha256:' || encode(sha256(n::text::bytea), 'hex') FROM generate_series(1, {ACCOUNTS}) n;
    INSERT INTO grants (account_id, pattern, actions)
        SELECT n, 'team-' || n || '/**', '{{pull,push}}'::text[] FROM generate_series(1, {ACCOUNTS}) n
        UNION ALL SELECT NULL, 'public/' || n || '/**', '{{pull}}'::text[] FROM generate_series(1, 5) n;
    INSERT INTO refresh_tokens (hash, account_id, secret_id, service, client_id, expires_at)
        SELECT sha256(('token' || n)::bytea), n, n, 'registry', 'docker', now() + (n % 48 - 1) * interval '1 hour'
        FROM generate_series(1, {ACCOUNTS}) n;
    INSERT INTO login_failures (address, account, failures, succeeded_at, forget_after)
        SELECT '192.0.2.1', 'account-' || n, 0, now(), now() + interval '30 days'
        FROM generate_series(1, {ACCOUNTS}) n;
    INSERT INTO login_failures (address, account, failures, last_failed_at, forget_after)
        SELECT '198.51.100.' || n, 'root', 1, now() - n * interval '1 minute', now() + (n % 48 - 1) * interval '1 hour'
        FROM generate_series(1, {ACCOUNTS}) n;
    SELECT setval('manifests_id_seq', {BUSY} * 200);
    DROP FUNCTION d(text, bigint);
"""


def digest(kind: str, number: int) -> bytes:
    """The packed digest of that `blob`, `manifest` or `empty`."""
    return b"\x01" + sha256(f"{kind}{number}".encode()).digest()


def uuid(kind: str, number: int) -> UUID:
    """The id of that `upload`, or its `writer`."""
    return UUID(md5(f"{kind}{number}".encode(), usedforsecurity=False).hexdigest())


async def seed(connection: Any) -> None:
    """Fill the empty database, past triggers and foreign keys."""
    await connection.execute(_SEED)
    await connection.execute("SET session_replication_role = origin")
    await connection.execute("VACUUM ANALYZE")
