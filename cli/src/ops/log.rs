//! `assent log verify|dump`: the decision log, offline. Both only read, and work beside a running
//! coordinator.

use assent_common::lives::{Life, LifeBegan};
use assent_common::record::{Answered, Committed, Record, WrittenRecord};
use assent_coordinator::log::disk::RealDisk;
use assent_coordinator::log::{self, DumpedFrame, KIND_EPOCH, VerifyReport};
use assent_participant::store::decode_redo;
use clap::Subcommand;
use serde_json::{Value, json};

use crate::config::{CoordinatorArgs, CoordinatorSettings};
use crate::exit::{Exit, Failure};
use crate::output::{self, Format, Rows};
use crate::server::init::of_log;

/// What to do with a log.
#[derive(Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// Check every byte, and say where the log is damaged
    Verify(CoordinatorArgs),
    /// Print every record, oldest first, as one JSON document a line; includes the transactions'
    /// values
    Dump(CoordinatorArgs),
}

/// What was asked for, without the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogAction {
    Verify,
    Dump,
}

impl LogCommand {
    pub(crate) fn split(self) -> (LogAction, CoordinatorArgs) {
        match self {
            Self::Verify(args) => (LogAction::Verify, args),
            Self::Dump(args) => (LogAction::Dump, args),
        }
    }
}

pub(crate) fn run(
    action: LogAction,
    settings: &CoordinatorSettings,
    format: Format,
) -> Result<Exit, Failure> {
    let dir = &settings.options.data_dir;
    match action {
        LogAction::Verify => {
            let report = log::verify(&RealDisk, dir).map_err(of_log)?;
            match format {
                Format::Json => output::json(&document(&report))?,
                Format::Id => output::line(&report.log_id.to_string())?,
                Format::Table => tell(&report)?,
            }
            Ok(if report.damage.is_empty() { Exit::Ok } else { Exit::Error })
        }
        LogAction::Dump => {
            let mut failed = None;
            let dumped = log::dump(&RealDisk, dir, &mut |frame| {
                output::json_line(&frame_document(frame)).map_err(|failure| {
                    let text = failure.to_string();
                    failed = Some(failure);
                    text.into()
                })
            });
            match (failed, dumped) {
                (Some(failure), _) => Err(failure),
                (None, dumped) => dumped.map(|()| Exit::Ok).map_err(of_log),
            }
        }
    }
}

fn document(report: &VerifyReport) -> Value {
    let segments = report.segments.iter().map(|segment| {
        json!({
            "number": segment.number,
            "file": segment.file,
            "records": segment.records,
            "bytes": segment.bytes,
            "created_ms": segment.created_ms,
            "sealed_ms": segment.sealed_ms,
        })
    });
    let damage = report.damage.iter().map(
        |damage| json!({ "file": damage.file, "offset": damage.offset, "reason": damage.reason }),
    );
    let torn = report.torn_tail.as_ref();
    json!({
        "log_id": report.log_id,
        "created_ms": report.created_ms,
        "durable_to": report.mark.to_string(),
        "superblock_slot_damaged": report.superblock_slot_damaged,
        "segments": segments.collect::<Vec<_>>(),
        "torn_tail": torn.map(|torn| json!({ "file": torn.file, "offset": torn.offset, "bytes": torn.bytes })),
        "damage": damage.collect::<Vec<_>>(),
    })
}

fn tell(report: &VerifyReport) -> Result<(), Failure> {
    output::line(&format!("log {}", report.log_id))?;
    let mut rows = Rows::new(&["SEGMENT", "RECORDS", "BYTES", "STATE", "FILE"]);
    for segment in &report.segments {
        rows.push([
            segment.number.to_string(),
            segment.records.to_string(),
            segment.bytes.to_string(),
            if segment.sealed_ms.is_some() { "sealed" } else { "being written" }.to_owned(),
            segment.file.display().to_string(),
        ]);
    }
    output::rows(&rows)?;
    if let Some(torn) = &report.torn_tail {
        output::line(&format!(
            "torn tail: {} bytes at offset {} of {}; the next start cuts them, they were never reported durable",
            torn.bytes,
            torn.offset,
            torn.file.display()
        ))?;
    }
    if report.superblock_slot_damaged {
        output::line("one of the superblock's two slots is invalid; the next start writes both")?;
    }
    for damage in &report.damage {
        let offset =
            damage.offset.map_or_else(String::new, |offset| format!(" at offset {offset}"));
        output::line(&format!("DAMAGED: {}{offset}: {}", damage.file.display(), damage.reason))?;
    }
    output::line(if report.damage.is_empty() {
        "whole"
    } else {
        "do not delete anything: restore these files from a copy of this very log"
    })
}

