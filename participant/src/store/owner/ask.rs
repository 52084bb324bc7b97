//! Before an owner ends branches by scripts: which of them Redis would let it end
//! (`lua/may.lua`).

use std::collections::BTreeSet;

use assent_common::branch::Ending;
use assent_common::outcome::{Failed, Refusal};
use assent_common::value::Arg;
use assent_common::wire::branch::BranchState;
use redis::{Cmd, RedisResult, Value};

use super::super::connection::{Connection, NotRun};
use super::super::decode::{self, Row};
use super::super::refusals;
use super::super::said::{CallError, classify};
use super::super::scripts::Script;
use super::super::work::{Answers, EndingItem};
use super::round::Round;
use super::{Lost, Owner};

/// What an ending would write.
struct AskedEnding {
    item: EndingItem,
    /// What becomes of its branch, as the script has it.
    kind: &'static str,
    /// The command and the key of each write.
    writes: BTreeSet<(Arg, Arg)>,
}

impl AskedEnding {
    /// What cannot be read ends nothing, and writes nothing.
    fn new(owner: &Owner, item: EndingItem) -> Self {
        let kind = match (owner.machine.state(item.txid), item.ending) {
            (Some(BranchState::Prepared), Ending::Commit | Ending::Abort) => "e",
            (None, Ending::Abort | Ending::Settle) => "f",
            _ => "",
        };
        let writes = owner.writes(item).unwrap_or_default().into_iter();
        let named = writes.filter_map(|write| {
            let mut words = write.into_iter();
            Some((words.next()?, words.next()?))
        });
        Self { item, kind, writes: named.collect() }
    }

    fn keys(&self) -> impl Iterator<Item = &Arg> {
        self.writes.iter().map(|(_, key)| key)
    }
}

/// Asks whether the endings that the round has taken may be written, and answers those that may
/// not. The others stay in the round.
pub(super) async fn ask(
    connection: &Connection,
    owner: &Owner,
    round: &mut Round,
    answers: &mut Answers,
) -> Result<(), Lost> {
    let lost = |error: redis::RedisError| Lost::Ownership(error.to_string());
    let mut asked: Vec<AskedEnding> =
        round.taken.endings.iter().map(|item| AskedEnding::new(owner, *item)).collect();
    let mut said = call(connection, &asked).await?;
    if said.as_ref().is_err_and(|error| error.code() == Some("NOPERM")) {
        let why = said.as_ref().map_or_else(ToString::to_string, |_| String::new());
        let keys: BTreeSet<&Arg> = asked.iter().flat_map(AskedEnding::keys).collect();
        let denied = refusals::denied(connection, keys.into_iter()).await.map_err(lost)?;
        let is_denied = |asked: &AskedEnding| asked.keys().any(|key| denied.contains(key));
        let (refused, others) = asked.into_iter().partition::<Vec<_>, _>(is_denied);
        for AskedEnding { item, writes, .. } in refused {
            let keys = writes.iter().map(|(_, key)| key).filter(|key| denied.contains(*key));
            let no = refusals::of_keys(connection, keys, None, &why);
            answers.put(item.slot, item.ending.failed(Failed::Refused(no)));
        }
        asked = others;
        said = call(connection, &asked).await?;
    }
    round.taken.endings.clear();
    let mut rows = match said {
        Ok(Value::Array(rows)) => rows.into_iter(),
        Ok(_) => return Err(Lost::Ownership("the script was not answered as such".to_owned())),
        Err(error) => match classify(&error) {
            CallError::Refused(refusal) => {
                for AskedEnding { item, .. } in asked {
                    let no = Failed::Refused(Refusal::clone(&refusal));
                    answers.put(item.slot, item.ending.failed(no));
                }
                round.exec.only_fences = true;
                return Ok(());
            }
            _ => {
                round.taken.endings.extend(asked.into_iter().map(|asked| asked.item));
                return Err(lost(error));
            }
        },
    };
    let mut refused = || rows.next().and_then(Row::new).and_then(|mut row| no(&mut row));
    for AskedEnding { item, .. } in asked {
        match refused() {
            Some(refusal) => {
                answers.put(item.slot, item.ending.failed(Failed::Refused(refusal)));
            }
            None => round.taken.endings.push(item),
        }
    }
    round.exec.only_fences = refused().is_some();
    Ok(())
}

fn no(row: &mut Row) -> Option<Refusal> {
    if row.tag() == b'n' { decode::no(row, None) } else { None }
}

async fn call(connection: &Connection, asked: &[AskedEnding]) -> Result<RedisResult<Value>, Lost> {
    match connection.run(Script::May, |digest| command(connection, digest, asked)).await {
        Ok(answer) => Ok(Ok(answer)),
        Err(NotRun::Failed(error)) => Ok(Err(error)),
        Err(NotRun::NotLoaded(error)) => Err(Lost::Ownership(error.to_string())),
    }
}

fn command(connection: &Connection, digest: &str, asked: &[AskedEnding]) -> Cmd {
    let keys: BTreeSet<&Arg> = asked.iter().flat_map(AskedEnding::keys).collect();
    let mut cmd = redis::cmd("EVALSHA");
    cmd.arg(digest).arg(1 + keys.len()).arg(connection.control_key());
    cmd.arg(keys.iter().map(|key| key.0.as_slice()).collect::<Vec<_>>());
    cmd.arg(asked.len());
    for AskedEnding { kind, writes, .. } in asked {
        cmd.arg(kind).arg(writes.len());
        for (name, key) in writes {
            cmd.arg(name.0.as_slice()).arg(key.0.as_slice());
        }
    }
    cmd
}
