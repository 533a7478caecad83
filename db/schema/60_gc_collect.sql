-- The collectors' transactions, one function and so one round trip each.
--
-- Each takes a batch of due reviews, looks again under locks, in new statements (I6), deletes what is unused, and settles
-- every review that it took: deleted, or put off. Everything is taken FOR UPDATE SKIP LOCKED, so that a collector waits
-- for nobody; what somebody else holds is alive for now, and its review is put off.
--
-- A later review that is not due yet counts as alive: that is how a grace period is given (20_queues.sql).
--
-- The settings of the functions stand here, not in the session, since PgBouncer refuses those: plans are made once, and
-- follow indexes from row to row even where they were made while the tables were small.

-- Whether deletions may begin now. True holds off a pause until the transaction ends; it never waits for one.
CREATE FUNCTION gc_may_delete() RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT pg_try_advisory_xact_lock_shared(hashtext('registry gc_control')) THEN
        RETURN false;
    END IF;
    RETURN NOT EXISTS (SELECT FROM gc_control WHERE is_paused);
END
$$;

-- Pause or go on. Once this has committed, no transaction that deletes rows is under way or will begin.
CREATE FUNCTION gc_set_paused(p_is_paused boolean, p_reason text) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_changed boolean;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('registry gc_control'));
    UPDATE gc_control SET is_paused = p_is_paused, reason = p_reason, changed_at = now()
    WHERE is_paused <> p_is_paused;
    v_changed := FOUND;
    PERFORM pg_notify('registry_gc', 'control');
    RETURN v_changed;
END
$$;

-- How long something is put off that could not be done now: twice as long each time, up to an hour.
CREATE FUNCTION gc_put_off(p_times integer) RETURNS interval LANGUAGE sql VOLATILE AS $$
    SELECT least(interval '5 seconds' * power(2, least(p_times, 16)), interval '1 hour') * (0.75 + random() / 2)
$$;

-- Those of the blobs that nothing needs. A verdict only for who holds them FOR UPDATE, and called in a new statement.
CREATE FUNCTION gc_unused_blobs(p_digests bytea[]) RETURNS bytea[] LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN (SELECT coalesce(array_agg(d), '{}') FROM unnest(p_digests) AS d
            WHERE NOT EXISTS (SELECT FROM layers AS l WHERE l.digest = d OFFSET 0)
                AND NOT EXISTS (SELECT FROM manifests AS m WHERE m.config_digest = d OFFSET 0)
                AND NOT EXISTS (SELECT FROM gc_blob_review_queue AS q
                                WHERE q.digest = d AND q.review_after > now() OFFSET 0));
END
$$;

-- The same for manifests: no tag, no index that has it as child, no subject beside it. A subject does not live on because
-- somebody refers to it. The manifests are pairs of a repository and an id, and so is the answer.
CREATE FUNCTION gc_unused_manifests(
    p_repositories bigint[], p_manifests bigint[], OUT repositories bigint[], OUT manifests bigint[]
) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    SELECT coalesce(array_agg(m.repository_id), '{}'), coalesce(array_agg(m.id), '{}')
    INTO repositories, manifests
    FROM unnest(p_repositories, p_manifests) AS pair (repository_id, id)
    CROSS JOIN LATERAL (SELECT x.repository_id, x.id, x.subject_digest FROM manifests AS x
                        WHERE x.repository_id = pair.repository_id AND x.id = pair.id LIMIT 1) AS m
    WHERE NOT EXISTS (SELECT FROM tags AS t
                      WHERE t.repository_id = m.repository_id AND t.manifest_id = m.id OFFSET 0)
        AND NOT EXISTS (SELECT FROM manifest_references AS r
                        WHERE r.repository_id = m.repository_id AND r.child_id = m.id OFFSET 0)
        AND NOT EXISTS (SELECT FROM manifests AS s
                        WHERE s.repository_id = m.repository_id AND s.digest = m.subject_digest OFFSET 0)
        AND NOT EXISTS (SELECT FROM gc_manifest_review_queue AS q
                        WHERE q.repository_id = m.repository_id AND q.manifest_id = m.id
                            AND q.review_after > now() OFFSET 0);
END
$$;

