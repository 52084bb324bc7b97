//! What the promises need of a server, and what is said where it is not so.

use std::time::Duration;

use assent_participant::store::StoreError;
use assent_participant::store::requirements::{Finding, Weight};
use assent_participant::{Isolation, Options, Participant, PostgresOptions, examine_postgres};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{Agent, Server, add, prepare, until};

/// The rows that are not met: each name with what was found.
async fn unmet(options: &PostgresOptions) -> Vec<(&'static str, String, Weight)> {
    let findings = examine_postgres(options, Duration::ZERO).await.unwrap();
    let bad = findings.into_iter().filter_map(|Finding { name, found, problem }| {
        problem.map(|problem| (name, found, problem.weight))
    });
    bad.collect()
}

/// Why no agent starts there.
async fn refused(options: PostgresOptions) -> String {
    let participant = Options { postgres: Some(options), ..Options::new("ledger", "") };
    let error = Participant::start(participant).await.unwrap_err();
    let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    format!("{error} {source}")
}

/// Promise *honest*: a server that would lose votes, or takes none, is refused before the first.
#[tokio::test]
async fn a_server_that_would_lose_votes_is_refused_by_each_setting() {
    let server = Server::with([
        "fsync=off",
        "full_page_writes=off",
        "synchronous_commit=off",
        "max_prepared_transactions=0",
    ])
    .await;
    let options = PostgresOptions::new(server.url());
    let said = refused(options.clone()).await;
    for name in ["fsync is off", "full_page_writes is off", "max_prepared_transactions is 0"] {
        assert!(said.contains(name), "{name}: {said}");
    }
    let names: Vec<_> = unmet(&options).await.into_iter().map(|(name, ..)| name).collect();
    assert_eq!(
        names,
        ["max_prepared_transactions", "fsync", "full_page_writes", "synchronous_commit"]
    );
    server.run("ALTER ROLE app SET default_transaction_read_only = on").await;
    assert!(refused(options).await.contains("transaction_read_only is on"));
}

/// Promise *honest*: what holds back vacuum is named, whoever began it; what is well is quiet.
#[tokio::test]
async fn a_server_that_is_fit_has_nothing_to_change_and_what_is_left_prepared_is_named() {
    let server = Server::start().await;
    let options = PostgresOptions::new(server.url());
    assert_eq!(unmet(&options).await, []);
    let agent = Agent::start(&server).await;
    assert_eq!(unmet(&options).await, []);
    agent.tell(prepare(1, add(1, -1))).await;
    server
        .run("BEGIN; UPDATE acct SET balance = 1 WHERE id = 9; PREPARE TRANSACTION 'theirs'")
        .await;
    // What was prepared in this second is not old.
    let found = until("a second is over", async || {
        let found = unmet(&options).await;
        (found.len() == 2).then_some(found)
    })
    .await;
    assert!(found[0].0 == "branches" && found[0].1.contains("assent:"), "{found:?}");
    assert!(found[1].0 == "prepared by others" && found[1].1.contains("'theirs'"), "{found:?}");
    server.run("ROLLBACK PREPARED 'theirs'").await;
    let weak = PostgresOptions { isolation: Isolation::ReadCommitted, ..options };
    let found = unmet(&weak).await;
    assert_eq!((found[1].0, &*found[1].1), ("isolation of branches", "read-committed"));
}

/// Promise *honest*: a user that could not end what is prepared is refused, and so is one without
/// rights.
#[tokio::test]
async fn a_user_without_rights_or_with_the_branches_of_another_one_is_refused() {
    let server = Server::start().await;
    server.run("CREATE ROLE poor LOGIN").await;
    let poor = PostgresOptions::new(server.url().replace("app@", "poor@"));
    assert!(refused(poor.clone()).await.contains("no right to create one"));
    let agent = Agent::start(&server).await;
    assert!(refused(poor.clone()).await.contains("not all rights on the tables"));
    agent.tell(prepare(1, add(1, -1))).await;
    server
        .run(
            "GRANT USAGE ON SCHEMA assent TO poor; \
             GRANT ALL ON ALL TABLES IN SCHEMA assent TO poor",
        )
        .await;
    assert!(refused(poor).await.contains("user is poor, and some are app's"));
}

