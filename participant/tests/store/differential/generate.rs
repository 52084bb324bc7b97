//! Random commands, few keys, nasty values.

use std::collections::BTreeSet;
use std::fmt;

use assent_common::wire::branch::Mode;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// A command and its arguments.
pub(crate) type Op = Vec<Vec<u8>>;

/// One run: data to begin with, then transactions.
#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) setup: Vec<Op>,
    pub(crate) transactions: Vec<(Mode, Vec<Op>)>,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line =
            |op: &Op| op.iter().map(|w| w.escape_ascii().to_string()).collect::<Vec<_>>().join(" ");
        writeln!(f)?;
        for op in &self.setup {
            writeln!(f, "  setup: {}", line(op))?;
        }
        for (mode, ops) in &self.transactions {
            writeln!(f, "  {mode:?}:")?;
            for op in ops {
                writeln!(f, "    {}", line(op))?;
            }
        }
        Ok(())
    }
}

/// The keys of each family, preferred by its commands.
const KEYS: [[&[u8]; 2]; 6] = [
    [b"s0", b"s\xff\x00"],
    [b"h0", b"h1"],
    [b"t0", b"t1"],
    [b"z0", b"z1"],
    [b"l0", b"l1"],
    [b"x0", b"x1"],
];

/// A sorted set whose scores are all equal, for ranges by lex: with others their order is not specified.
const EQUAL: &str = "z-equal";

pub(crate) fn keys() -> BTreeSet<Vec<u8>> {
    let mut keys: BTreeSet<Vec<u8>> = KEYS.iter().flatten().map(|key| key.to_vec()).collect();
    keys.insert(EQUAL.as_bytes().to_vec());
    keys
}

/// A key of the family, mostly.
fn key(family: usize) -> BoxedStrategy<Vec<u8>> {
    let any: Vec<Vec<u8>> = KEYS.iter().flatten().map(|key| key.to_vec()).collect();
    prop_oneof![
        12 => select(KEYS[family].to_vec()).prop_map(<[u8]>::to_vec),
        1 => select(any),
    ]
    .boxed()
}

fn any_key() -> BoxedStrategy<Vec<u8>> {
    select(keys().into_iter().collect::<Vec<_>>()).boxed()
}

fn pick(words: &'static [&'static str]) -> BoxedStrategy<Vec<u8>> {
    select(words.to_vec()).prop_map(|word| word.as_bytes().to_vec()).boxed()
}

fn word(text: &'static str) -> BoxedStrategy<Vec<u8>> {
    Just(text.as_bytes().to_vec()).boxed()
}

/// The fields of hashes.
pub(crate) const MEMBERS: [&[u8]; 12] =
    [b"a", b"b", b"c", b"d", b"10", b"9", b"\xff", b"\x00a", b"", b"f0", b"f1", b"f2"];

fn value() -> BoxedStrategy<Vec<u8>> {
    prop_oneof![
        4 => (-20_i64..20).prop_map(|number| number.to_string().into_bytes()),
        3 => pick(&["", "0", "a", "b", "abc", "1.5", "0.1", "3.0", "1e17", "-0", "05", " 5", "inf", "1e5000",
            "9223372036854775807", "-9223372036854775808", "9007199254740993", "-9007199254740993",
            "1000000000000000", "-999999999999999", "17179869184.25"]),
        1 => select(vec![&b"\xff\x00"[..], b"\x00", b"\r\n"]).prop_map(<[u8]>::to_vec),
    ]
    .boxed()
}

fn member() -> BoxedStrategy<Vec<u8>> {
    prop_oneof![
        8 => pick(&["a", "b", "c", "d", "10", "9"]),
        1 => select(vec![&b"\xff"[..], b"\x00a", b""]).prop_map(<[u8]>::to_vec),
    ]
    .boxed()
}

