//! Does the steps of a case, and compares.

use std::collections::BTreeMap;

use assent_client::interactive::{OpAt, op};
use assent_client::{
    AssentClient, CommittedTransaction, Http, HttpOptions, Interactive, RunOptions,
    SealedTransaction, Transaction, TransactionError, reply_bytes,
};
use assent_common::TransactionId;
use assent_common::command::Expect;
use assent_common::time::DurationMs;
use assent_common::value::Arg;
use assent_common::wire::interactive::BeginRequest;
use assent_tests::wait_for;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tokio::task::JoinHandle;

use super::world::{World, text};

type Outcome = Result<CommittedTransaction, TransactionError>;

/// What was saved under a name.
enum Kept {
    Sealed(SealedTransaction),
    Interactive(Box<Interactive>),
    /// Of a function that was run.
    Id(TransactionId),
    /// It runs in the background.
    Started(TransactionId, JoinHandle<Outcome>, Value),
}

impl Kept {
    fn id(&self) -> Option<TransactionId> {
        match self {
            Self::Sealed(transaction) => transaction.id(),
            Self::Interactive(tx) => Some(tx.id()),
            Self::Id(id) | Self::Started(id, ..) => Some(*id),
        }
    }
}

/// What came of a step, as far as anything may be wanted of it.
#[derive(Debug, Default)]
struct Played {
    outcome: Option<&'static str>,
    id: Option<TransactionId>,
    replies: Value,
    calls: u32,
    error: Option<TransactionError>,
}

impl Played {
    fn replies(replies: impl Into<Value>) -> Self {
        Self { replies: replies.into(), ..Self::default() }
    }
}

impl From<CommittedTransaction> for Played {
    fn from(committed: CommittedTransaction) -> Self {
        let names = committed.view.branches.iter().map(|branch| branch.participant.as_str());
        let replies = names.map(|name| (name.to_owned(), committed.replies(name).into()));
        let replies = Value::Object(replies.collect());
        Self { outcome: Some("committed"), id: Some(committed.id()), replies, ..Self::default() }
    }
}

impl From<TransactionError> for Played {
    fn from(error: TransactionError) -> Self {
        let outcome = match error {
            TransactionError::Aborted(_) => "aborted",
            TransactionError::Rejected(_) => "rejected",
            TransactionError::Unknown(_) => "unknown",
        };
        let id = error.id();
        Self { outcome: Some(outcome), id, error: Some(error), ..Self::default() }
    }
}

impl From<Outcome> for Played {
    fn from(outcome: Outcome) -> Self {
        outcome.map_or_else(Self::from, Self::from)
    }
}

/// Does the steps of one case.
pub(super) struct Player<'w> {
    world: &'w World,
    saved: BTreeMap<String, (AssentClient, Kept)>,
}

impl<'w> Player<'w> {
    pub(super) const fn new(world: &'w World) -> Self {
        Self { world, saved: BTreeMap::new() }
    }

    pub(super) async fn play(&mut self, step: &Value) -> Result<(), String> {
        let played = self.act(step).await;
        match (step["want"].as_object(), &played.error) {
            (Some(want), _) => self.compare(&played, want),
            (None, Some(error)) => Err(error.to_string()),
            (None, None) => Ok(()),
        }
    }

    async fn act(&mut self, step: &Value) -> Played {
        let wait = step["wait_ms"].as_u64().map(DurationMs);
        let client = self.client(step);
        match step["do"].as_str().unwrap() {
            "run" => {
                let mut transaction = self.sealed(step);
                let outcome = client.submit(&mut transaction, wait).await;
                self.save(step, client, Kept::Sealed(transaction));
                outcome.into()
            }
            "repeat" => match self.kept(step) {
                Kept::Sealed(transaction) => client.submit(transaction, wait).await.into(),
                _ => panic!("{step}: it was not submitted"),
            },
            "attach" => match step["of"].as_str() {
                Some("$fresh") => client.attach(Transaction::new().id().unwrap(), wait).await,
                _ => client.attach(self.kept(step).id().unwrap(), wait).await,
            }
            .into(),
            "begin" => match client.begin(BeginRequest::default()).await {
                Ok(begun) => {
                    let id = Some(begun.id());
                    self.save(step, client, Kept::Interactive(begun.into()));
                    Played { outcome: Some("active"), id, ..Played::default() }
                }
                Err(error) => error.into(),
            },
            "ops" | "again" | "commit" | "abort" => self.act_on(step, wait).await,
            "run_function" => self.run_function(client, step).await,
            "start" => {
                let mut transaction = self.sealed(&step["step"]);
                let (id, sending) = (transaction.id().unwrap(), client.clone());
                let running =
                    tokio::spawn(async move { sending.submit(&mut transaction, None).await });
                let want = step["step"]["want"].clone();
                self.save(step, client, Kept::Started(id, running, want));
                Played::default()
            }
            "join" => self.join(step).await,
            "until" => self.until(step).await,
            "release" => {
                self.world.holds.release(step["hold"].as_str().unwrap());
                Played::default()
            }
            "lose" => {
                self.world.lossy.lose(step["what"].as_str().unwrap());
                Played::default()
            }
            other => panic!("no step is called {other}"),
        }
    }

