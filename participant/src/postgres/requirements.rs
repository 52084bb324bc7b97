//! What the promises need of a PostgreSQL server: one table, `TABLE`. It is checked with every
//! connection of the agent's own, shown by `assent doctor`, and printed as
//! `docs/reference/postgres-servers.md`.
//!
//! What a row asks is pure: it sees what the server said, and nothing else.

use std::fmt::Write as _;
use std::time::Duration;

use assent_common::text::cut;
use tokio_postgres::{Client, Error, Row};

use super::options::{Isolation, PostgresOptions};
use crate::store::requirements::{Finding, Problem, Weight};

/// What is asked of the server, in the order of [`PostgresSeen::of`]. `assent.session` is a setting
/// that the agent has sent with its connection.
const SEEN: &str = "SELECT current_setting('server_version_num')::int, \
     current_setting('server_version'), pg_is_in_recovery(), \
     current_setting('transaction_read_only'), current_setting('fsync'), \
     current_setting('full_page_writes'), current_setting('synchronous_commit'), \
     current_setting('max_prepared_transactions')::int, \
     current_setting('assent.session', true) IS NOT NULL, \
     current_setting('max_connections')::int \
         - current_setting('superuser_reserved_connections')::int, \
     (SELECT count(*)::int FROM pg_stat_activity WHERE backend_type = 'client backend'), \
     current_user::text, current_setting('is_superuser') = 'on', \
     to_regnamespace('assent') IS NOT NULL, \
     has_database_privilege(current_database(), 'CREATE'), \
     (SELECT count(*)::int FROM pg_class WHERE relnamespace = to_regnamespace('assent') \
         AND relname IN ('data', 'logs', 'markers', 'votes', 'by_hand')), \
     (SELECT coalesce(bool_and(has_schema_privilege(relnamespace, 'USAGE') \
         AND has_table_privilege(oid, 'SELECT') AND has_table_privilege(oid, 'INSERT') \
         AND has_table_privilege(oid, 'UPDATE') AND has_table_privilege(oid, 'DELETE')), true) \
         FROM pg_class WHERE relnamespace = to_regnamespace('assent') AND relkind = 'r')";

/// What is prepared in the cluster, the oldest first. Also how long, in seconds, and whether it is
/// a branch in this database.
const PREPARED: &str = "SELECT gid, owner::text, database::text, \
     greatest(extract(epoch FROM clock_timestamp() - prepared), 0)::int8, \
     starts_with(gid, 'assent:') AND database = current_database() \
     FROM pg_prepared_xacts ORDER BY prepared";

/// Prepared transactions that a row names.
const NAMED_MAX: usize = 3;

/// Bytes of an identifier that are shown.
const GID_SHOWN_MAX: usize = 80;

/// The oldest major version that is used: what is set for each session exists there.
const VERSION_MIN: i32 = 14;

/// A prepared transaction.
#[derive(Debug, Clone)]
struct PreparedSeen {
    gid: String,
    owner: String,
    database: String,
    age: Duration,
    /// A branch of this participant.
    is_branch: bool,
}

/// What a server said of itself.
#[derive(Debug, Clone)]
pub(super) struct PostgresSeen {
    version_number: i32,
    pub(super) version: String,
    is_standby: bool,
    read_only: String,
    fsync: String,
    full_page_writes: String,
    synchronous_commit: String,
    pub(super) prepared_max: i32,
    keeps_session: bool,
    connections: i32,
    connections_max: i32,
    user: String,
    is_superuser: bool,
    has_schema: bool,
    may_create: bool,
    tables: i32,
    may_use_tables: bool,
    prepared: Vec<PreparedSeen>,
    /// What is prepared for longer than this is old.
    old: Duration,
    /// What the agent would take of it.
    pool: usize,
    isolation: Isolation,
}

