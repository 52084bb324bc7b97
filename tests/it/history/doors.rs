//! The doors by which one client asks for a list-append transaction, and what it is told.

use assent_client::interactive::op;
use assent_client::{CoordinatorClient, Interactive, SubmitError, Transaction, TransactionError};
use assent_common::IdempotencyKey;
use assent_common::time::DurationMs;
use assent_common::wire::interactive::BeginRequest;
use assent_common::wire::problem::OutcomeWord;
use assent_common::wire::transaction::{BranchReport, Protocol, TransactionView};
use assent_tests::resp::{ExecTold, connect, send, told};
use redis::RedisResult;
use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};

use super::lists::{ListSteps, Step, in_order};
use super::workload::PAUSE;

/// How often a client that does not give up asks.
pub(super) const STUBBORN: usize = 1_000;

/// How often one asks that need not know.
const TRIES: usize = 3;

const TIMEOUT: DurationMs = DurationMs(1_500);

/// A way in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Door {
    /// One request by HTTP, logged or implicit.
    Http,
    /// The same, of which hooks do some steps.
    Hook,
    /// A call for each step, then the commit.
    Interactive,
    /// `MULTI` … `EXEC`, two in one piece.
    Exec,
    /// What is read is watched, and outside of `MULTI`.
    Watch,
}

impl Door {
    pub(super) const ALL: [Self; 5] =
        [Self::Http, Self::Hook, Self::Interactive, Self::Exec, Self::Watch];
}

/// What came of a transaction.
pub(super) enum Told {
    /// Committed, with its replies: by HTTP those of each branch, else of each step.
    Committed(Vec<Value>),
    /// It has no effect.
    Refused(String),
    /// Not known.
    Unknown(String),
}

/// The doors as one client has them.
pub(super) struct Doors {
    client: i64,
    api: CoordinatorClient,
    resp: String,
    connection: Option<MultiplexedConnection>,
}

fn replies(view: &TransactionView) -> Option<Vec<Value>> {
    let of_branch = |branch: &BranchReport| {
        let replies = branch.replies.as_ref()?;
        serde_json::from_str(replies.get()).ok()
    };
    view.branches.iter().map(of_branch).collect()
}

