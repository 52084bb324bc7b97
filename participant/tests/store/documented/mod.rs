//! The commands that Redis itself runs for a branch, called as the server's own documentation says
//! (`COMMAND DOCS`), against the same commands on a second server: the same replies, the same data,
//! the same expiries, or a refusal that says why.

mod docs;

use std::collections::{BTreeMap, BTreeSet};

use assent_common::code::ErrorCode;
use assent_common::command::{Access, COMMANDS, OpRequest, RunBy, ValidatedBranch};
use assent_common::outcome::{Call, Prepared, Refusal};
use assent_common::wire::branch::Mode;
use assent_participant::store::{Store, StoreOptions};
use redis::Value;
use serde_json::Value as Json;

use self::docs::{ALL, Documented};
use crate::differential::{Expiry, data, expiries, json, plain_run};
use crate::harness::{Ask as _, CLEAN, Numbers, Plain, Redis, prepare, prepared, tx};

/// Those that a handler runs in the words of a later command.
const OLDER: [&str; 9] = [
    "HMSET",
    "PSETEX",
    "SETEX",
    "SUBSTR",
    "ZRANGEBYLEX",
    "ZRANGEBYSCORE",
    "ZREVRANGE",
    "ZREVRANGEBYLEX",
    "ZREVRANGEBYSCORE",
];

/// Calls of each command.
const CALLS_EACH: u64 = 12;

/// They choose at random: the test of choices is theirs.
const CHOOSE: [&str; 4] = ["HRANDFIELD", "SPOP", "SRANDMEMBER", "ZRANDMEMBER"];

/// What they reply has no order.
const UNORDERED: [&str; 9] =
    ["HKEYS", "HSCAN", "HVALS", "SDIFF", "SINTER", "SSCAN", "SUNION", "SORT", "ZSCAN"];

/// Refusals that say why what a server does is not done in a transaction.
const NAMED: [&str; 7] = [
    "names keys that are not known",
    "maximum allowed size",
    "more than 53 bits",
    "only REPLACE may follow",
    "would hold locks",
    "is not within a double",
    "the expire time",
];

/// Ops before and behind, so that copies are made of what a branch wrote, and handlers see copies.
const OTHERS: [&str; 12] = [
    "SET s0 other",
    "INCR s1",
    "HSET h0 m1 new m9 9",
    "HDEL h1 m1",
    "RPUSH l0 m9",
    "LPOP l1",
    "SADD t0 m9",
    "SREM t1 m1",
    "ZADD z0 9 m9",
    "ZREM z1 m1",
    "XADD x0 50-1 f v",
    "DEL none s1",
];

const SETUP: [&str; 28] = [
    "SET s0 hello",
    "SET s1 10",
    "PEXPIREAT s1 4102444800000",
    "HSET h0 m1 1 m2 2 m3 hello",
    "HSET h1 m1 x",
    "PEXPIREAT h1 4102444800000",
    "RPUSH l0 m1 m2 m3 m1 10",
    "RPUSH l1 3 1 2",
    "SADD t0 m1 m2 m3",
    "SADD t1 m1 10",
    "ZADD z0 1 m1 2 m2 3 m3",
    "ZADD z1 1 m1",
    "PEXPIREAT z1 4102444800000",
    "XADD x0 1-1 f a",
    "XADD x0 2-1 f b",
    "XADD x0 3-1 f c",
    "XGROUP CREATE x0 gr 0",
    "XGROUP CREATECONSUMER x0 gr c1",
    "XREADGROUP GROUP gr c1 COUNT 2 STREAMS x0 >",
    "XADD x1 1-1 f a",
    "XGROUP CREATE x1 gs 0",
    "XGROUP CREATE x1 gr 0",
    "GEOADD g0 13.361389 38.115556 m1 15.087269 37.502669 m2",
    "GEOADD g1 2.35 48.85 m1",
    "PFADD p0 m1 m2 m3",
    "PFADD p1 m1 hello",
    "SETBIT none 3 1",
    "DEL none",
];

