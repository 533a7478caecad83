-- Who may do what, where the registry issues tokens itself (auth.issuer): accounts, what they log in with, what they
-- may do, and who fails to log in. With any other provider the tables stay empty.
--
-- No row can be used to log in: passwords, secrets and refresh tokens are kept as hashes. None of these tables grows
-- with pushes and pulls, so none has partitions; what grows with logins is pruned by whoever writes it.
--
-- Locks: what changes several rows of one account takes the account's own row first. Everything else waits for one row
-- at most and passes over locked rows when it prunes. So nobody waits for each other in a circle.

CREATE TABLE accounts (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- `anonymous` means everybody where something is granted, so nobody may be called that.
    name        text COLLATE "C" NOT NULL UNIQUE
        CHECK (name ~ '^[a-z0-9][a-z0-9._@+-]*$' AND length(name) <= 128 AND name <> 'anonymous'),
    kind        text NOT NULL CHECK (kind IN ('person', 'robot')),
    -- May do everything; grants add nothing to that.
    is_admin    boolean NOT NULL DEFAULT false,
    -- Since when it may not log in. What tokens it has by then ends within minutes (auth.issuer.expiresin).
    disabled_at timestamptz,
    created_at  timestamptz NOT NULL DEFAULT now(),
    description text NOT NULL DEFAULT '' CHECK (length(description) <= 200)
);
CREATE INDEX accounts_by_kind ON accounts (kind, name);

-- What an account logs in with. A person has one, a password; a robot has up to 20, so that one can be exchanged while
-- the other is in use.
CREATE TABLE account_secrets (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id   bigint NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    -- A person's password: an argon2id string. A robot's secret: `sha256:` and hex, which is enough for 256 random bits.
    hash         text NOT NULL CHECK (hash ~ '^(\$argon2id\$|sha256:[0-9a-f]{64}$)'),
    label        text NOT NULL DEFAULT '' CHECK (length(label) <= 100),
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz,
    -- Written once a minute at most.
    last_used_at timestamptz
);
CREATE INDEX account_secrets_by_account ON account_secrets (account_id);