fn int() -> BoxedStrategy<Vec<u8>> {
    prop_oneof![
        10 => (-20_i64..20).prop_map(|number| number.to_string().into_bytes()),
        2 => pick(&["9223372036854775807", "-9223372036854775808", "9007199254740993", "-9007199254740992",
            "1000000000000000", "-1000000000000001", "4611686018427387904", "-4611686018427387905",
            "9999999999", "10000000000", "99999999999999999"]),
        1 => pick(&["", "+1", "01", "1.0", "x", " 1", "9223372036854775808", "-0"]),
    ]
    .boxed()
}

fn index() -> BoxedStrategy<Vec<u8>> {
    prop_oneof![
        20 => (-5_i64..6).prop_map(|number| number.to_string().into_bytes()),
        1 => pick(&["9223372036854775807", "-9223372036854775808", "x"]),
    ]
    .boxed()
}

fn offset() -> BoxedStrategy<Vec<u8>> {
    prop_oneof![
        20 => (0_i64..12).prop_map(|number| number.to_string().into_bytes()),
        // Nothing between 4 MiB, the bound of a value here, and 512 MB, that of Redis.
        1 => pick(&["-1", "x", "536870912", "9223372036854775807"]),
    ]
    .boxed()
}

fn float() -> BoxedStrategy<Vec<u8>> {
    prop_oneof![
        10 => pick(&["1", "-1", "0.1", "0.2", "-0.30000000000000004", "1e3", "5.0e-1", ".5", "3.", "1000000000000000000",
            "0.00000000000000001", "123456789.123456789"]),
        1 => pick(&["inf", "-inf", "nan", "", "x", "1e400", "1e5000", " 1", "0x10"]),
    ]
    .boxed()
}

fn score() -> BoxedStrategy<Vec<u8>> {
    prop_oneof![
        10 => pick(&["0", "1", "2", "3", "1.5", "0.1", "0.2", "-1", "1e20", "-0", "17179869184.25", "3"]),
        2 => pick(&["inf", "-inf", "+inf", "1e308", "-1e308", "5e-324"]),
        1 => pick(&["nan", "", "x", "1e999", "1e-999", " 1"]),
    ]
    .boxed()
}

fn stream_id() -> BoxedStrategy<Vec<u8>> {
    prop_oneof![
        8 => (0_u64..8, 0_u64..3).prop_map(|(ms, seq)| format!("{ms}-{seq}").into_bytes()),
        2 => (1_u64..9).prop_map(|ms| ms.to_string().into_bytes()),
        1 => pick(&["18446744073709551615-18446744073709551614", "18446744073709551615-18446744073709551615",
            "9007199254740993-9007199254740993", "9999999999999999-9999999999999999"]),
    ]
    .boxed()
}

/// Times that pass long after the test, or have passed long ago.
fn seconds() -> BoxedStrategy<Vec<u8>> {
    prop_oneof![
        8 => (200_i64..90_000).prop_map(|number| number.to_string().into_bytes()),
        2 => pick(&["0", "-1", "-9223372036854775", "x", "", "9223372036854775807", "-9223372036854775808", "+5"]),
    ]
    .boxed()
}

fn milliseconds() -> BoxedStrategy<Vec<u8>> {
    prop_oneof![
        8 => (200_000_i64..90_000_000).prop_map(|number| number.to_string().into_bytes()),
        2 => pick(&["0", "-1", "x", "9223372036854775807"]),
    ]
    .boxed()
}

fn at_seconds() -> BoxedStrategy<Vec<u8>> {
    prop_oneof![6 => pick(&["4102444800", "4102444801", "5000000000"]), 2 => pick(&["1", "0", "-5", "x"])].boxed()
}

fn at_milliseconds() -> BoxedStrategy<Vec<u8>> {
    prop_oneof![6 => pick(&["4102444800000", "4102444800001"]), 2 => pick(&["1", "0", "-5", "x"])]
        .boxed()
}

/// Commands of these words.
fn op(words: Vec<BoxedStrategy<Vec<u8>>>) -> BoxedStrategy<Op> {
    words.boxed()
}