fn op(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

fn bytes(ops: &[Vec<String>]) -> Vec<Vec<Vec<u8>>> {
    let of = |op: &Vec<String>| op.iter().map(|word| word.clone().into_bytes()).collect();
    ops.iter().map(of).collect()
}

/// The data of a server, and when its keys expire.
type Found = (Vec<(String, Vec<Json>)>, Vec<Expiry>);

struct Bench {
    store: Store,
    ours: Plain,
    theirs: Plain,
    keys: BTreeSet<Vec<u8>>,
    next: u64,
    /// How often each command was committed.
    committed: BTreeMap<String, u64>,
}

/// Sorts what has no order, and takes times that are close for equal.
fn same(name: &str, ours: &Json, theirs: &Json) -> bool {
    const CLOSE: i64 = 100_000;
    match (ours, theirs) {
        // A payload has the order of a set, and the time of a delivery.
        (Json::Object(_) | Json::String(_), Json::Object(_) | Json::String(_))
            if name == "DUMP" =>
        {
            true
        }
        (Json::Array(ours), Json::Array(theirs)) if UNORDERED.contains(&name) => {
            let sorted = |items: &[Json]| {
                let mut items: Vec<String> = items.iter().map(sorted_text).collect();
                items.sort();
                items
            };
            sorted(ours) == sorted(theirs)
        }
        (Json::Array(ours), Json::Array(theirs)) => {
            ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(a, b)| same(name, a, b))
        }
        // How long ago something was, and when it will be, by two clocks that were asked in turn.
        (Json::Number(a), Json::Number(b)) if is_timed(name) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => a == b || a >= 0 && b >= 0 && (a - b).abs() < CLOSE,
            _ => false,
        },
        _ => ours == theirs,
    }
}

fn sorted_text(item: &Json) -> String {
    match item {
        Json::Array(items) => {
            let mut items: Vec<String> = items.iter().map(sorted_text).collect();
            items.sort();
            items.join(" ")
        }
        other => other.to_string(),
    }
}

fn is_timed(name: &str) -> bool {
    name.contains("TTL") || name.contains("EXPIRE") || name == "XINFO" || name == "XPENDING"
}

impl Bench {
    async fn reset(&mut self) {
        let setup: Vec<_> = SETUP.iter().map(|line| op(line)).collect();
        let mut del = op("DEL");
        del.extend(ALL.iter().map(|key| (*key).to_owned()));
        for plain in [&self.ours, &self.theirs] {
            plain_run(plain, &bytes(std::slice::from_ref(&del))).await;
            for reply in plain_run(plain, &bytes(&setup)).await {
                reply.unwrap();
            }
        }
    }

