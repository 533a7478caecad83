-- The write transactions of the API, one function and so one round trip each.
--
-- Each statement of a function sees what was committed before *that statement* began (READ COMMITTED, VOLATILE), which
-- the locking protocol needs: references are checked in a new statement after the lock. The order of locks is the same
-- everywhere: own blob_uploads row → blobs (ascending digest) → existing manifests (ascending id) → new manifest →
-- layers, references → tags (by name) → queue appends. Collectors take everything FOR UPDATE SKIP LOCKED.

-- Give a blob that somebody was told of its grace period. The caller holds KEY SHARE on the blob. Writes nothing when
-- no review is pending, or when a later one gives enough grace already.
CREATE FUNCTION gc_touch_blob(p_digest bytea) RETURNS void LANGUAGE sql VOLATILE AS $$
    INSERT INTO gc_blob_review_queue (digest, review_after, event)
    SELECT p_digest, gc_review_after('touch'), 'touch'
    FROM (SELECT max(review_after) AS latest FROM gc_blob_review_queue WHERE digest = p_digest) AS pending
    WHERE latest < now() + (SELECT value / 2 FROM gc_review_after_defaults WHERE event = 'touch')
$$;

CREATE FUNCTION gc_touch_manifest(p_repository bigint, p_manifest bigint) RETURNS void LANGUAGE sql VOLATILE AS $$
    INSERT INTO gc_manifest_review_queue (repository_id, manifest_id, review_after, event)
    SELECT p_repository, p_manifest, gc_review_after('touch'), 'touch'
    FROM (SELECT max(review_after) AS latest FROM gc_manifest_review_queue
          WHERE repository_id = p_repository AND manifest_id = p_manifest) AS pending
    WHERE latest < now() + (SELECT value / 2 FROM gc_review_after_defaults WHERE event = 'touch')
$$;

-- The answer to a HEAD that a push relies on. False: it is gone, the client must be told so.
CREATE FUNCTION keep_blob(p_digest bytea) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM 1 FROM blobs WHERE digest = p_digest AND storage_key IS NOT NULL FOR KEY SHARE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM gc_touch_blob(p_digest);
    RETURN true;
END
$$;

CREATE FUNCTION keep_manifest(p_repository bigint, p_manifest bigint) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM 1 FROM manifests WHERE repository_id = p_repository AND id = p_manifest FOR KEY SHARE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM gc_touch_manifest(p_repository, p_manifest);
    RETURN true;
END
$$;

CREATE FUNCTION ensure_repository(p_path text) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_id bigint;
BEGIN
    LOOP
        SELECT id INTO v_id FROM repositories WHERE path = p_path;
        EXIT WHEN FOUND;
        INSERT INTO repositories (path) VALUES (p_path) ON CONFLICT (path) DO NOTHING RETURNING id INTO v_id;
        EXIT WHEN FOUND;
    END LOOP;
    RETURN v_id;
END
$$;

-- Turn an upload into a blob of the repository. Deleting the upload's row comes first: it is the token that gives the
-- right to name its object, and only the request that holds `writer` has it. False: the session is not ours any more.
CREATE FUNCTION finish_upload(p_upload uuid, p_repository bigint, p_writer uuid, p_digest bytea, p_size bigint)
RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_key text;
    v_is_lost boolean;
BEGIN
    DELETE FROM blob_uploads WHERE id = p_upload AND repository_id = p_repository AND writer = p_writer
    RETURNING storage_key INTO v_key;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    LOOP
        INSERT INTO blobs (digest, size, storage_key) VALUES (p_digest, p_size, v_key) ON CONFLICT DO NOTHING;
        EXIT WHEN FOUND;
        SELECT storage_key IS NULL INTO v_is_lost FROM blobs WHERE digest = p_digest FOR KEY SHARE;
        IF FOUND THEN
            IF v_is_lost THEN
                UPDATE blobs SET storage_key = v_key WHERE digest = p_digest AND storage_key IS NULL;
                v_is_lost := FOUND;  -- otherwise another upload was faster
            END IF;
            IF NOT v_is_lost THEN
                INSERT INTO gc_storage_deletions (storage_key, digest, size, reason, not_before)
                VALUES (v_key, p_digest, p_size, 'upload_duplicate', now());
            END IF;
            PERFORM gc_touch_blob(p_digest);
            EXIT;
        END IF;
    END LOOP;
    INSERT INTO repository_blobs (repository_id, blob_digest) VALUES (p_repository, p_digest) ON CONFLICT DO NOTHING;
    RETURN true;
