//! `assent doctor`: asks everybody about everything that the promises depend on, and says what to change.
//!
//! Each check is a line: what was looked at, whether it is well, what was found, and the fix. Nothing is changed.
//!
//! ```text
//! disk ── of the decision log          redis, postgres ── the servers that are named
//! coordinator ── itself, and what it does not get rid of
//! registry ── whom the coordinator knows, and whom its transactions wait for
//! participant ── each: itself, its data, who reaches whom, what is held there
//! ```

mod coordinator;
mod disk;
mod participant;
mod postgres;
mod redis;
mod registry;
mod store;

use std::time::Duration;

use assent_client::{CallError, Unknown};
use assent_common::time::DurationMs;
use assent_participant::PostgresOptions;
use assent_participant::store::StoreOptions;
use assent_participant::store::requirements::{Finding, Weight};
use clap::Args;
use futures_util::future::{join_all, try_join_all};
use serde::Serialize;

use crate::config::{ClientArgs, ClientSettings, ConfigFile, ConfigPath, PathValue};
use crate::exit::{Exit, Failure, chain};
use crate::output::{self, Format, Rows};

/// How long anybody who is asked may take. All are asked at once.
const PATIENCE: Duration = Duration::from_millis(2_500);

/// What came of a question, within the patience.
async fn within<T>(asked: impl Future<Output = Result<T, CallError>>) -> Result<T, CallError> {
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(answer) => answer,
        Err(_) => Err(CallError::Unknown(silent())),
    }
}

/// What is known of who does not answer.
fn silent() -> Unknown {
    Unknown(format!("no answer within {PATIENCE:?}"))
}

/// The flags of `assent doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// A Redis to look at; repeatable [default: the one of [participant] in the file]
    #[arg(long, value_name = "URL")]
    redis: Vec<String>,
    /// File with the password of that Redis [default: the one of [participant] in the file]
    #[arg(long, value_name = "FILE")]
    redis_password_file: Option<PathValue>,
    /// A PostgreSQL database to look at; repeatable [default: the one of [participant] in the file]
    #[arg(long, value_name = "URL")]
    postgres: Vec<String>,
    /// File with the password of that database [default: the one of [participant] in the file]
    #[arg(long, value_name = "FILE")]
    postgres_password_file: Option<PathValue>,
    /// Print the least rights that an agent needs on that Redis, as a command for a shell and as a
    /// line for an ACL file, and nothing else
    #[arg(long)]
    acl: bool,
    /// The directory of the decision log [default: the one of [coordinator] in the file]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathValue>,
    /// A participant to ask, beside those that the coordinator knows; repeatable
    #[arg(long, value_name = "URL")]
    participant: Vec<String>,
    /// How long a branch may be in doubt, or an outcome not be acknowledged: what ends by itself does so within seconds, and a
    /// customer's key is locked meanwhile
    #[arg(long, value_name = "TIME", default_value = "30s")]
    held_max: DurationMs,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// How a check came out, the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Ok,
    /// It works, and something is not as it should be.
    Warning,
    /// A promise does not hold, or nothing works.
    Failing,
}

/// One check.
#[derive(Debug, Serialize)]
struct Check {
    what: String,
    verdict: Verdict,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
    /// What is wrong with the participant's Redis or database, where nothing else is the matter.
    #[serde(skip)]
    only_store: Option<String>,
}

impl Check {
    fn ok(what: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            verdict: Verdict::Ok,
            found: found.into(),
            fix: None,
            only_store: None,
        }
    }

    fn failing(what: impl Into<String>, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::bad(Verdict::Failing, what, found, fix)
    }

    fn warning(what: impl Into<String>, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::bad(Verdict::Warning, what, found, fix)
    }

    fn bad(
        verdict: Verdict,
        what: impl Into<String>,
        found: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        let (what, found, fix) = (what.into(), found.into(), Some(fix.into()));
        Self { what, verdict, found, fix, only_store: None }
    }

    /// Says that this is so only because of the participant's Redis or database.
    fn because_of_store(self, why: impl Into<String>) -> Self {
        Self { only_store: Some(why.into()), ..self }
    }
}

/// What a look at a server found, as a check.
fn of_finding(what: String, finding: &Finding) -> Check {
    let Some(problem) = &finding.problem else { return Check::ok(what, &finding.found) };
    let verdict = match problem.weight {
        Weight::Advice => Verdict::Warning,
        Weight::Waits | Weight::Refused => Verdict::Failing,
    };
    let fix = format!("must be {} ({}): {}", problem.needs, problem.why, problem.fix);
    Check::bad(verdict, what, &finding.found, fix)
}

