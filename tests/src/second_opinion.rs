//! What somebody else's checker finds in a history: the `adya` crate.

use adya::{History, Opts, Valid, Workload};

/// What is wrong with the list-append transactions of this history (JSON lines), which ought to be
/// strictly serialisable.
pub fn adya(history: &str) -> Result<(), String> {
    let model = "strict-serializable".to_owned();
    let options = Opts { models: vec![model], ..Opts::default() };
    let history = History::from_json(history)
        .map_err(|error| format!("adya cannot read the history: {error:?}"))?;
    let report = adya::check(&history, Workload::ListAppend, &options);
    match report.valid {
        Valid::True => Ok(()),
        valid => Err(format!("adya: {valid:?}, {:?}", report.anomaly_types)),
    }
}
