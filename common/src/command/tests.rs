//! Which branches are refused before anything is locked, and what the valid ones come to.

use super::*;
use crate::code::ErrorCode;

fn branch(ops: &[&[&str]]) -> Result<ValidatedBranch, crate::outcome::Refusal> {
    ValidatedBranch::new(ops.iter().map(|op| OpRequest::new(op.iter().copied())).collect())
}

fn canonical(op: &[&str]) -> (String, Vec<String>) {
    let op = branch(&[op]).unwrap().ops.remove(0);
    let args = op.args.iter().map(|arg| String::from_utf8(arg.0.clone()).unwrap()).collect();
    (op.handler.to_owned(), args)
}

fn refusal(op: &[&str]) -> ErrorCode {
    branch(&[op]).unwrap_err().code
}

#[test]
fn the_table_is_sorted_and_finds_every_name_in_any_case() {
    assert!(COMMANDS.windows(2).all(|pair| pair[0].name < pair[1].name));
    for command in COMMANDS {
        assert_eq!(find(command.name.to_lowercase().as_bytes()).unwrap().name, command.name);
    }
    assert!(find(b"KEYS").is_none());
    assert!(find(b"A NAME THAT IS TOO LONG").is_none());
}

/// A digest that sees the branch's own writes would say "changed" of everything.
#[test]
fn a_digest_is_of_the_key_as_it_was_before_the_branch() {
    branch(&[&["GET", "k"], &["ASSENT.DIGEST", "k"], &["SET", "k", "v"]]).unwrap();
    branch(&[&["SET", "k", "v"], &["assent.digest", "other"]]).unwrap();
    let refused = branch(&[&["SETNX", "k", "v"], &["ASSENT.DIGEST", "k"]]).unwrap_err();
    assert_eq!((refused.code, refused.op), (ErrorCode::BadArguments, Some(1)));
    let branch = branch(&[&["ASSENT.DIGEST", "k"]]).unwrap();
    assert!(branch.read_only && branch.locks[0].access == Access::Shared);
}

/// Who joins what was checked piece by piece is held to the limits of the whole.
#[test]
fn the_parts_of_a_branch_have_its_limits_together() {
    let part = |words: &[&str]| branch(&[words]).unwrap();
    let together = |parts: &[ValidatedBranch]| {
        ValidatedBranch::check_together(parts.iter()).map_err(|refusal| refusal.code)
    };
    let most = crate::limits::OPS_PER_BRANCH_MAX;
    let same = vec![part(&["GET", "k"]); most];
    assert_eq!(together(&same), Ok(()));
    assert_eq!(together(&[same, vec![part(&["GET", "k"])]].concat()), Err(ErrorCode::TooManyOps));
    let keys: Vec<String> = (0..=most).map(|key| key.to_string()).collect();
    let words = |keys: &[String]| part(&keys.iter().map(String::as_str).collect::<Vec<_>>());
    let mget = |from: usize| words(&[&["MGET".to_owned()], &keys[from..from + 600]].concat());
    assert_eq!(together(&[mget(0), mget(0)]), Ok(()), "the same keys twice");
    assert_eq!(together(&[mget(0), mget(401)]), Err(ErrorCode::TooManyOps), "1,001 keys");
    let large = "v".repeat(crate::limits::BRANCH_BYTES_MAX / 2);
    let large = part(&["SET", "k", &large]);
    assert_eq!(together(&[large.clone(), large]), Err(ErrorCode::TooLarge));
}

#[test]
fn counters_become_incrby() {
    assert_eq!(canonical(&["incr", "k"]), ("INCRBY".into(), vec!["k".into(), "1".into()]));
    assert_eq!(canonical(&["DECRBY", "k", "-5"]), ("INCRBY".into(), vec!["k".into(), "5".into()]));
    assert_eq!(refusal(&["DECRBY", "k", "-9223372036854775808"]), ErrorCode::Overflow);
    for bad in ["", "+1", "01", " 1", "1 ", "-0", "0x1", "1e3", "9223372036854775808"] {
        assert_eq!(refusal(&["INCRBY", "k", bad]), ErrorCode::NotAnInteger, "{bad:?}");
    }
}

