//! The participants: what each says of itself, what the coordinator says of it, whether both mean
//! the same data and the same log, whether each may ask the other, and what is held there.

use std::collections::HashSet;

use assent_client::{CallError, ParticipantClient};
use assent_common::wire::branch::{BranchList, BranchState, CoordinatorList, CoordinatorView};
use assent_common::wire::resync::DataView;
use assent_common::wire::transaction::{ParticipantData, ParticipantView, VersionView};
use assent_common::{ErrorCode, LogId};

use super::coordinator::{Told, ready, same_version};
use super::store::{StoreKind, only_store, store_once};
use super::{Check, PATIENCE, registry, silent, within};
use crate::config::ClientSettings;
use crate::exit::Failure;
use crate::output::millis;

/// Keys of held branches that are named.
const KEYS_NAMED_MAX: usize = 5;

/// What a coordinator calls itself in its version.
const COORDINATOR: &str = "coordinator";

/// What a participant answers.
struct SaidByParticipant {
    version: Result<VersionView, CallError>,
    own: Vec<Check>,
    store: Option<StoreKind>,
    held: Option<BranchList>,
    data: Result<DataView, CallError>,
    list: Result<CoordinatorList, CallError>,
}

impl SaidByParticipant {
    async fn ask(what: &str, client: &ParticipantClient, held_max_ms: u64) -> Self {
        let (version, (own, store, held), data, list) = tokio::join!(
            within(client.version()),
            of_itself(what, client, held_max_ms),
            within(client.data()),
            within(client.coordinators())
        );
        Self { version, own, store, held, data, list }
    }

    /// Whether it may ask its coordinators; `told` is the one that this command asks.
    fn may_ask(self, what: &str, told: Option<&Told>) -> Vec<Check> {
        let waiting = LogsAwaited::new(self.held, self.data.as_ref().ok());
        match self.list {
            Ok(list) => can_ask(what, told, &list, &waiting),
            Err(error) => vec![unheard(format!("{what}: may ask its coordinators"), &error)],
        }
    }
}

/// Everything about a participant that the coordinator knows.
pub(super) async fn check_registered(
    settings: &ClientSettings,
    told: &Told,
    view: &ParticipantView,
    held_max_ms: u64,
) -> Result<Vec<Check>, Failure> {
    let what = format!("participant {} {}", view.name, view.url);
    let client = ParticipantClient::new(&settings.participant_http()?, &view.url)?;
    let mut checks = vec![reached_by_coordinator(&what, view), data_by_coordinator(&what, view)];
    let mut said = Box::pin(SaidByParticipant::ask(&what, &client, held_max_ms)).await;
    let version = match &said.version {
        Ok(version) => version,
        Err(error) => {
            checks.push(not_reached(&what, error));
            return Ok(checks);
        }
    };
    if let Some(another) = named(&what, view, version) {
        // Nothing that it shows is about the participant that was meant.
        checks.push(another);
        return Ok(checks);
    }
    checks.extend(of_version(&what, version));
    checks.append(&mut said.own);
    checks.push(match &said.data {
        Ok(data) => same_data(&what, told, view, data),
        Err(error) => unheard(format!("{what}: data"), error),
    });
    let kind = said.store;
    checks.extend(said.may_ask(&what, Some(told)));
    Ok(store_once(&what, kind, checks))
}

/// Everything about a participant that only its operator has named.
pub(super) async fn check_named(
    settings: &ClientSettings,
    told: Option<&Told>,
    url: &str,
    held_max_ms: u64,
) -> Result<Vec<Check>, Failure> {
    let what = format!("participant {url}");
    let client = ParticipantClient::new(&settings.participant_http()?, url)?;
    let mut said = Box::pin(SaidByParticipant::ask(&what, &client, held_max_ms)).await;
    let version = match &said.version {
        Ok(version) => version,
        Err(error) => return Ok(vec![not_reached(&what, error)]),
    };
    if version.role == COORDINATOR {
        return Ok(vec![another(&what)]);
    }
    let mut checks = of_version(&what, version);
    checks.extend(told.and_then(|told| registry::named(&what, told, url, version)));
    checks.append(&mut said.own);
    let kind = said.store;
    checks.extend(said.may_ask(&what, None));
    Ok(store_once(&what, kind, checks))
}

/// What a participant says of what runs there.
fn of_version(what: &str, version: &VersionView) -> Vec<Check> {
    let mut checks = vec![same_version(what, version)];
    checks.extend(version.warnings.iter().map(|warning| {
        let fix = "until then its votes may be lost";
        Check::warning(format!("{what}: durability"), warning, fix)
    }));
    checks
}

