//! One run: up, load, faults, healing, audit, verdict, and away with everything.
//!
//! ```text
//! compose up ──> opening balances ──> clients ══╗
//!                                     nemesis ══╬══ until the time is over
//!                                     watcher ══╝
//! heal ──> clients end ──> wait until nothing is in doubt ──> last reads ──> audit ──> checkers ──> compose down
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use assent_checkers::Recorder;
use assent_client::participant::ProbeState;
use assent_client::transport::Token;
use assent_client::{CoordinatorClient, Http, HttpOptions};
use clap::Args;

use crate::audit::{self, Store};
use crate::docker::Project;
use crate::load::{Load, World};
use crate::nemesis::{Door, Nemesis};
use crate::report::{self, Outcome, Resolved, Transactions};
use crate::schedule::{BANKS, Kind, Schedule};
use crate::story::Story;
use crate::watch::Watcher;

/// Within this everything must be well after the last fault: far longer than it ever takes, so that beyond it, it hangs.
const SETTLE_MAX: Duration = Duration::from_secs(60);

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The number of the client that does the last reads.
const LAST_READER: i64 = 900;

/// The ports of the proxy that are published on this host, and what is behind them.
const CONTROL_PORT: u16 = 9_000;
const CLIENTS_PORT: u16 = 7_700;
const DIRECT_PORT: u16 = 6_201;

/// The flags of `assent-chaos run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// What is broken and when follows from it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long things are broken; the last step is brought to its end
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// The kinds of faults [default: all but promote, old-aof and flush]
    #[arg(long, value_enum, value_delimiter = ',')]
    faults: Vec<Kind>,
    /// Clients
    #[arg(long, default_value_t = 16)]
    clients: u32,
    /// Transactions a second of all clients together, at most
    #[arg(long, default_value_t = 200)]
    rate: u32,
    /// The directory of the compose files
    #[arg(long, default_value = "deploy", value_name = "DIR")]
    deploy: PathBuf,
    /// Where a directory for this run is made
    #[arg(long, default_value = "target/chaos", value_name = "DIR")]
    out: PathBuf,
}

impl RunArgs {
    pub(crate) fn kinds(&self) -> &[Kind] {
        if self.faults.is_empty() { &Kind::DEFAULT } else { &self.faults }
    }
}

/// Runs, and takes everything away again whatever happens. Says whether all was well.
pub(crate) async fn run(args: &RunArgs) -> Result<bool, String> {
    let dir = make_dir(&args.out, args.seed)?;
    let story = Story::begin(&dir.join("story.log")).map_err(|error| error.to_string())?;
    let environment = vec![
        // Another port for each run: the one of compose.yaml may be in use.
        ("ASSENT_API_PUBLISH".to_owned(), "127.0.0.1:".to_owned()),
        ("ASSENT_ADMIN_PUBLISH".to_owned(), "127.0.0.1:".to_owned()),
    ];
    let name = format!("assent-chaos-{}", args.seed);
    let _alone = lock(&args.out, &name)?;
    let project = Arc::new(Project::new(name, &args.deploy, environment));
    story.tell(&format!(
        "compose project {}, seed {}, into {}",
        project.name(),
        args.seed,
        dir.display()
    ));
    let ended = tokio::select! {
        ended = everything(args, &project, &story, &dir) => ended,
        () = interrupted() => Err("interrupted".to_owned()),
    };
    if ended.is_err() {
        keep_logs(&project, &dir).await;
    }
    story.tell("away with the containers, networks and volumes");
    let gone = project.down().await;
    let outcome = ended?;
    gone?;
    let document = serde_json::to_string_pretty(&outcome).map_err(|error| error.to_string())?;
    let written = std::fs::write(dir.join("report.json"), document);
    written.map_err(|error| format!("report.json: {error}"))?;
    outcome.lines().iter().for_each(|line| story.plain(line));
    story.plain(&format!("kept          {}", dir.display()));
    Ok(outcome.is_clean())
}