END
$$;

-- Link a blob of the source repository into the target. False: the source has no such blob. Without a source any
-- repository's blob will do; one that was deleted everywhere and waits for its review is nobody's.
CREATE FUNCTION mount_blob(p_source bigint, p_target bigint, p_digest bytea) RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM 1 FROM blobs WHERE digest = p_digest AND storage_key IS NOT NULL FOR KEY SHARE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    IF p_source IS NULL THEN
        PERFORM 1 FROM repository_blobs WHERE blob_digest = p_digest LIMIT 1;
    ELSE
        PERFORM 1 FROM repository_blobs WHERE repository_id = p_source AND blob_digest = p_digest;
    END IF;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM gc_touch_blob(p_digest);
    INSERT INTO repository_blobs (repository_id, blob_digest) VALUES (p_target, p_digest) ON CONFLICT DO NOTHING;
    RETURN true;
END
$$;

-- Remove the repository's link to a blob. 'in_use' while one of its manifests needs it. The lock on the blob excludes
-- a manifest PUT that has seen the link and has not written its layers yet.
CREATE FUNCTION unlink_blob(p_repository bigint, p_digest bytea) RETURNS text LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM 1 FROM blobs WHERE digest = p_digest FOR UPDATE;
    IF EXISTS (SELECT FROM layers WHERE repository_id = p_repository AND digest = p_digest)
       OR EXISTS (SELECT FROM manifests WHERE repository_id = p_repository AND config_digest = p_digest) THEN
        RETURN 'in_use';
    END IF;
    DELETE FROM repository_blobs WHERE repository_id = p_repository AND blob_digest = p_digest;
    RETURN CASE WHEN FOUND THEN 'removed' ELSE 'unknown' END;
END
$$;

-- Store a manifest with all that belongs to it, and tag it. Nothing is written when something that it needs is missing:
-- the missing digests come back instead. `p_blobs` holds config and layers; `p_layers` the layers in the manifest's order.
-- `p_immutable`, distinct ones among `p_tags`, must be new: if one is there, even on this manifest, those that are there
-- come back and nothing is written.
CREATE FUNCTION put_manifest(
    p_path text, p_digest bytea, p_media_type text, p_artifact_type text,
    p_config_media_type text, p_config_digest bytea, p_subject_digest bytea, p_payload bytea, p_total_size bigint,
    p_annotations json, p_blobs bytea[], p_layers bytea[], p_layer_sizes bigint[], p_layer_media_types text[],
    p_children bytea[], p_optional_children bytea[], p_tags text[], p_immutable text[] DEFAULT '{}',
    OUT repository_id bigint, OUT missing_blobs bytea[], OUT missing_children bytea[], OUT immutable_tags text[]
) LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    v_repository bigint;
    v_manifest bigint;
    v_created boolean := false;
    v_lost bytea[];
    v_new bigint;
