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
    /// Those that have no handler: Redis itself runs them.
    Shadow,
}

impl Family {
    /// Every family, in the order of its bit.
    pub const ALL: [Self; 8] = [
        Self::Strings,
        Self::Keys,
        Self::Hashes,
        Self::Sets,
        Self::SortedSets,
        Self::Lists,
        Self::Streams,
        Self::Shadow,
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
    /// The first two.
    FirstTwo,
    /// The second one.
    Second,
    /// All but the first.
    AfterFirst,
    /// As many as the first argument says, behind it.
    Counted,
    /// The first of every pair, of as many pairs as the first argument says, behind it.
    CountedPairs,
    /// The first, and as many as the second says, behind that.
    FirstAndCounted,
    /// Behind the word `STREAMS`, the first half of what is left.
    Streams,
    /// The first, and what stands behind `STORE`.
    FirstAndStore,
}

/// By what the participant's script finds what a command comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunBy {
    /// A handler of its own, from what it reads of the key.
    Handler,
    /// Redis itself, on the key: it only reads, and little, however large the key is.
    Part,
    /// Redis itself, on the key: it only reads, perhaps everything.
    Whole,
    /// Redis itself, on copies of the keys.
    Copy,
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
    /// Any JSON: what a hook replies, which is no op.
    Hook,
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
    /// By what it is run.
    pub run_by: RunBy,
}

