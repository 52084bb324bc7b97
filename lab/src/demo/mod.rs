//! `assent-lab demo`: money moves between three Redis servers while everything is killed, and then
//! the books are checked.
//!
//! Real processes on this machine: the coordinator, three participants and three `redis-server`
//! with AOF always.
//!
//! ```text
//! start ── load ── clients run ─┬─ kill coordinator / participant / Redis, restart, wait ─┬─ heal ── settle ── audit
//!                               └───────────────────── until the time is over ────────────┘
//! ```

mod audit;
mod bank;
mod chaos;
mod clients;
mod probe;
mod story;

use std::path::Path;
use std::time::{Duration, Instant};

use assent::{
    Exit, Failure, RedisProgram,
    output::{self, Format},
    runtime,
};
use assent_client::{CoordinatorClient, Http, HttpOptions};
use assent_process::{Cluster, ClusterOptions, Member, RedisOptions};
use clap::Args;
use serde::Serialize;

use self::bank::Bank;
use self::chaos::{Chaos, Damage, SETTLE_MAX, Victim};
use self::clients::{Clients, Ledger};
use self::story::{Story, Teller};
use crate::of_process;

/// Customers of the bank: few enough that transactions meet, enough that most do not.
const CUSTOMERS: usize = 300;

/// How long the load runs undisturbed between two kills.
const CALM: Duration = Duration::from_millis(700);

const PARTICIPANTS: [&str; 3] = ["bank-a", "bank-b", "bank-c"];

/// The flags of `assent-lab demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// How long to run and kill
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Clients at once
    #[arg(long, default_value_t = 16)]
    clients: usize,
    /// Where the clients' choices begin; the same seed makes the same choices [default: by the
    /// clock]
    #[arg(long)]
    seed: Option<u64>,
    #[command(flatten)]
    redis: RedisProgram,
}

/// The figures; the document of `-o json`.
#[derive(Debug, Serialize)]
struct Report {
    audit: &'static str,
    findings: Vec<String>,
    seed: u64,
    seconds: f64,
    committed: u64,
    committed_read_only: u64,
    aborted: std::collections::BTreeMap<String, u64>,
    unknown_then_resolved: u64,
    rate_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    kills: Kills,
    in_doubt_resolution_ms_max: u64,
    in_doubt_resolution_ms_median: u64,
    money: i64,
}

#[derive(Debug, Serialize)]
struct Kills {
    coordinator: u32,
    participant: u32,
    redis: u32,
}

pub(crate) fn run(args: &DemoArgs, binary: &Path, format: Format) -> Result<Exit, Failure> {
    let teller = if format == Format::Table { Teller::Stdout } else { Teller::Stderr };
    let story = Story::begin(teller);
    let dir = tempfile::Builder::new().prefix("assent-demo-").tempdir()?;
    let path = dir.path().to_owned();
    let outcome =
        runtime::start(runtime::workers_default())?.block_on(play(args, binary, &path, story));
    let clean = matches!(&outcome, Ok(report) if report.findings.is_empty());
    if !clean {
        // What went wrong can be looked at only where it is.
        let kept = dir.keep();
        story.tell(&format!("the data is kept in {}", kept.display()));
    }
    let report = outcome?;
    match format {
        Format::Json => output::json(&report)?,
        Format::Id => output::line(report.audit)?,
        Format::Table => tell(&report)?,
    }
    Ok(if clean { Exit::Ok } else { Exit::Error })
}

async fn play(args: &DemoArgs, binary: &Path, dir: &Path, story: Story) -> Result<Report, Failure> {
    let seed = args.seed.unwrap_or_else(|| jiff::Timestamp::now().as_second().cast_unsigned());
    let mut cluster = start(args, binary, dir, story).await?;
    let names = cluster.members.iter().map(|member| member.name.clone()).collect();
    let bank = Bank { participants: names, customers: CUSTOMERS };
    for (place, member) in cluster.members.iter().enumerate() {
        probe::load(member, &bank, place).await?;
    }
    let money = i64::try_from(CUSTOMERS).unwrap_or(0) * 2 * bank::OPENING_BALANCE;
    story.tell(&format!(
        "{CUSTOMERS} customers hold {money}; {} clients begin (seed {seed})",
        args.clients
    ));
    let options = HttpOptions { request_timeout_ms: 3_000, ..HttpOptions::default() };
    let api = CoordinatorClient::new(&Http::new(&options)?, cluster.coordinator.url())?;
    let clients = Clients::start(&bank, &api, args.clients, seed)?;
    let began = Instant::now();
    let duration = Duration::from_secs(args.seconds);
    let damage = disturb(&mut cluster, &api, &clients, story, duration).await?;
    let ledger = clients.finish().await?;
    let seconds = began.elapsed().as_secs_f64();
    story.tell("the clients have stopped, each with its last outcome");
    settle(&cluster.members, story).await?;
    let mut holdings = Vec::new();
    let mut control = Vec::new();
    for (place, member) in cluster.members.iter().enumerate() {
        holdings.push(probe::holdings(member, &bank, place).await?);
        control.push(probe::control(member).await?);
    }
    let findings = audit::audit(&bank, &ledger, &holdings, &control);
    Ok(report(seed, seconds, &ledger, &damage, audit::total(&holdings), findings))
}