-- Review up to `p_limit` suspicions of blobs that fell due at `p_from` or later (null: from the oldest on).
--   reviewed    suspicions settled or put off; fewer than p_limit: there are no more, null: deletions are paused
--   deleted     blobs whose rows are gone, of `bytes` bytes; their objects may be deleted after `p_storage_delay`
--   put_off     suspicions of blobs that somebody else held
--   reached     when the last of them fell due: where the next batch begins. An index keeps the entries of deleted rows
--               while any transaction is open that might still want them, so to begin at the oldest again reads them all.
CREATE FUNCTION gc_collect_blobs(
    p_limit integer, p_from timestamptz, p_storage_delay interval,
    OUT reviewed integer, OUT deleted integer, OUT put_off integer, OUT bytes bigint, OUT reached timestamptz
) LANGUAGE plpgsql VOLATILE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
    v_tasks bigint[];
    v_digests bytea[];
    v_held bytea[];
    v_settled bigint[];
    v_unused bytea[];
BEGIN
    IF NOT gc_may_delete() THEN
        RETURN;
    END IF;
    deleted := 0;
    put_off := 0;
    bytes := 0;
    SELECT array_agg(due.id), array_agg(DISTINCT due.digest), max(due.review_after)
    INTO v_tasks, v_digests, reached
    FROM (SELECT q.id, q.digest, q.review_after FROM gc_blob_review_queue AS q
          WHERE q.review_after <= now() AND q.review_after >= coalesce(p_from, '-infinity')
          ORDER BY q.review_after LIMIT p_limit FOR UPDATE SKIP LOCKED) AS due;
    reviewed := coalesce(cardinality(v_tasks), 0);
    IF reviewed = 0 THEN
        RETURN;
    END IF;

    SELECT coalesce(array_agg(held.digest), '{}') INTO v_held
    FROM (SELECT d FROM unnest(v_digests) AS d ORDER BY d) AS wanted
    CROSS JOIN LATERAL (SELECT b.digest FROM blobs AS b WHERE b.digest = wanted.d FOR UPDATE SKIP LOCKED) AS held;

    -- What else is due of a blob is answered with it. Chosen before the look at what needs it: of a suspicion that comes
    -- later the cause may come later than our look, too.
    SELECT coalesce(array_agg(other.id), '{}') INTO v_settled FROM unnest(v_held) AS d
    CROSS JOIN LATERAL (SELECT q.id FROM gc_blob_review_queue AS q WHERE q.digest = d AND q.review_after <= now()
                        FOR UPDATE SKIP LOCKED) AS other;

    v_unused := gc_unused_blobs(v_held);
    IF cardinality(v_unused) > 0 THEN
        WITH gone AS (
            DELETE FROM blobs AS b USING unnest(v_unused) AS d WHERE b.digest = d
            RETURNING b.digest, b.size, b.storage_key
        ), tombstones AS (
            INSERT INTO gc_storage_deletions (storage_key, digest, size, reason, not_before)
            SELECT gone.storage_key, gone.digest, gone.size, 'blob_unused', now() + p_storage_delay FROM gone
            WHERE gone.storage_key IS NOT NULL
        ), receipts AS (
            INSERT INTO gc_receipts (kind, digest, event, suspected_at, bytes, storage_key, removed_at)
            SELECT 'blob', gone.digest, task.event, task.created_at,
                   CASE WHEN gone.storage_key IS NULL THEN 0 ELSE gone.size END, gone.storage_key,
                   CASE WHEN gone.storage_key IS NULL THEN now() END
            FROM gone CROSS JOIN LATERAL (
                SELECT q.event, q.created_at FROM gc_blob_review_queue AS q
                WHERE q.digest = gone.digest AND q.review_after <= now() ORDER BY q.review_after LIMIT 1) AS task
        )
        SELECT count(*), coalesce(sum(size) FILTER (WHERE storage_key IS NOT NULL), 0) INTO deleted, bytes FROM gone;
    END IF;

    -- Somebody else holds it. A blob that is not there at all needs no review any more.
    UPDATE gc_blob_review_queue AS q
    SET review_after = now() + gc_put_off(q.review_count), review_count = q.review_count + 1
    WHERE q.id = ANY (v_tasks) AND q.digest <> ALL (v_held)
        AND EXISTS (SELECT FROM blobs AS b WHERE b.digest = q.digest OFFSET 0);
    GET DIAGNOSTICS put_off = ROW_COUNT;
    DELETE FROM gc_blob_review_queue AS q WHERE q.id = ANY (v_tasks || v_settled) AND q.review_after <= now();