/// Passes connections on, and drops the settings of the session that come with them, as poolers do.
async fn pooler(to: u16) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://app@{}/postgres", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut server = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
                let length = client.read_u32().await.unwrap();
                let mut words = vec![0; length as usize - 4];
                client.read_exact(&mut words).await.unwrap();
                // A number; then names and values, each with a zero behind it, and one more.
                let fields: Vec<&[u8]> = words[4..].split(|byte| *byte == 0).collect();
                let mut kept = words[..4].to_vec();
                for pair in
                    fields.chunks_exact(2).filter(|pair| !matches!(pair[0], b"" | b"options"))
                {
                    kept.extend(pair.iter().flat_map(|word| word.iter().copied().chain([0])));
                }
                kept.push(0);
                server.write_u32(u32::try_from(kept.len() + 4).unwrap()).await.unwrap();
                server.write_all(&kept).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    url
}

#[tokio::test]
async fn a_pooler_that_drops_settings_is_noticed() {
    let server = Server::start().await;
    let url = pooler(server.postgres.port()).await;
    let said = refused(PostgresOptions::new(url)).await;
    assert!(said.contains("pooler") && said.contains("connect the agent to PostgreSQL"), "{said}");
}

/// Promise: the settings count that the server has now, not those of the agent's start.
#[tokio::test]
async fn a_server_that_comes_back_with_worse_settings_is_not_used() {
    let mut server = Server::start().await;
    let agent = Agent::start(&server).await;
    server.run("ALTER SYSTEM SET fsync = off").await;
    server.postgres.kill9();
    server.postgres.restart().await.unwrap();
    let said = until("the agent has looked at it", async || {
        let answer = agent.tell(prepare(1, add(1, -1))).await;
        answer.detail.filter(|detail| detail.contains("fsync is off"))
    })
    .await;
    assert!(said.contains("cannot be used"), "{said}");
}

/// A password that has changed is taken from its file with the next connection.
#[tokio::test]
async fn a_new_password_needs_no_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start().await;
    server.run("ALTER ROLE app PASSWORD 'first'").await;
    let hba = server.postgres.dir().join("data/pg_hba.conf");
    std::fs::write(&hba, "host all all 127.0.0.1/32 scram-sha-256\n").unwrap();
    let file = dir.path().join("password");
    std::fs::write(&file, "first\n").unwrap();
    server.postgres.restart().await.unwrap();
    let password_file = Some(file.clone());
    let agent = Agent::with(&server, |options| {
        options.postgres =
            Some(PostgresOptions { password_file, ..options.postgres.take().unwrap() });
    })
    .await;
    let with_password = server.url().replace("app@", "app:first@");
    let (client, connection) =
        tokio_postgres::connect(&with_password, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("ALTER ROLE app PASSWORD 'second'").await.unwrap();
    std::fs::write(&file, "second\n").unwrap();
    server.postgres.restart().await.unwrap();
    until("it has connected with the new one", async || {
        agent.tell(prepare(1, add(1, -1))).await.vote
    })
    .await;
}

#[tokio::test]
async fn a_url_or_a_file_that_is_none_is_said_without_the_password() {
    let said = refused(PostgresOptions::new("postgres://app:s3cret@host:port/db")).await;
    assert!(said.contains("not valid") && !said.contains("s3cret"), "{said}");
    let nowhere = "/nowhere/password".into();
    let options =
        PostgresOptions { password_file: Some(nowhere), ..PostgresOptions::new("postgres://h/d") };
    let error = examine_postgres(&options, Duration::ZERO).await.unwrap_err();
    assert!(matches!(error, StoreError::PostgresBadUrl { .. }), "{error}");
    assert!(error.to_string().contains("/nowhere/password"), "{error}");
}

#[test]
fn the_page_of_postgresql_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/postgres-servers.md");
    let page = assent_participant::postgres_page();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        written == page,
        "docs/reference/postgres-servers.md is not what the table says: UPDATE=1 cargo nextest run \
         -p assent-participant -E 'test(is_current)'"
    );
}
