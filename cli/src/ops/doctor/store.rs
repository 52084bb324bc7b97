//! What a participant keeps its branches in, when that is what is wrong with it.

use super::{Check, silent};

/// What a participant keeps its branches in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StoreKind {
    Redis,
    Postgres,
}

impl StoreKind {
    /// As the participant's probe names it: it has a line for what it has.
    pub(super) fn of_probe(probe: &str) -> Option<Self> {
        probe.lines().find_map(|line| match line.split_whitespace().nth(1)? {
            "redis" => Some(Self::Redis),
            "postgres" => Some(Self::Postgres),
            _ => None,
        })
    }
}

/// A Redis or a database that does not answer is said once, and not again for each question that it
/// leaves open.
pub(super) fn store_once(what: &str, kind: Option<StoreKind>, checks: Vec<Check>) -> Vec<Check> {
    let (of_store, mut others): (Vec<_>, Vec<_>) =
        checks.into_iter().partition(|check| check.only_store.is_some());
    // The participant's own words stand behind those of the coordinator.
    let why = of_store.into_iter().filter_map(|check| check.only_store).next_back();
    let Some(why) = why else { return others };
    // Who waits for it does not answer in time.
    others.retain(|check| !check.found.contains(&silent().0));
    // Of an agent whose probe says nothing, the words for its store say which it is.
    let by_words = if why.contains("PostgreSQL") { StoreKind::Postgres } else { StoreKind::Redis };
    let (store, kind, busy) = match kind.unwrap_or(by_words) {
        StoreKind::Postgres => ("postgres", "PostgreSQL", "pg_stat_activity"),
        StoreKind::Redis => ("redis", "Redis", "SLOWLOG GET"),
    };
    let fix = if why.contains("timed out") || why.contains("no answer") {
        format!(
            "look for what keeps that {kind} busy ({busy}), or what stands between it and its agent"
        )
    } else if why.contains("is not available") {
        format!("start that {kind}, or correct the agent's --{store}, its user or its password")
    } else {
        format!("read what is wrong with that {kind}")
    };
    let found = format!("it cannot use its {kind}: {why}");
    others.push(Check::failing(format!("{what}: {store}"), found, fix));
    others
}

/// What is wrong with its Redis or database, if its probe names nothing else that fails.
pub(super) fn only_store(probe: &str) -> Option<String> {
    let mut failing = probe.lines().filter(|line| line.starts_with("[-] "));
    let first = failing.next()?;
    let first = first.strip_prefix("[-] redis ").or_else(|| first.strip_prefix("[-] postgres "));
    let (_, why) = first?.split_once(": ")?;
    failing.all(|line| line.contains(why)).then(|| why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise *honest*: the fix is one for what the participant has.
    #[test]
    fn a_store_that_fails_is_called_what_it_is() {
        let down = "[-] postgres failing: PostgreSQL at p is not available: gone\n[+] data ok\n";
        let why = only_store(down).unwrap();
        let once = |why: &str, kind| {
            let checks = vec![Check::ok("x", "y").because_of_store(why)];
            store_once("participant a", kind, checks).remove(0)
        };
        // Its probe names what it has; without a probe its words do.
        let in_its_words = once(&why, None);
        assert_eq!(in_its_words.what, "participant a: postgres");
        assert!(in_its_words.fix.unwrap_or_default().starts_with("start that PostgreSQL"));
        let silent = "[-] postgres failing: no answer within 1s\n[+] data ok\nnot ready\n";
        let why = only_store(silent).unwrap();
        let by_probe = once(&why, StoreKind::of_probe(silent));
        assert_eq!(by_probe.what, "participant a: postgres");
        assert!(by_probe.fix.unwrap_or_default().contains("pg_stat_activity"));
    }
}
