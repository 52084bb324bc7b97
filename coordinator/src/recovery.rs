//! Recovery, the acting half: replays the log, lets `common` plan, and starts the engine with the
//! plan. And, later on, compaction: what has ended and outlived its retention leaves the log.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use assent_client::transport::Http;
use assent_client::{crash, mutant};
use assent_common::ParticipantName;
use assent_common::crash::CrashPoint;
use assent_common::lives::SealKey;
use assent_common::record::Record;
use assent_common::time::Millis;
use assent_common::wire::branch::CoordinatorRef;
use assent_engine::{Compaction, CoreSettings, NextLife, Replaying, Variant, decision_bytes_max};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::clock;
use crate::engine::{AdmissionLimits, Engine, NotRestored};
use crate::log::{self, Callbacks, LogCrashPoint, LogError, LogHandle, LogOptions};

/// What the engine is started with.
pub(crate) struct Start {
    pub(crate) log: LogOptions,
    /// The base URL that participants ask for outcomes at.
    pub(crate) url: String,
    pub(crate) http: Http,
    /// Participants of the configuration; they override those of the log.
    pub(crate) participants: BTreeMap<ParticipantName, String>,
    /// How much may be under way.
    pub(crate) admission: AdmissionLimits,
}

/// What recovery found and set in motion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Records replayed.
    pub records: u64,
    /// Transactions that go on where the log left them.
    pub resumed: usize,
    /// Bytes of a torn tail that were cut.
    pub torn_bytes: u64,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// The engine cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log cannot be opened.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A participant of the configuration has no usable URL.
    #[error("participant {name}: {detail}")]
    Participant {
        /// Its name.
        name: ParticipantName,
        /// What is wrong.
        detail: String,
    },
}

/// Opens the log, replays it, and starts the engine where it left off. Must be called in a tokio
/// runtime.
pub(crate) fn start(start: Start) -> Result<(Engine, RecoveryReport), StartError> {
    let began = clock::now();
    let Start { mut log, url, http, participants, admission } = start;
    log.crash_hook = Arc::new(crash_at);
    let mut replaying = Replaying::default();
    let opened = log::open(log, &mut |position, kind, payload| {
        replaying.apply(position, Record::decode(kind, payload)?)?;
        Ok(())
    })?;
    let (log_id, epoch) = (opened.log_id, opened.epoch);
    let (records, torn) = (opened.report.records, opened.report.torn_tail.clone());
    let started: Arc<OnceLock<Engine>> = Arc::new(OnceLock::new());
    let engine_of_log = Arc::clone(&started);
    let log: LogHandle = opened.start(Callbacks {
        // The engine appends, so that it is there before anything becomes durable.
        on_durable: Box::new(move |batch| {
            if let Some(engine) = engine_of_log.get() {
                engine.durable(batch);
            }
        }),
        on_fatal: Box::new(log::stop_process),
    })?;
    let settings = CoreSettings {
        identity: CoordinatorRef { log_id, epoch, url, life: None },
        decision_bytes_max: decision_bytes_max(log.payload_bytes_max()),
        admission,
        variant: Variant::of(mutant::chosen()),
    };
    let begun = replaying.begin(settings, new_nonce(), new_key, clock::now());
    let NextLife { core, participants: mut registered, rest } = begun;
    let engine = Engine::new(core, log, http);
    let _first = started.set(engine.clone());
    let moved = moved(&registered, &participants);
    registered.extend(participants);
    let restored = engine.restore_participants(registered);
    restored.map_err(|NotRestored { name, detail }| StartError::Participant { name, detail })?;
    // Only now: what is no address of a participant is not shown, it may hold a password.
    for (participant, stored, configured) in moved {
        tracing::warn!(%participant, stored, configured,
            "the configuration (--participant) overrides the address that the log has for this \
             participant; if the stored one is right, take it off the configuration, or change it \
             there too");
    }
    let resumed = rest.transactions().len();
    engine.go_on(rest);
    let report = RecoveryReport {
        records,
        resumed,
        torn_bytes: torn.map_or(0, |torn| u64::from(torn.bytes)),
        took_ms: clock::now().since(began),
    };
    tracing::info!(%log_id, %epoch, records, resumed, took_ms = report.took_ms, "recovered");
    Ok((engine, report))
}