impl PostgresSeen {
    /// Asks the server.
    pub(super) async fn ask(
        client: &Client,
        options: &PostgresOptions,
        old: Duration,
    ) -> Result<Self, Error> {
        let row = client.query_typed_one(SEEN, &[]).await?;
        let prepared = client.query_typed(PREPARED, &[]).await?;
        Ok(Self::of(&row, &prepared, options, old))
    }

    fn of(row: &Row, prepared: &[Row], options: &PostgresOptions, old: Duration) -> Self {
        Self {
            version_number: row.get(0),
            version: row.get(1),
            is_standby: row.get(2),
            read_only: row.get(3),
            fsync: row.get(4),
            full_page_writes: row.get(5),
            synchronous_commit: row.get(6),
            prepared_max: row.get(7),
            keeps_session: row.get(8),
            connections_max: row.get(9),
            connections: row.get(10),
            user: row.get(11),
            is_superuser: row.get(12),
            has_schema: row.get(13),
            may_create: row.get(14),
            tables: row.get(15),
            may_use_tables: row.get(16),
            prepared: prepared.iter().map(PreparedSeen::of).collect(),
            old,
            pool: options.connections_max,
            isolation: options.isolation,
        }
    }

    /// Whether the server would answer a commit before it is on disk.
    pub(super) fn commits_late(&self) -> bool {
        self.synchronous_commit == "off"
    }

    /// What came of each row.
    pub(super) fn judge(&self) -> Vec<Finding> {
        let judged = TABLE.iter().map(|row| {
            let PostgresRequirement { name, needs, weight, why, fix, .. } = *row;
            let Judged { found, is_met } = (row.look)(self);
            let problem = Problem { weight, needs, why, fix: fix.to_owned() };
            Finding { name, found, problem: (!is_met).then_some(problem) }
        });
        judged.collect()
    }

    /// Those that are prepared for long, for people.
    fn old(&self, is_it: impl Fn(&PreparedSeen) -> bool) -> Judged {
        let old: Vec<_> =
            self.prepared.iter().filter(|one| is_it(one) && one.age > self.old).collect();
        let named: Vec<String> = old.iter().take(NAMED_MAX).map(|one| one.told()).collect();
        let more = match old.len().saturating_sub(NAMED_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        match named.as_slice() {
            [] => Judged::new(true, "none"),
            named => Judged::new(false, format!("{}{more}", named.join(", "))),
        }
    }

    fn owners(&self) -> Judged {
        let others = self.prepared.iter().find(|one| one.is_branch && one.owner != self.user);
        match others {
            Some(one) if !self.is_superuser => {
                Judged::new(false, format!("{}, and some are {}'s", self.user, one.owner))
            }
            _ => Judged::new(true, &*self.user),
        }
    }

    fn rights(&self) -> Judged {
        let (is_met, found) = match (self.has_schema, self.may_create) {
            (true, _) if self.tables == 0 => (self.may_create, "the schema is empty"),
            (true, _) if !self.may_use_tables => (false, "not all rights on the tables"),
            (true, _) => (true, "all"),
            (false, true) => (true, "may create the schema"),
            (false, false) => (false, "no schema, and no right to create one"),
        };
        Judged::new(is_met, found)
    }
}

impl PreparedSeen {
    fn of(row: &Row) -> Self {
        let seconds: i64 = row.get(3);
        Self {
            gid: row.get(0),
            owner: row.get(1),
            database: row.get(2),
            age: Duration::from_secs(u64::try_from(seconds).unwrap_or_default()),
            is_branch: row.get(4),
        }
    }

