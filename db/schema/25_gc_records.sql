-- What the collectors are told, and what they leave behind for people to read.

-- One row. A pause holds every deletion, on every replica, until somebody ends it.
CREATE TABLE gc_control (
    only_row   boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    is_paused  boolean NOT NULL DEFAULT false,
    reason     text NOT NULL DEFAULT '',
    changed_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO gc_control DEFAULT VALUES;

-- Receipts: a row for everything that was removed, written in the transaction that removes its row. A blob's object goes
-- later: then `removed_at` is set. Pruned by age (gc.receipts.age).
CREATE TABLE gc_receipts (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- 'object': one that was no blob any more, or never: `event` is the tombstone's reason.
    kind          text NOT NULL CHECK (kind IN ('blob', 'manifest', 'object')),
    digest        bytea,
    -- A manifest's. The path as it was then.
    repository_id bigint,
    repository    text,
    -- What made it suspect, and when.
    event         text NOT NULL,
    suspected_at  timestamptz NOT NULL,
    bytes         bigint,
    storage_key   text,
    deleted_at    timestamptz NOT NULL DEFAULT now(),
    removed_at    timestamptz
);
CREATE INDEX gc_receipts_by_age ON gc_receipts (deleted_at);
CREATE INDEX gc_receipts_by_digest ON gc_receipts (digest);
CREATE INDEX gc_receipts_pending ON gc_receipts (storage_key) WHERE kind = 'blob' AND removed_at IS NULL;
