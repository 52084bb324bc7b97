//! One row for each command of the set: what it is called, how many arguments it takes, which of them are keys.

use std::fmt;

/// The commands that share a file of the participant's script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// `GET`, `SET`, `INCRBY` …
    Strings,
    /// `DEL`, `EXPIRE`, `TYPE` …
    Keys,
    /// `HSET`, `HGETALL` …
    Hashes,
    /// `SADD`, `SMEMBERS` …
    Sets,
    /// `ZADD`, `ZRANGE` …
    SortedSets,
    /// `RPUSH`, `LRANGE` …
    Lists,
    /// `XADD`, `XRANGE` …
    Streams,
}

impl Family {
    /// Every family, in the order of its bit.
    pub const ALL: [Self; 7] = [
        Self::Strings,
        Self::Keys,
        Self::Hashes,
        Self::Sets,
        Self::SortedSets,
        Self::Lists,
        Self::Streams,
    ];

    /// The family as one bit of a set of families.
    #[must_use]
    pub const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// How a branch locks a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    /// For reading: excludes writers.
    Shared,
    /// For adding to a counter: excludes all but those who do the same, and those only if there is no room.
    Escrow(EscrowKind),
    /// For writing: excludes everybody.
    Exclusive,
}

/// Where a counter is. Who adds to a string and who adds to a hash under one key exclude each other: of a key that does not
/// exist, only the first of them would be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EscrowKind {
    /// In a string.
    String,
    /// In the field of a hash.
    Hash,
}

impl Access {
    /// The letter that stands for it in the control hash.
    #[must_use]
    pub const fn letter(self) -> u8 {
        match self {
            Self::Shared => b'S',
            Self::Escrow(EscrowKind::String) => b'E',
            Self::Escrow(EscrowKind::Hash) => b'F',
            Self::Exclusive => b'X',
        }
    }

    /// What a letter stands for.
    #[must_use]
    pub const fn of_letter(letter: u8) -> Option<Self> {
        match letter {
            b'S' => Some(Self::Shared),
            b'E' => Some(Self::Escrow(EscrowKind::String)),
            b'F' => Some(Self::Escrow(EscrowKind::Hash)),
            b'X' => Some(Self::Exclusive),
            _ => None,
        }
    }
}

/// Which arguments are keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    /// The first one.
    First,
    /// All of them.
    All,
    /// The first of every pair.
    EveryOther,
}

/// What a reply is, so that the participant's script may carry integers as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReplyKind {
    /// An integer of 64 bits.
    Int,
    /// Bytes, a status, or nil.
    Bytes,
    /// An array of bytes, of nils, or of arrays; or nil.
    Array,
    /// The least and the most that the value may be: of an op in escrow.
    Estimate,
}