/// Asks so many times at most, until it is known what came of it: what is committed, or else.
async fn insist<A>(tries: usize, ask: impl Fn() -> A) -> Result<TransactionView, Told>
where
    A: Future<Output = Result<TransactionView, SubmitError>>,
{
    let mut last = String::new();
    for again in 0..tries {
        match ask().await {
            Ok(view) if view.outcome == OutcomeWord::Committed => return Ok(view),
            Err(SubmitError::Aborted(problem)) => return Err(Told::Refused(problem.detail)),
            // Later on it says nothing of what the first try began.
            Err(SubmitError::Rejected(problem)) if again == 0 => {
                return Err(Told::Refused(problem.detail));
            }
            other => last = format!("{other:?}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(Told::Unknown(last))
}

/// Whether a branch has no replies; here each has an op or an input.
fn has_unheard(view: &TransactionView) -> bool {
    let is_unheard = |branch: &BranchReport| {
        branch.replies.as_ref().is_some_and(|replies| replies.get() == "[]")
    };
    view.branches.iter().any(is_unheard)
}

/// A reply of Redis as HTTP has it.
fn as_json(reply: redis::Value) -> RedisResult<Value> {
    use redis::Value as Reply;
    Ok(match reply.extract_error()? {
        Reply::Int(number) => json!(number),
        Reply::BulkString(bytes) => json!(String::from_utf8_lossy(&bytes)),
        Reply::Array(replies) => {
            Value::Array(replies.into_iter().map(as_json).collect::<RedisResult<_>>()?)
        }
        reply => json!(format!("{reply:?}")),
    })
}

/// What the answers, or that there are none, say of an `EXEC` among them.
fn of_exec(answers: &RedisResult<Vec<redis::Value>>, place: usize) -> Told {
    match told(answers.clone().map(|mut answers| answers.swap_remove(place))) {
        ExecTold::Committed(replies) => {
            // Committed, and a reply is not kept any more.
            let replies = replies.into_iter().map(as_json).collect::<RedisResult<_>>();
            replies.map_or_else(|error| Told::Unknown(error.to_string()), Told::Committed)
        }
        ExecTold::Aborted(None) => Told::Refused("a watched key has changed".to_owned()),
        ExecTold::Aborted(Some(error)) => Told::Refused(error.to_string()),
        ExecTold::Unclear(error) => Told::Unknown(error.to_string()),
    }
}

fn multi(lines: impl Iterator<Item = String>) -> impl Iterator<Item = String> {
    std::iter::once("MULTI".to_owned()).chain(lines).chain(["EXEC".to_owned()])
}

impl Doors {
    /// For this client; the address is that of the port for Redis clients.
    pub(super) const fn new(client: i64, api: CoordinatorClient, resp: String) -> Self {
        Self { client, api, resp, connection: None }
    }

    /// Asks for what differs in its element only, if it is more than one; what became of each. It
    /// is the `n`-th thing that this client does.
    pub(super) async fn ask(&mut self, door: Door, copies: &[ListSteps], n: usize) -> Vec<Told> {
        match (door, copies) {
            (Door::Exec, copies) => self.exec(copies).await,
            (Door::Watch, [steps]) => vec![self.watch(steps).await],
            (Door::Interactive, [steps]) => vec![self.interactively(steps).await],
            (Door::Http | Door::Hook, [steps]) => {
                let told = self.submit(steps.transaction(), n, TRIES).await;
                vec![match told {
                    Told::Committed(branches) => Told::Committed(in_order(&branches)),
                    told => told,
                }]
            }
            (door, copies) => panic!("{} transactions by {door:?}", copies.len()),
        }
    }

    /// Asks, so many times at most, under one key. Of what need not be known for certain, every
    /// other is implicit: asked for once, without a key.
    pub(super) async fn submit(&self, transaction: Transaction, n: usize, tries: usize) -> Told {
        let key: IdempotencyKey = format!("{}-{n}", self.client).parse().expect("a key");
        let is_implicit = tries < STUBBORN && n.is_multiple_of(2);
        let (transaction, key, tries) = match is_implicit {
            true => (transaction.protocol(Protocol::Implicit), None, 1),
            false => (transaction, Some(&key), tries),
        };
        let request = transaction.timeout(TIMEOUT).build().expect("a transaction");
        match insist(tries, || self.api.submit(&request, key, None)).await {
            // Finished by others, before the coordinator had heard a vote.
            Ok(view) if is_implicit && has_unheard(&view) => {
                Told::Unknown("committed, and replies are missing".to_owned())
            }
            Ok(view) => replies(&view).map_or_else(
                || Told::Unknown("committed, and no replies".to_owned()),
                Told::Committed,
            ),
            Err(told) => told,
        }
    }

    /// Each step by a call of its own, committed on what they have read.
    async fn interactively(&self, steps: &ListSteps) -> Told {
        // Before the commit nothing is done, whatever becomes of it.
        let asked = BeginRequest { timeout: Some(TIMEOUT), ..BeginRequest::default() };
        let mut tx = match Interactive::begin_as(&self.api, asked).await {
            Ok(tx) => tx,
            Err(error) => return Told::Refused(error.to_string()),
        };
        let mut replies = Vec::new();
        for step in &steps.steps {
            match tx.ops([op(step.participant(), steps.line(*step).split(' '))]).await {
                Ok(reply) => replies.extend(reply),
                Err(error) => return Told::Refused(error.to_string()),
            }
            tokio::time::sleep(PAUSE).await;
        }
        let mut last = String::new();
        for _ in 0..TRIES {
            match tx.commit(None).await {
                Ok(_) => return Told::Committed(replies),
                Err(TransactionError::Unknown(why)) => last = why.to_string(),
                Err(error) => return Told::Refused(error.to_string()),
            }
            tokio::time::sleep(PAUSE).await;
        }
        Told::Unknown(last)
    }

    /// Sends these in one piece. After an error nobody knows how many answers are to come, so that
    /// the connection is given up. The first error: nothing was sent.
    async fn send(
        &mut self,
        lines: &[String],
    ) -> Result<RedisResult<Vec<redis::Value>>, redis::RedisError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => connect(&self.resp).await?,
        };
        let answers = send(&mut connection, lines).await;
        self.connection = answers.is_ok().then_some(connection);
        Ok(answers)
    }

    async fn exec(&mut self, copies: &[ListSteps]) -> Vec<Told> {
        let of_one = |one: &ListSteps| {
            let lines = one.steps.iter().map(|step| one.line(*step)).collect::<Vec<_>>();
            multi(lines.into_iter()).collect::<Vec<_>>()
        };
        let each: Vec<Vec<String>> = copies.iter().map(of_one).collect();
        let answers = match self.send(&each.concat()).await {
            Ok(answers) => answers,
            Err(error) => {
                return each.iter().map(|_| Told::Refused(error.to_string())).collect();
            }
        };
        let mut sent = 0;
        let told = each.iter().map(|lines| {
            sent += lines.len();
            of_exec(&answers, sent - 1)
        });
        told.collect()
    }

    /// Each read as it is watched, then the appends.
    async fn watch(&mut self, steps: &ListSteps) -> Told {
        let (appends, reads): (Vec<Step>, Vec<Step>) =
            steps.steps.iter().partition(|step| step.is_append);
        let mut replies = Vec::new();
        for step in reads {
            match self.look(&[format!("WATCH {}", steps.key(step)), steps.line(step)]).await {
                Ok(reply) => replies.push(reply),
                Err(error) => {
                    // What it watches goes with it.
                    self.connection = None;
                    return Told::Refused(error.to_string());
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        let lines: Vec<String> = multi(appends.iter().map(|step| steps.line(*step))).collect();
        match self.send(&lines).await.map(|answers| of_exec(&answers, lines.len() - 1)) {
            Ok(Told::Committed(said)) => {
                replies.extend(said);
                Told::Committed(replies)
            }
            Ok(told) => told,
            Err(error) => Told::Refused(error.to_string()),
        }
    }

    /// The last of these replies, if none is an error.
    async fn look(&mut self, lines: &[String]) -> RedisResult<Value> {
        let mut replies = Vec::new();
        for reply in self.send(lines).await?? {
            replies.push(as_json(reply)?);
        }
        Ok(replies.pop().unwrap_or_default())
    }
}