/// The logs that something waits for here; `None` if that is not known.
struct LogsAwaited(Option<HashSet<LogId>>);

impl LogsAwaited {
    fn new(held: Option<BranchList>, data: Option<&DataView>) -> Self {
        let logs = held.filter(|held| !held.more).zip(data).map(|(held, data)| {
            let held = held.branches.iter().map(|branch| branch.txid.log_id);
            held.chain(data.owed.iter().copied()).collect()
        });
        Self(logs)
    }

    /// Whether a branch, or the fence, waits for this log, as far as is known.
    fn waits_for(&self, log_id: LogId) -> bool {
        self.0.as_ref().is_none_or(|logs| logs.contains(&log_id))
    }
}

/// What a participant says of itself, whoever coordinates; and the branches that wait there.
async fn of_itself(
    what: &str,
    client: &ParticipantClient,
    held_max_ms: u64,
) -> (Vec<Check>, Option<StoreKind>, Option<BranchList>) {
    let probe = tokio::time::timeout(PATIENCE, client.readyz());
    let (probe, held_there) = tokio::join!(probe, within(client.branches(BranchState::Prepared)));
    let probe = probe.unwrap_or_else(|_| Err(silent()));
    let mut checks = Vec::new();
    let url = client.base_url();
    let text = probe.as_ref().map_or("", |probe| probe.text.as_str());
    checks.extend(ended_by_hand(what, url, text));
    checks.extend(refuses_writes(what, text));
    checks.extend(silent_peer(what, text));
    checks.extend(silent_hook(what, text));
    checks.extend(database_held_up(what, text));
    let (store, only_store) = (StoreKind::of_probe(text), only_store(text));
    let ready = ready(&format!("{what}: ready"), probe);
    checks.push(match only_store {
        Some(why) => ready.because_of_store(why),
        None => ready,
    });
    checks.push(match &held_there {
        Ok(list) => held(what, list, held_max_ms),
        Err(error) => unheard(format!("{what}: branches held"), error),
    });
    (checks, store, held_there.ok())
}

/// Branches that were ended by hand against what their logs say, as the participant's probe names
/// them.
fn ended_by_hand(what: &str, url: &str, probe: &str) -> Option<Check> {
    let found = warned(probe, "heuristic")?;
    let fix = format!(
        "see what it was (assent tx describe TXID --participant {url}), make good what differs \
         (docs/guides/recover.md, `A branch was ended by hand, and its log says otherwise`), then \
         drop the mark: {}",
        forget(url)
    );
    Some(Check::failing(format!("{what}: branches ended by hand"), found, fix))
}

/// What the first warning about this says in a participant's probe.
fn warned<'a>(probe: &'a str, about: &str) -> Option<&'a str> {
    let is_it = |line: &&str| line.strip_prefix("[!] ").is_some_and(|it| it.starts_with(about));
    let (_, found) = probe.lines().find(is_it)?.split_once(": ")?;
    Some(found)
}

/// Whether its Redis refuses writes, as the participant's probe says: every new transaction there
/// is aborted.
fn refuses_writes(what: &str, probe: &str) -> Option<Check> {
    let found = warned(probe, "redis")?;
    let fix = if found.contains("OOM") {
        "give that Redis more memory (CONFIG SET maxmemory), or free some there"
    } else if found.contains("NOREPLICAS") {
        "start the replicas that it must have, or lower its min-replicas-to-write"
    } else {
        "the words of Redis say why; look at its log, and at its disk"
    };
    Some(Check::failing(format!("{what}: writes"), found, fix))
}

/// What holds its database up, as the participant's probe says: too many prepared transactions, or
/// one of others that is prepared for long.
fn database_held_up(what: &str, probe: &str) -> Option<Check> {
    let found = warned(probe, "postgres")?;
    let fix = "assent doctor --postgres URL names each, and what to do";
    Some(Check::warning(format!("{what}: prepared transactions"), found, fix))
}

/// Whether another agent of its Redis did not take what this one passed on, as the participant's
/// probe says.
fn silent_peer(what: &str, probe: &str) -> Option<Check> {
    let found = warned(probe, "peers")?;
    let fix = "the agents of one Redis must reach each other at their addresses \
               (--advertised-url), and need the same --token-file";
    Some(Check::warning(format!("{what}: other agents"), found, fix))
}