/// A command of the set.
#[derive(Debug)]
pub struct Command {
    /// Its name, in capitals.
    pub name: &'static str,
    /// The family that it belongs to.
    pub family: Family,
    /// The fewest arguments after the name.
    pub args_min: usize,
    /// The most arguments after the name.
    pub args_max: usize,
    /// Which arguments are keys.
    pub keys: Keys,
    /// How its keys are locked.
    pub access: Access,
    /// What it replies, if no option says otherwise.
    pub reply: ReplyKind,
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// No upper bound but that of the limits.
const MANY: usize = usize::MAX;

macro_rules! commands {
    ($($name:literal $family:ident $min:literal ..= $max:tt $keys:ident $access:ident $reply:ident;)+) => {
        /// Every command of the set, in the order of the names.
        pub static COMMANDS: &[Command] = &[$(Command {
            name: $name,
            family: Family::$family,
            args_min: $min,
            args_max: $max,
            keys: Keys::$keys,
            access: Access::$access,
            reply: ReplyKind::$reply,
        },)+];
    };
}

commands! {
    "APPEND"       Strings    2..=2    First Exclusive Int;
    "ASSENT.DIGEST" Keys      1..=1    First Shared    Bytes;
    "DECR"         Strings    1..=1    First Exclusive Int;
    "DECRBY"       Strings    2..=2    First Exclusive Int;
    "DEL"          Keys       1..=MANY All   Exclusive Int;
    "EXISTS"       Keys       1..=MANY All   Shared    Int;
    "EXPIRE"       Keys       2..=MANY First Exclusive Int;
    "EXPIREAT"     Keys       2..=MANY First Exclusive Int;
    "GET"          Strings    1..=1    First Shared    Bytes;
    "GETDEL"       Strings    1..=1    First Exclusive Bytes;
    "GETRANGE"     Strings    3..=3    First Shared    Bytes;
    "GETSET"       Strings    2..=2    First Exclusive Bytes;
    "HDEL"         Hashes     2..=MANY First Exclusive Int;
    "HEXISTS"      Hashes     2..=2    First Shared    Int;
    "HGET"         Hashes     2..=2    First Shared    Bytes;
    "HGETALL"      Hashes     1..=1    First Shared    Array;
    "HINCRBY"      Hashes     3..=3    First Exclusive Int;
    "HINCRBYFLOAT" Hashes     3..=3    First Exclusive Bytes;
    "HLEN"         Hashes     1..=1    First Shared    Int;
    "HMGET"        Hashes     2..=MANY First Shared    Array;
    "HSET"         Hashes     3..=MANY First Exclusive Int;
    "HSETNX"       Hashes     3..=3    First Exclusive Int;
    "INCR"         Strings    1..=1    First Exclusive Int;
    "INCRBY"       Strings    2..=2    First Exclusive Int;
    "INCRBYFLOAT"  Strings    2..=2    First Exclusive Bytes;
    "LLEN"         Lists      1..=1    First Shared    Int;
    "LPOP"         Lists      1..=2    First Exclusive Bytes;
    "LPUSH"        Lists      2..=MANY First Exclusive Int;
    "LRANGE"       Lists      3..=3    First Shared    Array;
    "LREM"         Lists      3..=3    First Exclusive Int;
    "LSET"         Lists      3..=3    First Exclusive Bytes;
    "LTRIM"        Lists      3..=3    First Exclusive Bytes;
    "MGET"         Strings    1..=MANY All   Shared    Array;
    "MSET"         Strings    2..=MANY EveryOther Exclusive Bytes;
    "PERSIST"      Keys       1..=1    First Exclusive Int;
    "PEXPIRE"      Keys       2..=MANY First Exclusive Int;
    "PEXPIREAT"    Keys       2..=MANY First Exclusive Int;
    "PTTL"         Keys       1..=1    First Shared    Int;
    "RPOP"         Lists      1..=2    First Exclusive Bytes;
    "RPUSH"        Lists      2..=MANY First Exclusive Int;
    "SADD"         Sets       2..=MANY First Exclusive Int;
    "SCARD"        Sets       1..=1    First Shared    Int;
    "SET"          Strings    2..=MANY First Exclusive Bytes;
    "SETNX"        Strings    2..=2    First Exclusive Int;
    "SETRANGE"     Strings    3..=3    First Exclusive Int;
    "SISMEMBER"    Sets       2..=2    First Shared    Int;
    "SMEMBERS"     Sets       1..=1    First Shared    Array;
    "SREM"         Sets       2..=MANY First Exclusive Int;
    "STRLEN"       Strings    1..=1    First Shared    Int;
    "TTL"          Keys       1..=1    First Shared    Int;
    "TYPE"         Keys       1..=1    First Shared    Bytes;
    "UNLINK"       Keys       1..=MANY All   Exclusive Int;
    "XADD"         Streams    4..=MANY First Exclusive Bytes;
    "XDEL"         Streams    2..=MANY First Exclusive Int;
    "XLEN"         Streams    1..=1    First Shared    Int;
    "XRANGE"       Streams    3..=5    First Shared    Array;
    "ZADD"         SortedSets 3..=MANY First Exclusive Int;
    "ZCARD"        SortedSets 1..=1    First Shared    Int;
    "ZINCRBY"      SortedSets 3..=3    First Exclusive Bytes;
    "ZRANGE"       SortedSets 3..=MANY First Shared    Array;
    "ZREM"         SortedSets 2..=MANY First Exclusive Int;
    "ZSCORE"       SortedSets 2..=2    First Shared    Bytes;
}

/// The command of this name, whatever its case.
#[must_use]
pub fn find(name: &[u8]) -> Option<&'static Command> {
    /// The longest name of the table, `ASSENT.DIGEST`.
    const NAME_BYTES_MAX: usize = 13;
    let mut upper = [0; NAME_BYTES_MAX];
    let upper = upper.get_mut(..name.len())?;
    upper.copy_from_slice(name);
    upper.make_ascii_uppercase();
    let found = COMMANDS.binary_search_by(|command| command.name.as_bytes().cmp(upper)).ok()?;
    Some(&COMMANDS[found])
}