pub(crate) fn run(
    args: DoctorArgs,
    settings: &ClientSettings,
    path: &ConfigPath,
    format: Format,
) -> Result<Exit, Failure> {
    let file = ConfigFile::load(path)?;
    let data_dir = args.data_dir.clone().or_else(|| file.coordinator.data_dir.clone());
    let held_max_ms = args.held_max.0;
    let redis = redis_named(&args, &file);
    let postgres = postgres_named(&args, &file);
    if args.acl {
        return print_acl(&redis);
    }
    let mut checks = Vec::new();
    if let Some(dir) = &data_dir {
        checks.extend(disk::check(&dir.0));
    }
    let checks = super::block_on(async {
        let asked = async {
            let (mut checks, told) = coordinator::check(settings, held_max_ms).await?;
            let told = told.as_ref();
            let registered =
                told.into_iter().flat_map(|told| told.participants.iter().map(move |v| (told, v)));
            let registered = registered.map(|(told, view)| {
                participant::check_registered(settings, told, view, held_max_ms)
            });
            let named = args.participant.iter();
            let named = named.map(|url| participant::check_named(settings, told, url, held_max_ms));
            let (registered, named) =
                tokio::try_join!(try_join_all(registered), try_join_all(named))?;
            checks.extend(registered.into_iter().chain(named).flatten());
            Ok::<_, Failure>(checks)
        };
        let redis = join_all(redis.iter().map(redis::check));
        let postgres = postgres.iter().map(|options| postgres::check(options, held_max_ms));
        let (redis, postgres, asked) = tokio::join!(redis, join_all(postgres), asked);
        checks.extend(redis.into_iter().chain(postgres).flatten());
        checks.extend(asked?);
        Ok::<_, Failure>(checks)
    })?;
    show(&checks, format)?;
    let worst = checks.iter().map(|check| check.verdict).max();
    Ok(if worst == Some(Verdict::Failing) { Exit::Error } else { Exit::Ok })
}

/// The Redis servers that are named; else that of the file, unless it has a database.
fn redis_named(args: &DoctorArgs, file: &ConfigFile) -> Vec<StoreOptions> {
    let file = &file.participant;
    let of_file = || file.redis.clone().filter(|_| file.postgres.is_none()).into_iter().collect();
    let urls = if args.redis.is_empty() { of_file() } else { args.redis.clone() };
    let password_file = args.redis_password_file.as_ref().or(file.redis_password_file.as_ref());
    let options = urls.into_iter().map(|url| StoreOptions {
        password_file: password_file.map(|file| file.0.clone()),
        ..StoreOptions::new(url)
    });
    options.collect()
}

/// The databases that are named; else that of the file.
fn postgres_named(args: &DoctorArgs, file: &ConfigFile) -> Vec<PostgresOptions> {
    let file = &file.participant;
    let of_file = || file.postgres.clone().into_iter().collect();
    let urls = if args.postgres.is_empty() { of_file() } else { args.postgres.clone() };
    let password_file =
        args.postgres_password_file.as_ref().or(file.postgres_password_file.as_ref());
    let default = PostgresOptions::new("");
    let options = urls.into_iter().map(|url| PostgresOptions {
        url,
        password_file: password_file.map(|file| file.0.clone()),
        isolation: file.postgres_isolation.map_or(default.isolation, |level| level.0),
        connections_max: file.postgres_connections_max.unwrap_or(default.connections_max),
        ..default.clone()
    });
    options.collect()
}

fn print_acl(redis: &[StoreOptions]) -> Result<Exit, Failure> {
    if redis.is_empty() {
        return Err(Failure::usage("doctor --acl needs a Redis: --redis URL"));
    }
    super::block_on(async {
        for options in redis {
            let line = redis::least_acl(options).await;
            let lines = line.map_err(|error| Failure::error(chain(&error)))?;
            lines.iter().try_for_each(|line| output::line(line))?;
        }
        Ok(Exit::Ok)
    })
}

fn show(checks: &[Check], format: Format) -> Result<(), Failure> {
    match format {
        Format::Json => return output::json(&checks),
        Format::Id => return checks.iter().try_for_each(|check| output::line(&check.what)),
        Format::Table => {}
    }
    let mut rows = Rows::new(&["", "CHECK", "FOUND"]);
    for check in checks {
        rows.push([mark(check.verdict).to_owned(), check.what.clone(), check.found.clone()]);
    }
    output::rows(&rows)?;
    let fixes: Vec<_> =
        checks.iter().filter_map(|check| Some((check, check.fix.as_ref()?))).collect();
    output::line(&summary(checks))?;
    if fixes.is_empty() {
        return output::line("nothing to change");
    }
    output::line("to change:")?;
    fixes.iter().try_for_each(|(check, fix)| {
        output::line(&format!("  {}: {}", output::printable(&check.what), output::printable(fix)))
    })
}

fn summary(checks: &[Check]) -> String {
    let count = |verdict| checks.iter().filter(|check| check.verdict == verdict).count();
    format!(
        "{} checks: {} ok, {} to look at, {} failing",
        checks.len(),
        count(Verdict::Ok),
        count(Verdict::Warning),
        count(Verdict::Failing)
    )
}

const fn mark(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "ok",
        Verdict::Warning => "warn",
        Verdict::Failing => "FAIL",
    }
}
