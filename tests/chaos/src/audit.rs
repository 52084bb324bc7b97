//! What plain Redis clients see, and what the coordinator says of all transactions: the documents that end a history.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use assent_checkers::{Document, Ending, FinalCount, FinalState, FinalTransaction};
use assent_client::{CallError, CoordinatorClient, ListFilter, Transaction};
use assent_common::wire::problem::OutcomeWord;
use assent_common::wire::transaction::TransactionView;
use assent_common::{ErrorCode, TransactionId};
use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;

use crate::load::{self, COUNTERS, OPENING_BALANCE, STOCK};
use crate::schedule::BANKS;

/// The hash that holds staged branches (`s:`).
const CONTROL_KEY: &str = "assent:ctl";

/// A frozen Redis answers nothing.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// Keys of one command.
const CHUNK: usize = 1_000;

/// What the control hash says of the branches.
#[derive(Debug, Default)]
pub(crate) struct Control {
    /// The txids that voted yes and wait for their outcome.
    pub(crate) staged: BTreeSet<String>,
    /// The keys that are locked.
    pub(crate) locked: BTreeSet<String>,
}

/// A bank's Redis, as the driver reaches it past every fault.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) participant: String,
    address: String,
    connection: Option<MultiplexedConnection>,
}

impl Store {
    pub(crate) fn new(bank: &str, address: String) -> Self {
        Self { participant: format!("bank-{bank}"), address, connection: None }
    }

    /// One command that may be said twice; the second time over a new connection, because the old one may have been
    /// broken by a fault long ago.
    async fn ask<T: redis::FromRedisValue>(&mut self, command: &redis::Cmd) -> Result<T, String> {
        let had_connection = self.connection.is_some();
        let mut answered = self.try_ask(command).await;
        if answered.is_err() && had_connection {
            answered = self.try_ask(command).await;
        }
        answered.map_err(|error| format!("Redis of {}: {error}", self.participant))
    }

    async fn try_ask<T: redis::FromRedisValue>(
        &mut self,
        command: &redis::Cmd,
    ) -> redis::RedisResult<T> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let config = AsyncConnectionConfig::new()
                    .set_connection_timeout(Some(ANSWER_MAX))
                    .set_response_timeout(Some(ANSWER_MAX));
                let client = redis::Client::open(format!("redis://{}", self.address))?;
                client.get_multiplexed_async_connection_with_config(&config).await?
            }
        };
        let answered = command.query_async(&mut connection).await;
        self.connection = answered.is_ok().then_some(connection);
        answered
    }

    /// The branches that are in doubt, and what they lock.
    pub(crate) async fn control(&mut self) -> Result<Control, String> {
        let fields: Vec<String> = self.ask(redis::cmd("HKEYS").arg(CONTROL_KEY)).await?;
        let mut control = Control::default();
        for field in fields {
            match field.split_once(':') {
                Some(("s", txid)) => control.staged.insert(txid.to_owned()),
                Some(("l", key)) => control.locked.insert(key.to_owned()),
                _ => false,
            };
        }
        Ok(control)
    }

    /// The whole control hash, as it is: evidence.
    pub(crate) async fn dump(&mut self) -> Result<String, String> {
        let fields: BTreeMap<String, Vec<u8>> =
            self.ask(redis::cmd("HGETALL").arg(CONTROL_KEY)).await?;
        let lines =
            fields.iter().map(|(field, value)| format!("{field}  {}\n", value.escape_ascii()));
        Ok(lines.collect())
    }

    async fn keys(&mut self, pattern: &str) -> Result<Vec<String>, String> {
        let (mut cursor, mut keys) = (0_u64, BTreeSet::new());
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg(&["MATCH", pattern, "COUNT", "5000"]);
            let (next, some): (u64, Vec<String>) = self.ask(&scan).await?;
            // A scan may name a key twice.
            keys.extend(some);
            cursor = next;
            if cursor == 0 {
                return Ok(keys.into_iter().collect());
            }
        }
    }

    /// Every key of this pattern as often as the number under it says.
    async fn counted(&mut self, prefix: &str) -> Result<Vec<String>, String> {
        let keys = self.keys(&format!("{prefix}*")).await?;
        let mut counted = Vec::with_capacity(keys.len());
        for chunk in keys.chunks(CHUNK) {
            let times: Vec<usize> = self.ask(redis::cmd("MGET").arg(chunk)).await?;
            for (key, times) in chunk.iter().zip(times) {
                let name = key.strip_prefix(prefix).unwrap_or(key);
                counted.extend(std::iter::repeat_n(name.to_owned(), times));
            }
        }
        Ok(counted)
    }

    async fn number(&mut self, key: &str) -> Result<i64, String> {
        let number: Option<i64> = self.ask(redis::cmd("GET").arg(key)).await?;
        Ok(number.unwrap_or(0))
    }
}

