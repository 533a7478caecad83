-- Who can become suspect, and which trigger says so.
--
--   a blob      appears                                   → blob_upload           (somebody may never use it)
--               loses a layer                             → layer_delete
--               loses a manifest that has it as config    → manifest_delete
--   a manifest  appears                                   → manifest_upload       (somebody may never tag it)
--               loses a tag                               → tag_delete
--               is left by a tag that moves on            → tag_switch
--               loses an index that has it as child       → manifest_list_delete
--               loses its subject                         → subject_delete
--
-- Two events have no trigger: `touch`, which whoever tells a client that something exists appends (functions file), and
-- `sweep`, which an operator's `registry gc suspect` appends for what is unused and not suspect.
--
-- All are AFTER … FOR EACH STATEMENT with a transition table: one INSERT … SELECT per statement, however many rows.
-- They fire for statements on the parents and for the statements that foreign keys run on their behalf.

CREATE FUNCTION gc_track_blob_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO gc_blob_review_queue (digest, review_after, event)
    SELECT digest, gc_review_after('blob_upload'), 'blob_upload' FROM added;
    RETURN NULL;
END
$$;
CREATE TRIGGER gc_track_blob_insert AFTER INSERT ON blobs
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION gc_track_blob_insert();

CREATE FUNCTION gc_track_layer_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO gc_blob_review_queue (digest, review_after, event)
    SELECT digest, gc_review_after('layer_delete'), 'layer_delete'
    FROM (SELECT DISTINCT digest FROM removed) AS suspects;
    RETURN NULL;
END
$$;
CREATE TRIGGER gc_track_layer_delete AFTER DELETE ON layers
    REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION gc_track_layer_delete();

CREATE FUNCTION gc_track_manifest_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO gc_manifest_review_queue (repository_id, manifest_id, review_after, event)
    SELECT repository_id, id, gc_review_after('manifest_upload'), 'manifest_upload' FROM added;
    RETURN NULL;
END
$$;
CREATE TRIGGER gc_track_manifest_insert AFTER INSERT ON manifests
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION gc_track_manifest_insert();

CREATE FUNCTION gc_track_manifest_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO gc_blob_review_queue (digest, review_after, event)
    SELECT config_digest, gc_review_after('manifest_delete'), 'manifest_delete'
    FROM (SELECT DISTINCT config_digest FROM removed WHERE config_digest IS NOT NULL) AS suspects;
    INSERT INTO gc_manifest_review_queue (repository_id, manifest_id, review_after, event)
    SELECT referrer.repository_id, referrer.id, gc_review_after('subject_delete'), 'subject_delete'
    FROM (SELECT DISTINCT repository_id, digest FROM removed) AS subject
    JOIN manifests AS referrer
        ON referrer.repository_id = subject.repository_id AND referrer.subject_digest = subject.digest;
    RETURN NULL;
END
$$;
CREATE TRIGGER gc_track_manifest_delete AFTER DELETE ON manifests
    REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION gc_track_manifest_delete();

CREATE FUNCTION gc_track_reference_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO gc_manifest_review_queue (repository_id, manifest_id, review_after, event)
    SELECT repository_id, child_id, gc_review_after('manifest_list_delete'), 'manifest_list_delete'
    FROM (SELECT DISTINCT repository_id, child_id FROM removed) AS suspects;
    RETURN NULL;
END
$$;
CREATE TRIGGER gc_track_reference_delete AFTER DELETE ON manifest_references
    REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION gc_track_reference_delete();

CREATE FUNCTION gc_track_tag_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO gc_manifest_review_queue (repository_id, manifest_id, review_after, event)
    SELECT repository_id, manifest_id, gc_review_after('tag_delete'), 'tag_delete'
    FROM (SELECT DISTINCT repository_id, manifest_id FROM removed) AS suspects;
    RETURN NULL;
END
$$;
CREATE TRIGGER gc_track_tag_delete AFTER DELETE ON tags
    REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION gc_track_tag_delete();

CREATE FUNCTION gc_track_tag_switch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO gc_manifest_review_queue (repository_id, manifest_id, review_after, event)
    SELECT repository_id, manifest_id, gc_review_after('tag_switch'), 'tag_switch'
    FROM (SELECT DISTINCT b.repository_id, b.manifest_id
          FROM before AS b JOIN after AS a ON a.repository_id = b.repository_id AND a.name = b.name
          WHERE a.manifest_id <> b.manifest_id) AS suspects;
    RETURN NULL;
END
$$;
CREATE TRIGGER gc_track_tag_switch AFTER UPDATE ON tags
    REFERENCING OLD TABLE AS before NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION gc_track_tag_switch();