/// Whether the service's hook cannot be reached, as the participant's probe says.
fn silent_hook(what: &str, probe: &str) -> Option<Check> {
    let found = warned(probe, "hook")?;
    let fix = "start the service's hook, or correct the agent's --hook-url";
    Some(Check::failing(format!("{what}: hook"), found, fix))
}

/// The command that says that a branch which was ended by hand has been seen to.
pub(super) fn forget(participant: &str) -> String {
    format!("assent branch forget TXID --participant {participant} --actor WHO --reason WHY")
}

fn not_reached(what: &str, error: &CallError) -> Check {
    let fix = match error {
        CallError::Rejected(problem) if problem.code == ErrorCode::NotFound => {
            let found = "it answers, and does not say what it is: its own state is not looked at";
            let fix = "nothing, if it is a participant of another kind: \
                       docs/reference/participant-protocol.md; else the address is wrong";
            return Check::warning(what, found, fix);
        }
        CallError::Rejected(_) => {
            "this command's --participant-token-file and the participant's --token-file must hold the same token"
        }
        CallError::Unknown(why) if why.0.contains("not Assent's") => {
            "correct its address: it has the path that the service mounts the router at"
        }
        CallError::Unknown(_) => "start it, or move it: assent participants set NAME URL",
    };
    Check::failing(what, error.to_string(), fix)
}

fn unheard(what: String, error: &CallError) -> Check {
    let fix = "the participant answers, and not this: read its log";
    let check = Check::failing(what, error.to_string(), fix);
    match error {
        CallError::Rejected(problem) if problem.code.is_of_silent_store() => {
            check.because_of_store(&problem.detail)
        }
        _ => check,
    }
}

/// Whether the coordinator itself reaches it, with its own token: that this command does says
/// nothing of that.
fn reached_by_coordinator(what: &str, view: &ParticipantView) -> Check {
    let what = format!("{what}: reached by the coordinator");
    let why = view.last_error.as_deref().unwrap_or("-");
    match (view.up, view.redis_up) {
        (Some(false), _) if why.contains("unauthorized") => {
            let fix = "the coordinator's --participant-token-file and the participant's --token-file must hold the same token";
            Check::failing(what, why, fix)
        }
        _ if view.stale_log.is_some() => {
            let why = view.stale_log.as_deref().unwrap_or_default();
            let fix = "see docs/guides/recover.md, `One participant says stale_log`";
            Check::failing(what, format!("yes, but it refuses the log: stale_log: {why}"), fix)
        }
        (Some(false), _) if why.contains("not Assent's") || why.contains("not_found") => {
            let fix = "correct its address: assent participants set NAME URL, where URL is what \
                       its setting `listen` says, or has the path that the service mounts its \
                       router at";
            Check::failing(what, format!("something else answers there: {why}"), fix)
        }
        (Some(false), _) => {
            let fix = "start it, open the way from the coordinator to it, or move it: assent participants set NAME URL";
            Check::failing(what, why, fix)
        }
        (_, Some(false)) => {
            let found = "yes, but it cannot use its Redis or its database";
            Check::failing(what, found, "-").because_of_store(why)
        }
        (Some(true), _) => Check::ok(what, "yes"),
        (None, _) => Check::ok(what, "it has not spoken to it yet"),
    }
}

/// What the coordinator knows of its data.
fn data_by_coordinator(what: &str, view: &ParticipantView) -> Check {
    let what = format!("{what}: data, as the coordinator knows it");
    let why = || view.last_error.clone().unwrap_or_else(|| "-".to_owned());
    match view.data {
        ParticipantData::Open => Check::ok(what, "open"),
        ParticipantData::Resynchronising => {
            let fix = "nothing if it opens within seconds; see docs/guides/recover.md, `A Redis lost data`";
            Check::failing(what, format!("resynchronising: {}", why()), fix)
        }
        ParticipantData::Lost => {
            let fix = "put a newer copy of its Redis or database in place, or: assent \
                       participants accept-loss NAME";
            Check::failing(what, format!("lost: {}", why()), fix)
        }
    }
}

fn named(what: &str, view: &ParticipantView, version: &VersionView) -> Option<Check> {
    if version.role == COORDINATOR {
        return Some(another(what));
    }
    if version.name.as_deref() == Some(view.name.as_str()) {
        return None;
    }
    let found = format!("it calls itself {}", version.name.as_deref().unwrap_or("nothing"));
    let fix = "one of the two names is wrong: it refuses every message";
    Some(Check::failing(format!("{what}: name"), found, fix))
}

/// Something else than a participant answers.
fn another(what: &str) -> Check {
    let found = "a coordinator answers there, and no participant";
    let fix = "correct the address: a participant's API is where its setting `listen` says";
    Check::failing(format!("{what}: role"), found, fix)
}