/// A frame as JSON: where it lies, what it is, and the record.
fn frame_document(frame: DumpedFrame<'_>) -> Value {
    let (record, content) = if frame.kind == KIND_EPOCH {
        ("epoch", Value::Null)
    } else {
        match Record::decode(frame.kind, frame.payload) {
            Ok(record) => record_document(&record),
            Err(error) => ("unreadable", json!({ "kind": frame.kind, "why": error.to_string() })),
        }
    };
    json!({ "at": frame.position.to_string(), "batch": frame.batch, "record": record, "content": content })
}

fn record_document(record: &Record) -> (&'static str, Value) {
    let (name, content) = match record {
        Record::Begun(begun) => ("begun", serde_json::to_value(begun)),
        Record::Committed(committed) => (
            "committed",
            serde_json::to_value(committed).map(|value| with_writes(value, committed)),
        ),
        Record::Ended(ended) => ("ended", serde_json::to_value(ended)),
        Record::Answered(answered) => {
            ("answered", serde_json::to_value(answered).map(|value| with_written(value, answered)))
        }
        Record::ParticipantSet(set) => ("participant_set", serde_json::to_value(set)),
        Record::ParticipantRemoved(removed) => {
            ("participant_removed", serde_json::to_value(removed))
        }
        Record::DataSeen(seen) => ("data_seen", serde_json::to_value(seen)),
        Record::LifeBegan(LifeBegan { life: Life { epoch, nonce }, at }) => {
            ("life_began", Ok(json!({ "epoch": epoch, "nonce": nonce, "behind": at })))
        }
        // Whoever has it can show to a coordinator that its log is a copy.
        Record::SealKey(_) => ("seal_key", Ok(Value::Null)),
        Record::LossAccepted(accepted) => ("loss_accepted", serde_json::to_value(accepted)),
        Record::Acknowledged(acknowledged) => ("acknowledged", serde_json::to_value(acknowledged)),
        Record::EndedByHand(ended) => ("ended_by_hand", serde_json::to_value(ended)),
        Record::Abandoned(abandoned) => ("abandoned", serde_json::to_value(abandoned)),
        Record::CommittedSet(set) => {
            // The bitmap is bytes of another format; how many says enough.
            let content = json!({ "epoch": set.epoch, "bitmap_bytes": set.bitmap.len(), "retried": set.retried });
            ("committed_set", Ok(content))
        }
    };
    (name, content.unwrap_or(Value::Null).readable())
}

/// Puts the writes as Redis commands where the packed bytes were, and the replies as JSON.
fn with_writes(mut value: Value, committed: &Committed) -> Value {
    let branches = value.get_mut("branches").and_then(Value::as_array_mut);
    for (shown, branch) in branches.into_iter().flatten().zip(&committed.branches) {
        let Some(shown) = shown.as_object_mut() else { continue };
        shown.remove("redo");
        shown.insert("writes".to_owned(), writes(&branch.redo));
        if let Ok(replies) = serde_json::from_str(&branch.replies) {
            shown.insert("replies".to_owned(), replies);
        }
    }
    value
}

/// Adds what a branch of one phase wrote, where it wrote something.
fn with_written(mut value: Value, answered: &Answered) -> Value {
    if let (Some(shown), Some(written)) = (value.as_object_mut(), &answered.written) {
        let WrittenRecord { redo, incarnation, seq } = written;
        let written = json!({ "incarnation": incarnation, "seq": seq, "writes": writes(redo) });
        shown.insert("written".to_owned(), written);
    }
    value
}

fn writes(redo: &[u8]) -> Value {
    // The statements of a branch at a database; no write of a Redis begins so.
    if redo.first() == Some(&b'[')
        && let Ok(statements) = serde_json::from_slice(redo)
    {
        return statements;
    }
    match decode_redo(redo) {
        Ok(writes) => serde_json::to_value(writes).unwrap_or(Value::Null),
        Err(error) => json!({ "bytes": redo.len(), "why": error.to_string() }),
    }
}

/// Makes documents fit for people.
trait Readable {
    fn readable(self) -> Self;
}

impl Readable for Value {
    /// The fingerprint is 32 numbers otherwise.
    fn readable(mut self) -> Self {
        if let Some(fingerprint) = self.pointer_mut("/identity/fingerprint")
            && let Some(bytes) = fingerprint.as_array()
        {
            let hex = bytes.iter().filter_map(Self::as_u64).map(|byte| format!("{byte:02x}"));
            *fingerprint = Self::String(hex.collect());
        }
        self
    }
}