    async fn check(&mut self, mode: Mode, ops: &[Vec<String>]) -> Result<(), String> {
        self.reset().await;
        self.next += 1;
        let tx = tx(self.next);
        let before = self.found(&self.ours).await;
        let theirs = plain_run(&self.theirs, &bytes(ops)).await;
        let request = |op: &Vec<String>| OpRequest::new(op.iter().map(String::as_str));
        let branch = match ValidatedBranch::new(ops.iter().map(request).collect()) {
            Ok(branch) => branch,
            Err(refusal) => return refused(&refusal, &theirs),
        };
        let call = prepared(self.store.send(vec![prepare(tx, mode, branch)]).await.remove(0));
        let replies = match call {
            Call::Applied(Prepared::Yes(vote)) => vote.replies,
            Call::Applied(Prepared::Committed(done)) => done.replies,
            Call::Refused(refusal) => {
                if self.found(&self.ours).await != before {
                    return Err(format!("refused, and changed data: {refusal:?}"));
                }
                return refused(&refusal, &theirs);
            }
            other => return Err(format!("{other:?}")),
        };
        if let Some(error) = theirs.iter().find_map(|reply| reply.as_ref().err()) {
            return Err(format!("done, and Redis says {error}"));
        }
        if mode == Mode::TwoPhase {
            if self.found(&self.ours).await != before {
                return Err("the prepare changed data".to_owned());
            }
            let applied = self.store.commit(tx).await;
            if applied != CLEAN {
                return Err(format!("{applied:?}"));
            }
        }
        for op in ops {
            *self.committed.entry(op[0].clone()).or_default() += 1;
        }
        let replies: Vec<Json> = serde_json::from_str(&replies).unwrap();
        for ((ours, theirs), op) in replies.iter().zip(&theirs).zip(ops) {
            let theirs = json(theirs.as_ref().unwrap());
            if !same(&op[0], ours, &theirs) {
                return Err(format!("reply to {}: {ours}, Redis: {theirs}", op.join(" ")));
            }
        }
        // It renews what the key has stored of its count, which an op that only reads does not.
        if ops.iter().any(|op| op[0] == "PFCOUNT") {
            return Ok(());
        }
        let (ours, theirs) = (self.found(&self.ours).await, self.found(&self.theirs).await);
        let of_key = |(key, found): &(String, Vec<Json>)| (key.clone(), Json::from(found.clone()));
        let mut pairs = ours.0.iter().map(of_key).zip(theirs.0.iter().map(of_key));
        // Among them are times at which fields of a hash expire.
        let differ =
            |((key, ours), (other, theirs)): &_| key != other || !same("TTL", ours, theirs);
        match pairs.find(differ) {
            Some((ours, theirs)) => Err(format!("data: {ours:?}, Redis: {theirs:?}")),
            None if ours.0.len() != theirs.0.len() => Err("other keys".to_owned()),
            None if ours.1 != theirs.1 => Err(format!("expiry: {:?}, {:?}", ours.1, theirs.1)),
            None => Ok(()),
        }
    }

    async fn found(&self, plain: &Plain) -> Found {
        (data(plain, &self.keys, false).await, expiries(plain, &self.keys).await)
    }

    /// Nothing of a copy is left.
    async fn copies(&self) -> Value {
        let op = bytes(&[op("KEYS *shadow*")]);
        plain_run(&self.ours, &op).await.remove(0).unwrap()
    }
}

fn refused(refusal: &Refusal, theirs: &[Result<Value, String>]) -> Result<(), String> {
    let is_named = NAMED.iter().any(|why| refusal.detail.contains(why));
    if is_named || theirs.iter().any(Result::is_err) {
        return Ok(());
    }
    Err(format!("refused: {refusal:?}; Redis: {theirs:?}"))
}

/// The documentation of the set, by a server that has it: Redis 6.2 has none.
async fn documented(theirs: &Plain) -> Vec<Documented> {
    let names = COMMANDS.iter().filter(|command| {
        let is_here = command.run_by != RunBy::Handler || OLDER.contains(&command.name);
        is_here && !CHOOSE.contains(&command.name)
    });
    let mut ask = op("COMMAND DOCS");
    ask.extend(names.map(|command| command.name.to_owned()));
    let known = plain_run(theirs, &bytes(std::slice::from_ref(&ask))).await.remove(0);
    match known {
        Ok(answer) => Documented::all(&answer),
        Err(_) => {
            let newer = assent_servers::named("redis-7.0").expect("it has documentation");
            let server = Redis::on(&newer, &[]);
            let plain = server.plain().await;
            let answer = plain_run(&plain, &bytes(&[ask])).await.remove(0).unwrap();
            Documented::all(&answer)
        }
    }
}