/// Whether the data there is the data that the coordinator has seen, and all of it.
fn same_data(what: &str, told: &Told, view: &ParticipantView, data: &DataView) -> Check {
    let what = format!("{what}: data");
    let incarnation = data.incarnation.map_or_else(|| "none".to_owned(), |it| it.to_string());
    let found = format!("incarnation {incarnation}, number {}", data.seq);
    if data.fenced {
        let reason = data.reason.as_deref().unwrap_or("its Redis or database lost data");
        let owed: Vec<String> = data.owed.iter().map(ToString::to_string).collect();
        let fix = "nothing if it opens within seconds; if a coordinator is gone for good whose log is owed: assent \
                   participants accept-loss NAME";
        let found =
            format!("fenced: {reason}; the words of logs that are owed: {}", owed.join(", "));
        return Check::failing(what, found, fix);
    }
    let Some(known) = view.known else { return Check::ok(what, found) };
    let log_id = told.version.log_id.as_deref().and_then(|log_id| log_id.parse().ok());
    let served = log_id.is_some_and(|log_id| data.has_served(log_id, known));
    if data.has_all_of(known) || served {
        return Check::ok(what, found);
    }
    let found = format!(
        "{found}; the coordinator knows incarnation {}, number {}",
        known.incarnation, known.seq
    );
    let fix = "data was lost there, and is about to be repaired: run this again in some seconds";
    Check::failing(what, found, fix)
}

/// Whether it may ask its coordinators about branches in doubt, and whether the coordinator runs on
/// the log that it knows. What holds nothing back is a warning at most.
fn can_ask(
    what: &str,
    told: Option<&Told>,
    list: &CoordinatorList,
    waiting: &LogsAwaited,
) -> Vec<Check> {
    let what = format!("{what}: may ask its coordinators");
    let told_of = |log_id: LogId| {
        told.filter(|told| told.version.log_id.as_deref() == Some(&*log_id.to_string()))
    };
    let mut checks = Vec::new();
    for coordinator in &list.coordinators {
        let log_id = coordinator.log_id;
        let told = told_of(log_id);
        let Some((found, fix)) = not_asked(told, coordinator) else { continue };
        let is_needed = told.is_some() || waiting.waits_for(log_id);
        checks.push(match is_needed {
            true => Check::failing(what.clone(), found, fix),
            false => {
                let found = format!("{found}; nothing waits for log {log_id} here");
                let fix = "nothing, if that coordinator is gone for good";
                Check::warning(what.clone(), found, fix)
            }
        });
    }
    if checks.is_empty() {
        checks.push(Check::ok(what, asked(list)));
    }
    checks
}

/// Why a coordinator cannot be asked, if it cannot, and what to do; `told` if it is the one that
/// this command asks.
fn not_asked(told: Option<&Told>, coordinator: &CoordinatorView) -> Option<(String, &'static str)> {
    let epoch = told.and_then(|told| told.version.epoch);
    if let Some(epoch) = epoch.filter(|epoch| *epoch < coordinator.epoch) {
        let found = format!(
            "it has seen epoch {} of this log, and the coordinator is in epoch {epoch}",
            coordinator.epoch
        );
        let fix = "the coordinator runs on an old copy of its log: stop it, and start it on the \
                   newest one";
        return Some((found, fix));
    }
    if let Some(why) = &coordinator.stale_log {
        return Some((format!("stale_log: {why}"), ErrorCode::StaleLog.advice()));
    }
    let error = match (&coordinator.error, coordinator.found_log) {
        (Some(error), _) => error.clone(),
        (None, Some(found)) if told.is_some() => format!("log {found} answers there"),
        (None, _) => return None,
    };
    let at = coordinator.url.as_deref().unwrap_or("-");
    let fix = if error.contains("unauthorized") {
        "the agent's --coordinator-token-file and the coordinator's --api-token-file must hold \
         the same token, and the agent needs --coordinator URL with this address: it sends the \
         token nowhere else"
    } else if coordinator.found_log.is_some() {
        "start the coordinator on that log again, or correct its --advertised-url; if that log \
         is gone for good: assent branch list, then assent branch resolve for each"
    } else {
        "correct the coordinator's --advertised-url, or open the way from the agent to it"
    };
    Some((format!("{at} (log {}): {error}", coordinator.log_id), fix))
}

