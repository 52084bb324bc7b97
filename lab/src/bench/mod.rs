//! `assent-lab bench`: what atomicity costs here and now.
//!
//! Transactions through Assent against the same work at the same Redis servers without it, one
//! after the other in every repetition, so that a noisy machine is noisy for all. Everything runs
//! on this machine and shares its cores: the figures are ratios first. In the end the data must be
//! what the clients were told, or the figures are none.
//!
//! ```text
//! args ── Plan ── for each repetition, shape, load, way:  workload ── client (Assent, or a floor) ── Tally
//!                                                                                                     │
//!                 report (median, ratios) ── verify (Ledger against the data) ────────────────────────┘
//! ```

mod args;
mod client;
pub(crate) mod http;
mod load;
mod machine;
mod pace;
mod recovery;
mod report;
mod resp;
mod stage;
mod table;
mod unit;
mod verify;
mod workload;
mod zipf;

use std::path::Path;

use assent::{
    Exit, Failure,
    output::{self, Format},
    runtime,
};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;

pub(crate) use self::args::BenchCommand;
use self::args::Plan;
use self::client::{Asking, Client, Targets, Told, Way};
use self::load::{Ledger, Pace, Run};
use self::report::{Measured, NotMeasured, Report, Subject};
use self::stage::{Edge, Stage, merged};
use self::verify::Books;
use self::workload::{Drawer, Shape, Workload};

/// Of the document of `-o json`.
const REPORT_VERSION: u32 = 1;

pub(crate) fn run(command: &BenchCommand, binary: &Path, format: Format) -> Result<Exit, Failure> {
    let plan = match command {
        BenchCommand::Load(load) => load.plan()?,
        BenchCommand::Recovery(args) => return recovery::run(args, binary, format),
    };
    if cfg!(debug_assertions) {
        output::talk("this is a debug build: the figures say nothing (cargo build --release)");
    }
    machine::allow_many_connections();
    let dir = tempfile::Builder::new().prefix("assent-bench-").tempdir()?;
    let runtime = runtime::start(runtime::workers_default())?;
    let report = runtime.block_on(measure_all(&plan, binary, dir.path()))?;
    match format {
        Format::Json => output::json(&report)?,
        Format::Table | Format::Id => table::tell(&report)?,
    }
    if !report.verdict.as_reported {
        return Err(Failure::error(
            "the data is not what the clients were told: these are no figures",
        ));
    }
    if !report.cells.iter().any(|cell| matches!(cell.subject.way, Way::Assent(_))) {
        return Err(Failure::error("the coordinator does not take what was to be measured"));
    }
    Ok(Exit::Ok)
}

async fn measure_all(plan: &Plan, binary: &Path, dir: &Path) -> Result<Report, Failure> {
    // At least two: a floor of one server is no floor of a transaction over several.
    let places = plan.shapes.iter().map(|shape| shape.places()).max().unwrap_or(2).max(2);
    let mut stage = Stage::start(binary, dir, places, plan).await?;
    let settings = stage.settings(dir).await?;
    let families = merged(plan.shapes.iter().flat_map(|shape| shape.families(plan.accounts)));
    stage.fill(&families).await?;
    let mut bench = Bench {
        plan,
        targets: stage.targets(plan.escrow, plan.idempotency_keys.into())?,
        stage: &stage,
        books: Books::default(),
        runs: 0,
        measured: Vec::new(),
        not_measured: Vec::new(),
    };
    for repetition in 1..=plan.repetitions {
        for shape in &plan.shapes {
            let mut ways = bench.ways(*shape).await?;
            // Another one begins each time: what a way leaves behind for the next is not always the
            // same one's burden.
            let first = (plan.first + repetition) as usize % ways.len();
            ways.rotate_left(first);
            for (clients, pace) in &plan.loads {
                for way in &ways {
                    bench.measure(*shape, *way, *clients, *pace, repetition).await?;
                }
            }
        }
    }
    let Bench { mut books, measured, not_measured, targets, .. } = bench;
    let resolved = books.resolve(&stage.api).await?;
    let verdict = books.check(&mut stage.redis, &families, resolved).await?;
    Ok(Report {
        version: REPORT_VERSION,
        settings,
        seconds: plan.duration.as_secs_f64(),
        repetitions: plan.repetitions,
        accounts: plan.accounts,
        escrow: plan.escrow,
        idempotency_keys: targets.keys,
        verdict,
        not_measured,
        cells: report::cells(&measured),
    })
}