async fn bench(ours: &Redis, theirs: &Redis) -> Bench {
    let mut options = StoreOptions::new(ours.url());
    // What is compared is what the scripts do, not what the disk does.
    options.allow_unsafe_redis = true;
    Bench {
        store: Store::connect(options).await.unwrap(),
        ours: ours.plain().await,
        theirs: theirs.plain().await,
        keys: ALL.iter().map(|key| key.as_bytes().to_vec()).collect(),
        next: 0,
        committed: BTreeMap::new(),
    }
}

/// Promise: a command that has no handler does what Redis does, or is refused by name; alone, and
/// between ops that have handlers.
#[tokio::test]
async fn a_command_that_redis_runs_does_what_its_documentation_says() {
    let (ours, theirs) = (Redis::with(&[]), Redis::with(&[]));
    let mut bench = bench(&ours, &theirs).await;
    let documented = documented(&bench.theirs).await;
    let mut numbers = Numbers(7);
    let mut failures = Vec::new();
    for command in &documented {
        for n in 0..CALLS_EACH {
            let mut ops = vec![command.call(&mut numbers)];
            let other = |numbers: &mut Numbers| {
                op(OTHERS[usize::try_from(numbers.below(OTHERS.len() as u64)).unwrap()])
            };
            if n % 3 == 1 {
                ops.insert(0, other(&mut numbers));
            }
            if n % 3 == 2 {
                ops.push(other(&mut numbers));
                ops.push(command.call(&mut numbers));
            }
            let mode = if n % 2 == 0 { Mode::TwoPhase } else { Mode::OnePhase };
            if let Err(why) = bench.check(mode, &ops).await {
                let _not_there = bench.store.abort(tx(bench.next)).await;
                let ops: Vec<_> = ops.iter().map(|op| op.join(" ")).collect();
                failures.push(format!("{mode:?} {}\n    {why}", ops.join("; ")));
            }
        }
    }
    assert!(failures.is_empty(), "{} differ:\n{}", failures.len(), failures.join("\n"));
    assert_eq!(bench.copies().await, Value::Array(Vec::new()));
    // A command that never succeeds was not compared.
    let never: Vec<_> = documented
        .iter()
        .filter(|command| !bench.committed.contains_key(&command.words[0]))
        .map(|command| command.words.join(" "))
        .collect();
    assert!(never.is_empty() || assent_servers::chosen().is_redis_6_2(), "never done: {never:?}");
}

/// Commands that some servers have and others have not: each server that is tested on lacks one.
const OF_SOME: [&str; 4] =
    ["DELIFEQ s0 hello", "MSETEX 2 s0 m1 none m2", "XACKDEL x0 gr IDS 1 1-1", "LMPOP 1 l0 LEFT"];

/// Promise: a command that the participant's server does not have is refused by its name, and
/// leaves nothing; one that it has is done.
#[tokio::test]
async fn a_command_that_the_server_does_not_have_is_refused_by_its_name() {
    let (ours, theirs) = (Redis::with(&[]), Redis::with(&[]));
    let mut bench = bench(&ours, &theirs).await;
    let mut lacking = 0;
    for line in OF_SOME {
        let words = op(line);
        let known: Vec<Value> = bench.ours.run(&["COMMAND", "INFO", &words[0]]).await;
        bench.check(Mode::TwoPhase, std::slice::from_ref(&words)).await.unwrap();
        let is_done = bench.committed.contains_key(&words[0]);
        assert_eq!(is_done, known != [Value::Nil], "{line}");
        if is_done {
            continue;
        }
        lacking += 1;
        let branch = ValidatedBranch::new(vec![OpRequest::new(line.split(' '))]).unwrap();
        let told = prepare(tx(100 + lacking), Mode::OnePhase, branch);
        let told = prepared(bench.store.send(vec![told]).await.remove(0));
        let Call::Refused(refusal) = told else { panic!("{line}: {told:?}") };
        assert_eq!(refusal.code, ErrorCode::CommandRefused, "{refusal:?}");
        let why = format!("unknown command '{}' on the participant's Redis", words[0]);
        assert!(refusal.detail.contains(&why), "{refusal:?}");
    }
    assert!(lacking > 0, "this server has all of them");
    assert_eq!(bench.copies().await, Value::Array(Vec::new()));
}

