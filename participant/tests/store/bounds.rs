//! What a branch may cost Redis, which answers nobody else meanwhile: work and bytes are bounded before they are spent. What
//! is measured are commands that Redis counted, and refusals; how long its scripts took is printed only.

use assent_common::code::ErrorCode;
use assent_common::limits;
use assent_common::outcome::{Call, Prepared};
use assent_common::wire::branch::Mode;

use crate::harness::{
    Ask as _, CLEAN, Expected as _, Plain, Redis, committed, ops, prepare, prepared, tx, vote,
};

/// A collection of each type, of as many elements as an op may read, and strings as long as one may be.
const FILL: [&str; 7] = [
    "redis.call('UNLINK', 'z', 'l', 'h', 's', 'x', 'new')",
    "for i = 1, 9900 do redis.call('ZADD', 'z', i, 'member:' .. i) end",
    "for i = 1, 9900 do redis.call('RPUSH', 'l', 'element:' .. i) end",
    "for i = 1, 9900 do redis.call('HSET', 'h', 'field:' .. i, i) end",
    "for i = 1, 9900 do redis.call('SADD', 's', 'member:' .. i) end",
    "for i = 1, 9900 do redis.call('XADD', 'x', i .. '-0', 'f', i) end",
    "for _, key in ipairs({'big', 'big2'}) do redis.call('SET', key, string.rep('v', 4194304)) end
     redis.call('HSET', 'hb', 'f', string.rep('v', 4194304))",
];

async fn fill(plain: &mut Plain) {
    for part in FILL {
        let () = plain.run(&["EVAL", part, "0"]).await;
    }
}

fn repeated(first: &[&str], line: impl Fn(usize) -> String, count: usize) -> Vec<String> {
    first.iter().map(|&line| line.to_owned()).chain((0..count).map(line)).collect()
}

async fn prepare_all(
    store: &assent_participant::store::Store,
    n: u64,
    lines: &[String],
) -> Call<Prepared> {
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    store.prepare(tx(n), &lines).await
}

/// H1: each of these read the whole collection again for each op, or for each word of it.
#[tokio::test]
async fn a_collection_is_read_once_for_all_ops_of_a_branch() {
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    fill(&mut plain).await;
    let deleted: Vec<String> = (2_000..2_100).map(|id| format!("{id}-0")).collect();
    let trimmed =
        vec!["XADD x MAXLEN 9000 20000-0 f v".into(), format!("XDEL x {}", deleted.join(" "))];
    let cases = [
        ("xrevrange", trimmed),
        ("xrevrange", repeated(&["XADD x 20000-0 f v"], |_| "XRANGE x 5000 5001".into(), 150)),
        ("zrange", repeated(&["ZADD z 1 new"], |_| "ZRANGE z 0 0".into(), 150)),
        (
            "zrange",
            repeated(&["ZREM z member:7"], |_| "ZRANGE z 5 6 BYSCORE REV LIMIT 0 1".into(), 150),
        ),
        ("hgetall", repeated(&["HSET h new 1"], |_| "HGETALL h".into(), 1)),
        ("smembers", repeated(&["SADD s new"], |_| "SMEMBERS s".into(), 2)),
        ("lrange", repeated(&["LREM l 1 element:9899"], |_| "LPOP l".into(), 900)),
    ];
    for (n, (command, lines)) in (1..).zip(cases) {
        plain.calls().await;
        vote(prepare_all(&store, n, &lines).await);
        assert_eq!(plain.calls().await.of(command), 1, "{command}: {}", lines[1]);
        store.abort(tx(n)).await.done();
    }
}

/// H2: replies are counted before they are copied, over the ops of a branch and over their words.
#[tokio::test]
async fn large_values_are_not_read_beyond_the_bytes_of_a_reply() {
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    fill(&mut plain).await;
    let mget = format!("MGET{}", " big".repeat(100));
    let gets = ["GET big"; 100];
    let hgets = ["HGET hb f"; 100];
    let hmget = format!("HMGET hb{}", " f".repeat(100));
    for (n, lines) in (1..).zip([&gets[..], &hgets, &[&mget], &[&hmget]]) {
        plain.calls().await;
        let refusal = store.prepare(tx(n), lines).await.refused();
        assert_eq!(refusal.code, ErrorCode::ReplyTooLarge, "{}", refusal.detail);
        let calls = plain.calls().await;
        // Each value is measured once, and then read once; the owner key is read by GET too.
        let measured = calls.of("strlen") + calls.of("hstrlen");
        let read = calls.of("get") + calls.of("hget");
        assert!(measured == 1 && read <= 6, "{}: {calls:?}", lines[0]);
    }
    vote(store.prepare(tx(9), &["GET big"]).await);
}