-- What an account may do, beside what everybody may: `account_id` null stands for everybody, with and without
-- credentials. A pattern is a path in which * stands for anything within one part and ** for any number of parts
-- (`team-a/**`). To list the catalog is about no path: its pattern is empty.
CREATE TABLE grants (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id bigint REFERENCES accounts (id) ON DELETE CASCADE,
    pattern    text COLLATE "C" NOT NULL CHECK (length(pattern) <= 255),
    actions    text[] NOT NULL CHECK (cardinality(actions) > 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT grants_key UNIQUE NULLS NOT DISTINCT (account_id, pattern),
    CONSTRAINT grants_actions CHECK (
        CASE WHEN pattern = '' THEN actions = '{catalog}' ELSE actions <@ '{pull,push,delete}' END),
    CONSTRAINT grants_anonymous CHECK (account_id IS NOT NULL OR actions <@ '{pull,catalog}')
);

-- What `docker login` keeps in place of a password. To revoke one is to delete it. It lives as long as the secret that
-- it was given for: a new password ends all of a person's, and a robot's go with their secret.
CREATE TABLE refresh_tokens (
    -- SHA-256 of the token.
    hash         bytea PRIMARY KEY CHECK (length(hash) = 32),
    account_id   bigint NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    secret_id    bigint NOT NULL REFERENCES account_secrets (id) ON DELETE CASCADE,
    service      text NOT NULL CHECK (length(service) <= 255),
    -- What the client calls itself.
    client_id    text NOT NULL CHECK (length(client_id) <= 255),
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz NOT NULL,
    -- Written once a minute at most.
    last_used_at timestamptz
);
CREATE INDEX refresh_tokens_by_account ON refresh_tokens (account_id);
CREATE INDEX refresh_tokens_by_secret ON refresh_tokens (secret_id);
CREATE INDEX refresh_tokens_by_expiry ON refresh_tokens (expires_at);

-- Public halves of the keys that replicas sign tokens with. Each replica announces its own from time to time; all trust
-- those that have not expired.
CREATE TABLE signing_keys (
    kid           text PRIMARY KEY CHECK (length(kid) BETWEEN 1 AND 255),
    algorithm     text NOT NULL,
    -- PEM.
    public_key    text NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    expires_at    timestamptz NOT NULL,
    -- Since when it is not to be trusted, whoever announces it. Such a row is kept for good: the key may be in the file
    -- of a replica that is away.
    distrusted_at timestamptz
);

-- Who failed to log in from where, and who did log in (app/store/logins.py has the rules). To let somebody try again at
-- once: DELETE FROM login_failures WHERE account = 'alice', or WHERE address = '192.0.2.7'.
CREATE TABLE login_failures (
    -- An IPv4 address or an IPv6 network of 64 bits; empty where nobody knows it.
    address        text COLLATE "C" NOT NULL CHECK (length(address) <= 64),
    -- A name, or a `?` with a hash of what the client wrote where there is no such account: it may be a password.
    account        text COLLATE "C" NOT NULL CHECK (length(account) <= 128),
    -- Without a quarter of an hour between two of them, and since the last success.
    failures       integer NOT NULL,
    last_failed_at timestamptz,
    -- Written once an hour at most.
    succeeded_at   timestamptz,
    -- When the row has no meaning any more and is pruned.
    forget_after   timestamptz NOT NULL,
    PRIMARY KEY (address, account)
);
CREATE INDEX login_failures_of_address ON login_failures (address, last_failed_at) WHERE failures > 0;
CREATE INDEX login_failures_of_account ON login_failures (account, last_failed_at) WHERE failures > 0;
CREATE INDEX login_failures_by_age ON login_failures (forget_after);

-- A new account, with what it logs in with if that is given. Null: the name is taken.
CREATE FUNCTION add_account(p_name text, p_kind text, p_is_admin boolean, p_description text,
                            p_hash text, p_label text, p_lifetime interval)
RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_account bigint;
BEGIN
    INSERT INTO accounts (name, kind, is_admin, description) VALUES (p_name, p_kind, p_is_admin, p_description)
    ON CONFLICT (name) DO NOTHING RETURNING id INTO v_account;
    IF v_account IS NOT NULL AND p_hash IS NOT NULL THEN
        INSERT INTO account_secrets (account_id, hash, label, expires_at)
        VALUES (v_account, p_hash, p_label, now() + p_lifetime);
    END IF;
    RETURN v_account;
END
$$;

-- False: there is no such account. The tokens go in a statement of their own, which sees those that were given out while
-- this one waited for the account.
CREATE FUNCTION set_account_disabled(p_name text, p_is_disabled boolean) RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_account bigint;
BEGIN
    UPDATE accounts SET disabled_at = CASE WHEN p_is_disabled THEN coalesce(disabled_at, now()) END
    WHERE name = p_name RETURNING id INTO v_account;
    IF p_is_disabled THEN
        DELETE FROM refresh_tokens WHERE account_id = v_account;
    END IF;
    RETURN v_account IS NOT NULL;
END
$$;

-- A person's password in place of the one before, whose refresh tokens go with it. False: there is no such person.
CREATE FUNCTION set_account_password(p_account bigint, p_hash text) RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM 1 FROM accounts WHERE id = p_account AND kind = 'person' FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    DELETE FROM account_secrets WHERE account_id = p_account;
    INSERT INTO account_secrets (account_id, hash) VALUES (p_account, p_hash);
    RETURN true;
END
$$;

-- One more secret of a robot. Those that expired long ago make room. Null: there is no such robot, 0: it has p_most.
CREATE FUNCTION add_account_secret(p_account bigint, p_hash text, p_label text, p_lifetime interval, p_most integer)
RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_secret bigint;
BEGIN
    PERFORM 1 FROM accounts WHERE id = p_account AND kind = 'robot' FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    DELETE FROM account_secrets WHERE account_id = p_account AND expires_at < now() - interval '30 days';
    IF (SELECT count(*) FROM account_secrets
        WHERE account_id = p_account AND (expires_at IS NULL OR expires_at > now())) >= p_most THEN
        RETURN 0;
    END IF;
    INSERT INTO account_secrets (account_id, hash, label, expires_at)
    VALUES (p_account, p_hash, p_label, now() + p_lifetime) RETURNING id INTO v_secret;
    RETURN v_secret;
END
$$;

-- Remove a robot's secret, and with it the refresh tokens that it was used for. False: the robot has no such secret.
CREATE FUNCTION remove_account_secret(p_account bigint, p_secret bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM 1 FROM accounts WHERE id = p_account AND kind = 'robot' FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    DELETE FROM account_secrets WHERE id = p_secret AND account_id = p_account;
    RETURN FOUND;
END
$$;

-- Take actions from a grant, which goes when none is left. False: it had none of them. The row is locked first, as two
-- of these at once could otherwise leave a grant of nothing. Looked up by id, since the index cannot follow `IS NOT
-- DISTINCT FROM`.
CREATE FUNCTION remove_grant(p_account bigint, p_pattern text, p_actions text[]) RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_grant bigint;
    v_had text[];
    v_left text[];
BEGIN
    SELECT id, actions INTO v_grant, v_had FROM grants
    WHERE id = coalesce(
        (SELECT id FROM grants WHERE account_id = p_account AND pattern = p_pattern),
        (SELECT id FROM grants WHERE p_account IS NULL AND account_id IS NULL AND pattern = p_pattern))
    FOR UPDATE;
    v_left := ARRAY(SELECT action FROM unnest(v_had) WITH ORDINALITY AS had (action, n)
                    WHERE action <> ALL (p_actions) ORDER BY n);
    IF v_grant IS NULL OR v_left = v_had THEN
        RETURN false;
    END IF;
    IF v_left = '{}' THEN
        DELETE FROM grants WHERE id = v_grant;
    ELSE
        UPDATE grants SET actions = v_left WHERE id = v_grant;
    END IF;
    RETURN true;
END
$$;

-- A refresh token for whoever logged in with that secret. False: the secret or the account may not be used any more,
-- which is looked at under a lock that keeps both as they are: an account that is disabled, or a password that is
-- changed, between the login and this call ends the token as well.
--
-- An account has p_most at most: those go that nobody has used for longest. Of several calls at once each may leave one
-- too many, which goes with the next.
CREATE FUNCTION add_refresh_token(p_hash bytea, p_secret bigint, p_service text, p_client text, p_lifetime interval,
                                  p_most integer, p_prune integer)
RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_account bigint;
BEGIN
    SELECT a.id INTO v_account FROM accounts AS a
    WHERE a.id = (SELECT account_id FROM account_secrets WHERE id = p_secret) AND a.disabled_at IS NULL FOR SHARE;
    PERFORM 1 FROM account_secrets
    WHERE id = p_secret AND account_id = v_account AND (expires_at IS NULL OR expires_at > now()) FOR KEY SHARE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO refresh_tokens (hash, account_id, secret_id, service, client_id, expires_at)
    VALUES (p_hash, v_account, p_secret, p_service, p_client, now() + p_lifetime);
    WITH expired AS MATERIALIZED (
        SELECT hash FROM refresh_tokens WHERE expires_at < now()
        ORDER BY expires_at LIMIT p_prune FOR UPDATE SKIP LOCKED
    ) DELETE FROM refresh_tokens AS t USING expired WHERE t.hash = expired.hash;
    WITH surplus AS MATERIALIZED (
        SELECT hash FROM refresh_tokens WHERE account_id = v_account
        ORDER BY coalesce(last_used_at, created_at) DESC, expires_at DESC OFFSET p_most
    ), free AS MATERIALIZED (
        SELECT hash FROM refresh_tokens WHERE hash IN (SELECT hash FROM surplus) FOR UPDATE SKIP LOCKED
    ) DELETE FROM refresh_tokens AS t USING free WHERE t.hash = free.hash;
    RETURN true;
END
$$;

CREATE FUNCTION revoke_refresh_tokens(p_account bigint) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_count bigint;
BEGIN
    PERFORM 1 FROM accounts WHERE id = p_account FOR NO KEY UPDATE;
    DELETE FROM refresh_tokens WHERE account_id = p_account;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END
$$;

-- Trust a key for so long from now. False: it was distrusted, or another key goes by that id, and nothing was changed.
CREATE FUNCTION announce_signing_key(p_kid text, p_algorithm text, p_public_key text, p_lifetime interval)
RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_is_ours boolean;
BEGIN
    INSERT INTO signing_keys AS k (kid, algorithm, public_key, expires_at)
    VALUES (p_kid, p_algorithm, p_public_key, now() + p_lifetime)
    ON CONFLICT (kid) DO UPDATE SET expires_at = greatest(k.expires_at, excluded.expires_at)
        WHERE k.public_key = excluded.public_key AND k.algorithm = excluded.algorithm AND k.distrusted_at IS NULL;
    v_is_ours := FOUND;
    WITH expired AS MATERIALIZED (
        SELECT kid FROM signing_keys WHERE expires_at < now() AND distrusted_at IS NULL FOR UPDATE SKIP LOCKED
    ) DELETE FROM signing_keys AS k USING expired WHERE k.kid = expired.kid;
    RETURN v_is_ours;
END
$$;

-- Rows of login_failures that have no meaning any more.
CREATE FUNCTION prune_login_failures(p_limit integer) RETURNS void LANGUAGE sql VOLATILE AS $$
    WITH past AS MATERIALIZED (
        SELECT address, account FROM login_failures WHERE forget_after < now()
        ORDER BY forget_after LIMIT p_limit FOR UPDATE SKIP LOCKED
    ) DELETE FROM login_failures AS f USING past WHERE f.address = past.address AND f.account = past.account
$$;

-- One more failure. It begins at one again where `p_window` has passed since the last. greatest(): of two at once, the
-- one that began first may come second.
CREATE FUNCTION login_failed(p_address text, p_account text, p_window interval, p_keep interval, p_prune integer)
RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    INSERT INTO login_failures AS f (address, account, failures, last_failed_at, forget_after)
    VALUES (p_address, p_account, 1, now(), now() + p_keep)
    ON CONFLICT (address, account) DO UPDATE
    SET failures = CASE WHEN f.last_failed_at > now() - p_window THEN least(f.failures, 1000000) ELSE 0 END + 1,
        last_failed_at = greatest(f.last_failed_at, now()),
        forget_after = greatest(f.forget_after, excluded.forget_after);
    PERFORM prune_login_failures(p_prune);
END
$$;

-- A success, which takes back the failures of this account from this address, and no others: who has an account could
-- otherwise guess at others for ever. Nothing is written or locked where one is on record for less than `p_pause`.
CREATE FUNCTION login_succeeded(p_address text, p_account text, p_pause interval, p_keep interval, p_prune integer)
RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF EXISTS (SELECT FROM login_failures WHERE address = p_address AND account = p_account
               AND failures = 0 AND succeeded_at > now() - p_pause) THEN
        RETURN;
    END IF;
    INSERT INTO login_failures AS f (address, account, failures, succeeded_at, forget_after)
    VALUES (p_address, p_account, 0, now(), now() + p_keep)
    ON CONFLICT (address, account) DO UPDATE
    SET failures = 0, last_failed_at = NULL, succeeded_at = greatest(f.succeeded_at, now()),
        forget_after = greatest(f.forget_after, excluded.forget_after);
    PERFORM prune_login_failures(p_prune);
END
$$;
