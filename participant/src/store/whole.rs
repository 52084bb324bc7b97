//! Whether what a server has loaded is whole, asked once for each life of it (invariants 9, 12).
//!
//! A restarted Redis may have loaded a torn file. Most versions cut the half command at its end and leave the `MULTI`
//! before it open in the file, so that what is appended from then on is lost at the next start, or half a transaction
//! comes back with it. A rewrite of the file makes that good. So nothing is voted, applied or dropped in a new life of
//! the server before its file is rewritten, and `m:run` in the control hash says which life that was done for: an agent
//! that starts again finds it, and asks nothing.
//!
//! ```text
//! connected ──► m:run is this life ──────────────────────────────────────────────────► served
//!                 └─ no ──► can the file be torn? ──► BGREWRITEAOF, until it ended well ──► m:run ──► served
//! ```

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use redis::{RedisError, RedisResult};

use super::connection::Connection;
use super::control::Field;
use super::kind::{Features, ServerId};
use super::{StoreError, mutants};
use crate::mutex::lock;

/// How long a batch waits for the verification before it is refused: a small file is rewritten within that time.
const PATIENCE: Duration = Duration::from_millis(500);

/// The first pause between two looks at a rewrite; each is twice as long as the one before.
const PAUSE_MIN: Duration = Duration::from_millis(10);

/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// After a rewrite that failed, the next one is not begun before.
const AGAIN: Duration = Duration::from_secs(1);

/// What is known of a connection's server life.
#[derive(Debug)]
pub(super) struct Trust {
    is_given: AtomicBool,
    /// Whether there could be an open `MULTI` in the file when the agent connected, before it wrote anything.
    may_be_torn: bool,
    /// Whether a rewrite was begun in this life, and when the last one failed. Held by who asks.
    rewrite: tokio::sync::Mutex<Rewrite>,
    /// What the verification waits for, for people.
    why: Mutex<String>,
}

#[derive(Debug, Default)]
struct Rewrite {
    begun: bool,
    failed: Option<(Instant, String)>,
}

impl Trust {
    /// Of a server that nothing was written to by this connection yet.
    pub(super) async fn ask(connection: &Connection) -> RedisResult<Self> {
        let may_be_torn = File::ask(connection).await?.may_be_torn();
        let why = "Redis has started anew, and what it has loaded is being verified".to_owned();
        let (is_given, rewrite) = Default::default();
        Ok(Self { is_given, may_be_torn, rewrite, why: why.into() })
    }

    fn is_given(&self) -> bool {
        self.is_given.load(Ordering::Acquire)
    }

    /// What it waits for, until it is given.
    pub(super) fn waits_for(&self) -> Option<String> {
        (!self.is_given()).then(|| lock(&self.why).clone())
    }