async fn start(
    args: &DemoArgs,
    binary: &Path,
    dir: &Path,
    story: Story,
) -> Result<Cluster, Failure> {
    let participants = PARTICIPANTS.iter().filter_map(|name| name.parse().ok()).collect();
    let mut options = ClusterOptions::new(binary.to_owned(), participants);
    options.redis =
        RedisOptions { program: args.redis.redis_server.clone(), ..RedisOptions::default() };
    options.participant_arguments = vec!["--resolve-interval=500ms".to_owned()];
    let cluster = Cluster::start(dir, &options).await.map_err(|error| of_process(&error))?;
    story.tell(&format!(
        "coordinator at {} (pid {})",
        cluster.coordinator.url(),
        cluster.coordinator.pid()
    ));
    for Member { name, agent, redis, .. } in &cluster.members {
        story.tell(&format!(
            "participant {name} at {} (pid {}), its Redis at {} (pid {}, AOF, fsync always)",
            agent.url(),
            agent.pid(),
            redis.url(),
            redis.pid()
        ));
    }
    Ok(cluster)
}

/// Rounds of kills, until the time is over; every kind at least once.
async fn disturb(
    cluster: &mut Cluster,
    api: &CoordinatorClient,
    clients: &Clients,
    story: Story,
    duration: Duration,
) -> Result<Damage, Failure> {
    const VICTIMS: [Victim; 3] = [Victim::Coordinator, Victim::Participant, Victim::Redis];
    let began = Instant::now();
    let places = cluster.members.len();
    let mut chaos = Chaos { cluster, api, clients, story, damage: Damage::default() };
    let mut round = 0;
    while round < VICTIMS.len() || began.elapsed() + CALM < duration {
        tokio::time::sleep(CALM).await;
        let (committed, aborted) = clients.counts();
        story.tell(&format!("{committed} committed, {aborted} aborted so far"));
        // Places move on by one each time that all kinds had their turn.
        chaos
            .round(VICTIMS[round % VICTIMS.len()], (round + round / VICTIMS.len()) % places)
            .await?;
        round += 1;
    }
    tokio::time::sleep(duration.saturating_sub(began.elapsed())).await;
    Ok(chaos.damage)
}

/// Waits until nothing is staged or locked anywhere.
async fn settle(members: &[Member], story: Story) -> Result<(), Failure> {
    let began = Instant::now();
    loop {
        let (mut staged, mut locked) = (Vec::new(), 0);
        for member in members {
            let control = probe::control(member).await?;
            locked += control.locked.len();
            staged.extend(
                control.staged.into_iter().map(|txid| format!("{txid} at {}", member.name)),
            );
        }
        if staged.is_empty() && locked == 0 {
            story.tell(&format!(
                "nothing is in doubt or locked anywhere ({} ms)",
                began.elapsed().as_millis()
            ));
            return Ok(());
        }
        if began.elapsed() > SETTLE_MAX {
            // The audit says which; it must not be cut short here.
            story.tell(&format!("NOT settled: {locked} locks; staged: {}", staged.join(", ")));
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn report(
    seed: u64,
    seconds: f64,
    ledger: &Ledger,
    damage: &Damage,
    money: i64,
    findings: Vec<String>,
) -> Report {
    let mut times = damage.resolution_ms.clone();
    times.sort_unstable();
    let ms = |quantile: f64| ledger.latency_us.value_at_quantile(quantile) as f64 / 1_000.0;
    Report {
        audit: if findings.is_empty() { "clean" } else { "failed" },
        findings,
        seed,
        seconds,
        committed: ledger.committed,
        committed_read_only: ledger.read_only,
        aborted: ledger.aborted.clone(),
        unknown_then_resolved: ledger.resolved,
        rate_per_second: ledger.committed as f64 / seconds,
        p50_ms: ms(0.5),
        p99_ms: ms(0.99),
        kills: Kills {
            coordinator: damage.coordinator,
            participant: damage.participant,
            redis: damage.redis,
        },
        in_doubt_resolution_ms_max: times.last().copied().unwrap_or(0),
        in_doubt_resolution_ms_median: times.get(times.len() / 2).copied().unwrap_or(0),
        money,
    }
}

fn tell(report: &Report) -> Result<(), Failure> {
    let aborted: u64 = report.aborted.values().sum();
    let codes: Vec<String> = report.aborted.iter().map(|(code, n)| format!("{code} {n}")).collect();
    let Kills { coordinator, participant, redis } = report.kills;
    output::line("")?;
    output::line(&format!(
        "transactions  {} committed ({} of them read only), {aborted} aborted ({})",
        report.committed,
        report.committed_read_only,
        codes.join(", ")
    ))?;
    output::line(&format!(
        "unknown       {} outcomes were not known at first; all were asked for again, under the same key",
        report.unknown_then_resolved
    ))?;
    output::line(&format!(
        "rate          {:.0} committed/s over {:.1} s, kills included; latency p50 {:.1} ms, p99 {:.1} ms",
        report.rate_per_second, report.seconds, report.p50_ms, report.p99_ms
    ))?;
    output::line(&format!(
        "kill -9       coordinator {coordinator}, participant {participant}, redis-server {redis}"
    ))?;
    output::line(&format!(
        "in doubt      finished after {} ms (median), {} ms (longest) from the victim's return",
        report.in_doubt_resolution_ms_median, report.in_doubt_resolution_ms_max
    ))?;
    output::line(&format!("money         {} in all accounts", report.money))?;
    for finding in &report.findings {
        output::line(&format!("WRONG         {finding}"))?;
    }
    if report.findings.is_empty() {
        output::line("audit: clean")
    } else {
        output::line(&format!(
            "audit: FAILED, {} findings; repeat with --seed {}",
            report.findings.len(),
            report.seed
        ))
    }
}