impl Command {
    /// Whether what it writes depends on chance or on the clock, so that run again on the same data
    /// it may write, and reply, something else.
    #[must_use]
    pub fn is_fickle(&self) -> bool {
        matches!(self.name, "SPOP" | "XAUTOCLAIM" | "XCLAIM")
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// No upper bound but that of the limits.
const MANY: usize = usize::MAX;

macro_rules! commands {
    ($($name:literal $family:ident $min:literal ..= $max:tt $keys:ident $access:ident $reply:ident
        $run_by:ident;)+) => {
        /// Every command of the set, in the order of the names.
        pub static COMMANDS: &[Command] = &[$(Command {
            name: $name,
            family: Family::$family,
            args_min: $min,
            args_max: $max,
            keys: Keys::$keys,
            access: Access::$access,
            reply: ReplyKind::$reply,
            run_by: RunBy::$run_by,
        },)+];
    };
}

commands! {
    "APPEND"               Strings    2..=2    First           Exclusive Int   Handler;
    "ASSENT.DIGEST"        Keys       1..=1    First           Shared    Bytes Handler;
    "BITCOUNT"             Shadow     1..=4    First           Shared    Int   Whole;
    "BITFIELD"             Shadow     1..=MANY First           Exclusive Array Copy;
    "BITFIELD_RO"          Shadow     1..=MANY First           Shared    Array Whole;
    "BITOP"                Shadow     3..=MANY AfterFirst      Exclusive Int   Copy;
    "BITPOS"               Shadow     2..=5    First           Shared    Int   Whole;
    "COPY"                 Shadow     2..=5    FirstTwo        Exclusive Int   Copy;
    "DECR"                 Strings    1..=1    First           Exclusive Int   Handler;
    "DECRBY"               Strings    2..=2    First           Exclusive Int   Handler;
    "DEL"                  Keys       1..=MANY All             Exclusive Int   Handler;
    "DELIFEQ"              Shadow     2..=2    First           Exclusive Int   Copy;
    "DUMP"                 Shadow     1..=1    First           Shared    Bytes Whole;
    "EXISTS"               Keys       1..=MANY All             Shared    Int   Handler;
    "EXPIRE"               Keys       2..=MANY First           Exclusive Int   Handler;
    "EXPIREAT"             Keys       2..=MANY First           Exclusive Int   Handler;
    "EXPIRETIME"           Shadow     1..=1    First           Shared    Int   Part;
    "GEOADD"               Shadow     4..=MANY First           Exclusive Int   Copy;
    "GEODIST"              Shadow     3..=4    First           Shared    Bytes Part;
    "GEOHASH"              Shadow     1..=MANY First           Shared    Array Part;
    "GEOPOS"               Shadow     1..=MANY First           Shared    Array Part;
    "GEORADIUS"            Shadow     5..=MANY FirstAndStore   Exclusive Array Copy;
    "GEORADIUSBYMEMBER"    Shadow     4..=MANY FirstAndStore   Exclusive Array Copy;
    "GEORADIUSBYMEMBER_RO" Shadow     4..=MANY First           Shared    Array Whole;
    "GEORADIUS_RO"         Shadow     5..=MANY First           Shared    Array Whole;
    "GEOSEARCH"            Shadow     6..=MANY First           Shared    Array Whole;
    "GEOSEARCHSTORE"       Shadow     7..=MANY FirstTwo        Exclusive Int   Copy;
    "GET"                  Strings    1..=1    First           Shared    Bytes Handler;
    "GETBIT"               Shadow     2..=2    First           Shared    Int   Part;
    "GETDEL"               Strings    1..=1    First           Exclusive Bytes Handler;
    "GETEX"                Shadow     1..=MANY First           Exclusive Bytes Copy;
    "GETRANGE"             Strings    3..=3    First           Shared    Bytes Handler;
    "GETSET"               Strings    2..=2    First           Exclusive Bytes Handler;
    "HDEL"                 Hashes     2..=MANY First           Exclusive Int   Handler;
    "HEXISTS"              Hashes     2..=2    First           Shared    Int   Handler;
    "HEXPIRE"              Shadow     5..=MANY First           Exclusive Array Copy;
    "HEXPIREAT"            Shadow     5..=MANY First           Exclusive Array Copy;
    "HEXPIRETIME"          Shadow     4..=MANY First           Shared    Array Part;
    "HGET"                 Hashes     2..=2    First           Shared    Bytes Handler;
    "HGETALL"              Hashes     1..=1    First           Shared    Array Handler;
    "HGETDEL"              Shadow     4..=MANY First           Exclusive Array Copy;
    "HGETEX"               Shadow     4..=MANY First           Exclusive Array Copy;
    "HINCRBY"              Hashes     3..=3    First           Exclusive Int   Handler;
    "HINCRBYFLOAT"         Hashes     3..=3    First           Exclusive Bytes Handler;
    "HKEYS"                Shadow     1..=1    First           Shared    Array Whole;
    "HLEN"                 Hashes     1..=1    First           Shared    Int   Handler;
    "HMGET"                Hashes     2..=MANY First           Shared    Array Handler;
    "HMSET"                Hashes     3..=MANY First           Exclusive Bytes Handler;
    "HPERSIST"             Shadow     4..=MANY First           Exclusive Array Copy;
    "HPEXPIRE"             Shadow     5..=MANY First           Exclusive Array Copy;
    "HPEXPIREAT"           Shadow     5..=MANY First           Exclusive Array Copy;
    "HPEXPIRETIME"         Shadow     4..=MANY First           Shared    Array Part;
    "HPTTL"                Shadow     4..=MANY First           Shared    Array Part;
    "HRANDFIELD"           Shadow     1..=3    First           Shared    Bytes Whole;
    "HSCAN"                Shadow     2..=7    First           Shared    Array Whole;
    "HSET"                 Hashes     3..=MANY First           Exclusive Int   Handler;
    "HSETEX"               Shadow     5..=MANY First           Exclusive Int   Copy;
    "HSETNX"               Hashes     3..=3    First           Exclusive Int   Handler;
    "HSTRLEN"              Shadow     2..=2    First           Shared    Int   Part;
    "HTTL"                 Shadow     4..=MANY First           Shared    Array Part;
    "HVALS"                Shadow     1..=1    First           Shared    Array Whole;
    "INCR"                 Strings    1..=1    First           Exclusive Int   Handler;
    "INCRBY"               Strings    2..=2    First           Exclusive Int   Handler;
    "INCRBYFLOAT"          Strings    2..=2    First           Exclusive Bytes Handler;
    "LCS"                  Shadow     2..=7    FirstTwo        Shared    Bytes Whole;
    "LINDEX"               Shadow     2..=2    First           Shared    Bytes Whole;
    "LINSERT"              Shadow     4..=4    First           Exclusive Int   Copy;
    "LLEN"                 Lists      1..=1    First           Shared    Int   Handler;
    "LMOVE"                Shadow     4..=4    FirstTwo        Exclusive Bytes Copy;
    "LMPOP"                Shadow     3..=MANY Counted         Exclusive Array Copy;
    "LPOP"                 Lists      1..=2    First           Exclusive Bytes Handler;
    "LPOS"                 Shadow     2..=8    First           Shared    Int   Whole;
    "LPUSH"                Lists      2..=MANY First           Exclusive Int   Handler;
    "LPUSHX"               Shadow     2..=MANY First           Exclusive Int   Copy;
    "LRANGE"               Lists      3..=3    First           Shared    Array Handler;
    "LREM"                 Lists      3..=3    First           Exclusive Int   Handler;
    "LSET"                 Lists      3..=3    First           Exclusive Bytes Handler;
    "LTRIM"                Lists      3..=3    First           Exclusive Bytes Handler;
    "MGET"                 Strings    1..=MANY All             Shared    Array Handler;
    "MSET"                 Strings    2..=MANY EveryOther      Exclusive Bytes Handler;
    "MSETEX"               Shadow     3..=MANY CountedPairs    Exclusive Int   Copy;
    "MSETNX"               Shadow     2..=MANY EveryOther      Exclusive Int   Copy;
    "PERSIST"              Keys       1..=1    First           Exclusive Int   Handler;
    "PEXPIRE"              Keys       2..=MANY First           Exclusive Int   Handler;
    "PEXPIREAT"            Keys       2..=MANY First           Exclusive Int   Handler;
    "PEXPIRETIME"          Shadow     1..=1    First           Shared    Int   Part;
    "PFADD"                Shadow     1..=MANY First           Exclusive Int   Copy;
    "PFCOUNT"              Shadow     1..=MANY All             Shared    Int   Copy;
    "PFMERGE"              Shadow     1..=MANY All             Exclusive Bytes Copy;
    "PSETEX"               Strings    3..=3    First           Exclusive Bytes Handler;
    "PTTL"                 Keys       1..=1    First           Shared    Int   Handler;
    "RENAME"               Shadow     2..=2    FirstTwo        Exclusive Bytes Copy;
    "RENAMENX"             Shadow     2..=2    FirstTwo        Exclusive Int   Copy;
    "RPOP"                 Lists      1..=2    First           Exclusive Bytes Handler;
    "RPOPLPUSH"            Shadow     2..=2    FirstTwo        Exclusive Bytes Copy;
    "RPUSH"                Lists      2..=MANY First           Exclusive Int   Handler;
    "RPUSHX"               Shadow     2..=MANY First           Exclusive Int   Copy;
    "SADD"                 Sets       2..=MANY First           Exclusive Int   Handler;
    "SCARD"                Sets       1..=1    First           Shared    Int   Handler;
    "SDIFF"                Shadow     1..=MANY All             Shared    Array Whole;
    "SDIFFSTORE"           Shadow     2..=MANY All             Exclusive Int   Copy;
    "SET"                  Strings    2..=MANY First           Exclusive Bytes Handler;
    "SETBIT"               Shadow     3..=3    First           Exclusive Int   Copy;
    "SETEX"                Strings    3..=3    First           Exclusive Bytes Handler;
    "SETNX"                Strings    2..=2    First           Exclusive Int   Handler;
    "SETRANGE"             Strings    3..=3    First           Exclusive Int   Handler;
    "SINTER"               Shadow     1..=MANY All             Shared    Array Whole;
    "SINTERCARD"           Shadow     2..=MANY Counted         Shared    Int   Whole;
    "SINTERSTORE"          Shadow     2..=MANY All             Exclusive Int   Copy;
    "SISMEMBER"            Sets       2..=2    First           Shared    Int   Handler;
    "SMEMBERS"             Sets       1..=1    First           Shared    Array Handler;
    "SMISMEMBER"           Shadow     2..=MANY First           Shared    Array Part;
    "SMOVE"                Shadow     3..=3    FirstTwo        Exclusive Int   Copy;
    "SORT"                 Shadow     1..=MANY FirstAndStore   Exclusive Array Copy;
    "SORT_RO"              Shadow     1..=MANY First           Shared    Array Whole;
    "SPOP"                 Shadow     1..=2    First           Exclusive Bytes Copy;
    "SRANDMEMBER"          Shadow     1..=2    First           Shared    Bytes Whole;
    "SREM"                 Sets       2..=MANY First           Exclusive Int   Handler;
    "SSCAN"                Shadow     2..=6    First           Shared    Array Whole;
    "STRLEN"               Strings    1..=1    First           Shared    Int   Handler;
    "SUBSTR"               Strings    3..=3    First           Shared    Bytes Handler;
    "SUNION"               Shadow     1..=MANY All             Shared    Array Whole;
    "SUNIONSTORE"          Shadow     2..=MANY All             Exclusive Int   Copy;
    "TOUCH"                Shadow     1..=MANY All             Shared    Int   Part;
    "TTL"                  Keys       1..=1    First           Shared    Int   Handler;
    "TYPE"                 Keys       1..=1    First           Shared    Bytes Handler;
    "UNLINK"               Keys       1..=MANY All             Exclusive Int   Handler;
    "XACK"                 Shadow     3..=MANY First           Exclusive Int   Copy;
    "XACKDEL"              Shadow     4..=MANY First           Exclusive Array Copy;
    "XADD"                 Streams    4..=MANY First           Exclusive Bytes Handler;
    "XAUTOCLAIM"           Shadow     5..=8    First           Exclusive Array Copy;
    "XCLAIM"               Shadow     5..=MANY First           Exclusive Array Copy;
    "XDEL"                 Streams    2..=MANY First           Exclusive Int   Handler;
    "XDELEX"               Shadow     4..=MANY First           Exclusive Array Copy;
    "XGROUP"               Shadow     2..=MANY Second          Exclusive Bytes Copy;
    "XINFO"                Shadow     2..=5    Second          Shared    Array Whole;
    "XLEN"                 Streams    1..=1    First           Shared    Int   Handler;
    "XPENDING"             Shadow     2..=8    First           Shared    Array Whole;
    "XRANGE"               Streams    3..=5    First           Shared    Array Handler;
    "XREAD"                Shadow     3..=MANY Streams         Shared    Array Whole;
    "XREADGROUP"           Shadow     6..=MANY Streams         Exclusive Array Copy;
    "XREVRANGE"            Shadow     3..=5    First           Shared    Array Whole;
    "XSETID"               Shadow     2..=6    First           Exclusive Bytes Copy;
    "XTRIM"                Shadow     3..=6    First           Exclusive Int   Copy;
    "ZADD"                 SortedSets 3..=MANY First           Exclusive Int   Handler;
    "ZCARD"                SortedSets 1..=1    First           Shared    Int   Handler;
    "ZCOUNT"               Shadow     3..=3    First           Shared    Int   Part;
    "ZDIFF"                Shadow     2..=MANY Counted         Shared    Array Whole;
    "ZDIFFSTORE"           Shadow     3..=MANY FirstAndCounted Exclusive Int   Copy;
    "ZINCRBY"              SortedSets 3..=3    First           Exclusive Bytes Handler;
    "ZINTER"               Shadow     2..=MANY Counted         Shared    Array Whole;
    "ZINTERCARD"           Shadow     2..=MANY Counted         Shared    Int   Whole;
    "ZINTERSTORE"          Shadow     3..=MANY FirstAndCounted Exclusive Int   Copy;
    "ZLEXCOUNT"            Shadow     3..=3    First           Shared    Int   Part;
    "ZMPOP"                Shadow     3..=MANY Counted         Exclusive Array Copy;
    "ZMSCORE"              Shadow     2..=MANY First           Shared    Array Part;
    "ZPOPMAX"              Shadow     1..=2    First           Exclusive Array Copy;
    "ZPOPMIN"              Shadow     1..=2    First           Exclusive Array Copy;
    "ZRANDMEMBER"          Shadow     1..=3    First           Shared    Bytes Whole;
    "ZRANGE"               SortedSets 3..=MANY First           Shared    Array Handler;
    "ZRANGEBYLEX"          SortedSets 3..=6    First           Shared    Array Handler;
    "ZRANGEBYSCORE"        SortedSets 3..=7    First           Shared    Array Handler;
    "ZRANGESTORE"          Shadow     4..=MANY FirstTwo        Exclusive Int   Copy;
    "ZRANK"                Shadow     2..=3    First           Shared    Int   Part;
    "ZREM"                 SortedSets 2..=MANY First           Exclusive Int   Handler;
    "ZREMRANGEBYLEX"       Shadow     3..=3    First           Exclusive Int   Copy;
    "ZREMRANGEBYRANK"      Shadow     3..=3    First           Exclusive Int   Copy;
    "ZREMRANGEBYSCORE"     Shadow     3..=3    First           Exclusive Int   Copy;
    "ZREVRANGE"            SortedSets 3..=4    First           Shared    Array Handler;
    "ZREVRANGEBYLEX"       SortedSets 3..=6    First           Shared    Array Handler;
    "ZREVRANGEBYSCORE"     SortedSets 3..=7    First           Shared    Array Handler;
    "ZREVRANK"             Shadow     2..=3    First           Shared    Int   Part;
    "ZSCAN"                Shadow     2..=6    First           Shared    Array Whole;
    "ZSCORE"               SortedSets 2..=2    First           Shared    Bytes Handler;
    "ZUNION"               Shadow     2..=MANY Counted         Shared    Array Whole;
    "ZUNIONSTORE"          Shadow     3..=MANY FirstAndCounted Exclusive Int   Copy;
}

/// The command of this name, whatever its case.
#[must_use]
pub fn find(name: &[u8]) -> Option<&'static Command> {
    /// The longest name of the table, `GEORADIUSBYMEMBER_RO`.
    const NAME_BYTES_MAX: usize = 20;
    let mut upper = [0; NAME_BYTES_MAX];
    let upper = upper.get_mut(..name.len())?;
    upper.copy_from_slice(name);
    upper.make_ascii_uppercase();
    let found = COMMANDS.binary_search_by(|command| command.name.as_bytes().cmp(upper)).ok()?;
    Some(&COMMANDS[found])
}