/// H2: nor do many branches of one batch share one call for that.
#[tokio::test]
async fn the_branches_of_a_batch_that_are_too_much_for_one_call_get_several() {
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    fill(&mut plain).await;
    for (first, line, at_least) in [(1, "GET big", 5), (11, "HGETALL h", 3)] {
        plain.calls().await;
        let branches = (first..first + 10).map(|n| prepare(tx(n), Mode::TwoPhase, ops(&[line])));
        for answer in store.send(branches.collect()).await {
            vote(prepared(answer));
        }
        let calls = plain.calls().await;
        assert!(calls.of("evalsha") >= at_least, "{line}: {calls:?}");
    }
}

/// H6: nor do their replies grow without limit. What is left out is asked for again, and comes
/// then.
#[tokio::test]
async fn a_batch_answers_up_to_its_bytes_and_the_rest_is_asked_for_again() {
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    fill(&mut plain).await;
    let mut open: Vec<u64> = (1..=24).collect();
    let mut batches = 0;
    while !open.is_empty() {
        let branches = open.iter().map(|n| prepare(tx(*n), Mode::TwoPhase, ops(&["GET big"])));
        let answers = store.send(branches.collect()).await;
        let (mut left, mut bytes) = (Vec::new(), 0);
        for (n, answer) in open.iter().zip(answers) {
            match prepared(answer) {
                Call::Unknown(why) => {
                    assert!(why.contains("fill the answer"), "{why}");
                    left.push(*n);
                }
                voted => bytes += vote(voted).replies.len(),
            }
        }
        // What is under way when it is full: a round, or as many calls as go at once.
        assert!(bytes <= 2 * limits::BATCH_REPLIES_BYTES_MAX, "{bytes}");
        assert!(left.len() < open.len(), "each batch gets some further");
        open = left;
        batches += 1;
    }
    assert!(batches >= 2, "{batches}");
}

/// Ops that may each cost much, as often as a branch has ops.
fn heavy() -> Vec<(&'static str, Vec<String>)> {
    let many = |lines: &'static [&'static str]| {
        let line = move |i: usize| lines[i % lines.len()].replace('#', &(i + 1).to_string());
        (lines[0], repeated(&[], line, 1_000))
    };
    let words = |name: &'static str, word: &'static str, each: usize, ops: usize| {
        let line = move |i: usize| {
            let words = (0..each).map(|j| word.replace('#', &(each * i + j).to_string()));
            format!("{name} {}", words.collect::<Vec<_>>().join(" "))
        };
        (name, repeated(&[], line, ops))
    };
    vec![
        many(&["ZRANGE z 0 -1"]),
        many(&["ZRANGE z 9000 9000"]),
        many(&["ZRANGE z -inf +inf BYSCORE LIMIT 9899 1"]),
        many(&["ZRANGE z -inf +inf BYSCORE WITHSCORES"]),
        many(&["ZADD z # new:#", "ZRANGE z 0 0"]),
        many(&["ZINCRBY z 0.1 member:#", "ZRANGE z 0 -1 WITHSCORES"]),
        many(&["ZINCRBY z 0.1 member:#"]),
        many(&["ZREM z member:#", "ZRANGE z 0 0 REV"]),
        many(&["LRANGE l 0 -1"]),
        many(&["LPUSH l a", "LRANGE l 0 -1"]),
        many(&["LREM l 0 element:#"]),
        many(&["RPUSH l b", "LREM l -1 b"]),
        many(&["LPOP l"]),
        many(&["LPOP l 100"]),
        many(&["LTRIM l 1 -2", "LRANGE l 4000 4009"]),
        many(&["LSET l # v", "LPOP l", "RPOP l"]),
        many(&["HGETALL h"]),
        many(&["HSET h field:# v", "HGETALL h"]),
        many(&["HINCRBYFLOAT h field:# 0.1"]),
        many(&["HDEL h field:#", "HLEN h"]),
        many(&["SMEMBERS s"]),
        many(&["SADD s new:#", "SMEMBERS s"]),
        many(&["SREM s member:#", "SCARD s"]),
        many(&["XRANGE x - +"]),
        many(&["XADD x MAXLEN 9000 2#000-0 f v", "XDEL x 2#000-0"]),
        many(&["XDEL x #-0", "XRANGE x - + COUNT 1"]),
        many(&["XADD x MAXLEN 9000 2000#-* f v", "XRANGE x - +", "XLEN x"]),
        many(&["APPEND big v", "STRLEN big"]),
        many(&["SET big w GET", "APPEND big v"]),
        many(&["GET big"]),
        many(&["SETRANGE big # v", "GETRANGE big # -1"]),
        many(&["SETRANGE new# 4194303 v"]),
        many(&["SETRANGE new# # v", "GETRANGE new# 0 -2"]),
        words("EXISTS", "k", 1_900, 10),
        words("SADD new", "m#", 1_900, 10),
        words("HSET new", "f# v", 950, 10),
        words("ZADD new", "0.# m#", 950, 10),
        words("RPUSH new", "e#", 1_900, 10),
        words("XDEL x", "#-0", 1_900, 10),
        words("HMGET h", "field:#", 1_900, 10),
        words("DEL", "z l h s x", 390, 10),
    ]
}