    /// Goes on with an interactive transaction.
    async fn act_on(&mut self, step: &Value, wait: Option<DurationMs>) -> Played {
        let Kept::Interactive(tx) = self.kept(step) else { panic!("{step}: it was not begun") };
        match step["do"].as_str().unwrap() {
            "ops" => tx.ops(ops(step)).await.map_or_else(Played::from, Played::replies),
            "again" => match tx.again().await {
                Ok(replies) => Played::replies(replies),
                Err(error) => error.into(),
            },
            "commit" => tx.commit(wait).await.into(),
            _ => match tx.abort().await {
                Ok(()) => {
                    Played { outcome: Some("aborted"), id: Some(tx.id()), ..Played::default() }
                }
                Err(error) => error.into(),
            },
        }
    }

    async fn run_function(&mut self, client: AssentClient, step: &Value) -> Played {
        let attempts_max = u32::try_from(step["attempts_max"].as_u64().unwrap()).unwrap();
        let options = RunOptions { attempts_max, ..RunOptions::default() };
        let (mut calls, mut replies, mut id) = (0, Value::Null, None);
        let work = async |tx: &mut Interactive| {
            (calls, id) = (calls + 1, Some(tx.id()));
            self.save(step, client.clone(), Kept::Id(tx.id()));
            replies = tx.ops(ops(step)).await?.into();
            if calls == 1 {
                for each in step["meanwhile"].as_array().into_iter().flatten() {
                    Box::pin(self.play(each)).await.unwrap_or_else(|why| panic!("{each}: {why}"));
                }
            }
            if step["aborts"] == true {
                tx.abort().await?;
            }
            Ok::<_, TransactionError>(())
        };
        match client.run(options, work).await {
            Ok(()) => Played { outcome: Some("committed"), id, replies, calls, error: None },
            Err(error) => Played { calls, replies, ..Played::from(error) },
        }
    }

    async fn join(&mut self, step: &Value) -> Played {
        let name = step["of"].as_str().unwrap();
        let Some((client, Kept::Started(id, running, want))) = self.saved.remove(name) else {
            panic!("{step}: it was not started")
        };
        let played = Played::from(running.await.unwrap());
        self.saved.insert(name.to_owned(), (client, Kept::Id(id)));
        let compared = self.compare(&played, want.as_object().unwrap());
        compared.unwrap_or_else(|why| panic!("{step}: {why}"));
        Played::default()
    }

    async fn until(&mut self, step: &Value) -> Played {
        let (id, client) = (self.kept(step).id().unwrap(), self.client_of(&["live"]));
        wait_for("the branch to be so far", || async {
            let view = client.describe(id).await.map_err(|error| error.to_string())?;
            let name = step["participant"].as_str();
            let mut branches = view.branches.iter();
            let branch = branches.find(|branch| Some(branch.participant.as_str()) == name);
            let state = json!(branch.map(|branch| branch.state));
            if state == step["state"] { Ok(()) } else { Err(state.to_string()) }
        })
        .await;
        Played::default()
    }

    fn kept(&mut self, step: &Value) -> &mut Kept {
        let name = step["of"].as_str().unwrap();
        &mut self.saved.get_mut(name).unwrap_or_else(|| panic!("nothing is saved as {name}")).1
    }

    fn save(&mut self, step: &Value, client: AssentClient, kept: Kept) {
        if let Some(name) = step["as"].as_str() {
            self.saved.insert(name.to_owned(), (client, kept));
        }
    }

    fn client(&self, step: &Value) -> AssentClient {
        let saved = step["of"].as_str().and_then(|name| self.saved.get(name));
        match (step["via"].as_array(), saved) {
            (Some(via), _) => {
                let names: Vec<_> = via.iter().map(|name| name.as_str().unwrap()).collect();
                self.client_of(&names)
            }
            (None, Some((client, _))) => client.clone(),
            (None, None) => self.client_of(&["live"]),
        }
    }

    fn client_of(&self, names: &[&str]) -> AssentClient {
        let http = Http::new(&HttpOptions::default()).unwrap();
        AssentClient::new(&http, names.iter().map(|name| self.world.address(name))).unwrap()
    }

