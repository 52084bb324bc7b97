//! The servers of the bench: two participants that stay, and a coordinator that is started again
//! and again.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use assent::Failure;
use assent_client::participant::ParticipantClient;
use assent_client::{CoordinatorAdmin, Http, HttpOptions};
use assent_common::outcome::{Call, Prepared, Vote};
use assent_common::wire::branch::{Batch, CoordinatorRef, Message, Mode, PrepareMessage};
use assent_common::{Attempt, LogId, ParticipantName, TransactionId, Txid, limits};
use assent_process::{Assent, ClusterOptions, Member, Port, RedisOptions, coordinator_arguments};
use futures_util::future::try_join_all;
use redis::aio::MultiplexedConnection;
use uuid::Uuid;

use super::super::machine::Spent;
use super::super::stage::of_redis;
use super::transfer::{PARTICIPANTS, Transfer, account};
use crate::of_process;

/// In each account at the beginning.
const OPENING_BALANCE: i64 = 1_000;

/// Accounts of one command.
const CHUNK: usize = 5_000;

/// How long the unfinished may take: far beyond any figure worth reporting.
const FINISH_MAX: Duration = Duration::from_secs(120);

/// How often it is looked whether they are.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// All that is started.
pub(super) struct Servers {
    binary: PathBuf,
    dir: PathBuf,
    ports: [Port; 2],
    members: Vec<Member>,
    clients: Vec<ParticipantClient>,
    redis: Vec<MultiplexedConnection>,
    http: Http,
}

/// A coordinator that was started.
pub(super) struct Started {
    pub(super) process: Assent,
    pub(super) began: Instant,
    pub(super) ready: Duration,
    /// Processor time until it was ready: what a machine with other work makes of it is the wall's.
    pub(super) ready_cpu: Duration,
    /// Resident memory when it was ready, and the most until then; absent where there is no
    /// `/proc`.
    pub(super) memory: Memory,
}

/// Resident memory, in bytes.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub(super) struct Memory {
    pub(super) rss_bytes: u64,
    pub(super) rss_high_bytes: u64,
}

impl Memory {
    /// Of a process; zero if it is gone, or the machine has no `/proc`.
    fn of(pid: u32) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let bytes = |name| kilobytes(&status, name).unwrap_or(0) * 1_024;
        Self { rss_bytes: bytes("VmRSS:"), rss_high_bytes: bytes("VmHWM:") }
    }
}

fn kilobytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// Has the allocator give back at once what is free.
const GIVE_BACK: (&str, &str) = ("MIMALLOC_PURGE_DELAY", "0");

/// The memory that a coordinator needs, and not what its allocator keeps of the start: of another
/// start, whose allocator keeps nothing.
pub(super) async fn memory_in_use(coordinator: &mut Assent) -> Result<Memory, Failure> {
    coordinator.respawn(&[GIVE_BACK]).map_err(|error| of_process(&error))?;
    coordinator.wait_until_ready().await.map_err(|error| of_process(&error))?;
    Ok(Memory::of(coordinator.pid()))
}