/// A new directory, named by seed and time.
fn make_dir(out: &Path, seed: u64) -> Result<PathBuf, String> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let dir = out.join(format!("{seed}-{}", now.map_or(0, |now| now.as_secs())));
    let made = std::fs::create_dir_all(&dir);
    made.map_err(|error| format!("cannot make {}: {error}", dir.display()))?;
    Ok(dir)
}

/// Two runs of one seed would break each other's containers.
fn lock(out: &Path, name: &str) -> Result<std::fs::File, String> {
    let path = out.join(format!(".{name}.lock"));
    let file =
        std::fs::File::create(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| format!("another run of {name} is going on; take another seed"))?;
    Ok(file)
}

async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminated) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated.recv() => {}
    }
}

async fn everything(
    args: &RunArgs,
    project: &Arc<Project>,
    story: &Story,
    dir: &Path,
) -> Result<Outcome, String> {
    project.up().await?;
    let recorder = Recorder::create(&dir.join("history.jsonl"));
    let recorder = recorder.map_err(|error| format!("history.jsonl: {error}"))?;
    let door = Door::new(&project.address("proxy", CONTROL_PORT).await?)?;
    let coordinator = coordinator(project).await?;
    wait_ready(&coordinator).await?;
    let mut stores = stores(project).await?;
    recorder.observe(audit::open(&coordinator).await?);
    let watcher = Watcher::start(self::stores(project).await?);
    let mut load = Load::new(coordinator.clone(), World::default(), recorder.clone());
    story.tell(&format!(
        "{} clients begin, {} transactions a second at most",
        args.clients, args.rate
    ));
    let began = Instant::now();
    load.start(args.clients, args.rate, args.seed);
    let mut nemesis =
        Nemesis::new(Arc::clone(project), door.clone(), story.clone(), recorder.clone());
    let steps = break_things(args, &mut nemesis, &watcher, &load, story).await?;
    nemesis.heal_all().await?;
    watcher.healed();
    let seconds = began.elapsed().as_secs_f64();
    let mut findings = std::mem::take(&mut nemesis.findings);
    let settled_ms = settle(&mut load, &coordinator, &watcher, story, &mut findings).await?;
    if settled_ms.is_none() {
        keep_control(&mut stores, dir).await;
    }
    for work in load.world.last_reads() {
        load.once(LAST_READER, work).await;
    }
    wait_rest(&watcher, &coordinator).await.unwrap_or_else(|unrest| findings.push(unrest));
    for document in audit::close(&mut stores, &coordinator, &load.ids()).await? {
        recorder.observe(document);
    }
    keep_logs(project, dir).await;
    let links = door.links().await?;
    std::fs::write(dir.join("links.json"), links)
        .map_err(|error| format!("links.json: {error}"))?;
    story.tell("the checkers read the history");
    let transactions = Transactions::of(&load.tally);
    drop(load);
    let faults = std::mem::take(&mut nemesis.done);
    drop(nemesis);
    let history = recorder.finish().map_err(|error| format!("history.jsonl: {error}"))?;
    let checks = tokio::task::spawn_blocking(move || report::judge(&history)).await;
    Ok(Outcome {
        seed: args.seed,
        seconds,
        steps,
        faults,
        transactions,
        resolved: Resolved::of(&watcher.resolved_ms()),
        settled_ms,
        findings,
        checks: checks.map_err(|error| format!("the checkers: {error}"))?,
    })
}

/// Does steps until the time is over; returns how many.
async fn break_things(
    args: &RunArgs,
    nemesis: &mut Nemesis,
    watcher: &Watcher,
    load: &Load,
    story: &Story,
) -> Result<u32, String> {
    let end = Instant::now() + Duration::from_secs(args.seconds);
    let mut steps = 0;
    for step in Schedule::new(args.seed, args.kinds()) {
        let calm = Duration::from_millis(step.calm_ms);
        if Instant::now() + calm >= end {
            break;
        }
        tokio::time::sleep(calm).await;
        nemesis.step(&step, watcher).await?;
        steps = step.number;
        if steps % 5 == 0 {
            use std::sync::atomic::Ordering::Relaxed;
            let tally = &load.tally;
            let (committed, aborted) = (tally.committed.load(Relaxed), tally.aborted.load(Relaxed));
            story.tell(&format!("{committed} committed, {aborted} aborted so far"));
        }
    }
    Ok(steps)
}