/// Promise: what was chosen at random is what the reply says and what is applied.
#[tokio::test]
async fn what_is_chosen_at_random_is_chosen_once() {
    let (ours, theirs) = (Redis::with(&[]), Redis::with(&[]));
    let mut bench = bench(&ours, &theirs).await;
    bench.reset().await;
    let lines = ["SPOP t0 2", "SRANDMEMBER t0 -3", "HRANDFIELD h0 2 WITHVALUES", "ZRANDMEMBER z0"];
    let ops: Vec<OpRequest> = lines.iter().map(|line| OpRequest::new(line.split(' '))).collect();
    let branch = ValidatedBranch::new(ops).unwrap();
    let call =
        prepared(bench.store.send(vec![prepare(tx(1), Mode::TwoPhase, branch)]).await.remove(0));
    let Call::Applied(Prepared::Yes(vote)) = call else { panic!("{call:?}") };
    assert_eq!(bench.store.commit(tx(1)).await, CLEAN);
    let replies: Vec<Json> = serde_json::from_str(&vote.replies).unwrap();
    let left: Vec<String> = bench.ours.run(&["SMEMBERS", "t0"]).await;
    let popped: Vec<&str> =
        replies[0].as_array().unwrap().iter().map(|member| member.as_str().unwrap()).collect();
    assert_eq!(popped.len(), 2);
    let mut all: Vec<&str> = popped.into_iter().chain(left.iter().map(String::as_str)).collect();
    all.sort_unstable();
    assert_eq!(all, ["m1", "m2", "m3"]);
    // With repetitions, of what was left: one member.
    assert_eq!(replies[1], Json::from(vec![left[0].clone(); 3]));
    assert_eq!(replies[2].as_array().unwrap().len(), 4);
    assert!(replies[3].as_str().unwrap().starts_with('m'));
}

/// Promise: a key that is too large for a copy is refused, with the setting that says how large it
/// may be, and nothing is locked.
#[tokio::test]
async fn a_key_that_is_too_large_for_a_copy_is_refused_by_the_name_of_the_setting() {
    let ours = Redis::with(&[]);
    let mut options = StoreOptions::new(ours.url());
    options.allow_unsafe_redis = true;
    options.shadow_bytes_max = 2_000;
    let store = Store::connect(options).await.unwrap();
    let mut plain = ours.plain().await;
    let () = plain.run(&["SET", "large", &"x".repeat(3_000)]).await;
    let () = plain.run(&["SET", "small", "x"]).await;
    for (n, line) in
        ["SETBIT large 7 1", "BITCOUNT large", "BITOP NOT small large"].iter().enumerate()
    {
        let n = u64::try_from(n).unwrap();
        let branch = ValidatedBranch::new(vec![OpRequest::new(line.split(' '))]).unwrap();
        let call =
            prepared(store.send(vec![prepare(tx(10 + n), Mode::TwoPhase, branch)]).await.remove(0));
        let Call::Refused(refusal) = call else { panic!("{line}: {call:?}") };
        assert!(refusal.detail.contains("shadow_bytes_max"), "{line}: {refusal:?}");
    }
    // A part is read of a key of any size.
    let branch = ValidatedBranch::new(vec![OpRequest::new(["GETBIT", "large", "7"])]).unwrap();
    let call = prepared(store.send(vec![prepare(tx(20), Mode::TwoPhase, branch)]).await.remove(0));
    assert!(matches!(call, Call::Applied(_)), "{call:?}");
}

