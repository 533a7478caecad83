-- The registry's metadata. Read in order: tables, partitions, triggers, functions, views.
--
-- Digests are bytea: one algorithm byte (1 sha256, 2 sha512), then the raw hash; `encode(substr(digest, 2), 'hex')`
-- gives what people know. Sizes are bytes. Tables that grow are partitioned by HASH: those of a repository by
-- repository_id, so that a rename touches `repositories` alone and one large tenant does not fill one partition;
-- blobs by digest. Nothing here is ever updated in place but tags, upload sessions and a repository's marks.

CREATE TABLE repositories (
    id                bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    path              text COLLATE "C" NOT NULL UNIQUE CHECK (length(path) BETWEEN 1 AND 255),
    -- The last part of the path, as the management API shows it.
    name              text NOT NULL GENERATED ALWAYS AS (substring(path from '[^/]+$')) STORED,
    -- Kept true while a tag exists: the catalog's partial index below stays flat at any number of repositories.
    has_tags          boolean NOT NULL DEFAULT false,
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz,
    last_published_at timestamptz
);
CREATE INDEX repositories_catalog ON repositories (path) WHERE has_tags;

-- A blob is bytes that a registry holds once, whoever pushed them. `storage_key` names the one object (I2); a second
-- upload of the same digest has a key of its own, which becomes a tombstone (I3). Null: its object was lost (fsck), so
-- that it counts as absent until somebody pushes it again.
CREATE TABLE blobs (
    digest      bytea NOT NULL PRIMARY KEY CHECK (length(digest) IN (33, 65)),
    size        bigint NOT NULL CHECK (size >= 0),
    storage_key text,
    created_at  timestamptz NOT NULL DEFAULT now()
) PARTITION BY HASH (digest);

-- The link that lets a repository see a blob. Without it the blob does not exist for that repository.
CREATE TABLE repository_blobs (
    repository_id bigint NOT NULL REFERENCES repositories (id) ON DELETE CASCADE,
    blob_digest   bytea NOT NULL REFERENCES blobs (digest) ON DELETE CASCADE,
    created_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (repository_id, blob_digest)
) PARTITION BY HASH (repository_id);
CREATE INDEX repository_blobs_by_digest ON repository_blobs (blob_digest);

-- An identity column cannot sit on a partitioned table before PostgreSQL 17.
CREATE SEQUENCE manifests_id_seq;
CREATE TABLE manifests (
    repository_id     bigint NOT NULL REFERENCES repositories (id) ON DELETE CASCADE,
    id                bigint NOT NULL DEFAULT nextval('manifests_id_seq'),
    digest            bytea NOT NULL CHECK (length(digest) IN (33, 65)),
    media_type        text NOT NULL,
    -- The manifest's artifactType, or an image's config media type: what a referrers list shows and filters by.
    artifact_type     text,
    config_media_type text,
    config_digest     bytea REFERENCES blobs (digest),
    -- No foreign key: a subject may come later or never.
    subject_digest    bytea,
    payload           bytea NOT NULL,
    payload_bytes     integer NOT NULL,
    -- What config and layers state together.
    total_size        bigint NOT NULL,
    -- Kept for manifests with a subject only: a referrers list copies them.
    annotations       json,
    annotations_bytes integer NOT NULL DEFAULT 0,
    created_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (repository_id, id),
    -- The digest first. An index that begins as the primary key does is taken for it while the planner knows nothing of
    -- the table's size, and then a look-up by id reads all manifests of the repository. So with tags_by_manifest.
    CONSTRAINT manifests_digest_key UNIQUE (digest, repository_id)
) PARTITION BY HASH (repository_id);
ALTER SEQUENCE manifests_id_seq OWNED BY manifests.id;
CREATE INDEX manifests_by_subject ON manifests (repository_id, subject_digest, id) WHERE subject_digest IS NOT NULL;
-- The repository beside the digest: blobs such as `{}` are in a million manifests, few of them in one repository.
CREATE INDEX manifests_by_config ON manifests (config_digest, repository_id) WHERE config_digest IS NOT NULL;
-- Payloads are compressed JSON at best and read whole: outside the row, so that scans of digests stay small.
ALTER TABLE manifests ALTER COLUMN payload SET STORAGE EXTERNAL;

-- The blobs that a manifest needs beside its config, in its order. Layers that live elsewhere have no row.
CREATE TABLE layers (
    repository_id bigint NOT NULL,
    manifest_id   bigint NOT NULL,
    ordinal       integer NOT NULL,
    digest        bytea NOT NULL REFERENCES blobs (digest),
    size          bigint NOT NULL,
    media_type    text NOT NULL,
    PRIMARY KEY (repository_id, manifest_id, ordinal),
    FOREIGN KEY (repository_id, manifest_id) REFERENCES manifests (repository_id, id) ON DELETE CASCADE
) PARTITION BY HASH (repository_id);
CREATE INDEX layers_by_digest ON layers (digest, repository_id);

-- Index → child. A child cannot go while an index needs it.
CREATE TABLE manifest_references (
    repository_id bigint NOT NULL,
    parent_id     bigint NOT NULL,
    child_id      bigint NOT NULL,
    PRIMARY KEY (repository_id, parent_id, child_id),
    CHECK (parent_id <> child_id),
    FOREIGN KEY (repository_id, parent_id) REFERENCES manifests (repository_id, id) ON DELETE CASCADE,
    -- Checked at commit: what takes an index and its children in one statement, as the deletion of a repository does,
    -- comes upon them in any order.
    CONSTRAINT manifest_references_child_fkey
        FOREIGN KEY (repository_id, child_id) REFERENCES manifests (repository_id, id) DEFERRABLE INITIALLY DEFERRED
) PARTITION BY HASH (repository_id);
CREATE INDEX manifest_references_by_child ON manifest_references (repository_id, child_id);

CREATE TABLE tags (
    repository_id bigint NOT NULL,
    name          text COLLATE "C" NOT NULL CHECK (length(name) BETWEEN 1 AND 128),
    manifest_id   bigint NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    -- When the tag last moved to another manifest.
    updated_at    timestamptz,
    PRIMARY KEY (repository_id, name),
    FOREIGN KEY (repository_id, manifest_id) REFERENCES manifests (repository_id, id) ON DELETE CASCADE
) PARTITION BY HASH (repository_id);
CREATE INDEX tags_by_manifest ON tags (manifest_id, repository_id);

-- An upload session: any process continues it. `writer` is the request that may append now; a request that finds
-- another one's mark takes over with a copy of the first `size` bytes under a key of its own, so that bytes of two
-- writers never meet in one object. `hash_state` is the running hash after `size` bytes (null: read them again).
CREATE TABLE blob_uploads (
    id            uuid PRIMARY KEY,
    repository_id bigint NOT NULL REFERENCES repositories (id),
    storage_key   text NOT NULL UNIQUE,
    size          bigint NOT NULL DEFAULT 0,
    algorithm     smallint NOT NULL DEFAULT 1,
    hash_state    bytea,
    -- What an object store needs to continue a multipart upload; null where the store appends.
    parts         jsonb,
    writer        uuid,
    started_by    text NOT NULL DEFAULT '',
    started_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX blob_uploads_by_age ON blob_uploads (updated_at);
CREATE INDEX blob_uploads_by_repository ON blob_uploads (repository_id);