#[test]
fn a_range_of_bytes_is_empty_or_within_bounds_before_its_value_is_known() {
    let range = |start, end| canonical(&["GETRANGE", "k", start, end]).1[1..].join(" ");
    assert_eq!(range("-9223372036854775807", "-9223372036854775808"), "1 0");
    // Clipped to the value, these are its first byte.
    assert_eq!(range("-9223372036854775808", "-9223372036854775807").len(), 41);
    assert_eq!(refusal(&["GETRANGE", "k", "0", "x"]), ErrorCode::NotAnInteger);
    let most = crate::limits::BRANCH_BYTES_MAX;
    let set = |offset: &str, value: &str| branch(&[&["SETRANGE", "k", offset, value]]);
    let handler = |offset: usize, value| set(&offset.to_string(), value).unwrap().ops[0].handler;
    assert_eq!((handler(most - 2, "ab"), handler(usize::MAX >> 1, "")), ("SETRANGE", "STRLEN"));
    assert!(!set("0", "").unwrap().read_only, "its lock is that of a write");
    for (offset, value, code) in [
        ((most - 1).to_string(), "ab", ErrorCode::TooLarge),
        (i64::MAX.to_string(), "a", ErrorCode::TooLarge),
        ("-1".to_owned(), "", ErrorCode::OutOfRange),
        ("01".to_owned(), "a", ErrorCode::NotAnInteger),
    ] {
        assert_eq!(set(&offset, value).unwrap_err().code, code, "{offset}");
    }
}

#[test]
fn a_count_that_only_some_servers_take_is_refused() {
    assert_eq!(refusal(&["LREM", "l", "-9223372036854775808", "v"]), ErrorCode::OutOfRange);
    assert!(branch(&[&["LREM", "l", "-9223372036854775807", "v"]]).is_ok());
}

#[test]
fn what_redis_refuses_is_refused_in_its_words() {
    let said = |op: &[&str]| branch(&[op]).unwrap_err().detail;
    let [least, half] = ["-9223372036854775808", "4611686018427387904"];
    for op in [&["SRANDMEMBER", "k", least][..], &["HRANDFIELD", "k", half, "WITHVALUES"]] {
        assert!(said(op).ends_with("ERR value is out of range"), "{}", said(op));
    }
    assert!(branch(&[&["ZRANDMEMBER", "k", half]]).is_ok());
    let far = said(&["EXPIRE", "k", "9223372036854775807"]);
    assert!(far.ends_with(": ERR invalid expire time in 'expire' command"), "{far}");
    let options = said(&["EXPIRE", "k", "1", "NX", "XX"]);
    assert!(options.contains(": ERR NX and XX, GT or LT options"), "{options}");
    let pairs = said(&["MSET", "k", "v", "l"]);
    assert!(pairs.ends_with("wrong number of arguments for 'mset' command"), "{pairs}");
}

/// A pattern without a star is that of no key.
#[test]
fn sort_takes_no_keys_that_are_not_known_before_it_runs() {
    assert!(branch(&[&["SORT", "k", "BY", "nosort", "GET", "#", "GET", "none"]]).is_ok());
    for of_others in [["BY", "weight_*"], ["GET", "of_*->field"]] {
        let op = [&["SORT_RO", "k"][..], &of_others].concat();
        assert_eq!(refusal(&op), ErrorCode::BadArguments, "{op:?}");
    }
}