/// Gives every account its opening balance, by a transaction: a Redis that loses it gets it back.
pub(crate) async fn open(coordinator: &CoordinatorClient) -> Result<Document, String> {
    let mut transaction = Transaction::new();
    for (place, bank) in BANKS.iter().enumerate() {
        let accounts = 0..load::account_names().count();
        let here = accounts.filter(|account| account % BANKS.len() == place);
        transaction = transaction.branch(&format!("bank-{bank}"), |ops| {
            here.fold(ops, |ops, account| {
                ops.op(["SET", &load::balance_key(account), &OPENING_BALANCE.to_string()])
            })
        });
    }
    let request = transaction.build().map_err(|error| error.to_string())?;
    let opened = coordinator.submit(&request, None, None).await;
    opened.map_err(|error| format!("the accounts cannot be opened: {error}"))?;
    let balances = load::account_names().map(|name| (name, OPENING_BALANCE)).collect();
    Ok(Document::OpeningBalances(balances))
}

/// Everything that an audit can see at the end, with the transactions that are still open, if any.
pub(crate) async fn close(
    stores: &mut [Store],
    coordinator: &CoordinatorClient,
    ids: &[TransactionId],
) -> Result<Vec<Document>, String> {
    let mut balances = BTreeMap::new();
    for (account, name) in load::account_names().enumerate() {
        let store = &mut stores[account % BANKS.len()];
        balances.insert(name, store.number(&load::balance_key(account)).await?);
    }
    let mut counts = BTreeMap::new();
    for (counter, (name, bank)) in COUNTERS.into_iter().enumerate() {
        let store = &mut stores[bank];
        let value = store.number(&format!("counter:{name}")).await?;
        let ids = Some(store.counted(&load::add_key(name, "")).await?);
        let at_least = (counter == STOCK).then_some(0);
        counts.insert(name.to_owned(), FinalCount { value, ids, at_least });
    }
    let mut marks = BTreeMap::new();
    let mut state =
        FinalState { transactions: endings(coordinator, ids).await?, ..FinalState::default() };
    for store in stores {
        marks.insert(store.participant.clone(), store.counted("tx:").await?);
        let Control { staged, locked } = store.control().await?;
        state.staged.insert(store.participant.clone(), staged.into_iter().collect());
        state.locked.insert(store.participant.clone(), locked.into_iter().collect());
    }
    Ok(vec![
        Document::FinalBalances(balances),
        Document::FinalCounts(counts),
        Document::FinalMarks(marks),
        Document::FinalState(state),
    ])
}

/// Some of the transactions that the coordinator has not decided, or not delivered everywhere.
pub(crate) async fn unfinished(coordinator: &CoordinatorClient) -> Result<Vec<String>, String> {
    let mut ids = Vec::new();
    for (outcome, in_doubt) in [(Some(OutcomeWord::Pending), false), (None, true)] {
        let filter = ListFilter { outcome, in_doubt, page_size: Some(5), ..ListFilter::default() };
        let page = coordinator.list(&filter).await.map_err(|error| format!("the list: {error}"))?;
        ids.extend(page.transactions.iter().map(|view| view.id.to_string()));
    }
    Ok(ids)
}

/// How the coordinator says that each of these has ended. It lists the latest; the others are asked for one by one. One
/// that it knows nothing of was never begun.
async fn endings(
    coordinator: &CoordinatorClient,
    ids: &[TransactionId],
) -> Result<Vec<FinalTransaction>, String> {
    let mut filter = ListFilter { page_size: Some(500), ..ListFilter::default() };
    let mut endings = BTreeMap::new();
    loop {
        let page = coordinator.list(&filter).await.map_err(|error| format!("the list: {error}"))?;
        endings.extend(page.transactions.iter().map(|view| (view.id, ending(view))));
        filter.page_token = page.next_page_token;
        if filter.page_token.is_none() {
            break;
        }
    }
    let older: Vec<_> = ids.iter().filter(|id| !endings.contains_key(id)).copied().collect();
    for id in older {
        match coordinator.transaction(id, None).await {
            Ok(view) => drop(endings.insert(id, ending(&view))),
            Err(CallError::Rejected(problem)) if problem.code == ErrorCode::NotFound => {}
            Err(error) => return Err(format!("transaction {id}: {error}")),
        }
    }
    let named =
        |(id, ending): (TransactionId, Ending)| FinalTransaction { id: id.to_string(), ending };
    Ok(endings.into_iter().map(named).collect())
}

const fn ending(view: &TransactionView) -> Ending {
    match view.outcome {
        OutcomeWord::Committed => Ending::Committed,
        OutcomeWord::Aborted => Ending::Aborted,
        OutcomeWord::Pending => Ending::Open,
    }
}