/// Ends the load, and waits until nothing is in doubt. Says how long that took after the load's end.
async fn settle(
    load: &mut Load,
    coordinator: &CoordinatorClient,
    watcher: &Watcher,
    story: &Story,
    findings: &mut Vec<String>,
) -> Result<Option<u64>, String> {
    wait_ready(coordinator).await.unwrap_or_else(|why| findings.push(why));
    load.stop().await?;
    story.tell("all is healed, and every client has ended what it began");
    let stopped = Instant::now();
    match wait_rest(watcher, coordinator).await {
        Ok(()) => {
            let ms = u64::try_from(stopped.elapsed().as_millis()).unwrap_or(u64::MAX);
            story.tell(&format!("nothing is in doubt or locked anywhere ({ms} ms)"));
            Ok(Some(ms))
        }
        Err(unrest) => {
            story.tell(&unrest);
            findings.push(unrest);
            Ok(None)
        }
    }
}

/// Waits until no Redis holds anything of a branch, and the coordinator has nothing left to do.
async fn wait_rest(watcher: &Watcher, coordinator: &CoordinatorClient) -> Result<(), String> {
    let began = Instant::now();
    loop {
        let unrest = match watcher.unrest(began) {
            Some(unrest) => unrest,
            None => match audit::unfinished(coordinator).await {
                Ok(ids) if ids.is_empty() => return Ok(()),
                Ok(ids) => format!("the coordinator has not finished {}", ids.join(", ")),
                Err(why) => why,
            },
        };
        if began.elapsed() > SETTLE_MAX {
            let seconds = SETTLE_MAX.as_secs();
            return Err(format!("not at rest {seconds} s after everything was healed: {unrest}"));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn wait_ready(coordinator: &CoordinatorClient) -> Result<(), String> {
    let began = Instant::now();
    loop {
        let saw = match coordinator.readyz().await {
            Ok(probe) if probe.state == ProbeState::Ok => return Ok(()),
            Ok(probe) => probe.text,
            Err(why) => why.to_string(),
        };
        if began.elapsed() > SETTLE_MAX {
            return Err(format!(
                "the coordinator is not ready after {} s: {saw}",
                SETTLE_MAX.as_secs()
            ));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// A client of the coordinator, with the token that the deployment has made for itself.
async fn coordinator(project: &Project) -> Result<CoordinatorClient, String> {
    let token = project.shell("disks", "cat /disks/tokens/api").await?;
    let options = HttpOptions { token: Some(Token::new(&token)), ..HttpOptions::default() };
    let http = Http::new(&options).map_err(|error| error.to_string())?;
    let url = format!("http://{}", project.address("proxy", CLIENTS_PORT).await?);
    CoordinatorClient::new(&http, &url).map_err(|error| error.to_string())
}

async fn stores(project: &Project) -> Result<Vec<Store>, String> {
    let mut stores = Vec::with_capacity(BANKS.len());
    for (bank, port) in BANKS.into_iter().zip(DIRECT_PORT..) {
        stores.push(Store::new(bank, project.address("proxy", port).await?));
    }
    Ok(stores)
}

/// What the control hashes hold that should be empty of branches.
async fn keep_control(stores: &mut [Store], dir: &Path) {
    for store in stores {
        let dump = store.dump().await.unwrap_or_else(|why| why);
        let file = dir.join(format!("control-{}.txt", store.participant));
        let _as_much_as_there_is = std::fs::write(file, dump);
    }
}

/// What every container has said. As much of it as there is.
async fn keep_logs(project: &Project, dir: &Path) {
    for service in project.services() {
        let _as_much_as_there_is = project.logs(service, &dir.join(format!("{service}.log"))).await;
    }
}
