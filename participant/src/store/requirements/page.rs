//! The table as a page for people: `docs/reference/servers.md`.

use std::fmt::Write as _;

use super::super::kind::{Features, ServerId, ServerKind, Version};
use super::super::rights::least_acl;
use super::{Range, Servers, TABLE, Weight};

const HEAD: &str = "\
# What the promises need of a server

<!-- Generated from the table in `participant/src/store/requirements/`; `UPDATE=1` rewrites it. -->

An agent checks these conditions whenever it connects, and again every second while it is connected.
`assent doctor` shows them.

Tested with Redis 6.2.14, 7.0.15, 8.2.3 and Valkey 9.1.2. A Valkey server is recognised by its
`valkey_version`; its `redis_version` is always 7.2.4.

The column *otherwise* says what happens if a condition is not met:

- **refused**: the agent does not start, or gives the connection up. With `--allow-unsafe-redis` it
  works and says so in its health; it then refuses branches of implicit transactions.
- **waits**: the agent takes no part until the condition is met. A running agent continues by
  itself; a starting one looks again for two minutes, and then exits and says why.
- **advice**: the agent works; the log and `assent doctor` mention it.

A condition that cannot be checked counts as not met. The exception is the user `default`: if the
agent may not run `ACL GETUSER`, that is only advice.

| what | must be | applies to | otherwise | why | what to do | source |
|---|---|---|---|---|---|---|
";

const FEATURES: &str = "
## What depends on the version

| what | from Redis | from Valkey |
|---|---|---|
";

const RIGHTS: &str = "
## The least ACL

`assent doctor --redis URL --acl` prints this for the server that it finds: as a command for a
shell, and as a line of an ACL file, where nothing is quoted. The user needs to
read and write the keys that its transactions use, and all keys that begin with the name of the
control hash. Give it all keys (`'~*'`) if you can. With limited keys, a script says of every branch
whether the agent may write its keys, which costs some speed.

The agent tries its rights with every connection, in a `MULTI` that it discards. If one is missing,
it is refused by name before the first vote. If one is taken away later, new branches are voted no
(`redis_no_permission`). A branch that was decided before waits, says why in `assent tx describe`,
and continues when the right is back.

```text
";

/// The whole page.
#[must_use]
pub fn page() -> String {
    let mut page = HEAD.to_owned();
    for row in TABLE {
        let else_ = match row.weight {
            Weight::Advice => "advice",
            Weight::Waits => "waits",
            Weight::Refused => "**refused**",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            page,
            "| `{}` | {} | {} | {else_} | {} | {} | {} |",
            row.name,
            row.needs,
            servers(row.of),
            row.why,
            row.fix.replace('|', "\\|"),
            row.source
        );
    }
    page.push_str(FEATURES);
    for (what, has) in FEATURES_SHOWN {
        let from = |kind| first_version(kind, *has).unwrap_or_else(|| "never".to_owned());
        let (redis, valkey) = (from(ServerKind::Redis), from(ServerKind::Valkey));
        let _ = writeln!(page, "| {what} | {redis} | {valkey} |");
    }
    let all = ServerId { kind: ServerKind::Redis, version: Version(u16::MAX, 0, 0) }.features();
    page.push_str(RIGHTS);
    page.push_str(&wrapped(&least_acl(&all, "assent:ctl")));
    page.push_str(
        "```\n\nRedis 6.2 has no `pexpiretime`; `hpexpireat` and `hpexpiretime` came with Redis 7.4 and Valkey 9.0. Without \
         `exec`, `getrange`, `mget`,\n`mset` and `watch`, the agent writes by scripts, more slowly; without \
         `client|list` and `client|setname`, the agents of one Redis know each other\n\
         by a pulse, one write a second. \
         Without\n`dump` and `hkeys`, `ASSENT.DIGEST` is refused. The \
         commands that\n[run on copies](commands.md#commands-that-run-on-copies) need `copy`, \
         `dump`, `restore`, and each\nthe right to itself, which is not in this list.\n",
    );
    page
}

type Has = fn(&Features) -> bool;

const FEATURES_SHOWN: &[(&str, Has)] = &[
    ("keys that expire need no script of the owner's (`PEXPIRETIME`)", |features| {
        features.expire_time
    }),
    ("fields of hashes that expire", |features| features.field_expiry),
    ("scores with the fewest digits (`0.1`)", |features| features.shortest_scores),
];

/// The first version of a kind that has it, of those that any feature came with.
fn first_version(kind: ServerKind, has: Has) -> Option<String> {
    const MINORS: u16 = 11;
    let versions = (6..=9).flat_map(|major| (0..MINORS).map(move |minor| Version(major, minor, 0)));
    let mut versions = versions.filter(|version| *version >= Version(6, 2, 0));
    let first = versions.find(|version| has(&ServerId { kind, version: *version }.features()))?;
    Some(format!("{}.{}", first.0, first.1))
}

fn servers(of: Servers) -> String {
    if of == Servers::ALL {
        return "all".to_owned();
    }
    let kinds = [("Redis", of.redis), ("Valkey", of.valkey)];
    let parts = kinds.iter().filter_map(|(kind, range)| {
        let Range { from, before } = (*range)?;
        let from = if from == Version(0, 0, 0) { String::new() } else { format!(" ≥ {from}") };
        let before = before.map_or_else(String::new, |before| format!(" < {before}"));
        Some(format!("{kind}{from}{before}"))
    });
    parts.collect::<Vec<_>>().join(", ")
}

/// Cuts a line at spaces.
fn wrapped(line: &str) -> String {
    const WIDTH: usize = 110;
    let mut text = String::new();
    let mut column = 0;
    for word in line.split(' ') {
        if column + word.len() > WIDTH {
            text.push_str(" \\\n  ");
            column = 2;
        } else if column > 0 {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += word.len();
    }
    text.push('\n');
    text
}
