//! Several agents of one Redis: one owns it, the others stand by, pass on what they are told, and
//! take over (invariant 12; promises *finishing*, *isolated*).

use std::future::IntoFuture as _;

use axum::Router;
use axum::http::StatusCode;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;

use assent_client::participant::{ForcedOutcome, ForgetRequest, ProbeState, ResolveRequest};
use assent_client::{Http, HttpOptions, ParticipantClient, Token};
use assent_common::ErrorCode;
use assent_common::outcome::{Call, Prepared};
use assent_common::wire::branch::{Batch, BranchState, StateWord, VoteWord};
use assent_common::wire::resync::{DataPoint, Resync};
use assent_participant::store::AgentAddress;
use assent_participant::{Options, Participant};

use crate::harness::{
    NAME, Oracle, Redis, Sidecar, abort, batch, commit, counting, prepare, txid, until,
};
use crate::vote;

const CONTROL: &str = "assent:ctl";
const OWNER: &str = "assent:ctl:owner";

fn owns(options: &mut Options) {
    options.resolve_interval_ms = 3_600_000;
}

/// Whether it stands by, as its health says.
async fn stands_by(agent: &ParticipantClient) -> bool {
    agent.readyz().await.unwrap().text.contains("stands by for")
}

/// The first agent owns the Redis, the second stands by.
async fn pair(redis: &Redis) -> (Sidecar, Sidecar) {
    let owner = Sidecar::with(redis, owns).await;
    let standby = Sidecar::with(redis, owns).await;
    assert!(!stands_by(&owner.client).await && stands_by(&standby.client).await);
    (owner, standby)
}