struct Bench<'a> {
    plan: &'a Plan,
    targets: Targets,
    stage: &'a Stage,
    books: Books,
    /// Runs so far; each has a number of its own.
    runs: u64,
    measured: Vec<(Subject, Measured)>,
    not_measured: Vec<NotMeasured>,
}

impl Bench<'_> {
    /// The ways that a shape is done in, without those that the coordinator does not take.
    async fn ways(&mut self, shape: Shape) -> Result<Vec<Way>, Failure> {
        let mut ways = vec![Way::Floor, Way::FloorPipelined];
        if self.plan.redis_port {
            ways.extend([Way::Port, Way::PortPipelined]);
        }
        for mode in &self.plan.modes {
            if matches!(shape, Shape::Hot { .. }) {
                ways.push(Way::Uncontended(*mode));
            }
            ways.push(Way::Assent(*mode));
        }
        let mut taken = Vec::with_capacity(ways.len());
        for way in ways {
            if self.not_measured.iter().any(|missing| missing.way == way) {
                continue;
            }
            match self.refusal(shape, way).await? {
                None => taken.push(way),
                Some(why) => self.not_measured.push(NotMeasured { way, why }),
            }
        }
        Ok(taken)
    }

    /// Why the coordinator refuses a transaction of this shape in this way; `None` if it does not.
    async fn refusal(&mut self, shape: Shape, way: Way) -> Result<Option<String>, Failure> {
        if way.is_floor() {
            return Ok(None);
        }
        let number = self.next_run();
        let workload = Workload::new(shape, self.plan.accounts);
        let connected = Client::connect(way, &self.targets, shape.places(), 1).await;
        let connected = connected.map_err(|error| Failure::of("the coordinator", &error))?;
        let mut refusal = None;
        for mut client in connected {
            let mut rng = SmallRng::seed_from_u64(number);
            let drawer = Drawer { client: 0, clients: 1, stamp: number << 48 };
            let job = workload.draw(&mut rng, drawer);
            let done = client.perform(&job, Asking { run: number, client: 0, n: 0 }).await?;
            let mut ledger =
                Ledger { sums: vec![0; shape.places()], answered: 1, ..Ledger::default() };
            match done.told {
                Told::Committed { .. } => done.changes.apply(&mut ledger.sums),
                Told::Aborted(_) => ledger.not_stored.extend(done.stamp),
                Told::Pending(id) => {
                    let (changes, stamp) = (done.changes, done.stamp);
                    ledger.pending.push(load::Pending { id, changes, stamp });
                }
                Told::Refused(why) => refusal = Some(why),
            }
            self.books.enter(ledger);
        }
        Ok(refusal)
    }

    fn next_run(&mut self) -> u64 {
        self.runs += 1;
        self.runs
    }

    async fn measure(
        &mut self,
        shape: Shape,
        way: Way,
        clients: usize,
        pace: Pace,
        repetition: u32,
    ) -> Result<(), Failure> {
        let workload = Workload::new(shape, self.plan.accounts);
        let workload = match way {
            Way::Uncontended(_) => workload.uncontended().unwrap_or(workload),
            _ => workload,
        };
        let duration = self.plan.duration;
        let run = Run { way, workload, clients, pace, duration, number: self.next_run() };
        let running = load::start(run, &self.targets).await?;
        let window = running.window;
        tokio::time::sleep_until(window.begin.into()).await;
        let before = self.stage.snapshot(Edge::Begin).await;
        tokio::time::sleep_until(window.end.into()).await;
        let outlay = self.stage.snapshot(Edge::End).await.since(&before);
        let tally = running.finish().await?;
        if !way.is_floor() {
            self.stage.settle().await?;
        }
        let one = Measured::new(shape, pace, &tally, &outlay);
        self.books.enter(tally.ledger);
        let asked_rate = match pace {
            Pace::Closed => None,
            Pace::Open(rate) => Some(rate),
        };
        let load = asked_rate
            .map_or_else(|| format!("{clients} clients"), |rate| format!("{rate:.0}/s asked for"));
        output::talk(&format!(
            "repetition {repetition}: {}, {load}, {}: {:.0}/s, p50 {:.2} ms",
            table::workload(shape),
            table::way(way),
            one.rate,
            one.p50_ms
        ));
        self.measured.push((Subject { shape, clients, asked_rate, way }, one));
        Ok(())
    }
}
