//! Commands of Redis that do not run here, and why, by name.

use assent_common::value::{Arg, readable};

use crate::refusal::error;
use crate::reply::Value;

/// Why a command is refused, if it is one that is known not to run here.
pub(crate) fn refusal(name: &[u8]) -> Option<Value> {
    let why = match name {
        b"BLPOP" | b"BRPOP" | b"BLMOVE" | b"BLMPOP" | b"BRPOPLPUSH" | b"BZPOPMIN" | b"BZPOPMAX"
        | b"BZMPOP" | b"WAIT" | b"WAITAOF" => "it waits for others, and would hold locks meanwhile",
        b"SUBSCRIBE" | b"PSUBSCRIBE" | b"SSUBSCRIBE" | b"UNSUBSCRIBE" | b"PUNSUBSCRIBE"
        | b"SUNSUBSCRIBE" | b"PUBLISH" | b"SPUBLISH" | b"PUBSUB" | b"MONITOR" => {
            "messages are no part of a transaction; use a Redis of your own for them"
        }
        b"EVAL" | b"EVALSHA" | b"EVAL_RO" | b"EVALSHA_RO" | b"SCRIPT" | b"FCALL" | b"FCALL_RO"
        | b"FUNCTION" => "a script's keys and effects cannot be known before it runs",
        b"KEYS" | b"SCAN" | b"RANDOMKEY" | b"DBSIZE" | b"FLUSHALL" | b"FLUSHDB" | b"SWAPDB"
        | b"MOVE" => "it is about all keys of a Redis; ask the participant's Redis itself",
        b"CONFIG" | b"SAVE" | b"BGSAVE" | b"BGREWRITEAOF" | b"SHUTDOWN" | b"REPLICAOF"
        | b"SLAVEOF" | b"DEBUG" | b"ACL" | b"MODULE" | b"SLOWLOG" | b"LATENCY" | b"MEMORY"
        | b"FAILOVER" | b"SYNC" | b"PSYNC" | b"REPLCONF" | b"LASTSAVE" | b"ROLE" | b"TIME" => {
            "it is about a server; ask the participant's Redis itself"
        }
        b"RESTORE" => "its payload cannot be checked before it is stored",
        b"OBJECT" => "it would tell of a copy; ask the participant's Redis itself",
        b"CLUSTER" | b"READONLY" | b"READWRITE" | b"ASKING" => {
            return Some(error("ERR This instance has cluster support disabled"));
        }
        _ => return None,
    };
    Some(error(format!("ERR {} does not run here: {why}", readable(name))))
}

/// A command that is none of the set.
pub(crate) fn unknown(name: &Arg) -> Value {
    let name = readable(&name.0);
    let name = assent_common::text::cut(&name, 64);
    error(format!(
        "ERR unknown command '{name}', or one that does not run in a transaction; \
         docs/reference/commands.md has the set"
    ))
}
