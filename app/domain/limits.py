"""Every bound of the registry by name, its unit last. A bound that operators may change is a setting instead."""

from __future__ import annotations

from typing import Final

# OCI distribution spec, "Pushing Manifests": both sides should cope with 4 MB; larger ones are refused with 413.
MANIFEST_BYTES_MAX: Final = 4 * 1024 * 1024
# Distribution's cap on a repository name; many clients cap host and name together at 255.
NAME_CHARS_MAX: Final = 255
TAG_CHARS_MAX: Final = 128
# Entries of one manifest: config, layers and children together. 4 MiB hold about 50,000 of the smallest.
DESCRIPTORS_MAX: Final = 50_000
# Largest size a descriptor may state: what PostgreSQL's bigint holds.
SIZE_BYTES_MAX: Final = 2**63 - 1
# Tags in one PUT of a manifest (OCI spec asks for at least 10).
TAGS_PER_PUT_MAX: Final = 64

# Bytes that a download reads from storage at a time: its memory stays near two of them.
BLOCK_BYTES: Final = 1024 * 1024
# Bytes of an upload that are gathered before they are hashed and stored, if they come in smaller pieces.
UPLOAD_BLOCK_BYTES: Final = 512 * 1024
# Below this a hash is computed on the event loop: a hand-over to a thread costs about as much as 64 KiB of SHA-256.
INLINE_HASH_BYTES_MAX: Final = 64 * 1024
# How long a request's body may make no progress, and the rate that counts as progress: a connection costs little,
# but not nothing.
BODY_PATIENCE_SECONDS: Final = 60.0
BODY_BYTES_PER_SECOND_MIN: Final = 1024
# Ranges of one request that are served as multipart/byteranges; a request for more gets the whole blob.
RANGES_MAX: Final = 256
# What is read of a refused request's body so that the client sees the answer and not a broken pipe.
DRAIN_BYTES_MAX: Final = 1024 * 1024
DRAIN_SECONDS: Final = 2.0

# Referrers of one page: the answer must stay below the 4 MiB that clients accept for an index.
REFERRERS_PER_PAGE_MAX: Final = 1000
REFERRERS_ANNOTATION_BYTES_MAX: Final = 2 * 1024 * 1024
# Times that a transaction chosen as a deadlock's victim is tried in all.
DEADLOCK_TRIES: Final = 5

# Client's side of a statement's time. Longer than the server's own (statement_timeout, 30 s), so that only a server
# which does not answer at all is cut off: one that hangs, or whose machine is gone.
DATABASE_ANSWER_SECONDS_MAX: Final = 35.0
# What shares a look-up is told that the database does not answer after this; it takes milliseconds.
LOOKUP_SECONDS_MAX: Final = 10.0
# Between two attempts to reach a database that is gone. From many processes, so not much less.
DATABASE_RETRY_SECONDS_MAX: Final = 1.0
# How long a connection whose statement was cancelled may take to be of use again.
DATABASE_SETTLE_SECONDS: Final = 5.0
# A connection that has met a read-only server is replaced unless it is younger: it would be the same server again.
DATABASE_FAILOVER_SECONDS: Final = 2.0
# A peer that says nothing at all, not even on the level of TCP, is taken for dead after this.
DATABASE_SILENCE_SECONDS_MAX: Final = 15

# Scopes of one request for a token, and the longest one: a name of 255 characters, a host before it, the actions.
SCOPES_MAX: Final = 100
SCOPE_CHARS_MAX: Final = 1024
# An Authorization header that is longer is not looked into. Tokens with many scopes have a few KiB.
AUTHORIZATION_CHARS_MAX: Final = 33 * 1024
# The body of a request for a token.
TOKEN_REQUEST_BYTES_MAX: Final = 32 * 1024