END
$$;

-- Review up to `p_limit` suspicions of manifests; as gc_collect_blobs. What a deleted manifest needed becomes suspect by
-- the triggers. With `p_keep_untagged` nothing is deleted, and the suspicions are settled all the same.
CREATE FUNCTION gc_collect_manifests(
    p_limit integer, p_from timestamptz, p_keep_untagged boolean,
    OUT reviewed integer, OUT deleted integer, OUT put_off integer, OUT bytes bigint, OUT reached timestamptz
) LANGUAGE plpgsql VOLATILE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
    v_tasks bigint[];
    v_repositories bigint[];
    v_manifests bigint[];
    v_held_repositories bigint[];
    v_held bigint[];
    v_settled bigint[];
    v_unused_repositories bigint[];
    v_unused bigint[];
BEGIN
    IF NOT gc_may_delete() THEN
        RETURN;
    END IF;
    deleted := 0;
    put_off := 0;
    bytes := 0;
    SELECT array_agg(due.id), array_agg(due.repository_id), array_agg(due.manifest_id), max(due.review_after)
    INTO v_tasks, v_repositories, v_manifests, reached
    FROM (SELECT q.id, q.repository_id, q.manifest_id, q.review_after FROM gc_manifest_review_queue AS q
          WHERE q.review_after <= now() AND q.review_after >= coalesce(p_from, '-infinity')
          ORDER BY q.review_after LIMIT p_limit FOR UPDATE SKIP LOCKED) AS due;
    reviewed := coalesce(cardinality(v_tasks), 0);
    IF reviewed = 0 THEN
        RETURN;
    END IF;

    SELECT coalesce(array_agg(held.repository_id), '{}'), coalesce(array_agg(held.id), '{}')
    INTO v_held_repositories, v_held
    FROM (SELECT DISTINCT r, m FROM unnest(v_repositories, v_manifests) AS pair (r, m) ORDER BY m) AS wanted
    CROSS JOIN LATERAL (SELECT x.repository_id, x.id FROM manifests AS x
                        WHERE x.repository_id = wanted.r AND x.id = wanted.m FOR UPDATE SKIP LOCKED) AS held;

    SELECT coalesce(array_agg(other.id), '{}') INTO v_settled
    FROM unnest(v_held_repositories, v_held) AS pair (r, m)
    CROSS JOIN LATERAL (SELECT q.id FROM gc_manifest_review_queue AS q
                        WHERE q.repository_id = pair.r AND q.manifest_id = pair.m AND q.review_after <= now()
                        FOR UPDATE SKIP LOCKED) AS other;

    IF NOT p_keep_untagged THEN
        SELECT unused.repositories, unused.manifests INTO v_unused_repositories, v_unused
        FROM gc_unused_manifests(v_held_repositories, v_held) AS unused;
    END IF;
    IF cardinality(v_unused) > 0 THEN
        WITH gone AS (
            DELETE FROM manifests AS m USING unnest(v_unused_repositories, v_unused) AS pair (r, i)
            WHERE m.repository_id = pair.r AND m.id = pair.i
            RETURNING m.repository_id, m.id, m.digest, m.payload_bytes
        ), receipts AS (
            INSERT INTO gc_receipts (kind, digest, repository_id, repository, event, suspected_at, bytes, removed_at)
            SELECT 'manifest', gone.digest, gone.repository_id, r.path, task.event, task.created_at,
                   gone.payload_bytes, now()
            FROM gone
            CROSS JOIN LATERAL (SELECT p.path FROM repositories AS p WHERE p.id = gone.repository_id LIMIT 1) AS r
            CROSS JOIN LATERAL (
                SELECT q.event, q.created_at FROM gc_manifest_review_queue AS q
                WHERE q.repository_id = gone.repository_id AND q.manifest_id = gone.id AND q.review_after <= now()
                ORDER BY q.review_after LIMIT 1) AS task
        )
        SELECT count(*), coalesce(sum(payload_bytes), 0) INTO deleted, bytes FROM gone;
    END IF;

    UPDATE gc_manifest_review_queue AS q
    SET review_after = now() + gc_put_off(q.review_count), review_count = q.review_count + 1
    WHERE q.id = ANY (v_tasks) AND q.manifest_id <> ALL (v_held)
        AND EXISTS (SELECT FROM manifests AS m
                    WHERE m.repository_id = q.repository_id AND m.id = q.manifest_id OFFSET 0);
    GET DIAGNOSTICS put_off = ROW_COUNT;
    DELETE FROM gc_manifest_review_queue AS q WHERE q.id = ANY (v_tasks || v_settled) AND q.review_after <= now();