/// The same, with more words behind.
fn op_and(
    words: Vec<BoxedStrategy<Vec<u8>>>,
    more: BoxedStrategy<Vec<Vec<u8>>>,
) -> BoxedStrategy<Op> {
    (words, more)
        .prop_map(|(mut words, more)| {
            words.extend(more);
            words
        })
        .boxed()
}

fn some(item: BoxedStrategy<Vec<u8>>) -> BoxedStrategy<Vec<Vec<u8>>> {
    vec(item, 1..4).boxed()
}

fn pairs(a: BoxedStrategy<Vec<u8>>, b: BoxedStrategy<Vec<u8>>) -> BoxedStrategy<Vec<Vec<u8>>> {
    vec((a, b), 1..4)
        .prop_map(|pairs| pairs.into_iter().flat_map(|(a, b)| [a, b]).collect())
        .boxed()
}

fn flags(words: &'static [&'static str], most: usize) -> BoxedStrategy<Vec<Vec<u8>>> {
    prop_oneof![2 => Just(Vec::new()), 3 => vec(pick(words), 0..=most)].boxed()
}

fn joined(parts: Vec<BoxedStrategy<Vec<Vec<u8>>>>) -> BoxedStrategy<Vec<Vec<u8>>> {
    parts.prop_map(|parts| parts.concat()).boxed()
}

fn strings() -> BoxedStrategy<Op> {
    let k = || key(0);
    let ttl = prop_oneof![
        3 => Just(Vec::new()),
        1 => (word("EX"), seconds()).prop_map(|(a, b)| vec![a, b]),
        1 => (word("px"), milliseconds()).prop_map(|(a, b)| vec![a, b]),
        1 => (word("EXAT"), at_seconds()).prop_map(|(a, b)| vec![a, b]),
        1 => (word("PXAT"), at_milliseconds()).prop_map(|(a, b)| vec![a, b]),
        1 => Just(vec![b"KEEPTTL".to_vec()]),
    ]
    .boxed();
    prop_oneof![
        op(vec![word("GET"), k()]),
        op_and(vec![word("SET"), k(), value()], joined(vec![flags(&["NX", "xx", "GET"], 2), ttl])),
        op(vec![word("SETNX"), k(), value()]),
        op(vec![word("GETSET"), k(), value()]),
        op(vec![word("GETDEL"), k()]),
        op(vec![word("APPEND"), k(), value()]),
        op(vec![pick(&["INCR", "DECR"]), k()]),
        op(vec![pick(&["INCRBY", "DECRBY"]), k(), int()]),
        op(vec![word("INCRBYFLOAT"), k(), float()]),
        op(vec![word("STRLEN"), k()]),
        op(vec![word("GETRANGE"), k(), index(), index()]),
        op(vec![word("SETRANGE"), k(), offset(), value()]),
        op_and(vec![word("MGET")], some(k())),
        op_and(vec![word("MSET")], pairs(k(), value())),
    ]
    .boxed()
}

fn generic() -> BoxedStrategy<Op> {
    let conditions = || flags(&["NX", "XX", "GT", "lt"], 1);
    prop_oneof![
        op_and(vec![pick(&["DEL", "UNLINK"])], vec(any_key(), 1..3).boxed()),
        op_and(vec![word("EXISTS")], vec(any_key(), 1..4).boxed()),
        op(vec![word("TYPE"), any_key()]),
        op_and(vec![word("EXPIRE"), any_key(), seconds()], conditions()),
        op_and(vec![word("PEXPIRE"), any_key(), milliseconds()], conditions()),
        op_and(vec![word("EXPIREAT"), any_key(), at_seconds()], conditions()),
        op_and(
            vec![word("PEXPIREAT"), any_key(), at_milliseconds()],
            flags(&["XX", "GT", "NX", "LT"], 2)
        ),
        op(vec![word("PERSIST"), any_key()]),
        op(vec![pick(&["TTL", "PTTL"]), any_key()]),
    ]
    .boxed()
}

