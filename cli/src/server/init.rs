//! `assent init`: makes an empty decision log, once. Apart from `coordinator`, because a fresh log must never answer for
//! an old one.

use assent_coordinator::log::{self, LogError, LogOptions};

use crate::config::CoordinatorSettings;
use crate::exit::{Exit, Failure};
use crate::output::{self, Format};

#[derive(serde::Serialize)]
struct Made {
    log_id: String,
    data_dir: String,
}

pub(crate) fn run(settings: &CoordinatorSettings, format: Format) -> Result<Exit, Failure> {
    let dir = settings.options.data_dir.clone();
    let mut options = LogOptions::new(dir.clone());
    options.segment_bytes = settings.options.segment_bytes;
    let log_id = log::init(&options).map_err(of_log)?.to_string();
    let data_dir = dir.display().to_string();
    match format {
        Format::Json => output::json(&Made { log_id, data_dir })?,
        Format::Id => output::line(&log_id)?,
        Format::Table => {
            output::line(&format!("decision log {log_id} in {data_dir}"))?;
            output::talk(&format!("next: assent coordinator --data-dir {data_dir}"));
        }
    }
    Ok(Exit::Ok)
}

/// The log's own words are written for people.
pub(crate) fn of_log(error: LogError) -> Failure {
    Failure::error(error.with_sources())
}
