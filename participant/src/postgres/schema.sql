-- What a participant keeps in its database. The last table is made last: it says that all are there.
CREATE SCHEMA IF NOT EXISTS assent;

-- The only row says which data this is, and how far it is.
CREATE TABLE IF NOT EXISTS assent.data (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    participant text,
    -- Of which server and which database the incarnation is: a copy elsewhere is other data.
    place text NOT NULL,
    incarnation bigint NOT NULL,
    -- The number of the last vote, and how many branches have been told to end.
    seq bigint NOT NULL DEFAULT 0,
    ended bigint NOT NULL DEFAULT 0,
    -- Why nothing is done with it, if so.
    fenced text,
    -- The logs whose word was taken when it was opened again, as JSON.
    served text NOT NULL DEFAULT '[]'
);

-- What was heard of each coordinator's log.
CREATE TABLE IF NOT EXISTS assent.logs (
    log_id text PRIMARY KEY,
    epoch bigint NOT NULL,
    low_epoch bigint NOT NULL,
    low_n bigint NOT NULL,
    -- The newest life, and how far the log was on disk, as the agent writes them.
    life text NOT NULL DEFAULT '',
    told text NOT NULL DEFAULT ''
);

-- A branch that is applied, or a fence. The row of a branch is inserted by its own transaction.
CREATE TABLE IF NOT EXISTS assent.markers (
    txid text PRIMARY KEY,
    log_id text NOT NULL,
    epoch bigint NOT NULL,
    n bigint NOT NULL,
    fence boolean NOT NULL,
    -- Its done-marker says the outcome to whoever settles another branch.
    implicit boolean NOT NULL DEFAULT false
);
CREATE INDEX IF NOT EXISTS markers_by_number ON assent.markers (log_id, epoch, n);

-- What a branch voted, and for whom. It counts only if the branch is prepared, or applied.
CREATE TABLE IF NOT EXISTS assent.votes (
    txid text PRIMARY KEY,
    log_id text NOT NULL,
    epoch bigint NOT NULL,
    n bigint NOT NULL,
    id text NOT NULL,
    coordinator text NOT NULL,
    one_phase boolean NOT NULL,
    seq bigint NOT NULL,
    replies text NOT NULL,
    redo bytea NOT NULL,
    -- All branches of an implicit transaction, as JSON.
    branches text
);
CREATE INDEX IF NOT EXISTS votes_by_number ON assent.votes (log_id, epoch, n);

-- What an operator decided, as JSON.
CREATE TABLE IF NOT EXISTS assent.by_hand (
    txid text PRIMARY KEY,
    decided text NOT NULL
);