fn hashes() -> BoxedStrategy<Op> {
    let k = || key(1);
    prop_oneof![
        2 => op_and(vec![word("HSET"), k()], pairs(member(), value())),
        1 => op(vec![word("HSETNX"), k(), member(), value()]),
        1 => op(vec![pick(&["HGET", "HEXISTS"]), k(), member()]),
        1 => op_and(vec![word("HMGET"), k()], some(member())),
        2 => op(vec![pick(&["HGETALL", "HLEN"]), k()]),
        2 => op_and(vec![word("HDEL"), k()], some(member())),
        1 => op(vec![word("HINCRBY"), k(), member(), int()]),
        1 => op(vec![word("HINCRBYFLOAT"), k(), member(), float()]),
    ]
    .boxed()
}

/// That a field expires, for the data to begin with: no branch can say so.
fn field_expiry() -> BoxedStrategy<Op> {
    let field = prop_oneof![4 => member(), 1 => pick(&["f0", "f1", "f2"])];
    let at = at_milliseconds();
    op(vec![word("HPEXPIREAT"), key(1), at, word("FIELDS"), word("1"), field.boxed()])
}

fn sets() -> BoxedStrategy<Op> {
    let k = || key(2);
    prop_oneof![
        2 => op_and(vec![word("SADD"), k()], some(member())),
        2 => op_and(vec![word("SREM"), k()], some(member())),
        1 => op(vec![word("SISMEMBER"), k(), member()]),
        2 => op(vec![pick(&["SMEMBERS", "SCARD"]), k()]),
    ]
    .boxed()
}

fn zsets() -> BoxedStrategy<Op> {
    let k = || key(3);
    let options = || flags(&["REV", "WITHSCORES"], 2);
    let limit = || {
        prop_oneof![
            Just(Vec::new()),
            (index(), index()).prop_map(|(a, b)| vec![b"LIMIT".to_vec(), a, b]),
        ]
        .boxed()
    };
    let bound = || {
        prop_oneof![6 => pick(&["0", "1", "(1", "2", "(2", "-inf", "+inf", "(inf", "inf", "(0.1"]), 1 => pick(&["x"])]
            .boxed()
    };
    let lex = || {
        prop_oneof![6 => pick(&["-", "+", "[a", "(a", "[c", "(d", "["]), 1 => pick(&["a"])].boxed()
    };
    prop_oneof![
        3 => op_and(vec![word("ZADD"), k()], joined(vec![flags(&["NX", "XX", "GT", "LT", "CH"], 2), pairs(score(), member())])),
        2 => op_and(vec![word("ZADD"), word(EQUAL)], pairs(word("1"), member())),
        1 => op_and(vec![word("ZREM"), word(EQUAL)], some(member())),
        1 => op_and(vec![word("ZADD"), k()], joined(vec![flags(&["incr", "XX", "GT", "LT", "CH", "NX"], 3), (score(), member()).prop_map(|(a, b)| vec![a, b]).boxed()])),
        2 => op_and(vec![word("ZREM"), k()], some(member())),
        2 => op(vec![word("ZINCRBY"), k(), score(), member()]),
        1 => op(vec![word("ZSCORE"), k(), member()]),
        1 => op(vec![word("ZCARD"), k()]),
        2 => op_and(vec![word("ZRANGE"), k(), index(), index()], options()),
        2 => op_and(vec![word("ZRANGE"), k(), bound(), bound(), word("BYSCORE")], joined(vec![options(), limit()])),
        2 => op_and(vec![word("ZRANGE"), word(EQUAL), lex(), lex(), word("BYLEX")], joined(vec![flags(&["REV"], 1), limit()])),
    ]
    .boxed()
}