END
$$;

-- Put off the oldest due suspicion, which could not be reviewed even alone, so that the others get their turn. For longer
-- than one that was only held: until a collector has found it again, it fails with all others of its batch.
CREATE FUNCTION gc_put_off_blob_review() RETURNS bigint LANGUAGE sql VOLATILE AS $$
    UPDATE gc_blob_review_queue SET review_after = now() + gc_put_off(review_count + 4), review_count = review_count + 1
    WHERE id = (SELECT id FROM gc_blob_review_queue WHERE review_after <= now()
                ORDER BY review_after LIMIT 1 FOR UPDATE SKIP LOCKED)
    RETURNING id
$$;

CREATE FUNCTION gc_put_off_manifest_review() RETURNS bigint LANGUAGE sql VOLATILE AS $$
    UPDATE gc_manifest_review_queue SET review_after = now() + gc_put_off(review_count + 4), review_count = review_count + 1
    WHERE id = (SELECT id FROM gc_manifest_review_queue WHERE review_after <= now()
                ORDER BY review_after LIMIT 1 FOR UPDATE SKIP LOCKED)
    RETURNING id
$$;

-- Append a review for each unused manifest, of the `p_limit` that come after the given one, that has none pending.
--   looked_at   fewer than p_limit: there are no more
--   repository_id, manifest_id   of the last one looked at: where the next call begins
CREATE FUNCTION gc_suspect_manifests(
    p_limit integer, INOUT repository_id bigint, INOUT manifest_id bigint, OUT looked_at integer, OUT suspected integer
) LANGUAGE plpgsql VOLATILE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
    v_after_repository bigint := repository_id;
    v_after_manifest bigint := manifest_id;
    v_repositories bigint[];
    v_manifests bigint[];
BEGIN
    SELECT array_agg(page.repository_id), array_agg(page.id) INTO v_repositories, v_manifests
    FROM (SELECT m.repository_id, m.id FROM manifests AS m
          WHERE (m.repository_id, m.id) > (v_after_repository, v_after_manifest)
          ORDER BY m.repository_id, m.id LIMIT p_limit) AS page;
    looked_at := coalesce(cardinality(v_manifests), 0);
    repository_id := v_repositories[looked_at];
    manifest_id := v_manifests[looked_at];
    INSERT INTO gc_manifest_review_queue (repository_id, manifest_id, review_after, event)
    SELECT pair.r, pair.i, gc_review_after('sweep'), 'sweep'
    FROM gc_unused_manifests(v_repositories, v_manifests) AS unused
    CROSS JOIN LATERAL unnest(unused.repositories, unused.manifests) AS pair (r, i)
    WHERE NOT EXISTS (SELECT FROM gc_manifest_review_queue AS q
                      WHERE q.repository_id = pair.r AND q.manifest_id = pair.i OFFSET 0);
    GET DIAGNOSTICS suspected = ROW_COUNT;
END
$$;

-- The same for blobs, in the order of their digests.
CREATE FUNCTION gc_suspect_blobs(p_limit integer, INOUT digest bytea, OUT looked_at integer, OUT suspected integer)
LANGUAGE plpgsql VOLATILE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
    v_after bytea := digest;
    v_digests bytea[];
