"""Baseline: runs db/schema/*.sql, so that the text exists once. Frozen from the first release on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import context, op

revision = "20261121_baseline"
down_revision = None

_SCHEMA = Path(__file__).parents[2] / "schema"
# In the order in which foreign keys want them gone.
_PARTITIONED = ("tags", "manifest_references", "layers", "manifests", "repository_blobs", "blobs")


def upgrade() -> None:
    partitions = int(context.config.attributes["partitions"])
    for file in sorted(_SCHEMA.glob("*.sql")):
        _script(file.read_text())
    for table in reversed(_PARTITIONED):
        _script(f"SELECT create_partitions('{table}', {partitions})")


def downgrade() -> None:
    tables = (*_PARTITIONED, "blob_uploads", "repositories", "gc_blob_review_queue", "gc_manifest_review_queue",
              "gc_review_after_defaults", "gc_storage_deletions", "gc_control", "gc_receipts",
              "refresh_tokens", "account_secrets", "grants", "accounts", "signing_keys", "login_failures")  # fmt: skip
    _script(f"DROP TABLE {', '.join(tables)} CASCADE")
    _script(
        "DO $$ DECLARE f regprocedure; BEGIN FOR f IN SELECT p.oid::regprocedure FROM pg_proc p"
        " WHERE pronamespace = current_schema()::regnamespace AND (proname LIKE 'gc\\_%' OR proname IN"
        " ('keep_blob', 'keep_manifest', 'ensure_repository', 'finish_upload', 'mount_blob', 'unlink_blob',"
        " 'put_manifest', 'delete_manifest', 'settle_has_tags', 'create_partitions', 'add_account',"
        " 'set_account_disabled', 'set_account_password', 'add_account_secret', 'remove_account_secret',"
        " 'remove_grant', 'add_refresh_token', 'revoke_refresh_tokens', 'announce_signing_key',"
        " 'prune_login_failures', 'login_failed', 'login_succeeded'))"
        " LOOP EXECUTE format('DROP FUNCTION %s', f); END LOOP; END $$"
    )


def _script(sql: str) -> None:
    """Run several statements at once, which SQLAlchemy's own execute would prepare and so refuse."""
    bind = op.get_bind()
    bind.exec_driver_sql("SELECT 1")  # SQLAlchemy opens the transaction at its own first statement only

    def run(connection: Any) -> Any:
        return connection.execute(sql)

    driver: Any = bind.connection.dbapi_connection
    driver.run_async(run)
