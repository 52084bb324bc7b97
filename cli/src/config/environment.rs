//! The environment's names: a misspelt one must not silently be a default, as a misspelt key of the file is not.

use std::collections::BTreeSet;

use clap::Command;

use crate::exit::Failure;

/// What all our names begin with.
const PREFIX: &str = "ASSENT_";

/// Names with our prefix that no flag has. `assent-lab` reads the first: the `assent` that it starts. The
/// others are read by `deploy/compose.yaml`. All may be exported in a shell where this command runs too.
const OTHERS: [&str; 6] = [
    "ASSENT_BIN",
    "ASSENT_IMAGE",
    "ASSENT_CHAOS_IMAGE",
    "ASSENT_BUILD",
    "ASSENT_API_PUBLISH",
    "ASSENT_ADMIN_PUBLISH",
];

/// How alike two names must be for one to be meant.
const ALIKE: f64 = 0.9;

/// Refuses names with our prefix that nobody reads.
pub(crate) fn check(command: &Command) -> Result<(), Failure> {
    let given = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    refuse_unknown(given, &known(command))
}

/// Every name that a flag of any command has, and the others.
pub(crate) fn known(command: &Command) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = OTHERS.iter().map(|name| (*name).to_owned()).collect();
    let mut commands = vec![command];
    while let Some(command) = commands.pop() {
        let variables = command.get_arguments().filter_map(clap::Arg::get_env);
        names.extend(variables.map(|name| name.to_string_lossy().into_owned()));
        commands.extend(command.get_subcommands());
    }
    names
}

fn refuse_unknown(
    given: impl Iterator<Item = String>,
    known: &BTreeSet<String>,
) -> Result<(), Failure> {
    let is_unknown = |name: &String| {
        name.starts_with(PREFIX)
            && !known.contains(name)
            && !is_of_orchestrator(name)
            && !is_of_tests(name)
    };
    let unknown: BTreeSet<String> = given.filter(is_unknown).collect();
    if unknown.is_empty() {
        return Ok(());
    }
    let told = unknown.iter().map(|name| match meant(name, known) {
        Some(meant) => format!("{name} (did you mean {meant}?)"),
        None => name.clone(),
    });
    let told: Vec<String> = told.collect();
    Err(Failure::usage(format!(
        "the environment has names that are no settings: {}; see docs/reference/config.md, or unset them",
        told.join(", ")
    )))
}

/// Kubernetes tells every container where the services of its namespace are, and a service may be called `assent` or
/// `assent-coordinator`: `ASSENT_SERVICE_HOST`, `ASSENT_PORT`, `ASSENT_PORT_7700_TCP_ADDR`.
fn is_of_orchestrator(name: &str) -> bool {
    let is_port = |rest: &str| {
        rest.is_empty()
            || rest
                .strip_prefix('_')
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    name.contains("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.split_once("_PORT").is_some_and(|(_, rest)| is_port(rest))
}

/// What a binary with crash points in it is told.
fn is_of_tests(name: &str) -> bool {
    let names = ["ASSENT_CRASH_AT", "ASSENT_STALL_AT", "ASSENT_MUTANT"];
    cfg!(feature = "crash-points") && (names.contains(&name) || name.starts_with("ASSENT_TEST_"))
}

/// The known name that is most like this one, if it is much like it.
fn meant<'a>(name: &str, known: &'a BTreeSet<String>) -> Option<&'a String> {
    // Behind the prefix, which all share.
    let likeness =
        |other: &str| strsim::jaro_winkler(&name[PREFIX.len()..], &other[PREFIX.len()..]);
    let candidates = known.iter().map(|other| (likeness(other), other));
    let best = candidates.max_by(|(a, _), (b, _)| a.total_cmp(b))?;
    (best.0 >= ALIKE).then_some(best.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(names: &[&str]) -> Option<String> {
        let given = names.iter().map(|name| (*name).to_owned());
        refuse_unknown(given, &known(&crate::command())).err().map(|failure| failure.message)
    }

    #[test]
    fn a_misspelt_name_is_refused_with_the_one_that_is_meant() {
        let said = refused(&["ASSENT_COORDINATOR_LISTN", "PATH"]).unwrap();
        assert!(
            said.contains("ASSENT_COORDINATOR_LISTN (did you mean ASSENT_COORDINATOR_LISTEN?)"),
            "{said}"
        );
        let said = refused(&["ASSENT_ZZ", "ASSENT_PARTICIPANT_REDIS_URL"]).unwrap();
        assert!(said.contains("ASSENT_ZZ;") || said.contains(", ASSENT_ZZ;"), "{said}");
        assert!(said.contains("did you mean ASSENT_PARTICIPANT_REDIS?"), "{said}");
    }

    #[test]
    fn names_of_settings_of_compose_and_of_kubernetes_are_let_be() {
        let fine = [
            "ASSENT_URL",
            "ASSENT_CONFIG",
            "ASSENT_REDIS_SERVER",
            "ASSENT_PARTICIPANT_REDIS",
            "ASSENT_BUILD",
            "ASSENT_SERVICE_HOST",
            "ASSENT_COORDINATOR_SERVICE_PORT_API",
            "ASSENT_PORT",
            "ASSENT_COORDINATOR_PORT_7700_TCP_ADDR",
            "NOT_ASSENT_AT_ALL",
        ];
        assert_eq!(refused(&fine), None);
    }
}