BEGIN
    SELECT array_agg(page.digest) INTO v_digests
    FROM (SELECT b.digest FROM blobs AS b WHERE b.digest > v_after ORDER BY b.digest LIMIT p_limit) AS page;
    looked_at := coalesce(cardinality(v_digests), 0);
    digest := v_digests[looked_at];
    INSERT INTO gc_blob_review_queue (digest, review_after, event)
    SELECT d, gc_review_after('sweep'), 'sweep' FROM unnest(gc_unused_blobs(v_digests)) AS d
    WHERE NOT EXISTS (SELECT FROM gc_blob_review_queue AS q WHERE q.digest = d OFFSET 0);
    GET DIAGNOSTICS suspected = ROW_COUNT;
END
$$;

-- Turn up to `p_limit` upload sessions that nobody has touched for `p_age` into tombstones. Their objects stay for
-- `p_grace`: a request that began before may still write to them. Returns how many; null while deletions are paused.
CREATE FUNCTION gc_expire_uploads(p_limit integer, p_age interval, p_grace interval) RETURNS integer
LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
DECLARE
    v_count integer;
BEGIN
    IF NOT gc_may_delete() THEN
        RETURN NULL;
    END IF;
    WITH expired AS (
        SELECT id FROM blob_uploads WHERE updated_at < now() - p_age
        ORDER BY updated_at LIMIT p_limit FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM blob_uploads AS u USING expired WHERE u.id = expired.id RETURNING u.storage_key, u.size
    )
    INSERT INTO gc_storage_deletions (storage_key, size, reason, not_before)
    SELECT storage_key, size, 'upload_expired', now() + p_grace FROM gone;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END
$$;

-- Take up to `p_limit` tombstones whose time has come, for `p_lease`: meanwhile their objects are deleted, without a
-- transaction (I7). `attempts` also tells a session that it comes too late to adopt the key (app/store/uploads.py).
CREATE FUNCTION gc_take_tombstones(p_limit integer, p_lease interval)
RETURNS TABLE (storage_key text, size bigint, attempts integer, due_since timestamptz)
LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off
AS $$
#variable_conflict use_column
BEGIN
    IF NOT gc_may_delete() THEN
        RETURN;
    END IF;
    RETURN QUERY
    WITH due AS (
        SELECT t.storage_key, t.not_before FROM gc_storage_deletions AS t WHERE t.not_before <= now()
        ORDER BY t.not_before LIMIT p_limit FOR UPDATE SKIP LOCKED
    )
    UPDATE gc_storage_deletions AS d SET not_before = now() + p_lease, attempts = d.attempts + 1
    FROM due WHERE d.storage_key = due.storage_key
    RETURNING d.storage_key, d.size, d.attempts, due.not_before;
END
$$;

-- The objects of these keys are gone: so are their tombstones, and the receipts say so. Returns how many there were.
CREATE FUNCTION gc_settle_tombstones(p_keys text[]) RETURNS integer
LANGUAGE plpgsql VOLATILE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
    v_count integer;
BEGIN
    WITH gone AS (
        DELETE FROM gc_storage_deletions AS d WHERE d.storage_key = ANY (p_keys)
        RETURNING d.storage_key, d.digest, d.size, d.reason, d.created_at
    ), completed AS (
        -- By id: joined by key, a plan that was made while the table was small reads every pending receipt for each.
        UPDATE gc_receipts AS r SET removed_at = now()
        WHERE r.id = ANY (ARRAY(SELECT pending.id FROM gone CROSS JOIN LATERAL (
            SELECT p.id FROM gc_receipts AS p
            WHERE p.storage_key = gone.storage_key AND p.kind = 'blob' AND p.removed_at IS NULL LIMIT 1) AS pending
            WHERE gone.reason = 'blob_unused'))
    ), receipts AS (
        INSERT INTO gc_receipts (kind, digest, event, suspected_at, bytes, storage_key, removed_at)
        SELECT 'object', gone.digest, gone.reason, gone.created_at, gone.size, gone.storage_key, now()
        FROM gone WHERE gone.reason <> 'blob_unused'
    )
    SELECT count(*) INTO v_count FROM gone;
    RETURN v_count;
END
$$;

-- The objects of these keys could not be deleted: try again later, and later each time.
CREATE FUNCTION gc_put_off_tombstones(p_keys text[]) RETURNS void LANGUAGE sql VOLATILE AS $$
    UPDATE gc_storage_deletions SET not_before = now() + gc_put_off(attempts) WHERE storage_key = ANY (p_keys)
$$;