#[test]
fn set_takes_its_options_as_redis_does() {
    let args = |op: &[&str]| canonical(op).1[2..].join(",");
    assert_eq!(args(&["SET", "k", "v"]), ",,,");
    assert_eq!(args(&["SET", "k", "v", "px", "5", "nx", "GET"]), "N,G,R,5");
    assert_eq!(args(&["SET", "k", "v", "EX", "5", "EX", "6"]), ",,R,6000");
    assert_eq!(args(&["SET", "k", "v", "EXAT", "5"]), ",,A,5000");
    assert_eq!(args(&["SET", "k", "v", "KEEPTTL", "XX"]), "X,,K,");
    for bad in
        [&["NX", "XX"][..], &["EX", "5", "PX", "5"], &["KEEPTTL", "EX", "5"], &["EX"], &["?"]]
    {
        let op = [&["SET", "k", "v"], bad].concat();
        assert_eq!(refusal(&op), ErrorCode::BadArguments, "{bad:?}");
    }
    assert_eq!(refusal(&["SET", "k", "v", "EX", "0"]), ErrorCode::BadArguments);
    assert_eq!(refusal(&["SET", "k", "v", "EX", "x"]), ErrorCode::NotAnInteger);
    assert_eq!(refusal(&["SET", "k", "v", "EX", "9223372036854775807"]), ErrorCode::Overflow);
}

#[test]
fn the_keys_of_msetex_are_counted_in_pairs() {
    let keys = |op: &[&str]| {
        let locks = branch(&[op]).unwrap().locks;
        locks.iter().map(|lock| crate::value::readable(&lock.key.0)).collect::<Vec<_>>().join(",")
    };
    assert_eq!(keys(&["MSETEX", "2", "a", "1", "b", "2"]), "a,b");
    assert_eq!(keys(&["msetex", "1", "a", "b", "EX", "10", "NX"]), "a");
    for bad in
        ["0 a 1", "-1 a 1", "x a 1", "2 a 1", "2 a 1 b", "2 a 1 EX", "9223372036854775807 a 1"]
    {
        let op: Vec<&str> = std::iter::once("MSETEX").chain(bad.split(' ')).collect();
        assert_eq!(refusal(&op), ErrorCode::CommandRefused, "{bad}");
    }
}

/// The words are those of Redis 7.0, 8.2 and Valkey 9.1, by which clients tell errors.
#[test]
fn a_count_of_keys_is_refused_in_the_words_of_redis() {
    let none = |name: &str| format!("ERR at least 1 input key is needed for '{name}' command");
    let no_number = "ERR value is not an integer or out of range".to_owned();
    let newer = "ERR numkeys should be greater than 0".to_owned();
    for (op, words) in [
        ("ZINTERCARD 0 a", none("zintercard")),
        ("ZINTERCARD -1 a", none("zintercard")),
        ("ZINTERCARD x a", no_number.clone()),
        ("ZUNION 0 a", none("zunion")),
        ("ZUNIONSTORE d 0 a", none("zunionstore")),
        ("ZUNIONSTORE d x a", no_number.clone()),
        ("ZDIFF 9223372036854775808 a", no_number),
        ("SINTERCARD 0 a", newer.clone()),
        ("SINTERCARD x a", newer.clone()),
        ("ZMPOP x a MIN", newer.clone()),
        ("LMPOP 0 a LEFT", newer),
    ] {
        let refused = branch(&[&op.split(' ').collect::<Vec<_>>()]).unwrap_err();
        assert_eq!(refused.code, ErrorCode::CommandRefused, "{op}");
        assert!(refused.detail.contains(&words), "{op}: {}", refused.detail);
    }
}

#[test]
fn stream_ids_become_complete_and_inclusive() {
    assert_eq!(
        canonical(&["XRANGE", "k", "(5-3", "7", "COUNT", "-4"]).1,
        ["k", "5-4", "7-18446744073709551615", "0"]
    );
    assert_eq!(
        canonical(&["XADD", "k", "MAXLEN", "~", "9", "5-*", "f", "v"]).1,
        ["k", "P", "5", "0", "", "~", "9", "f", "v"]
    );
    assert_eq!(refusal(&["XADD", "k", "0-0", "f", "v"]), ErrorCode::StreamIdTooSmall);
    let last = "(18446744073709551615-18446744073709551615";
    assert_eq!(refusal(&["XRANGE", "k", last, "+", "COUNT", "x"]), ErrorCode::BadArguments);
    assert_eq!(refusal(&["XADD", "k", "MINID", "5", "*", "f", "v"]), ErrorCode::BadArguments);
    assert_eq!(refusal(&["XADD", "k", "*", "f"]), ErrorCode::BadArguments);
}