/// How many were asked, and whose place others took.
fn asked(list: &CoordinatorList) -> String {
    let asked = list.coordinators.iter().filter(|coordinator| coordinator.url.is_some()).count();
    let superseded = list.coordinators.iter().filter(|coordinator| coordinator.superseded);
    let superseded = superseded.map(|coordinator| {
        let found = coordinator.found_log.map_or_else(|| "-".to_owned(), |log| log.to_string());
        format!(
            "; log {} was superseded by log {found}, and no branch of it waits here",
            coordinator.log_id
        )
    });
    let superseded: String = superseded.collect();
    format!("{asked} asked{superseded}")
}

/// Branches that wait for an outcome, and hold keys meanwhile, whoever their coordinators are.
fn held(what: &str, list: &BranchList, held_max_ms: u64) -> Check {
    let what = format!("{what}: branches held");
    let age = |branch: &&assent_common::wire::branch::BranchView| branch.in_doubt_ms.unwrap_or(0);
    let late: Vec<_> = list.branches.iter().filter(|branch| age(branch) > held_max_ms).collect();
    let Some(oldest) = late.iter().copied().max_by_key(age) else {
        let most = list.branches.iter().map(|branch| age(&branch)).max();
        let found = match most {
            None => "none".to_owned(),
            Some(ms) => format!("{}, the oldest for {}", list.branches.len(), millis(ms)),
        };
        return Check::ok(what, found);
    };
    let keys: Vec<&str> = late.iter().flat_map(|branch| &branch.keys).map(String::as_str).collect();
    let named = keys.iter().take(KEYS_NAMED_MAX).copied().collect::<Vec<_>>().join(" ");
    let more = match keys.len().saturating_sub(KEYS_NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let found = format!(
        "{} for longer than {} s, the oldest for {}: {} of {}: {}; keys {named}{more}",
        late.len(),
        held_max_ms / 1_000,
        millis(age(&oldest)),
        oldest.txid,
        oldest.coordinator.as_deref().unwrap_or("an unknown coordinator"),
        oldest.last_error.as_deref().unwrap_or("not asked yet"),
    );
    let fix = "start their coordinator, or let the agent ask it; if it is gone for good: assent branch list, then assent \
               branch resolve for each";
    Check::failing(what, found, fix)
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    /// Promise *honest*: where every new transaction is aborted, somebody is told what to do.
    #[test]
    fn a_redis_that_refuses_writes_fails_with_what_to_do() {
        let probe = |line: &str| format!("{line}\n[+] data ok\nready\n");
        for (said, todo) in [
            ("OOM command not allowed when used memory > 'maxmemory'.", "more memory"),
            ("NOREPLICAS Not enough good replicas to write.", "start the replicas"),
            ("MISCONF Errors writing to the AOF file", "its disk"),
        ] {
            let line = format!("[!] redis warning: refuses writes: {said}");
            let check = refuses_writes("participant a", &probe(&line)).unwrap();
            assert_eq!(check.verdict, Verdict::Failing);
            assert_eq!(check.found, format!("refuses writes: {said}"));
            assert!(check.fix.as_deref().unwrap_or_default().contains(todo), "{:?}", check.fix);
        }
        assert!(refuses_writes("participant a", &probe("[+] redis ok")).is_none());
    }

    /// Promise *honest*: what holds back vacuum is named, though the participant is ready.
    #[test]
    fn a_database_that_is_held_up_is_a_warning_with_what_to_do() {
        let said = "PostgreSQL 15.18; 3 of 64 in use; 'x' of user b is prepared for 90 s";
        let probe = format!("[!] postgres warning: {said}\n[+] data ok\nready\n");
        let check = database_held_up("participant a", &probe).unwrap();
        assert_eq!((check.verdict, &*check.found), (Verdict::Warning, said));
        assert!(check.fix.as_deref().unwrap_or_default().contains("doctor --postgres"));
        let well = format!("[+] postgres ok: {said}\nready\n");
        assert!(database_held_up("participant a", &well).is_none());
    }

    /// Promise *honest*: agents that do not take each other's messages are named, with what to do.
    #[test]
    fn another_agent_that_takes_nothing_is_a_warning_with_what_to_do() {
        let said = "the agent http://b took nothing from this one 3 s ago: not_owner";
        let probe = format!("[+] data ok\n[!] peers warning: {said}\nready\n");
        let check = silent_peer("participant a", &probe).unwrap();
        assert_eq!((check.verdict, &*check.found), (Verdict::Warning, said));
        assert!(check.fix.as_deref().unwrap_or_default().contains("--token-file"));
        assert!(silent_peer("participant a", "[+] data ok\nready\n").is_none());
    }
}
