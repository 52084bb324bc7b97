//! A Redis: whether it keeps what it acknowledged. Reads only, and looks as an agent does: at the same table, with the same
//! patience.

use std::time::Duration;

use assent_common::ErrorCode;
use assent_participant::store::{Examination, StoreError, StoreOptions, examine, rights};

use super::{Check, Verdict, of_finding};

/// Clocks matter to people who read logs, never to safety.
const SKEW_MAX_MS: i128 = 1_000;

/// Above this a person notices.
const SLOW: Duration = Duration::from_millis(500);

pub(super) async fn check(options: &StoreOptions) -> Vec<Check> {
    let address = options.address();
    let what = |about: &str| format!("redis {address}: {about}");
    let patience = |most: Duration| most.min(super::PATIENCE);
    let options = &StoreOptions {
        connect_timeout: patience(options.connect_timeout),
        response_timeout: patience(options.response_timeout),
        ..options.clone()
    };
    match tokio::time::timeout(super::PATIENCE, examine(options)).await {
        Ok(Ok(seen)) => judge(&seen, &what),
        Ok(Err(error)) => vec![unreachable(&error, &what)],
        Err(_) => {
            let reason = format!("timed out: no answer within {:?}", super::PATIENCE);
            let error = StoreError::Unavailable { address: options.address(), reason };
            vec![unreachable(&error, &what)]
        }
    }
}

/// What makes a user with the least rights that an agent needs there, each form with what it is
/// for, so that all of it may be pasted.
pub(super) async fn least_acl(options: &StoreOptions) -> Result<[String; 4], StoreError> {
    let features = examine(options).await?.server.id.features();
    let key = &options.control_key;
    Ok([
        "# for a shell; redis-cli may need -h, -p and an administrator's password".to_owned(),
        format!("redis-cli {}", rights::least_acl(&features, key)),
        "# for an ACL file (aclfile) or redis.conf, without the #".to_owned(),
        format!("# {}", rights::least_acl_of_file(&features, key)),
    ])
}

fn unreachable(error: &StoreError, what: &dyn Fn(&str) -> String) -> Check {
    let told = error.to_string();
    let fix = match error {
        StoreError::BadUrl { .. } => "correct the URL",
        StoreError::Unavailable { reason, .. } if reason.contains("timed out") => {
            "it is there and does not answer an agent in time: look for what keeps it busy (SLOWLOG GET), or what \
             stands between"
        }
        StoreError::Refuses { code: ErrorCode::RedisNoPermission, .. } => {
            "allow its user what it lacks: assent doctor --redis URL --acl, with the URL of a user \
             who may, prints all that an agent needs"
        }
        StoreError::Refuses { .. } => "read the words of Redis: it is there, and refuses",
        _ => "start it, or correct the URL, the user or the password",
    };
    Check::bad(Verdict::Failing, what("reachable"), told, fix)
}

fn judge(seen: &Examination, what: &dyn Fn(&str) -> String) -> Vec<Check> {
    let findings = seen.server.findings.iter();
    let mut checks: Vec<Check> =
        findings.map(|finding| of_finding(what(finding.name), finding)).collect();
    let took = format!("{} ms", seen.took.as_millis());
    checks.push(if seen.took > SLOW {
        let fix = "it answers slowly: look for what keeps it busy (SLOWLOG GET)";
        Check::bad(Verdict::Warning, what("answer"), took, fix)
    } else {
        Check::ok(what("answer"), took)
    });
    let skew = format!("{} ms from here", seen.skew_ms);
    checks.push(if seen.skew_ms.abs() > SKEW_MAX_MS {
        let fix = "run NTP there and here; safety does not depend on it";
        Check::bad(Verdict::Warning, what("clock"), skew, fix)
    } else {
        Check::ok(what("clock"), skew)
    });
    checks
}
