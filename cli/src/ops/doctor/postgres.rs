//! A PostgreSQL server: whether an agent can use it, and what holds it up. Reads only, and looks as
//! an agent does: at the same table, with the same patience.

use std::time::{Duration, Instant};

use assent_participant::store::StoreError;
use assent_participant::{PostgresOptions, examine_postgres};

use super::{Check, PATIENCE, of_finding};

pub(super) async fn check(options: &PostgresOptions, held_max_ms: u64) -> Vec<Check> {
    let address = options.address();
    let what = |about: &str| format!("postgres {address}: {about}");
    let options = &PostgresOptions { call_timeout: PATIENCE, ..options.clone() };
    let began = Instant::now();
    let asked = examine_postgres(options, Duration::from_millis(held_max_ms));
    let (reason, fix) = match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok(findings)) => {
            let findings = findings.iter();
            let mut checks: Vec<Check> =
                findings.map(|finding| of_finding(what(finding.name), finding)).collect();
            checks.push(Check::ok(what("answer"), format!("{} ms", began.elapsed().as_millis())));
            return checks;
        }
        Ok(Err(error)) => {
            let fix = match error {
                StoreError::PostgresBadUrl { .. } => "correct the URL, or the file",
                _ => "start it, or correct the URL, the user or the password",
            };
            (error.to_string(), fix)
        }
        Err(_) => {
            let fix = "it does not answer an agent in time: look for what keeps it busy \
                       (pg_stat_activity), or what stands between";
            (format!("no answer within {PATIENCE:?}"), fix)
        }
    };
    vec![Check::failing(what("reachable"), reason, fix)]
}