fn lists() -> BoxedStrategy<Op> {
    let k = || key(4);
    let item = || pick(&["a", "b", "c"]);
    prop_oneof![
        3 => op_and(vec![pick(&["LPUSH", "RPUSH"]), k()], some(item())),
        2 => op(vec![pick(&["LPOP", "RPOP"]), k()]),
        1 => op(vec![pick(&["LPOP", "RPOP"]), k(), index()]),
        2 => op(vec![word("LRANGE"), k(), index(), index()]),
        1 => op(vec![word("LLEN"), k()]),
        // Redis from 7.2 and Valkey cut an index to 32 bits: LSET at 2^63 - 1 sets the last element. We say out_of_range.
        2 => op(vec![word("LSET"), k(), (-5_i64..6).prop_map(|n| n.to_string().into_bytes()).boxed(), value()]),
        // The least integer of 64 bits is refused by some servers, and by us.
        1 => op(vec![word("LREM"), k(), (-5_i64..6).prop_map(|n| n.to_string().into_bytes()).boxed(), item()]),
        1 => op(vec![word("LTRIM"), k(), index(), index()]),
    ]
    .boxed()
}

fn streams() -> BoxedStrategy<Op> {
    let k = || key(5);
    let trim = || {
        prop_oneof![
            4 => Just(Vec::new()),
            1 => index().prop_map(|n| vec![b"MAXLEN".to_vec(), n]),
            1 => index().prop_map(|n| vec![b"maxlen".to_vec(), b"=".to_vec(), n]),
            1 => Just(vec![b"NOMKSTREAM".to_vec()]),
        ]
        .boxed()
    };
    let id = prop_oneof![
        6 => stream_id(),
        1 => (0_u64..8).prop_map(|ms| format!("{ms}-*").into_bytes()),
        1 => word("*"),
        1 => pick(&["0-0", "x", "-", "5-5-5"]),
    ];
    let start = prop_oneof![2 => word("-"), 2 => stream_id(), 1 => stream_id().prop_map(|id| [b"(".to_vec(), id].concat())];
    let end = prop_oneof![2 => word("+"), 2 => stream_id(), 1 => stream_id().prop_map(|id| [b"(".to_vec(), id].concat())];
    let count = prop_oneof![Just(Vec::new()), index().prop_map(|n| vec![b"COUNT".to_vec(), n])];
    prop_oneof![
        5 => op_and(vec![word("XADD"), k()], joined(vec![trim(), id.prop_map(|id| vec![id]).boxed(), pairs(member(), value())])),
        1 => op(vec![word("XLEN"), k()]),
        2 => op_and(vec![word("XRANGE"), k(), start.boxed(), end.boxed()], count.boxed()),
        2 => op_and(vec![word("XDEL"), k()], some(stream_id())),
    ]
    .boxed()
}

fn any_op() -> BoxedStrategy<Op> {
    prop_oneof![
        3 => strings(), 3 => generic(), 3 => hashes(), 2 => sets(), 3 => zsets(), 3 => lists(), 3 => streams(),
    ]
    .boxed()
}

/// A transaction of one family and the generic commands, where ops meet each other; or of all.
fn ops() -> BoxedStrategy<Vec<Op>> {
    let focused =
        |family: BoxedStrategy<Op>| vec(prop_oneof![6 => family, 1 => generic()], 1..10).boxed();
    prop_oneof![
        focused(strings()),
        focused(hashes()),
        focused(sets()),
        focused(zsets()),
        focused(lists()),
        focused(streams()),
        vec(any_op(), 1..10).boxed(),
    ]
    .boxed()
}

pub(crate) fn case() -> BoxedStrategy<Case> {
    let mode = select(vec![Mode::TwoPhase, Mode::TwoPhase, Mode::OnePhase]);
    let any_setup = match crate::harness::fields_expire() {
        true => prop_oneof![8 => any_op(), 1 => field_expiry()].boxed(),
        false => any_op(),
    };
    // Stars in the setup would give the two servers different ids.
    let setup = vec(any_setup, 0..14).prop_map(|ops| {
        ops.into_iter().filter(|op| !op.iter().any(|word| word == b"*")).collect::<Vec<_>>()
    });
    (setup, vec((mode, ops()), 1..4))
        .prop_map(|(setup, transactions)| Case { setup, transactions })
        .boxed()
}
