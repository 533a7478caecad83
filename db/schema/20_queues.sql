-- The review queues and tombstones of online garbage collection.
--
-- A queue row is a suspicion, never a verdict (I6): a worker looks again, under locks, before it deletes. The queues
-- are append-only and have no unique key and no foreign key, so that to enqueue never waits for anybody. A later task
-- that is not yet due also counts as alive: that is how a grace period is given.

CREATE TABLE gc_review_after_defaults (
    event text PRIMARY KEY,
    value interval NOT NULL CHECK (value >= interval '0')
);
INSERT INTO gc_review_after_defaults (event, value)
SELECT event, interval '24 hours'
FROM unnest(ARRAY['blob_upload', 'manifest_upload', 'manifest_delete', 'layer_delete', 'manifest_list_delete',
                  'tag_delete', 'tag_switch', 'subject_delete', 'touch', 'sweep']) AS event;

CREATE TABLE gc_blob_review_queue (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest       bytea NOT NULL,
    review_after timestamptz NOT NULL,
    review_count integer NOT NULL DEFAULT 0,
    event        text NOT NULL REFERENCES gc_review_after_defaults (event),
    created_at   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX gc_blob_review_queue_due ON gc_blob_review_queue (review_after);
CREATE INDEX gc_blob_review_queue_by_digest ON gc_blob_review_queue (digest, review_after);

CREATE TABLE gc_manifest_review_queue (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    repository_id bigint NOT NULL,
    manifest_id   bigint NOT NULL,
    review_after  timestamptz NOT NULL,
    review_count  integer NOT NULL DEFAULT 0,
    event         text NOT NULL REFERENCES gc_review_after_defaults (event),
    created_at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX gc_manifest_review_queue_due ON gc_manifest_review_queue (review_after);
CREATE INDEX gc_manifest_review_queue_by_manifest
    ON gc_manifest_review_queue (repository_id, manifest_id, review_after);

-- Tombstones: objects that no blob and no upload names any more. The row stands until the object is gone (I2, I4).
CREATE TABLE gc_storage_deletions (
    storage_key text PRIMARY KEY,
    digest      bytea,
    size        bigint,
    reason      text NOT NULL CHECK (reason IN ('blob_unused', 'upload_duplicate', 'upload_cancelled',
                                                'upload_rejected', 'upload_taken_over', 'upload_expired', 'orphan')),
    not_before  timestamptz NOT NULL,
    attempts    integer NOT NULL DEFAULT 0,
    created_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX gc_storage_deletions_due ON gc_storage_deletions (not_before);

-- When a suspicion of this event falls due. The jitter keeps a push of many layers from falling due in one instant.
CREATE FUNCTION gc_review_after(p_event text) RETURNS timestamptz
LANGUAGE sql VOLATILE AS $$
    SELECT now() + value + CASE WHEN value > interval '1 minute' THEN random() * interval '1 minute'
                                ELSE interval '0' END
    FROM gc_review_after_defaults WHERE event = p_event
$$;