    /// Sees to it that what the server has loaded is whole before anything is voted, applied or dropped there. The
    /// error says what that waits for; whoever comes next goes on where this call stopped.
    pub(super) async fn verify(&self, connection: &Connection) -> Result<(), StoreError> {
        if self.is_given() {
            return Ok(());
        }
        let reason = match tokio::time::timeout(PATIENCE, self.ask_whether_whole(connection)).await
        {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(why)) => {
                lock(&self.why).clone_from(&why);
                why
            }
            Err(_) => lock(&self.why).clone(),
        };
        Err(StoreError::Unavailable { address: connection.options().address(), reason })
    }

    async fn ask_whether_whole(&self, connection: &Connection) -> Result<(), String> {
        let mut rewrite = self.rewrite.lock().await;
        if self.is_given() {
            return Ok(());
        }
        let text = |error: RedisError| error.to_string();
        self.recognise(connection).await.map_err(text)?;
        if self.is_given() {
            return Ok(());
        }
        if self.may_be_torn {
            self.rewrite(connection, &mut rewrite).await?;
        }
        let mut command = redis::cmd("HSET");
        command.arg(connection.control_key()).arg(Field::Run).arg(&connection.server.run_id);
        let () = connection.ask(&command).await.map_err(text)?;
        self.is_given.store(true, Ordering::Release);
        Ok(())
    }

    /// Trusts a life of the server that an agent has verified before.
    pub(super) async fn recognise(&self, connection: &Connection) -> RedisResult<()> {
        let verified: Option<String> = connection.field(Field::Run).await?;
        if verified.as_ref() == Some(&connection.server.run_id) || !mutants::asks_run() {
            self.is_given.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Has the server rewrite its file, and returns when that has ended well.
    async fn rewrite(&self, connection: &Connection, rewrite: &mut Rewrite) -> Result<(), String> {
        if let Some((_, why)) = rewrite.failed.as_ref().filter(|(at, _)| at.elapsed() < AGAIN) {
            return Err(why.clone());
        }
        let mut pause = PAUSE_MIN;
        loop {
            let file = File::ask(connection).await.map_err(|error| error.to_string())?;
            if file.is_being_rewritten() {
                // Whoever began it, it writes what this life has loaded.
                rewrite.begun = true;
                "Redis has started anew, and rewrites its append-only file, which may be torn: no vote before that has \
                 ended (INFO persistence: aof_rewrite_in_progress)"
                    .clone_into(&mut lock(&self.why));
                tokio::time::sleep(pause).await;
                pause = (2 * pause).min(PAUSE_MAX);
            } else if rewrite.begun && file.was_rewritten_well() {
                return Ok(());
            } else if rewrite.begun {
                let why = "Redis cannot rewrite its append-only file, which may be torn (aof_last_bgrewrite_status is \
                           not ok): look into the log of Redis, and at the disk; it is tried again";
                return Err(rewrite.fail(why.to_owned()));
            } else {
                tracing::info!(
                    run_id = connection.server.run_id,
                    "Redis was restarted: its append-only file is being rewritten"
                );
                let begun: RedisResult<String> = connection.ask(&redis::cmd("BGREWRITEAOF")).await;
                match begun {
                    Ok(_) => rewrite.begun = true,
                    Err(error) if error.is_io_error() => return Err(error.to_string()),
                    // Another agent was faster.
                    Err(error) if error.to_string().contains("already in progress") => {}
                    Err(error) if connection.options().allow_unsafe_redis => {
                        tracing::warn!(%error, "Redis may have loaded a torn file, and refuses to rewrite it");
                        return Ok(());
                    }
                    Err(error) => {
                        let why = format!(
                            "Redis has started anew, and refuses BGREWRITEAOF, without which a torn append-only file \
                             loses votes ({error}): allow the agent's user `+bgrewriteaof`; it is tried again"
                        );
                        return Err(rewrite.fail(why));
                    }
                }
            }
        }
    }
}

/// What `INFO` says of the server and its file.
struct File(HashMap<String, String>);

impl File {
    async fn ask(connection: &Connection) -> RedisResult<Self> {
        let info: String = connection.ask(&redis::cmd("INFO")).await?;
        let fields = info.lines().filter_map(|line| line.trim_end().split_once(':'));
        Ok(Self(fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()))
    }

    fn is(&self, field: &str, value: &str) -> bool {
        self.0.get(field).is_some_and(|found| found == value)
    }

    fn number(&self, field: &str) -> Option<u64> {
        self.0.get(field)?.parse().ok()
    }

    fn features(&self) -> Features {
        let fields = self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        ServerId::of_info(&fields.collect()).features()
    }

    /// Whether there may be an open `MULTI` in it.
    fn may_be_torn(&self) -> bool {
        let features = self.features();
        self.is("aof_enabled", "1")
            && !features.cuts_torn_file
            && !self.is_only_base(features.base_file)
    }

    /// Whether nothing was appended since the last rewrite, or ever: what a rewrite has written is
    /// not torn. Without a base file the size at the start counts as the base.
    fn is_only_base(&self, has_base_file: bool) -> bool {
        let size = self.number("aof_current_size");
        size == Some(0) || (has_base_file && size.is_some() && size == self.number("aof_base_size"))
    }

    fn is_being_rewritten(&self) -> bool {
        self.is("aof_rewrite_in_progress", "1") || self.is("aof_rewrite_scheduled", "1")
    }

    fn was_rewritten_well(&self) -> bool {
        self.is("aof_last_bgrewrite_status", "ok")
    }
}

impl Rewrite {
    fn fail(&mut self, why: String) -> String {
        tracing::error!(why, "no branch is voted on at this Redis");
        *self = Self { begun: false, failed: Some((Instant::now(), why.clone())) };
        why
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(fields: &[(&str, &str)]) -> File {
        File(fields.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect())
    }

    #[test]
    fn what_may_be_torn_is_said_by_the_version_and_the_size() {
        let on = ("aof_enabled", "1");
        let appended = [on, ("aof_current_size", "200"), ("aof_base_size", "89")];
        let with = |more: &[(&str, &str)]| file(&[&appended, more].concat());
        for redis in ["6.2.14", "7.0.15", "8.2.3", "9.0.0"] {
            assert!(with(&[("redis_version", redis)]).may_be_torn(), "{redis}");
        }
        for (valkey, torn) in
            [("9.1.1", true), ("8.1.3", true), ("9.1.2", false), ("10.0.0", false)]
        {
            let file = with(&[("redis_version", "7.2.4"), ("valkey_version", valkey)]);
            assert_eq!(file.may_be_torn(), torn, "{valkey}");
        }
        let base = [("aof_current_size", "89"), ("aof_base_size", "89")];
        assert!(!file(&[&[on, ("redis_version", "7.0.15")], &base[..]].concat()).may_be_torn());
        assert!(file(&[&[on, ("redis_version", "6.2.14")], &base[..]].concat()).may_be_torn());
        assert!(!file(&[on, ("redis_version", "6.2.14"), ("aof_current_size", "0")]).may_be_torn());
        assert!(!file(&[("aof_enabled", "0"), ("redis_version", "7.0.15")]).may_be_torn());
    }
}