    fn told(&self) -> String {
        let Self { gid, owner, database, age, .. } = self;
        let gid = cut(gid, GID_SHOWN_MAX);
        format!("'{gid}' of user {owner} in database {database}, for {} s", age.as_secs())
    }
}

/// What was found for a row, and whether that will do.
#[derive(Debug)]
struct Judged {
    found: String,
    is_met: bool,
}

impl Judged {
    fn new(is_met: bool, found: impl Into<String>) -> Self {
        Self { found: found.into(), is_met }
    }
}

/// A row of the table.
#[derive(Debug, Clone, Copy)]
struct PostgresRequirement {
    /// What is looked at.
    name: &'static str,
    /// What it must be, in words.
    needs: &'static str,
    /// What comes of it if it is not so.
    weight: Weight,
    /// What would happen.
    why: &'static str,
    /// What to do.
    fix: &'static str,
    look: fn(&PostgresSeen) -> Judged,
}

/// What the promises need of a server.
static TABLE: &[PostgresRequirement] = &[
    PostgresRequirement {
        name: "version",
        needs: "14 or later",
        weight: Weight::Refused,
        why: "the agent sets for each session what older ones do not have",
        fix: "upgrade the server",
        look: |seen| Judged::new(seen.version_number / 10_000 >= VERSION_MIN, &*seen.version),
    },
    PostgresRequirement {
        name: "role",
        needs: "primary",
        weight: Weight::Refused,
        why: "a standby takes no writes",
        fix: "name the primary, or several hosts and `target_session_attrs=read-write` in the URL",
        look: |seen| {
            let role = if seen.is_standby { "standby" } else { "primary" };
            Judged::new(!seen.is_standby, role)
        },
    },
    PostgresRequirement {
        name: "transaction_read_only",
        needs: "off",
        weight: Weight::Refused,
        why: "nothing can be prepared",
        fix: "set `default_transaction_read_only` off for the agent's user, or end the standby",
        look: |seen| Judged::new(seen.read_only == "off", &*seen.read_only),
    },
    PostgresRequirement {
        name: "session",
        needs: "its own from connect to close",
        weight: Weight::Refused,
        why: "a connection pooler between drops the settings that the agent sends, or gives the \
              session to others between two transactions",
        fix: "connect the agent to PostgreSQL itself, not to the pooler",
        look: |seen| {
            let found = if seen.keeps_session { "its own" } else { "without the agent's settings" };
            Judged::new(seen.keeps_session, found)
        },
    },
    PostgresRequirement {
        name: "max_prepared_transactions",
        needs: "above 0",
        weight: Weight::Refused,
        why: "a vote of yes is a prepared transaction, of which it allows none",
        fix: "set it to more than the transactions that may be in doubt at once, 100 for example, \
              and restart the server",
        look: |seen| Judged::new(seen.prepared_max > 0, seen.prepared_max.to_string()),
    },
    PostgresRequirement {
        name: "room for votes",
        needs: "as much as the agent has connections",
        weight: Weight::Advice,
        why: "at the limit, branches are refused with `overloaded`",
        fix: "raise `max_prepared_transactions` and restart the server, or end what nobody ends \
              (pg_prepared_xacts)",
        look: |seen| {
            let most = usize::try_from(seen.prepared_max).unwrap_or_default();
            let used = seen.prepared.len();
            let found = format!("{} of {most} free", most.saturating_sub(used));
            Judged::new(most.saturating_sub(used) >= seen.pool.min(most), found)
        },
    },
    PostgresRequirement {
        name: "branches",
        needs: "none that is prepared for long",
        weight: Weight::Advice,
        why: "each holds its locks, and holds back vacuum",
        fix: "assent branch list --participant URL says what each waits for; start its \
              coordinator, or decide by hand: docs/guides/recover.md",
        look: |seen| seen.old(|one| one.is_branch),
    },
    PostgresRequirement {
        name: "prepared by others",
        needs: "none that is prepared for long",
        weight: Weight::Advice,
        why: "each holds its locks, holds back vacuum in its database, and takes the place of a \
              vote",
        fix: "ask who began it; then, as that user and in that database: COMMIT PREPARED or \
              ROLLBACK PREPARED, with its name",
        look: |seen| seen.old(|one| !one.is_branch && !one.gid.starts_with("assent:")),
    },
    PostgresRequirement {
        name: "fsync",
        needs: "on",
        weight: Weight::Refused,
        why: "a vote that is lost in a crash was no vote",
        fix: "set it on, and reload the server",
        look: |seen| Judged::new(seen.fsync == "on", &*seen.fsync),
    },
    PostgresRequirement {
        name: "full_page_writes",
        needs: "on",
        weight: Weight::Refused,
        why: "a crash may damage what was voted",
        fix: "set it on, and reload the server",
        look: |seen| Judged::new(seen.full_page_writes == "on", &*seen.full_page_writes),
    },
    PostgresRequirement {
        name: "synchronous_commit",
        needs: "not off",
        weight: Weight::Advice,
        why: "a crash loses what other sessions have committed; the agent sets it on for its own",
        fix: "set it on, unless the service can lose its own writes",
        look: |seen| Judged::new(!seen.commits_late(), &*seen.synchronous_commit),
    },
    PostgresRequirement {
        name: "rights",
        needs: "all on the tables of the schema `assent`, or that of creating it",
        weight: Weight::Refused,
        why: "the agent keeps its votes, markers and fences there",
        fix: "GRANT CREATE ON DATABASE to the agent's user; if the schema was made by another one, \
              make all agents use that one",
        look: PostgresSeen::rights,
    },
    PostgresRequirement {
        name: "user",
        needs: "the one that has prepared what is prepared",
        weight: Weight::Refused,
        why: "only the user that prepared a transaction may finish it",
        fix: "start all agents of this database with the same user",
        look: PostgresSeen::owners,
    },
    PostgresRequirement {
        name: "connections",
        needs: "as many free as the agent may use",
        weight: Weight::Advice,
        why: "branches are refused with `postgres_unavailable` when there is none left",
        fix: "raise `max_connections`, or lower --postgres-connections-max",
        look: |seen| {
            let free = seen.connections_max.saturating_sub(seen.connections);
            let found = format!("{free} of {} free", seen.connections_max);
            Judged::new(usize::try_from(free).is_ok_and(|free| free > seen.pool), found)
        },
    },
    PostgresRequirement {
        name: "isolation of branches",
        needs: "serializable",
        weight: Weight::Advice,
        why: "at a weaker level the whole is not serialisable: docs/how/postgres.md",
        fix: "nothing if that is meant; else take --postgres-isolation away",
        look: |seen| {
            Judged::new(seen.isolation == Isolation::Serializable, seen.isolation.to_string())
        },
    },
];

const HEAD: &str = "\
# What the promises need of PostgreSQL

<!-- Generated from the table in `participant/src/postgres/requirements.rs`. -->

An agent checks these conditions with every connection of its own. `assent doctor --postgres URL`
shows them, and changes nothing; `--held-max` says what *for long* is (30 s). [PostgreSQL and
two-phase commit](postgres.md) has what they stand on, [the guide](../guides/postgres.md) how to
use a database.

Tested with PostgreSQL 15. The column *otherwise* says what happens if a condition is not met:

- **refused**: the agent does not start, or does not use the connection. With
  `--postgres-allow-unsafe` it works as far as it can, and says so in its health.
- **advice**: the agent works; its log and `assent doctor` mention it.

| what | must be | otherwise | why | what to do |
|---|---|---|---|---|
";

/// The table as a page for people.
#[must_use]
pub fn page() -> String {
    let mut page = HEAD.to_owned();
    for PostgresRequirement { name, needs, weight, why, fix, .. } in TABLE {
        let otherwise = if *weight == Weight::Refused { "**refused**" } else { "advice" };
        // Writing to a string cannot fail.
        let _ = writeln!(page, "| `{name}` | {needs} | {otherwise} | {why} | {fix} |");
    }
    page.push_str(
        "\nClocks do not matter: no outcome depends on one. A pooler such as PgBouncer is noticed \
         by a setting\nthat the agent sends with its connection and does not find again.\n",
    );
    page
}
