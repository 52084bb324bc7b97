//! The disk of the decision log: how long a sync takes there, and whether the log is whole.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use assent_coordinator::log::{self, disk::RealDisk};

use super::{Check, Verdict};

/// Syncs that are timed.
const SYNCS: usize = 20;

/// Every commit waits for one sync of the log; above this a person notices.
const SYNC_SLOW: Duration = Duration::from_millis(20);

/// Above this the disk is unfit: transactions time out.
const SYNC_UNFIT: Duration = Duration::from_millis(500);

pub(super) fn check(dir: &Path) -> Vec<Check> {
    vec![sync_latency(dir), log_is_whole(dir)]
}

fn sync_latency(dir: &Path) -> Check {
    let what = format!("fsync in {}", dir.display());
    let mut times = match time_syncs(dir) {
        Ok(times) => times,
        Err(error) => return Check::failing(what, error.to_string(), advice(error.kind())),
    };
    times.sort_unstable();
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    let ms = |time: Duration| time.as_secs_f64() * 1_000.0;
    let found = format!("median {:.2} ms, worst {:.2} ms of {SYNCS}", ms(median), ms(worst));
    let verdict = match median {
        median if median > SYNC_UNFIT => Verdict::Failing,
        median if median > SYNC_SLOW => Verdict::Warning,
        _ => return Check::ok(what, found),
    };
    Check::bad(
        verdict,
        what,
        found,
        "every commit waits for this disk: put the log on a faster one",
    )
}

/// What to do about a disk that takes no file.
const fn advice(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "the disk is full: make room; the coordinator stops when its log cannot grow, and goes on after a restart"
        }
        ErrorKind::ReadOnlyFilesystem => {
            "the disk is mounted read-only: read the kernel's log, then mount it for writing"
        }
        ErrorKind::NotFound => "make the directory (assent init does), or correct --data-dir",
        ErrorKind::PermissionDenied => "let this user write there",
        _ => "repair the disk, or put the log on another one while the coordinator is stopped",
    }
}

/// In a file of its own beside the log, and gone afterwards: the log's directory takes no strangers.
fn time_syncs(dir: &Path) -> std::io::Result<Vec<Duration>> {
    let beside = dir
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or_else(|| Path::new("."));
    let path = beside.join(format!(".assent-doctor-{}", std::process::id()));
    let timed = (|| {
        let mut file = OpenOptions::new().create_new(true).write(true).open(&path)?;
        (0..SYNCS)
            .map(|_| {
                file.write_all(&[0; 512])?;
                let began = Instant::now();
                file.sync_data()?;
                Ok(began.elapsed())
            })
            .collect()
    })();
    let _never_made = std::fs::remove_file(&path);
    timed
}

fn log_is_whole(dir: &Path) -> Check {
    let what = format!("log in {}", dir.display());
    match log::verify(&RealDisk, dir) {
        Ok(report) if report.damage.is_empty() => {
            let records: u64 = report.segments.iter().map(|segment| segment.records).sum();
            Check::ok(what, format!("{}, {records} records, whole", report.log_id))
        }
        Ok(report) => {
            let found = format!("{} damaged places", report.damage.len());
            Check::bad(
                Verdict::Failing,
                what,
                found,
                "assent log verify says where; restore from a copy of this log",
            )
        }
        Err(error) => Check::bad(
            Verdict::Failing,
            what,
            error.with_sources(),
            "assent init makes a log, if this coordinator never ran; if it did, find its volume",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_not_told_to_make_a_directory() {
        assert!(advice(ErrorKind::StorageFull).contains("make room"));
        assert!(advice(ErrorKind::NotFound).contains("make the directory"));
    }
}