/// The participants that the configuration has at another address than the log: their names, the
/// address of the log, the one of the configuration.
fn moved(
    stored: &BTreeMap<ParticipantName, String>,
    configured: &BTreeMap<ParticipantName, String>,
) -> Vec<(ParticipantName, String, String)> {
    let plain = |url: &str| url.trim_end_matches('/').to_owned();
    let both = configured.iter().filter_map(|(name, url)| Some((name, stored.get(name)?, url)));
    let both = both.map(|(name, stored, url)| (name.clone(), plain(stored), plain(url)));
    both.filter(|(_, stored, configured)| stored != configured).collect()
}

/// The last 62 bits of a `UUIDv7` are random.
fn new_nonce() -> u64 {
    const MASK: u128 = (1 << 62) - 1;
    u64::try_from(Uuid::now_v7().as_u128() & MASK).unwrap_or_default()
}

/// Of each `UUIDv7` 32 bits are random, whatever it shares with the one before.
fn new_key() -> SealKey {
    const DRAWN: usize = 16;
    let mut drawn = Sha256::new();
    for _ in 0..DRAWN {
        drawn.update(Uuid::now_v7().as_bytes());
    }
    SealKey(drawn.finalize().into())
}

/// The crash points that lie inside the log.
fn crash_at(point: LogCrashPoint) {
    match point {
        LogCrashPoint::AfterWriteBeforeSync => crash::point(CrashPoint::BeforeDecisionSync),
        LogCrashPoint::RotationBeforeSwitch => crash::point(CrashPoint::LogRotation),
        LogCrashPoint::CompactionBeforeDelete => crash::point(CrashPoint::LogCompaction),
        LogCrashPoint::BeforeWrite
        | LogCrashPoint::AfterSync
        | LogCrashPoint::RotationAfterCreate
        | LogCrashPoint::CompactionAfterDelete => {}
    }
}

/// Deletes the segments that were sealed longer ago than the retention. What is still needed of
/// them is appended again first: records of active transactions, the participants, and which
/// transactions were ever committed. Returns how many segments went. Blocking.
pub(crate) fn compact(engine: &Engine, retention_ms: u64) -> Result<u32, LogError> {
    let log = engine.log();
    let segments = log.segments().into_iter();
    let segments = segments.map(|segment| (segment.number, segment.sealed_ms.map(Millis)));
    let Some(mut compaction) = Compaction::of(segments, clock::now(), retention_ms) else {
        return Ok(0);
    };
    let (first, last) = compaction.segments().into_inner();
    for segment in first..=last {
        log.read_segment(segment, &mut |_, kind, payload| {
            let record = Record::decode(kind, payload)?;
            compaction.apply(record, |number| engine.is_active(number));
            Ok(())
        })?;
    }
    // Not a word of the old segments may go before all of this is durable.
    if engine.keep(compaction).blocking_recv().is_err() {
        return Ok(0);
    }
    log.retire(last)?;
    tracing::info!(first, last, "log segments retired");
    Ok(last - first + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_the_configuration_overrides_is_named_with_both() {
        let map = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, url)| (name.parse().unwrap(), (*url).to_owned())).collect()
        };
        let stored = map(&[("a", "http://new:1"), ("b", "http://b:1/"), ("c", "http://c:1")]);
        let configured = map(&[("a", "http://old:1"), ("b", "http://b:1"), ("d", "http://d:1")]);
        let name = "a".parse().unwrap();
        let expected = [(name, "http://new:1".to_owned(), "http://old:1".to_owned())];
        assert_eq!(moved(&stored, &configured), expected);
    }
}