/// The CPU time that Redis has used, in microseconds: how long it is busy on a machine that does nothing else.
async fn cpu_us(plain: &mut Plain) -> f64 {
    let info: String = plain.run(&["INFO", "cpu"]).await;
    let of_main = info.lines().filter(|line| line.contains("_main_thread:"));
    let seconds = of_main.filter_map(|line| line.split_once(':')?.1.trim().parse::<f64>().ok());
    seconds.sum::<f64>() * 1e6
}

#[expect(clippy::print_stderr, reason = "how long it took is for people to read")]
#[tokio::test]
async fn no_op_list_over_large_collections_is_done_beyond_its_bounds() {
    const BOUNDS: [ErrorCode; 4] = [
        ErrorCode::TooMuchWork,
        ErrorCode::ReplyTooLarge,
        ErrorCode::TooLarge,
        ErrorCode::TooManyOps,
    ];
    let redis = Redis::start();
    let (store, mut plain) = (redis.store().await, redis.plain().await);
    let (mut done, mut refused) = (0, 0);
    for (n, (name, lines)) in (1..).step_by(2).zip(heavy()) {
        fill(&mut plain).await;
        let before = cpu_us(&mut plain).await;
        let call = prepare_all(&store, n, &lines).await;
        let prepared = cpu_us(&mut plain).await;
        let outcome = match call {
            Call::Applied(_) => {
                assert_eq!(store.commit(tx(n)).await, CLEAN, "{name}");
                done += 1;
                "done".to_owned()
            }
            Call::Refused(refusal) => {
                assert!(BOUNDS.contains(&refusal.code), "{name}: {refusal:?}");
                refused += 1;
                format!("{} at op {:?}", refusal.code, refusal.op)
            }
            Call::Unknown(why) => panic!("{name}: {why}"),
        };
        let applied = cpu_us(&mut plain).await;
        eprintln!("{:6.0} {:6.0} us {outcome}: {name}", prepared - before, applied - prepared);
    }
    // A bound that refuses everything would bound nothing but its users.
    assert!(done >= 8 && refused >= 8, "{done} done, {refused} refused");
    // One read of the largest collections is what anybody may do.
    fill(&mut plain).await;
    let reads =
        ["ZRANGE z 0 -1 WITHSCORES", "LRANGE l 0 -1", "HGETALL h", "SMEMBERS s", "XRANGE x - +"];
    for (n, line) in (1_000..).zip(reads) {
        committed(store.one_phase(tx(n), &[line]).await);
    }
}