/// What an agent shows that has this token, and has read this value of the owner key.
fn proof(token: &str, key: &str, word: &str) -> String {
    let hash = Sha256::new().chain_update(Sha256::digest(token)).chain_update(key);
    let hash = hash.chain_update([0]).chain_update(word).finalize();
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_standby_passes_everything_on_and_the_owner_keeps_its_redis() {
    let redis = Redis::start().await;
    let (owner, standby) = pair(&redis).await;
    let key = redis.get(OWNER).await.unwrap();
    let voted = standby.say(vec![prepare(1, [&["SET", "a", "1"]])]).await;
    assert_eq!(vote(&voted[0]), VoteWord::Yes, "{voted:?}");
    // Of another kind too, and what the owner has the scripts evaluate.
    let mixed = standby
        .say(vec![
            commit(1),
            prepare(2, [&["HSET", "h", "f", "v"]]),
            prepare(3, [&["GET", "a"], &["NONSENSE", "a"]]),
        ])
        .await;
    assert_eq!(mixed[0].state, Some(StateWord::Applied));
    assert_eq!(vote(&mixed[1]), VoteWord::Yes);
    assert_eq!(mixed[2].code, Some(ErrorCode::UnsupportedCommand));
    assert_eq!(owner.say(vec![commit(2)]).await[0].state, Some(StateWord::Applied));
    assert_eq!(redis.get("a").await.as_deref(), Some("1"));
    assert_eq!(redis.get(OWNER).await.as_deref(), Some(&*key), "nobody took anything over");
    // What is kept is read where one asks.
    assert_eq!(standby.state(2).await, Some(BranchState::Applied));
}

#[tokio::test]
async fn a_prepare_that_waits_at_a_standby_goes_on_when_the_owner_ends_its_holder() {
    let redis = Redis::start().await;
    let owner = Sidecar::with(&redis, counting("standby-waits")).await;
    let standby = Sidecar::with(&redis, |options| {
        options.name = "standby-waits".to_owned();
        owns(options);
    })
    .await;
    owner.say(vec![prepare(7, [&["SET", "k", "young"]])]).await;
    let (voted, _) = tokio::join!(standby.prepare(2, 20_000, &["SET", "k", "old"]), async {
        owner.somebody_waits().await;
        owner.say(vec![abort(7)]).await
    });
    assert!(matches!(voted, Call::Applied(Prepared::Yes(_))), "{voted:?}");
}

/// The owner has ended: what it voted for is applied by the one that takes over, and what was
/// passed on is not lost.
#[tokio::test]
async fn a_standby_takes_over_when_the_owner_has_ended() {
    let redis = Redis::start().await;
    let (mut owner, standby) = pair(&redis).await;
    let voted = owner.say(vec![prepare(1, [&["SET", "a", "1"]])]).await;
    assert_eq!(vote(&voted[0]), VoteWord::Yes);
    let (stop, serving) = owner.take_apart();
    stop.send(()).unwrap();
    serving.finished().await;
    let answers = standby.say(vec![commit(1), prepare(2, [&["SET", "b", "1"]])]).await;
    assert_eq!(answers[0].state, Some(StateWord::Applied), "{answers:?}");
    assert_eq!(vote(&answers[1]), VoteWord::Yes);
    assert!(!stands_by(&standby.client).await);
    // Who comes next stands by for it.
    let third = Sidecar::with(&redis, owns).await;
    assert!(stands_by(&third.client).await);
    assert_eq!(third.say(vec![abort(2)]).await[0].state, Some(StateWord::Aborted));
}

/// While nobody says anything, the pulse finds that the owner is gone.
#[tokio::test]
async fn an_idle_standby_takes_over_by_itself() {
    let redis = Redis::start().await;
    let (mut owner, standby) = pair(&redis).await;
    let (stop, serving) = owner.take_apart();
    stop.send(()).unwrap();
    serving.finished().await;
    until("the standby owns the Redis", async || {
        (!stands_by(&standby.client).await && redis.get(OWNER).await.is_some()).then_some(())
    })
    .await;
}

/// Promise *honest*: an agent that was taken for gone says so, also if nobody tells it anything.
#[tokio::test]
async fn an_idle_owner_notices_that_it_is_none_any_more() {
    let redis = Redis::start().await;
    let (owner, standby) = pair(&redis).await;
    let third = Sidecar::with(&redis, owns).await;
    // As of an agent that has ended: whoever is first may own the Redis, and nobody is told.
    let () = redis.ask::<String>(&["SET", OWNER, "somebody"]).await.map(drop).unwrap();
    until("two of the three stand by", async || {
        let mut standing = 0;
        for agent in [&owner, &standby, &third] {
            standing += u32::from(stands_by(&agent.client).await);
        }
        let held = redis.get(OWNER).await;
        (standing == 2 && held.is_some_and(|held| held.contains("http://"))).then_some(())
    })
    .await;
}

/// Invariant 12: the owner key is gone, or another's, and no branch is lost or done twice by
/// either.
#[tokio::test]
async fn a_touched_owner_key_leaves_one_owner_and_every_branch() {
    let redis = Redis::start().await;
    let (owner, standby) = pair(&redis).await;
    for n in 1..=6 {
        let (one, other) = if n % 2 == 0 { (&owner, &standby) } else { (&standby, &owner) };
        let voted = one.say(vec![prepare(n, [&["APPEND", "log", "x"]])]).await;
        assert_eq!(vote(&voted[0]), VoteWord::Yes, "{n} {voted:?}");
        let _gone: u64 = match n % 3 {
            0 => redis.ask(&["DEL", OWNER]).await.unwrap(),
            1 => redis.ask::<String>(&["SET", OWNER, "somebody"]).await.map(|_| 1).unwrap(),
            _ => redis.ask(&["EXISTS", OWNER]).await.unwrap(),
        };
        let told = until("the outcome is carried out", async || {
            let told = other.say(vec![commit(n)]).await.remove(0);
            (told.state != Some(StateWord::Unknown)).then_some(told)
        });
        assert_eq!(told.await.state, Some(StateWord::Applied));
    }
    assert_eq!(redis.get("log").await.as_deref(), Some("xxxxxx"));
    until("one of them stands by", async || {
        let (one, other) = (stands_by(&owner.client).await, stands_by(&standby.client).await);
        (one != other).then_some(())
    })
    .await;
}

/// A header is not enough: whoever passes something on shows that it may read the owner key, and
/// has the token.
#[tokio::test]
async fn nobody_passes_on_who_cannot_show_that_it_may() {
    let redis = Redis::start().await;
    let token = |options: &mut Options| {
        owns(options);
        options.token = Some(Token::new("s3cret"));
    };
    let owner = Sidecar::with(&redis, token).await;
    let standby = Sidecar::with(&redis, token).await;
    let http = reqwest::Client::new();
    let key = redis.get(OWNER).await.unwrap();
    let body = serde_json::to_vec(&batch("http://c", vec![abort(1)])).unwrap();
    for proof in ["", "ends", &key, &"0".repeat(64)] {
        for address in [owner.addresses.public, standby.addresses.public] {
            let said = http.post(format!("http://{address}/v1/batch"));
            let said = said.header("content-type", "application/json").body(body.clone());
            let answer = said.header("assent-passed-on", proof).send().await.unwrap();
            let problem: assent_common::wire::problem::Problem =
                serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
            assert_eq!(problem.code, ErrorCode::NotOwner, "{proof:?}");
        }
    }
    assert_eq!(redis.control("a:").await, Vec::<String>::new());
    // Who can, may say what coordinators say, and nothing else.
    let proof = proof("s3cret", &key, "told");
    let [public, admin] = [owner.addresses.public, owner.addresses.admin];
    for (url, status) in [
        (format!("http://{public}/v1/batch"), StatusCode::OK),
        (format!("http://{public}/v1/data/resync"), StatusCode::UNAUTHORIZED),
        (format!("http://{admin}/v1/branches/{}/resolve", txid(1)), StatusCode::UNAUTHORIZED),
    ] {
        let said = http.post(&url).header("content-type", "application/json");
        let said = said.header("assent-passed-on", &proof).body(body.clone());
        assert_eq!(said.send().await.unwrap().status(), status, "{url}");
    }
    // With the token, through the standby, which does not send the token on.
    let options = HttpOptions { token: Some(Token::new("s3cret")), ..HttpOptions::default() };
    let url = format!("http://{}", standby.addresses.public);
    let client = ParticipantClient::new(&Http::new(&options).unwrap(), &url).unwrap();
    let answers = client.batch(&batch("http://c", vec![abort(1)])).await.unwrap();
    assert_eq!(answers.answers[0].state, Some(StateWord::Aborted));
    assert_eq!(redis.get(OWNER).await.as_deref(), Some(&*key), "by the owner");
}

/// What a standby finds out by itself it has the owner carry out: its resolver's questions, an
/// operator's word.
#[tokio::test]
async fn the_ends_that_a_standby_finds_are_carried_out_by_the_owner() {
    let redis = Redis::start().await;
    let owner = Sidecar::with(&redis, owns).await;
    let standby = Sidecar::with(&redis, |options| options.resolve_interval_ms = 20).await;
    let key = redis.get(OWNER).await.unwrap();
    let oracle = Oracle::saying(503, "text/plain", "starting".to_owned()).await;
    oracle.says(1, "committed");
    owner.say_for(&oracle.url, vec![prepare(1, [&["SET", "k", "v"]])]).await;
    until("what was in doubt is applied", async || {
        (standby.state(1).await == Some(BranchState::Applied)).then_some(())
    })
    .await;
    let nobody = "http://127.0.0.1:1";
    owner.say_for(nobody, vec![prepare(2, [&["SET", "k", "w"]])]).await;
    let (actor, reason) = ("ana".to_owned(), "its coordinator is gone".to_owned());
    let request = ResolveRequest {
        outcome: ForcedOutcome::Aborted,
        actor: actor.clone(),
        reason: reason.clone(),
        force: false,
        coordinator: None,
    };
    standby.admin.resolve(txid(2), &request).await.unwrap();
    assert_eq!(owner.state(2).await, Some(BranchState::Aborted));
    assert_eq!(redis.get(OWNER).await.as_deref(), Some(&*key), "by the owner");
    assert_eq!(redis.get("k").await.as_deref(), Some("v"));
    // The fence is forgotten at the standby: the owner must not remember it either.
    standby.admin.forget(txid(2), &ForgetRequest { actor, reason }).await.unwrap();
    let voted = owner.say(vec![prepare(2, [&["SET", "k", "x"]])]).await;
    assert_eq!(vote(&voted[0]), VoteWord::Yes, "{voted:?}");
}

/// An agent inside a service may not know where others reach it: it stands by for one that does.
#[tokio::test]
async fn an_agent_without_an_address_stands_by_and_gives_way() {
    let redis = Redis::start().await;
    let embedded = async || {
        let builder = Participant::builder(NAME).redis(redis.url());
        let participant = builder.resolve_interval_ms(3_600_000).build().await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app: Router = participant.router();
        tokio::spawn(axum::serve(listener, app).into_future());
        let client = ParticipantClient::new(&Http::new(&HttpOptions::default()).unwrap(), &url);
        (participant, client.unwrap())
    };
    let (first, one) = embedded().await;
    assert!(redis.get(OWNER).await.is_some(), "alone, it owns the Redis");
    let say = async |client: &ParticipantClient, message| {
        client.batch(&batch("http://c", vec![message])).await.unwrap().answers.remove(0)
    };
    assert_eq!(vote(&say(&one, prepare(1, [&["SET", "a", "1"]])).await), VoteWord::Yes);
    // Two without an address take turns.
    let (_second, two) = embedded().await;
    assert_eq!(say(&two, commit(1)).await.state, Some(StateWord::Applied));
    assert_eq!(vote(&say(&one, prepare(2, [&["SET", "b", "1"]])).await), VoteWord::Yes);
    // One with an address owns it, and both stand by.
    let sidecar = Sidecar::with(&redis, owns).await;
    assert_eq!(vote(&sidecar.say(vec![prepare(3, [&["SET", "c", "1"]])]).await[0]), VoteWord::Yes);
    for (client, n) in [(&one, 2), (&two, 3)] {
        let told = until("it is carried out", async || {
            let told = say(client, commit(n)).await;
            (told.state != Some(StateWord::Unknown)).then_some(told)
        });
        assert_eq!(told.await.state, Some(StateWord::Applied));
        assert!(stands_by(client).await);
    }
    assert!(!stands_by(&sidecar.client).await);
    first.shutdown().await;
}

/// An agent of an older version shares a Redis by scripts of its own, and looks for locks where
/// this version keeps none: beside it nothing is voted for, and all goes on when it is gone.
#[tokio::test]
async fn beside_an_agent_of_an_older_version_nothing_is_done() {
    let redis = Redis::start().await;
    let (owner, standby) = pair(&redis).await;
    assert_eq!(vote(&owner.say(vec![prepare(1, [&["SET", "a", "1"]])]).await[0]), VoteWord::Yes);
    let client = redis::Client::open(redis.url()).unwrap();
    let mut older = client.get_multiplexed_async_connection().await.unwrap();
    let name = format!("assent-agent:{NAME}:older.1");
    let () = redis::cmd("CLIENT").arg("SETNAME").arg(name).query_async(&mut older).await.unwrap();
    // As it does when it works.
    let () = redis::cmd("DEL").arg(OWNER).query_async(&mut older).await.unwrap();
    for agent in [&owner, &standby] {
        until("it says which agent is to be stopped", async || {
            let told = agent.say(vec![commit(1), prepare(2, [&["SET", "b", "1"]])]).await;
            assert_ne!(told[0].state, Some(StateWord::Applied));
            assert_ne!(told[1].vote, Some(VoteWord::Yes));
            format!("{told:?}").contains("an agent of an older version").then_some(())
        })
        .await;
    }
    assert_eq!(redis.get(OWNER).await, None);
    drop((older, client));
    for agent in [&standby, &owner] {
        until("it is carried out", async || {
            let told = agent.say(vec![commit(1), prepare(2, [&["SET", "b", "1"]])]).await;
            let is_done = told[0].state == Some(StateWord::Applied);
            (is_done && told[1].vote == Some(VoteWord::Yes)).then_some(())
        })
        .await;
    }
}

/// W3 of the outsiders: what one agent's user may not do is no reason to take the Redis from each
/// other.
#[tokio::test]
async fn agents_of_which_one_may_not_watch_do_not_take_the_redis_from_each_other() {
    let redis = Redis::start().await;
    let rules = ["ACL", "SETUSER", "agent", "on", ">pw", "~*", "&*", "+@all", "-watch"];
    let () = redis.ask(&rules).await.unwrap();
    let unguarded = |options: &mut Options| {
        owns(options);
        options.store.url = format!("{}?user=agent&pass=pw", redis.url());
    };
    let guarded = Sidecar::with(&redis, owns).await;
    let other = Sidecar::with(&redis, unguarded).await;
    assert!(!stands_by(&guarded.client).await && stands_by(&other.client).await);
    let key = redis.get(OWNER).await.unwrap();
    for n in 1..=20 {
        let (one, two) = if n % 2 == 0 { (&guarded, &other) } else { (&other, &guarded) };
        let voted = one.say(vec![prepare(n, [&["INCR", "n"]])]).await;
        assert_eq!(vote(&voted[0]), VoteWord::Yes, "{voted:?}");
        assert_eq!(two.say(vec![commit(n)]).await[0].state, Some(StateWord::Applied));
    }
    assert_eq!(redis.get(OWNER).await.as_deref(), Some(&*key), "nobody took anything over");
    // The other way round: it owns the Redis, by scripts, and the guarded one stands by.
    drop((guarded, other));
    let redis = Redis::start().await;
    let () = redis.ask(&rules).await.unwrap();
    let unguarded = |options: &mut Options| {
        owns(options);
        options.store.url = format!("{}?user=agent&pass=pw", redis.url());
    };
    let owner = Sidecar::with(&redis, unguarded).await;
    let standby = Sidecar::with(&redis, owns).await;
    assert!(!stands_by(&owner.client).await && stands_by(&standby.client).await);
    assert_eq!(vote(&standby.say(vec![prepare(1, [&["INCR", "n"]])]).await[0]), VoteWord::Yes);
    assert_eq!(owner.say(vec![commit(1)]).await[0].state, Some(StateWord::Applied));
}

/// A user that may not list connections: the owner is known by its pulse, one value in Redis.
#[tokio::test]
async fn agents_that_cannot_list_each_other_know_the_owner_by_its_pulse() {
    let redis = Redis::start().await;
    let rules = ["ACL", "SETUSER", "agent", "on", ">pw", "~*", "&*", "+@all", "-client"];
    let () = redis.ask(&rules).await.unwrap();
    let unseen = |options: &mut Options| {
        owns(options);
        options.store.url = format!("{}?user=agent&pass=pw", redis.url());
    };
    let mut owner = Sidecar::with(&redis, unseen).await;
    let standby = Sidecar::with(&redis, unseen).await;
    assert!(!stands_by(&owner.client).await && stands_by(&standby.client).await);
    let key = redis.get(OWNER).await.unwrap();
    assert_eq!(vote(&standby.say(vec![prepare(1, [&["SET", "a", "1"]])]).await[0]), VoteWord::Yes);
    // While it lives, it is left alone.
    let beat = redis.get("assent:ctl:pulse").await;
    until("the pulse has gone on", async || {
        let now = redis.get("assent:ctl:pulse").await;
        (now.is_some() && now != beat).then_some(())
    })
    .await;
    assert_eq!(redis.get(OWNER).await.as_deref(), Some(&*key));
    let (stop, serving) = owner.take_apart();
    stop.send(()).unwrap();
    serving.finished().await;
    until("the standby owns the Redis", async || {
        (!stands_by(&standby.client).await && redis.get(OWNER).await.as_deref() != Some(&*key))
            .then_some(())
    })
    .await;
    assert_eq!(standby.say(vec![commit(1)]).await[0].state, Some(StateWord::Applied));
    // One that may list them stands by for it too.
    let seen = Sidecar::with(&redis, owns).await;
    assert!(stands_by(&seen.client).await);
    assert_eq!(vote(&seen.say(vec![prepare(2, [&["SET", "b", "1"]])]).await[0]), VoteWord::Yes);
}

/// Behind an address that leads to somebody else, or to nobody, agents take turns.
#[tokio::test]
async fn agents_that_cannot_reach_each_other_take_turns() {
    let redis = Redis::start().await;
    let stranger = Redis::start().await;
    let other = Sidecar::with(&stranger, |options| {
        options.name = "bank-b".to_owned();
        owns(options);
    })
    .await;
    for wrong in [other.addresses.public.to_string(), "127.0.0.1:1".to_owned()] {
        let at = |options: &mut Options| {
            owns(options);
            options.address = Some(AgentAddress::Url(format!("http://{wrong}")));
        };
        let (one, two) = (Sidecar::with(&redis, at).await, Sidecar::with(&redis, at).await);
        let first = if wrong.ends_with(":1") { 20 } else { 1 };
        for n in first..first + 8 {
            let (agent, next) = if n % 2 == 0 { (&one, &two) } else { (&two, &one) };
            let voted = agent.say(vec![prepare(n, [&["APPEND", "log", "x"]])]).await;
            assert_eq!(vote(&voted[0]), VoteWord::Yes, "{n} {voted:?}");
            assert_eq!(next.say(vec![commit(n)]).await[0].state, Some(StateWord::Applied));
        }
    }
    assert_eq!(redis.get("log").await.map(|log| log.len()), Some(16));
}

/// Invariant 12: data that was repaired through the owner is the standby's data too.
#[tokio::test]
async fn a_standby_follows_its_owner_to_repaired_data() {
    let redis = Redis::start().await;
    let (owner, standby) = pair(&redis).await;
    owner.say(vec![prepare(1, [&["SET", "k", "v"]]), commit(1)]).await;
    redis.flush().await;
    // Nobody has lost anything that a log would owe: the data is opened by hand, as a repair does.
    until("the loss is found", async || {
        let found = owner.client.data().await.unwrap();
        found.fenced.then_some(())
    })
    .await;
    let () = redis
        .ask::<u64>(&["HSET", "assent:ctl", "m:inc", "77", "m:seq", "0", "m:name", NAME])
        .await
        .map(drop)
        .unwrap();
    let told = until("it is served again", async || {
        let told = standby.say(vec![prepare(2, [&["SET", "k", "w"]])]).await.remove(0);
        (vote(&told) == VoteWord::Yes).then_some(told)
    })
    .await;
    assert_eq!(told.incarnation, Some(77));
}

/// Repairs the data through this agent, as a log does that has nothing to redo and knows this.
async fn repair(agent: &Sidecar, known: Option<DataPoint>) {
    until("the data is fenced, and opened by a repair", async || {
        let found = agent.client.data().await.ok().filter(|found| found.fenced)?.found();
        let Batch { participant, coordinator, low_water, .. } =
            batch("http://127.0.0.1:1", Vec::new());
        let (part, last, alone, redo) = (0, true, false, Vec::new());
        let word =
            Resync { participant, coordinator, low_water, found, known, part, last, alone, redo };
        agent.client.resync(&word).await.ok()?.open
    })
    .await;
}

/// Whether it could vote.
async fn ready(agent: &Sidecar) {
    until("it is ready by itself", async || {
        (agent.client.readyz().await.unwrap().state == ProbeState::Ok).then_some(())
    })
    .await;
}

/// Invariant 12, promise *finishing*: an agent that nobody speaks to goes on with data that was
/// repaired through another, and takes over when that one ends. Also one that came while the data
/// was fenced.
#[tokio::test]
async fn an_idle_agent_goes_on_with_repaired_data_by_itself() {
    for is_known in [true, false] {
        let redis = Redis::start().await;
        let (mut spoken_to, idle) = pair(&redis).await;
        let said = spoken_to.say(vec![prepare(1, [&["SET", "k", "v"]])]).await;
        spoken_to.say(vec![commit(1)]).await;
        let (incarnation, seq) = (said[0].incarnation.unwrap(), said[0].seq.unwrap());
        redis.flush().await;
        until("both have found the loss", async || {
            for agent in [&spoken_to, &idle] {
                let text = agent.client.readyz().await.unwrap().text;
                text.contains("data failing").then_some(())?;
            }
            Some(())
        })
        .await;
        let late = Sidecar::with(&redis, owns).await;
        repair(&spoken_to, is_known.then_some(DataPoint { incarnation, seq })).await;
        ready(&idle).await;
        ready(&late).await;
        let (stop, serving) = spoken_to.take_apart();
        stop.send(()).unwrap();
        serving.finished().await;
        let open = until("somebody takes over", async || {
            let owner = redis.get(OWNER).await?;
            let found = idle.client.data().await.ok().filter(|found| !found.fenced)?;
            owner.contains("http://").then_some(found)
        });
        let open = open.await.incarnation;
        assert_ne!(open, Some(incarnation));
        for (n, agent) in (2..).zip([&idle, &late]) {
            let key = format!("k{n}");
            let voted = agent.say(vec![prepare(n, [&["SET", &key, "w"]])]).await;
            assert_eq!((vote(&voted[0]), voted[0].incarnation), (VoteWord::Yes, open), "{voted:?}");
        }
    }
}

/// Invariant 12: other data that is open is not taken for what was repaired.
#[tokio::test]
async fn an_idle_agent_does_not_go_on_with_data_that_did_not_come_of_its_own() {
    let redis = Redis::start().await;
    let agent = Sidecar::with(&redis, owns).await;
    let said = agent.say(vec![prepare(1, [&["SET", "k", "v"]])]).await;
    let incarnation = said[0].incarnation.unwrap();
    // Of another history, by what it says of itself, and of this one with fewer votes.
    for (came_of, seq) in [("5 6", "100"), (&*incarnation.to_string(), "0")] {
        redis.flush().await;
        let () = redis
            .ask::<u64>(&["HSET", CONTROL, "m:inc", "77", "m:seq", seq, "m:of", came_of])
            .await
            .map(drop)
            .unwrap();
        let looks = async || {
            let calls: String = redis.ask(&["INFO", "commandstats"]).await.unwrap();
            let line = calls.lines().find(|line| line.starts_with("cmdstat_hmget:")).unwrap();
            let count = line.split(['=', ',']).nth(1).unwrap();
            count.parse::<u64>().unwrap()
        };
        let before = looks().await;
        until("it has looked again and again", async || (looks().await > before + 4).then_some(()))
            .await;
        let probe = agent.client.readyz().await.unwrap();
        assert!(probe.text.contains("data failing"), "{came_of}: {}", probe.text);
        assert_eq!(redis.ask::<String>(&["HGET", CONTROL, "m:inc"]).await.unwrap(), "77");
    }
}

/// Promise *honest*: which agent did not take what was passed on to it, and why, is in the health
/// of the one that passed it on, and not in its log only.
#[tokio::test]
async fn a_standby_names_the_agent_that_took_nothing_and_why() {
    for (is_reached, says) in [(true, "--token-file"), (false, "http://127.0.0.1:1/ took nothing")]
    {
        let redis = Redis::start().await;
        let owner = |options: &mut Options| {
            owns(options);
            options.token = Some(Token::new("one"));
            if !is_reached {
                options.address = Some(AgentAddress::Url("http://127.0.0.1:1/".to_owned()));
            }
        };
        let other = |options: &mut Options| {
            owns(options);
            options.token = Some(Token::new(if is_reached { "other" } else { "one" }));
        };
        let _owner = Sidecar::with(&redis, owner).await;
        let standby = Sidecar::with(&redis, other).await;
        let token = Some(Token::new(if is_reached { "other" } else { "one" }));
        let http = Http::new(&HttpOptions { token, ..HttpOptions::default() }).unwrap();
        let url = format!("http://{}", standby.addresses.public);
        let client = ParticipantClient::new(&http, &url).unwrap();
        client.batch(&batch("http://c", vec![abort(1)])).await.unwrap();
        let text = client.readyz().await.unwrap().text;
        let line = text.lines().find(|line| line.starts_with("[!] peers warning: "));
        assert!(line.is_some_and(|line| line.contains(says)), "{text}");
    }
}