#[test]
fn scores_are_doubles() {
    for good in ["1", "-1.5e3", ".5", "5.", "inf", "-Infinity", "0e-999"] {
        assert!(branch(&[&["ZADD", "k", good, "m"]]).is_ok(), "{good:?}");
    }
    for bad in ["", "nan", "1e999", "1e-999", " 1", "1 ", "e5", "0x", "0x1p4", "--1", "1e"] {
        assert_eq!(refusal(&["ZADD", "k", bad, "m"]), ErrorCode::NotAFloat, "{bad:?}");
        let exclusive = format!("({bad}");
        let range = ["ZRANGE", "k", "-inf", &exclusive, "BYSCORE"];
        assert_eq!(refusal(&range), ErrorCode::NotAFloat, "{bad:?}");
    }
}

#[test]
fn a_key_is_locked_once_and_exclusively_if_any_op_writes_it() {
    let branch =
        branch(&[&["GET", "a"], &["MSET", "b", "1", "a", "2"], &["EXISTS", "c", "b"]]).unwrap();
    let locks: Vec<_> =
        branch.locks.iter().map(|lock| (lock.key.0.as_slice(), lock.access)).collect();
    assert_eq!(
        locks,
        [(&b"a"[..], Access::Exclusive), (b"b", Access::Exclusive), (b"c", Access::Shared)]
    );
    assert!(!branch.read_only);
}

#[test]
fn many_keys_are_found_again() {
    let names: Vec<String> = (0..100).map(|n| format!("k{}", n % 50)).collect();
    let ops: Vec<Vec<&str>> = names.iter().map(|name| vec!["GET", name]).collect();
    let ops: Vec<&[&str]> = ops.iter().map(Vec::as_slice).collect();
    assert_eq!(branch(&ops).unwrap().locks.len(), 50);
}

#[test]
fn the_refusal_names_the_op_and_the_limit() {
    let refusal = branch(&[&["GET", "a"], &["FLUSHALL"]]).unwrap_err();
    assert_eq!((refusal.code, refusal.op), (ErrorCode::UnsupportedCommand, Some(1)));
    assert_eq!(branch(&[&["GET"]]).unwrap_err().code, ErrorCode::BadArguments);
    let long = "k".repeat(crate::limits::KEY_BYTES_MAX + 1);
    assert_eq!(branch(&[&["GET", &long]]).unwrap_err().code, ErrorCode::TooLarge);
    let many = vec![&["INCR", "k"][..]; crate::limits::OPS_PER_BRANCH_MAX + 1];
    assert_eq!(branch(&many).unwrap_err().code, ErrorCode::TooManyOps);
    let wide: Vec<&str> = vec!["DEL"; crate::limits::ARGS_PER_OP_MAX + 1];
    assert_eq!(branch(&[&wide]).unwrap_err().code, ErrorCode::TooManyOps);
    let each = crate::limits::ARGS_PER_OP_MAX;
    let full = vec![&wide[..each]; crate::limits::WORDS_PER_BRANCH_MAX / each];
    assert!(branch(&full).is_ok());
    let more = [&full[..], &[&["GET", "k"][..]]].concat();
    assert_eq!(branch(&more).unwrap_err().code, ErrorCode::TooManyOps);
}