impl Servers {
    pub(super) async fn start(
        binary: &Path,
        dir: &Path,
        redis_server: &str,
    ) -> Result<Self, Failure> {
        let mut options = ClusterOptions::new(binary.to_owned(), Vec::new());
        options.redis =
            RedisOptions { program: redis_server.to_owned(), ..RedisOptions::default() };
        let names: Vec<ParticipantName> =
            PARTICIPANTS.iter().filter_map(|name| name.parse().ok()).collect();
        let members = names.iter().map(|name| Member::start(dir, name, &options));
        let members = try_join_all(members).await.map_err(|error| of_process(&error))?;
        let http = Http::new(&HttpOptions::default())?;
        let mut clients = Vec::new();
        let mut redis = Vec::new();
        for member in &members {
            clients.push(ParticipantClient::new(&http, member.agent.url())?);
            let client = redis::Client::open(member.redis.url()).map_err(of_redis)?;
            redis.push(client.get_multiplexed_async_connection().await.map_err(of_redis)?);
        }
        let ports = Port::pair().map_err(|error| of_process(&error))?;
        Ok(Self {
            binary: binary.to_owned(),
            dir: dir.to_owned(),
            ports,
            members,
            clients,
            redis,
            http,
        })
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &ParticipantName> {
        self.members.iter().map(|member| &member.name)
    }

    /// Where the coordinator will listen, which the staged branches name already.
    pub(super) fn coordinator_url(&self) -> String {
        self.ports[0].url()
    }

    /// The opening balance in each account.
    pub(super) async fn fill(&mut self, accounts: u64) -> Result<(), Failure> {
        let all: Vec<u64> = (0..accounts).collect();
        for connection in &mut self.redis {
            for chunk in all.chunks(CHUNK) {
                let mut command = redis::cmd("MSET");
                for number in chunk {
                    command.arg(account(*number)).arg(OPENING_BALANCE);
                }
                let () = command.query_async(connection).await.map_err(of_redis)?;
            }
        }
        Ok(())
    }

    /// Has both participants vote on transfers, as their coordinator would; the votes, by
    /// participant.
    pub(super) async fn stage(
        &self,
        speaker: &CoordinatorRef,
        transfers: &[Transfer],
    ) -> Result<Vec<Vec<Vote>>, Failure> {
        let each = self.clients.iter().zip(self.names()).enumerate();
        let staged = each.map(|(place, (client, name))| {
            stage_at(client, name.clone(), place, speaker, transfers)
        });
        try_join_all(staged).await
    }

    /// Starts a coordinator on this log, and waits until it is ready. `participants` says whether
    /// it knows of them.
    pub(super) async fn start_coordinator(
        &self,
        log: &Path,
        participants: bool,
    ) -> Result<Started, Failure> {
        let mut arguments = coordinator_arguments(log, &self.ports);
        let known = self.members.iter().filter(|_| participants);
        arguments.extend(
            known.map(|member| format!("--participant={}={}", member.name, member.agent.url())),
        );
        let output = self.dir.join("coordinator.log");
        let began = Instant::now();
        let url = self.coordinator_url();
        let started = Assent::start("coordinator", &self.binary, arguments, &url, &output).await;
        let process = started.map_err(|error| of_process(&error))?;
        let ready = began.elapsed();
        let memory = Memory::of(process.pid());
        let ready_cpu = Spent::of(process.pid()).cpu;
        Ok(Started { process, began, ready, ready_cpu, memory })
    }

    /// Waits until the coordinator has nothing unfinished.
    pub(super) async fn wait_until_drained(&self, began: Instant) -> Result<Duration, Failure> {
        let admin = CoordinatorAdmin::new(&self.http, &self.ports[1].url())?;
        loop {
            let metrics = admin.metrics().await.unwrap_or_default();
            let active = sum_of(&metrics, "assent_transactions_active{");
            if active == Some(0.0) {
                return Ok(began.elapsed());
            }
            look_again(began, "the coordinator did not finish what its log left open").await?;
        }
    }

    /// Waits until none of these branches is in doubt at any participant.
    pub(super) async fn wait_until_resolved(
        &self,
        began: Instant,
        log_id: LogId,
        transfers: &[Transfer],
    ) -> Result<Duration, Failure> {
        let field = |transfer: &Transfer| format!("s:{}", txid(log_id, *transfer));
        let fields: Vec<String> = transfers.iter().map(field).collect();
        for connection in &self.redis {
            // Whatever the order in which they go, each is asked about once when it is gone.
            let mut connection = connection.clone();
            for chunk in fields.chunks(ASKED_AT_ONCE) {
                while any_staged(&mut connection, chunk).await? {
                    look_again(began, "branches stayed in doubt").await?;
                }
            }
        }
        Ok(began.elapsed())
    }

    /// Branches in doubt, by participant: the control hashes are read whole.
    async fn in_doubt(&mut self) -> Result<Vec<usize>, Failure> {
        let mut counts = Vec::new();
        for connection in &mut self.redis {
            let mut fields = redis::cmd("HKEYS");
            fields.arg(CONTROL_KEY);
            let fields: Vec<Vec<u8>> = fields.query_async(connection).await.map_err(of_redis)?;
            counts.push(fields.iter().filter(|field| field.starts_with(b"s:")).count());
        }
        Ok(counts)
    }

    /// Every account must hold what was decided, and nothing may be staged or locked.
    pub(super) async fn verify(&mut self, accounts: u64, moved: i64) -> Result<(), Failure> {
        let all: Vec<u64> = (0..accounts).collect();
        for (place, connection) in self.redis.iter_mut().enumerate() {
            let expected = OPENING_BALANCE + if place == 0 { -moved } else { moved };
            for chunk in all.chunks(CHUNK) {
                let mut command = redis::cmd("MGET");
                command.arg(chunk.iter().map(|number| account(*number)).collect::<Vec<_>>());
                let found: Vec<i64> = command.query_async(connection).await.map_err(of_redis)?;
                if let Some(wrong) = found.iter().position(|balance| *balance != expected) {
                    return Err(Failure::error(format!(
                        "{} at {} holds {}; it should hold {expected}",
                        account(chunk[wrong]),
                        PARTICIPANTS[place],
                        found[wrong]
                    )));
                }
            }
        }
        let left: usize = self.in_doubt().await?.iter().sum();
        if left > 0 {
            return Err(Failure::error(format!("{left} branches are still in doubt")));
        }
        Ok(())
    }
}

/// Where the agents keep what is staged: their default.
const CONTROL_KEY: &str = "assent:ctl";

/// Branches that are looked at with one request.
const ASKED_AT_ONCE: usize = 256;

/// How long a coordinator may take to stop that has nothing to do.
const STOP_MAX: Duration = Duration::from_secs(30);

pub(super) async fn stop(coordinator: &mut Assent) -> Result<(), Failure> {
    match coordinator.child().terminate(STOP_MAX).await {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(Failure::error(format!("the coordinator ended with {status}"))),
        None => Err(Failure::error("the coordinator does not stop")),
    }
}

async fn any_staged(
    connection: &mut MultiplexedConnection,
    fields: &[String],
) -> Result<bool, Failure> {
    let mut pipeline = redis::pipe();
    for field in fields {
        pipeline.cmd("HEXISTS").arg(CONTROL_KEY).arg(field);
    }
    let found: Vec<bool> = pipeline.query_async(connection).await.map_err(of_redis)?;
    Ok(found.contains(&true))
}

async fn look_again(began: Instant, otherwise: &str) -> Result<(), Failure> {
    if began.elapsed() > FINISH_MAX {
        return Err(Failure::error(format!("{otherwise} within {} s", FINISH_MAX.as_secs())));
    }
    tokio::time::sleep(LOOK_INTERVAL).await;
    Ok(())
}

/// The sum of a metric's series; `None` if it has none.
fn sum_of(metrics: &str, series: &str) -> Option<f64> {
    let lines = metrics.lines().filter(|line| line.starts_with(series));
    let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
}

async fn stage_at(
    client: &ParticipantClient,
    participant: ParticipantName,
    place: usize,
    speaker: &CoordinatorRef,
    transfers: &[Transfer],
) -> Result<Vec<Vote>, Failure> {
    let mut votes = Vec::with_capacity(transfers.len());
    let Some(first) = transfers.first() else { return Ok(votes) };
    for chunk in transfers.chunks(limits::BATCH_MESSAGES_MAX) {
        let batch = Batch {
            participant: participant.clone(),
            coordinator: speaker.clone(),
            low_water: first.number,
            known: None,
            progress: None,
            messages: chunk
                .iter()
                .map(|transfer| prepare(speaker.log_id, *transfer, place))
                .collect(),
        };
        let answers = client.batch(&batch).await;
        let answers = answers.map_err(|error| Failure::of("a batch of prepares", &error))?;
        for answer in answers.answers {
            match answer.into_prepared() {
                Call::Applied(Prepared::Yes(vote)) => votes.push(vote),
                other => {
                    return Err(Failure::error(format!("a prepare was answered {other:?}")));
                }
            }
        }
    }
    Ok(votes)
}

const fn txid(log_id: LogId, transfer: Transfer) -> Txid {
    Txid { log_id, number: transfer.number, attempt: Attempt::FIRST }
}

fn prepare(log_id: LogId, transfer: Transfer, place: usize) -> Message {
    let id = TransactionId::new(Uuid::now_v7())
        .unwrap_or_else(|error| unreachable!("a UUID of version 7 was made: {error}"));
    Message::Prepare(PrepareMessage {
        txid: txid(log_id, transfer),
        id,
        mode: Mode::TwoPhase,
        branches: Vec::new(),
        wait_ms: 0,
        ops: transfer.ops(place),
        input: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_bytes() {
        let status = "Name:\tassent\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!(kilobytes(status, "VmRSS:"), Some(1_024));
        assert_eq!(kilobytes(status, "VmHWM:"), Some(2_048));
        assert_eq!(kilobytes("", "VmRSS:"), None);
    }

    #[test]
    fn series_are_summed_and_a_metric_without_one_is_not_zero() {
        let metrics = "a{state=\"x\"} 2\na{state=\"y\"} 1\nb 7\n";
        assert_eq!(sum_of(metrics, "a{"), Some(3.0));
        assert_eq!(sum_of(metrics, "c{"), None);
    }
}