BEGIN
    -- The repository stays, and a concurrent "last tag is gone" waits until our tag is there to be seen.
    LOOP
        SELECT id INTO v_repository FROM repositories WHERE path = p_path FOR KEY SHARE;
        EXIT WHEN FOUND;
        missing_blobs := nullif(p_blobs, '{}');
        missing_children := nullif(p_children, '{}');
        IF missing_blobs IS NOT NULL OR missing_children IS NOT NULL THEN
            RETURN;
        END IF;
        PERFORM ensure_repository(p_path);
    END LOOP;

    -- Without a lock, which a tag that is not there could not have: whoever comes later is met at the insert.
    IF cardinality(p_immutable) > 0 THEN
        SELECT array_agg(name) INTO immutable_tags FROM tags
        WHERE repository_id = v_repository AND name = ANY (p_immutable);
        IF immutable_tags IS NOT NULL THEN
            RETURN;
        END IF;
    END IF;

    -- One sorted pre-lock; as a LATERAL probe it prunes to one partition per digest in any plan mode.
    -- FILTER, not WHERE, which would keep rows from being locked.
    SELECT array_agg(locked.digest) FILTER (WHERE locked.storage_key IS NULL) INTO v_lost
    FROM (SELECT d FROM unnest(p_blobs) AS d ORDER BY d) AS wanted
    CROSS JOIN LATERAL (SELECT b.digest, b.storage_key FROM blobs AS b WHERE b.digest = wanted.d FOR KEY SHARE)
        AS locked;
    -- In a new statement: what a concurrent unlink or collector removed while we waited is not there any more.
    -- OFFSET 0 keeps it one probe per digest: as a join it may read every link of a large repository.
    SELECT array_agg(d) INTO missing_blobs FROM unnest(p_blobs) AS d
    WHERE d = ANY (v_lost)
        OR NOT EXISTS (SELECT FROM repository_blobs AS r
                       WHERE r.repository_id = v_repository AND r.blob_digest = d OFFSET 0);

    -- The subject too: were it deleted meanwhile, unseen by its deletion we would be reviewed while it still seems there.
    PERFORM 1 FROM manifests WHERE repository_id = v_repository
        AND digest = ANY (p_children || p_optional_children || p_digest || p_subject_digest)
        ORDER BY id FOR KEY SHARE;
    SELECT array_agg(d) INTO missing_children FROM unnest(p_children) AS d
    WHERE NOT EXISTS (SELECT FROM manifests AS m WHERE m.repository_id = v_repository AND m.digest = d OFFSET 0);

    IF missing_blobs IS NOT NULL OR missing_children IS NOT NULL THEN
        RETURN;
    END IF;

    LOOP
        SELECT id INTO v_manifest FROM manifests
        WHERE repository_id = v_repository AND digest = p_digest FOR KEY SHARE;
        EXIT WHEN FOUND;
        INSERT INTO manifests (repository_id, digest, media_type, artifact_type, config_media_type, config_digest,
                               subject_digest, payload, payload_bytes, total_size, annotations, annotations_bytes)
        VALUES (v_repository, p_digest, p_media_type, p_artifact_type, p_config_media_type, p_config_digest,
                p_subject_digest, p_payload, length(p_payload), p_total_size, p_annotations,
                coalesce(octet_length(p_annotations::text), 0))
        ON CONFLICT (repository_id, digest) DO NOTHING RETURNING id INTO v_manifest;
        v_created := FOUND;
        EXIT WHEN FOUND;
    END LOOP;

    IF v_created THEN
        INSERT INTO layers (repository_id, manifest_id, ordinal, digest, size, media_type)
        SELECT v_repository, v_manifest, l.ordinal, l.digest, l.size, l.media_type
        FROM unnest(p_layers, p_layer_sizes, p_layer_media_types)
            WITH ORDINALITY AS l (digest, size, media_type, ordinal);
    ELSE
        PERFORM gc_touch_manifest(v_repository, v_manifest);
    END IF;
    -- Also for a manifest that was there: an optional child may have come since.
    IF cardinality(p_children) > 0 OR cardinality(p_optional_children) > 0 THEN
        INSERT INTO manifest_references (repository_id, parent_id, child_id)
        SELECT v_repository, v_manifest, id FROM manifests
        WHERE repository_id = v_repository AND digest = ANY (p_children || p_optional_children) ORDER BY id
        ON CONFLICT DO NOTHING;
    END IF;

    repository_id := v_repository;
    IF cardinality(p_tags) > 0 THEN
        WITH written AS (
            INSERT INTO tags AS t (repository_id, name, manifest_id)
            SELECT v_repository, name, v_manifest FROM unnest(p_tags) AS name ORDER BY name COLLATE "C"
            ON CONFLICT (repository_id, name) DO UPDATE SET manifest_id = excluded.manifest_id, updated_at = now()
                WHERE t.manifest_id <> excluded.manifest_id AND t.name <> ALL (p_immutable)
            RETURNING t.name
        ) SELECT count(*) INTO v_new FROM written WHERE name = ANY (p_immutable);
        -- Undo everything and begin again, as after a deadlock: the next attempt finds the tag, or finds it gone.
        IF v_new < cardinality(p_immutable) THEN
            RAISE EXCEPTION 'an immutable tag has come meanwhile' USING ERRCODE = 'serialization_failure';
        END IF;
        -- At most once in a few seconds, so that pushes of many tags do not queue for this one row.
        UPDATE repositories SET has_tags = true, last_published_at = now()
        WHERE id = v_repository
            AND (NOT has_tags OR last_published_at IS NULL OR last_published_at < now() - interval '5 seconds');
    END IF;