#[test]
fn an_expectation_tells_null_from_absent_and_refuses_what_it_cannot_compare() {
    let op = |json: &str| serde_json::from_str::<OpRequest>(json);
    let expect = op(r#"{"cmd":["GET","k"],"expect":{"eq":null}}"#).unwrap().expect.unwrap();
    assert_eq!((expect.eq.clone(), expect.ne.clone()), (Some(None), None));
    assert_eq!(serde_json::to_string(&expect).unwrap(), r#"{"eq":null}"#);
    assert!(op(r#"{"cmd":["GET","k"],"expect":{"equals":1}}"#).is_err());
    for bad in [
        r#"{"cmd":["HGETALL","k"],"expect":{"eq":"x"}}"#,
        r#"{"cmd":["GET","k"],"expect":{"ge":"many"}}"#,
        r#"{"cmd":["XADD","k","*","f","v"],"expect":{"exists":true}}"#,
        r#"{"cmd":["TTL","k"],"expect":{"exists":true}}"#,
        r#"{"cmd":["GETRANGE","k",0,-1],"expect":{"exists":true}}"#,
    ] {
        let refusal = ValidatedBranch::new(vec![op(bad).unwrap()]).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::BadArguments, "{bad}");
    }
    assert!(
        ValidatedBranch::new(vec![
            op(r#"{"cmd":["HGETALL","k"],"expect":{"exists":true}}"#).unwrap()
        ])
        .is_ok()
    );
}

/// H3: a guard whose operand is `null` was dropped, and the transaction went through without it.
#[test]
fn a_guard_that_is_null_is_refused_and_not_dropped() {
    let cmd = r#""cmd":["DECRBY","acct:n",500]"#;
    for escrow in [false, true] {
        for field in ["gt", "ge", "lt", "le", "exists"] {
            let json = format!(r#"{{{cmd},"escrow":{escrow},"expect":{{"{field}":null}}}}"#);
            let op: OpRequest = serde_json::from_str(&json).unwrap();
            let refusal = ValidatedBranch::new(vec![op]).unwrap_err();
            assert_eq!((refusal.code, refusal.op), (ErrorCode::BadArguments, Some(0)), "{json}");
            assert!(refusal.detail.contains(&format!("`{field}` is null")), "{}", refusal.detail);
        }
    }
    for whole in ["expect", "escrow"] {
        let json = format!(r#"{{{cmd},"{whole}":null}}"#);
        let error = serde_json::from_str::<OpRequest>(&json).unwrap_err().to_string();
        assert!(error.contains("null"), "{error}");
    }
}

#[test]
fn an_increment_outside_a_long_double_is_refused() {
    for good in ["1e4931", "-1e-4950", "0e99999", "0.00001e4936", "inf", "0x1p5"] {
        assert!(branch(&[&["INCRBYFLOAT", "k", good]]).is_ok(), "{good:?}");
    }
    for bad in ["1e5000", "-10e4932", "1e-5000", "0.1e-4951", "1e99999999999999999999"] {
        assert_eq!(refusal(&["INCRBYFLOAT", "k", bad]), ErrorCode::NotAFloat, "{bad:?}");
    }
}

/// A hash refuses it before it looks at the field, and clients know the words of Redis for it.
#[test]
fn an_infinite_increment_of_a_field_is_refused_in_the_words_of_redis() {
    for bad in ["inf", "+inf", "-Infinity"] {
        let refused = branch(&[&["HINCRBYFLOAT", "k", "f", bad]]).unwrap_err();
        assert_eq!(refused.code, ErrorCode::NotAFloat, "{bad:?}");
        assert!(refused.detail.contains("value is NaN or Infinity"), "{}", refused.detail);
    }
}

#[test]
fn options_of_zrange_that_exclude_each_other_are_a_syntax_error() {
    let limit = ["ZRANGE", "k", "0", "-1", "LIMIT", "1", "2"];
    let scores = ["ZRANGE", "k", "-", "+", "BYLEX", "WITHSCORES"];
    for op in [&limit[..], &scores[..]] {
        let detail = branch(&[op]).unwrap_err().detail;
        assert!(detail.contains("syntax error"), "{detail}");
    }
}

/// An op in escrow with an expectation.
fn escrow(words: &[&str], expect: &str) -> OpRequest {
    let mut request = OpRequest::new(words.iter().copied());
    request.escrow = true;
    request.expect = (!expect.is_empty()).then(|| serde_json::from_str(expect).unwrap());
    request
}

#[test]
fn ops_in_escrow_come_to_one_claim_for_each_counter() {
    let branch = ValidatedBranch::new(vec![
        escrow(&["DECRBY", "stock", "5"], r#"{"ge":0}"#),
        escrow(&["HINCRBY", "sold", "x", "5"], r#"{"lt":100,"le":200}"#),
        OpRequest::new(["SET", "note", "v"]),
        escrow(&["INCR", "stock"], r#"{"gt":-3}"#),
        escrow(&["HINCRBY", "sold", "y", "1"], ""),
    ])
    .unwrap();
    let locks: Vec<_> = branch.locks.iter().map(|lock| lock.access).collect();
    let (string, hash) = (Access::Escrow(EscrowKind::String), Access::Escrow(EscrowKind::Hash));
    assert_eq!(locks, [string, hash, Access::Exclusive]);
    assert!(!branch.read_only);
    let reserved: Vec<_> = branch.claims.iter().map(Claim::reserved).collect();
    let max = i128::from(i64::MAX);
    let min = i128::from(i64::MIN);
    assert_eq!(
        reserved,
        [
            // After both: 4 less. The first needs 5, the second -3 and 4.
            Reserved { delta: -4, floor: 1, ceiling: max + 4 },
            Reserved { delta: 5, floor: min - 5, ceiling: 99 },
            Reserved { delta: 1, floor: min - 1, ceiling: max },
        ]
    );
    let handlers: Vec<_> = branch.ops.iter().map(|op| (op.handler, op.args.len())).collect();
    assert_eq!(handlers[0], ("ESCROW", 3));
    assert_eq!(branch.ops[3].args, ["stock", "1", "-4"].map(crate::value::Arg::from));
    let reply = crate::value::Reply::Estimate { at_least: 3, at_most: 5 };
    assert_eq!(Range { low: 7, high: 9 }.reply(-4), reply);
}

#[test]
fn what_escrow_is_not_for_is_refused() {
    let code = |ops: Vec<OpRequest>| {
        let refusal = ValidatedBranch::new(ops).unwrap_err();
        (refusal.code, refusal.op)
    };
    let bad = (ErrorCode::BadArguments, Some(0));
    for op in [
        escrow(&["GET", "k"], ""),
        escrow(&["INCRBYFLOAT", "k", "1"], ""),
        escrow(&["SADD", "k", "1"], ""),
        escrow(&["INCR", "k"], r#"{"eq":1}"#),
        escrow(&["INCR", "k"], r#"{"ne":null}"#),
        escrow(&["INCR", "k"], r#"{"exists":true}"#),
        escrow(&["INCR", "k"], r#"{"ge":0.5}"#),
        escrow(&["INCR", "k"], r#"{"gt":"9223372036854775807"}"#),
        escrow(&["INCR", "k"], r#"{"ge":3,"lt":3}"#),
    ] {
        let told = format!("{op:?}");
        assert_eq!(code(vec![op]), bad, "{told}");
    }
    let sale = || escrow(&["DECR", "k"], r#"{"ge":0}"#);
    for other in [
        OpRequest::new(["GET", "k"]),
        OpRequest::new(["INCR", "k"]),
        OpRequest::new(["DEL", "j", "k"]),
        escrow(&["HINCRBY", "k", "f", "1"], ""),
    ] {
        let told = format!("{other:?}");
        assert_eq!(code(vec![sale(), other.clone()]), (bad.0, Some(1)), "{told}");
        assert_eq!(code(vec![other, sale()]), (bad.0, Some(1)), "{told}");
    }
    let most = || escrow(&["INCRBY", "k", "9223372036854775807"], "");
    assert_eq!(code(vec![most(), most()]), (ErrorCode::Overflow, Some(1)));
}

#[test]
fn a_request_says_escrow_only_where_it_is() {
    let op = escrow(&["DECR", "k"], "");
    let json = serde_json::to_string(&op).unwrap();
    assert_eq!(json, r#"{"cmd":["DECR","k"],"escrow":true}"#);
    assert_eq!(serde_json::from_str::<OpRequest>(&json).unwrap(), op);
    let plain = serde_json::to_string(&OpRequest::new(["DECR", "k"])).unwrap();
    assert_eq!(plain, r#"{"cmd":["DECR","k"]}"#);
}