    fn sealed(&self, step: &Value) -> SealedTransaction {
        let mut transaction = written(&value(&step["transaction"]));
        if let Some(name) = step["with_id_of"].as_str() {
            transaction = transaction.with_id(self.saved[name].1.id().unwrap());
        }
        let sealed = transaction.seal().unwrap();
        match step["key"].as_str() {
            Some(key) => sealed.with_key(key.parse().unwrap()),
            None => sealed,
        }
    }

    fn compare(&self, played: &Played, want: &Map<String, Value>) -> Result<(), String> {
        let error = played.error.as_ref();
        let id_of = |name: &Value| json!(self.saved[name.as_str().unwrap()].1.id());
        for (field, wanted) in want {
            let (found, wanted) = match field.as_str() {
                "outcome" => (json!(played.outcome), wanted.clone()),
                "replies" => (in_bytes(&played.replies), in_bytes(&value(wanted))),
                "calls" => (json!(played.calls), wanted.clone()),
                "same_id_as" => (json!(played.id), id_of(wanted)),
                "holder" => {
                    let holder = error.and_then(TransactionError::holder);
                    (json!(holder.map(|holder| holder.id)), id_of(wanted))
                }
                "code" => (json!(error.and_then(TransactionError::code)), wanted.clone()),
                "retryable" => (json!(error.map(TransactionError::retryable)), wanted.clone()),
                "participant" => {
                    (json!(error.and_then(TransactionError::participant)), wanted.clone())
                }
                "op" => (json!(error.and_then(TransactionError::op)), wanted.clone()),
                "reply" => (json!(error.and_then(TransactionError::reply)), value(wanted)),
                "pending" => (json!(error.map(TransactionError::is_pending)), wanted.clone()),
                "veto" => {
                    let veto = json!(error.and_then(TransactionError::veto));
                    let fields = wanted.as_object().unwrap().keys();
                    let said = fields.map(|field| (field.clone(), veto[field].clone()));
                    (Value::Object(said.collect()), wanted.clone())
                }
                other => panic!("nothing that may be wanted is called {other}"),
            };
            if found != wanted {
                return Err(format!("{field} is {found}, not {wanted}: {played:?}"));
            }
        }
        Ok(())
    }
}

/// A transaction of the file, by the SDK.
fn written(body: &Value) -> Transaction {
    let mut transaction = Transaction::new();
    if let Some(name) = body["name"].as_str() {
        transaction = transaction.name(name);
    }
    if let Some(timeout) = body.get("timeout") {
        transaction = transaction.timeout(read(timeout));
    }
    if let Some(ack) = body.get("ack") {
        transaction = transaction.ack(read(ack));
    }
    for branch in body["branches"].as_array().unwrap() {
        transaction = transaction.branch(&text(&branch["participant"]), |mut ops| {
            for op in branch["ops"].as_array().into_iter().flatten() {
                ops = ops.op(read::<Vec<Arg>>(&op["cmd"]));
                if let Some(expect) = op.get("expect") {
                    ops = ops.expect(read::<Expect>(expect));
                }
                if op["escrow"] == true {
                    ops = ops.escrow();
                }
            }
            match branch.get("input") {
                Some(input) => ops.input(input),
                None => ops,
            }
        });
    }
    transaction
}

fn ops(step: &Value) -> Vec<OpAt> {
    let ops = step["ops"].as_array().unwrap().iter();
    let at = |each: &Value| {
        let op = op(&text(&each["participant"]), read::<Vec<Arg>>(&value(&each["cmd"])));
        match each.get("expect") {
            Some(expect) => op.expect(read(expect)),
            None => op,
        }
    };
    ops.map(at).collect()
}

fn read<T: DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{value}: {error}"))
}

/// A value of the file as JSON of 64 bits and of any length.
fn value(json: &Value) -> Value {
    match json {
        Value::Array(items) => items.iter().map(value).collect(),
        Value::Object(fields) => match (fields.get("$int"), fields.get("$repeat")) {
            (Some(integer), _) => json!(text(integer).parse::<i64>().unwrap()),
            (_, Some(repeat)) => {
                let times = usize::try_from(repeat[1].as_u64().unwrap()).unwrap();
                json!(text(&repeat[0]).repeat(times))
            }
            (None, None) => {
                let fields = fields.iter().map(|(name, item)| (name.clone(), value(item)));
                Value::Object(fields.collect())
            }
        },
        other => other.clone(),
    }
}

/// The same with bytes as the SDK hands them out.
fn in_bytes(json: &Value) -> Value {
    match json {
        Value::Array(items) => items.iter().map(in_bytes).collect(),
        Value::Object(fields) if fields.contains_key("base64") => {
            json!({"bytes": reply_bytes(json).unwrap()})
        }
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, item)| (name.clone(), in_bytes(item)));
            Value::Object(fields.collect())
        }
        other => other.clone(),
    }
}