END
$$;

-- Delete a manifest with its tags. 'referenced' while an index needs it.
CREATE FUNCTION delete_manifest(p_repository bigint, p_digest bytea, OUT outcome text, OUT tag_names text[])
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_manifest bigint;
BEGIN
    SELECT id INTO v_manifest FROM manifests WHERE repository_id = p_repository AND digest = p_digest FOR UPDATE;
    IF NOT FOUND THEN
        outcome := 'unknown';
        RETURN;
    END IF;
    IF EXISTS (SELECT FROM manifest_references WHERE repository_id = p_repository AND child_id = v_manifest) THEN
        outcome := 'referenced';
        RETURN;
    END IF;
    -- By name, as a push moves its tags: a DELETE alone would lock them in the order in which it finds them.
    PERFORM 1 FROM tags WHERE repository_id = p_repository AND manifest_id = v_manifest ORDER BY name FOR UPDATE;
    WITH gone AS (
        DELETE FROM tags WHERE repository_id = p_repository AND manifest_id = v_manifest RETURNING name
    ) SELECT coalesce(array_agg(name), '{}') INTO tag_names FROM gone;
    DELETE FROM manifests WHERE repository_id = p_repository AND id = v_manifest;
    IF cardinality(tag_names) > 0 THEN
        PERFORM settle_has_tags(p_repository, p_wait => false);
    END IF;
    outcome := 'deleted';
END
$$;

-- Take the repository out of the catalog if its last tag is gone. A push holds KEY SHARE on the repository until its tag
-- can be seen, so either we see the tag or the push sees our mark.
--
-- A delete calls this in its own transaction, without waiting, since it holds tags that a push which holds the
-- repository may wait for. So a crash leaves no repository listed without tags, unless somebody else was at work on it
-- at that moment: a push or an upload, or a delete of its other tags. For their sake the API calls it once more after
-- each delete, in a transaction of its own in which it may wait.
CREATE FUNCTION settle_has_tags(p_repository bigint, p_wait boolean DEFAULT true) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF EXISTS (SELECT FROM tags WHERE repository_id = p_repository) THEN
        RETURN;
    END IF;
    IF p_wait THEN
        PERFORM 1 FROM repositories WHERE id = p_repository FOR UPDATE;
    ELSE
        PERFORM 1 FROM repositories WHERE id = p_repository FOR UPDATE SKIP LOCKED;
    END IF;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    -- In a new statement: a tag may have come while we waited.
    UPDATE repositories SET has_tags = false
    WHERE id = p_repository AND has_tags AND NOT EXISTS (SELECT FROM tags WHERE repository_id = p_repository);
END
$$;