/// Promise: what an op that runs on copies costs is counted each time, before it is spent; and what
/// it makes is no larger than what it may work on.
#[tokio::test]
async fn ops_on_copies_are_counted_each_time() {
    let ours = Redis::with(&[]);
    let mut options = StoreOptions::new(ours.url());
    options.allow_unsafe_redis = true;
    let store = Store::connect(options).await.unwrap();
    let mut plain = ours.plain().await;
    let members = "for n = 1, 9000 do redis.call(ARGV[1], KEYS[1], n) end";
    for (command, key) in [("SADD", "set"), ("RPUSH", "list")] {
        let () = plain.run(&["EVAL", members, "1", key, command]).await;
    }
    let all = vec!["set"; 18].join(" ");
    let cases = [
        (990, format!("SUNIONSTORE dst {all}"), ErrorCode::TooMuchWork),
        (500, "SORT list STORE dst".to_owned(), ErrorCode::TooMuchWork),
        (200, "SORT list ALPHA LIMIT 0 1".to_owned(), ErrorCode::TooMuchWork),
        (500, "COPY set dst REPLACE".to_owned(), ErrorCode::TooMuchWork),
        (1, "SETBIT far 33554431 1".to_owned(), ErrorCode::TooLarge),
    ];
    for (n, (times, line, code)) in (30..).zip(cases) {
        let ops = vec![OpRequest::new(line.split(' ')); times];
        let branch = ValidatedBranch::new(ops).unwrap();
        let told = store.send(vec![prepare(tx(n), Mode::TwoPhase, branch)]).await.remove(0);
        let Call::Refused(refusal) = prepared(told) else { panic!("{line}: taken") };
        assert_eq!(refusal.code, code, "{line}: {refusal:?}");
    }
    // An error of Redis names the key, and not its copy.
    let line = "XGROUP SETID stream g 0";
    let () = plain.run(&["XADD", "stream", "1-1", "f", "v"]).await;
    let branch = ValidatedBranch::new(vec![OpRequest::new(line.split(' '))]).unwrap();
    let told = store.send(vec![prepare(tx(50), Mode::TwoPhase, branch)]).await.remove(0);
    let Call::Refused(refusal) = prepared(told) else { panic!("taken") };
    assert!(refusal.detail.contains("'stream'"), "{refusal:?}");
}

/// Promise: a copy never reaches the file that the server starts from.
#[tokio::test]
async fn a_copy_never_reaches_the_append_only_file() {
    let ours = Redis::start();
    let store = ours.store().await;
    let mut plain = ours.plain().await;
    let () = plain.run(&["ZADD", "z", "1", "m1", "2", "m2"]).await;
    let branch = ValidatedBranch::new(vec![OpRequest::new(["ZPOPMIN", "z"])]).unwrap();
    let call = prepared(store.send(vec![prepare(tx(1), Mode::TwoPhase, branch)]).await.remove(0));
    assert!(matches!(call, Call::Applied(Prepared::Yes(_))), "{call:?}");
    assert_eq!(store.commit(tx(1)).await, CLEAN);
    let left: Vec<String> = plain.run(&["ZRANGE", "z", "0", "-1"]).await;
    assert_eq!(left, ["m2"]);
    let (_, dir): (String, String) = plain.run(&["CONFIG", "GET", "dir"]).await;
    let file = std::fs::read(assent_servers::file::appended(dir.as_ref())).unwrap();
    let has = |text: &str| file.windows(text.len()).any(|part| part == text.as_bytes());
    assert!(has("RESTORE"), "no write in the file");
    // Redis 6.2 keeps the scripts there, too: their text does not have the name as a whole.
    assert!(!has("assent:ctl:shadow:"), "a copy in the file");
}

/// Promise: nothing that writes runs on the key itself.
#[test]
fn what_runs_on_the_key_itself_only_reads() {
    for command in COMMANDS.iter().filter(|command| command.run_by != RunBy::Handler) {
        let reads = matches!(command.run_by, RunBy::Part | RunBy::Whole);
        assert!(!reads || command.access == Access::Shared, "{command} writes to the key itself");
    }
}
