//! What is measured, in which order: all of it in each repetition, so that whatever else happens on
//! the machine happens to Assent, to its floors and to its peers alike.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::document;
use crate::suite::peers::{self, CLIENTS, Peer};
use crate::suite::results::{Missing, Part, Results, Who};

/// The rates of the open loop, as shares of what 64 clients of a closed loop reached in this run.
const RATE_SHARES: [f64; 5] = [0.1, 0.3, 0.5, 0.7, 0.9];

/// Connections of the open loop: enough that arrivals hardly ever wait for one.
const OPEN_CLIENTS: usize = 256;

/// Where things are, and how long it takes.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) binary: PathBuf,
    pub(crate) root: PathBuf,
    pub(crate) repetitions: u32,
    pub(crate) seconds: f64,
}

/// How much of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// All.
    Whole,
    /// Transfers at 64 clients, and the peers.
    Peers,
}

struct Suite<'a> {
    setup: &'a Setup,
    results: Results,
}

/// Measures it.
pub(crate) async fn run(setup: &Setup, extent: Extent) -> Result<Results, String> {
    let began = Instant::now();
    let dir = tempfile::Builder::new().prefix("assent-bench-peers-").tempdir();
    let dir = dir.map_err(|error| format!("no temporary directory: {error}"))?;
    say("starting the peers");
    let (mut peers, missing) = peers::start(dir.path(), &setup.root).await;
    let mut suite = Suite {
        setup,
        results: Results {
            at: said_by("date", &["-u", "+%Y-%m-%dT%H:%M:%SZ"]),
            revision: revision(&setup.root),
            repetitions: setup.repetitions,
            seconds: setup.seconds,
            peers: peers
                .iter()
                .map(|peer| (peer.who().name().to_owned(), peer.settings()))
                .collect(),
            ..Results::default()
        },
    };
    for (who, why) in missing {
        say(&format!("not measured: {}: {why}", who.name()));
        suite.results.missing.push(Missing { part: Part::Clients, who: Some(who), why });
    }
    for repetition in 1..=setup.repetitions {
        let took = began.elapsed().as_secs();
        say(&format!("repetition {repetition} of {} ({took} s so far)", setup.repetitions));
        suite.repetition(extent, repetition, &mut peers).await;
    }
    drop(peers);
    if extent == Extent::Whole {
        suite.recovery();
    }
    suite.results.took_seconds = began.elapsed().as_secs_f64();
    Ok(suite.results)
}

impl Suite<'_> {
    async fn repetition(&mut self, extent: Extent, repetition: u32, peers: &mut Vec<Peer>) {
        let modes = "--ack applied,decided --protocol logged,implicit";
        let clients = match extent {
            Extent::Whole => "1,4,16,64,256,1024",
            Extent::Peers => "1,16,64,256",
        };
        self.bench(Part::Clients, repetition, &format!("transfer --clients {clients} {modes}"));
        self.peers(peers, repetition).await;
        if extent == Extent::Peers {
            return;
        }
        let rates = self.rates();
        let open = format!("transfer --clients {OPEN_CLIENTS} --rate {rates} {modes}");
        self.bench(Part::Rates, repetition, &open);
        self.bench(Part::HotOne, repetition, "hot --keys 1");
        self.bench(Part::HotOneEscrow, repetition, "hot --keys 1 --escrow");
        self.bench(Part::HotZipf, repetition, "hot --keys 1000 --zipf 1.0");
        for words in ["smallbank", "read", "wide", "large --clients 16"] {
            self.bench(Part::Others, repetition, words);
        }
    }

    /// What fails is said, on the page too; the rest goes on.
    fn bench(&mut self, part: Part, repetition: u32, words: &str) {
        say(&format!("  assent-lab bench {words}"));
        let mut words: Vec<String> = words.split(' ').map(str::to_owned).collect();
        words.extend([
            "--repetitions=1".to_owned(),
            // Another way comes first in each.
            format!("--first={repetition}"),
            format!("--seconds={}", self.setup.seconds),
        ]);
        let done = document::bench(&self.setup.binary, &words, part, repetition, &mut self.results);
        if let Err(why) = done {
            say(&format!("  not measured: {why}"));
            let why = format!("repetition {repetition}: {why}");
            self.results.missing.push(Missing { part, who: None, why });
        }
    }

    /// A peer that fails is measured no more.
    async fn peers(&mut self, peers: &mut Vec<Peer>, repetition: u32) {
        let duration = Duration::from_secs_f64(self.setup.seconds);
        let mut failed: Vec<(Who, String)> = Vec::new();
        for peer in peers.iter_mut() {
            let who = peer.who();
            for clients in CLIENTS {
                match peer.measure(clients, duration, repetition).await {
                    Ok(sample) => {
                        let rate = sample.rate;
                        say(&format!("  {}, {clients} clients: {rate:.0}/s", who.name()));
                        self.results.note_peer(clients, who, sample);
                    }
                    Err(why) => {
                        failed.push((who, why));
                        break;
                    }
                }
            }
        }
        peers.retain(|peer| failed.iter().all(|(who, _)| *who != peer.who()));
        for (who, why) in failed {
            say(&format!("  {} failed: {why}", who.name()));
            // What was measured of it before is no figure either.
            self.results.samples.retain(|(subject, _)| subject.who != who);
            self.results.missing.push(Missing { part: Part::Clients, who: Some(who), why });
        }
    }

    /// The same in all repetitions, by what the first one reached.
    fn rates(&self) -> String {
        let reached = self.results.samples.iter().find(|(subject, _)| {
            subject.part == Part::Clients && subject.clients == 64 && subject.who == Who::Applied
        });
        let most = reached.map_or(1_000.0, |(_, sample)| sample.rate);
        let rates = RATE_SHARES.map(|share| format!("{}", rounded(most * share)));
        rates.join(",")
    }

    fn recovery(&mut self) {
        say("assent-lab bench recovery");
        match document::recovery(&self.setup.binary, self.setup.repetitions) {
            Ok(recovery) => self.results.recovery = Some(recovery),
            Err(why) => {
                say(&format!("not measured: {why}"));
                self.results.missing.push(Missing { part: Part::Recovery, who: None, why });
            }
        }
    }
}

/// Two digits are enough of a rate that is asked for.
fn rounded(rate: f64) -> f64 {
    let power = 10_f64.powf((rate.max(1.0).log10().floor() - 1.0).max(0.0));
    (rate / power).round().max(1.0) * power
}

fn say(text: &str) {
    assent::output::talk(text);
}

/// The one line that a program says; nothing if it cannot be run.
fn said_by(program: &str, words: &[&str]) -> String {
    let output = Command::new(program).args(words).output();
    output
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default()
}

fn revision(root: &Path) -> String {
    let root = root.display().to_string();
    let head = said_by("git", &["-C", &root, "rev-parse", "--short=12", "HEAD"]);
    let changed = said_by("git", &["-C", &root, "status", "--porcelain", "--untracked-files=no"]);
    match (head.is_empty(), changed.is_empty()) {
        (true, _) => "unknown".to_owned(),
        (false, true) => head,
        (false, false) => format!("{head} with changes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_two_digits() {
        for (rate, expected) in [(12_345.0, 12_000.0), (987.0, 990.0), (42.0, 42.0), (0.2, 1.0)] {
            assert!((rounded(rate) - expected).abs() < 1e-9, "{rate}: {}", rounded(rate));
        }
    }
}
