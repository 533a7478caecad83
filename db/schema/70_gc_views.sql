-- The queues as a person at psql wants to see them: SELECT * FROM gc_queue_status; and \d+ gc_queue_status says what each
-- column means. Whole queues are read: a second or so for each million rows (`registry gc status` stops at a million).

-- A digest as people know it.
CREATE FUNCTION gc_digest_text(p_digest bytea) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT CASE get_byte(p_digest, 0) WHEN 1 THEN 'sha256:' WHEN 2 THEN 'sha512:' ELSE '?:' END
           || encode(substr(p_digest, 2), 'hex')
$$;

CREATE VIEW gc_queue_status AS
SELECT queue, event, count(*) AS reviews,
       count(*) FILTER (WHERE review_after <= now()) AS due,
       count(*) FILTER (WHERE review_after < now() - interval '24 hours') AS overdue,
       count(*) FILTER (WHERE review_count > 10) AS stuck,
       min(review_after) AS next_due,
       date_trunc('second', min(review_after) - now()) AS due_in
FROM (SELECT 'blobs' AS queue, event, review_after, review_count FROM gc_blob_review_queue
      UNION ALL
      SELECT 'manifests', event, review_after, review_count FROM gc_manifest_review_queue) AS reviews
GROUP BY queue, event
ORDER BY queue, event;

COMMENT ON VIEW gc_queue_status IS 'The review queues, one row for each queue and event. A review is a suspicion that something is unused.';
COMMENT ON COLUMN gc_queue_status.queue IS 'What is reviewed: blobs or manifests.';
COMMENT ON COLUMN gc_queue_status.event IS 'What made them suspect.';
COMMENT ON COLUMN gc_queue_status.reviews IS 'Reviews that wait, due or not.';
COMMENT ON COLUMN gc_queue_status.due IS 'Of them, those whose time has come.';
COMMENT ON COLUMN gc_queue_status.overdue IS 'Due for more than 24 hours: the collectors do not keep up, or do not run.';
COMMENT ON COLUMN gc_queue_status.stuck IS 'Put off more than ten times, because others held what they are about.';
COMMENT ON COLUMN gc_queue_status.next_due IS 'When the first of them falls due, or fell.';
COMMENT ON COLUMN gc_queue_status.due_in IS 'The same from now on; negative: it has been due for so long.';

CREATE VIEW gc_overdue AS
SELECT 'blobs' AS queue, q.id, gc_digest_text(q.digest) AS digest, NULL::text AS repository, q.event, q.review_after,
       q.review_count, q.created_at, date_trunc('second', now() - q.review_after) AS due_for
FROM gc_blob_review_queue AS q
WHERE q.review_after < now() - interval '24 hours' OR q.review_count > 10
UNION ALL
SELECT 'manifests', q.id, gc_digest_text(m.digest), r.path, q.event, q.review_after,
       q.review_count, q.created_at, date_trunc('second', now() - q.review_after)
FROM gc_manifest_review_queue AS q
LEFT JOIN repositories AS r ON r.id = q.repository_id
LEFT JOIN manifests AS m ON m.repository_id = q.repository_id AND m.id = q.manifest_id
WHERE q.review_after < now() - interval '24 hours' OR q.review_count > 10
ORDER BY review_after;

COMMENT ON VIEW gc_overdue IS 'Reviews that have been due for more than 24 hours or were put off more than ten times, the oldest first.';
COMMENT ON COLUMN gc_overdue.queue IS 'What is reviewed: blobs or manifests.';
COMMENT ON COLUMN gc_overdue.id IS 'The row of gc_blob_review_queue or gc_manifest_review_queue.';
COMMENT ON COLUMN gc_overdue.digest IS 'What is suspect. Null: a manifest that is gone; its review will find that out.';
COMMENT ON COLUMN gc_overdue.repository IS 'Of a manifest: its repository.';
COMMENT ON COLUMN gc_overdue.event IS 'What made it suspect.';
COMMENT ON COLUMN gc_overdue.review_after IS 'When the review is due.';
COMMENT ON COLUMN gc_overdue.review_count IS 'How often it was put off.';
COMMENT ON COLUMN gc_overdue.created_at IS 'When it became suspect.';
COMMENT ON COLUMN gc_overdue.due_for IS 'For how long the review has been due; negative: it is not due yet.';

CREATE VIEW gc_pending_storage AS
SELECT reason, count(*) AS objects, count(*) FILTER (WHERE not_before <= now()) AS due,
       coalesce(sum(size), 0)::bigint AS bytes, pg_size_pretty(coalesce(sum(size), 0)) AS size,
       min(not_before) AS next_due, date_trunc('second', min(not_before) - now()) AS due_in, max(attempts) AS attempts
FROM gc_storage_deletions
GROUP BY reason
ORDER BY reason;

COMMENT ON VIEW gc_pending_storage IS 'Objects in storage that wait to be deleted, one row for each reason.';
COMMENT ON COLUMN gc_pending_storage.reason IS 'Why they go.';
COMMENT ON COLUMN gc_pending_storage.objects IS 'Objects that wait, due or not.';
COMMENT ON COLUMN gc_pending_storage.due IS 'Of them, those whose time has come.';
COMMENT ON COLUMN gc_pending_storage.bytes IS 'Their bytes, as far as they are known.';
COMMENT ON COLUMN gc_pending_storage.size IS 'The same, rounded.';
COMMENT ON COLUMN gc_pending_storage.next_due IS 'When the first of them falls due, or fell.';
COMMENT ON COLUMN gc_pending_storage.due_in IS 'The same from now on; negative: it has been due for so long.';
COMMENT ON COLUMN gc_pending_storage.attempts IS 'The most times that the deletion of any of them was tried.';

CREATE VIEW gc_recent AS
SELECT r.deleted_at, r.kind, gc_digest_text(r.digest) AS digest, r.repository, r.event, r.suspected_at, r.bytes,
       pg_size_pretty(r.bytes) AS size, r.removed_at, r.storage_key
FROM gc_receipts AS r
ORDER BY r.deleted_at DESC;

COMMENT ON VIEW gc_recent IS 'What was deleted and why, the latest first: SELECT * FROM gc_recent LIMIT 20;';
COMMENT ON COLUMN gc_recent.deleted_at IS 'When its row went.';
COMMENT ON COLUMN gc_recent.kind IS 'manifest, blob, or object: one that was no blob any more, or never.';
COMMENT ON COLUMN gc_recent.digest IS 'What it was. Null: an upload that never got so far.';
COMMENT ON COLUMN gc_recent.repository IS 'Of a manifest: its repository, as it was called then.';
COMMENT ON COLUMN gc_recent.event IS 'What made it suspect; of an object, why it went.';
COMMENT ON COLUMN gc_recent.suspected_at IS 'Since when.';
COMMENT ON COLUMN gc_recent.bytes IS 'Bytes that this freed, or will. Null: nobody knows.';
COMMENT ON COLUMN gc_recent.size IS 'The same, rounded.';
COMMENT ON COLUMN gc_recent.removed_at IS 'When its object was deleted from storage. Null: it is still there.';
COMMENT ON COLUMN gc_recent.storage_key IS 'The object.';
