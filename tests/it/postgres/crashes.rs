//! The crash matrix of a participant with a database: its agent dies between any two effects, alone
//! or together with the server, and what was begun ends as one outcome.

use assent_common::crash::CrashPoint;
use assent_tests::cluster::{arm, restart, wait_crashed};

use super::{Mixed, Shape, Told};

/// What dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dies {
    Agent,
    /// The server too, before the agent is started again.
    AgentAndServer,
}

/// The agent beside the database dies at this point, comes back, and both sides agree.
async fn dies_at(point: CrashPoint, shape: Shape, dies: Dies) {
    let mut mixed = Mixed::start().await;
    arm(mixed.ledger(), &format!("{point}:1")).await;
    let client = mixed.client();
    let asking = tokio::spawn(async move { client.ask("the one", shape, 0, 1).await });
    wait_crashed(mixed.ledger()).await;
    if dies == Dies::AgentAndServer {
        mixed.servers.postgres.restart().await.unwrap();
    }
    restart(mixed.ledger()).await;
    let first = asking.await.unwrap();
    let client = mixed.client();
    let told = client.insist("the one", shape, 0, 1).await;
    if first != Told::Unknown {
        assert_eq!(told, first, "the answer has changed");
    }
    if shape == Shape::Refused {
        assert_eq!(told, Told::Aborted);
    }
    let after = client.insist("after", Shape::Both, 0, 1).await;
    assert_eq!(after, Told::Committed);
    let all = [("the one", shape, told), ("after", Shape::Both, after)];
    mixed.check(&all.map(|(key, shape, told)| (key.to_owned(), shape, told))).await;
}

/// A test for each point, shape and death, and the proof that no point is forgotten.
macro_rules! matrix {
    ($($name:ident: $point:ident, $shape:ident, $dies:ident;)+) => {
        $(#[tokio::test]
        async fn $name() {
            dies_at(CrashPoint::$point, Shape::$shape, Dies::$dies).await;
        })+

        /// Points of this matrix.
        pub(crate) const COVERED: &[CrashPoint] = &[$(CrashPoint::$point,)+];
    };
}

matrix! {
    before_its_vote: BeforeVoteDurable, Both, Agent;
    before_its_vote_with_the_server: BeforeVoteDurable, Both, AgentAndServer;
    behind_the_marker: AfterSqlMarker, Both, Agent;
    behind_the_marker_with_the_server: AfterSqlMarker, Both, AgentAndServer;
    behind_the_statements: AfterSqlStatements, Both, Agent;
    behind_the_statements_with_the_server: AfterSqlStatements, Both, AgentAndServer;
    between_the_vote_and_the_prepare: BeforeSqlPrepared, Both, Agent;
    between_the_vote_and_the_prepare_with_the_server: BeforeSqlPrepared, Both, AgentAndServer;
    behind_the_prepare: AfterSqlPrepared, Both, Agent;
    behind_the_prepare_with_the_server: AfterSqlPrepared, Both, AgentAndServer;
    behind_its_vote: AfterVoteDurable, Both, Agent;
    before_it_applies: BeforeApply, Both, Agent;
    before_it_applies_with_the_server: BeforeApply, Both, AgentAndServer;
    before_commit_prepared: BeforeSqlFinished, Both, Agent;
    before_commit_prepared_with_the_server: BeforeSqlFinished, Both, AgentAndServer;
    behind_commit_prepared: AfterSqlFinished, Both, Agent;
    behind_commit_prepared_with_the_server: AfterSqlFinished, Both, AgentAndServer;
    behind_it_applied: AfterApply, Both, Agent;
    between_the_rollback_and_the_fence: BeforeSqlFence, Refused, Agent;
    between_the_rollback_and_the_fence_with_the_server: BeforeSqlFence, Refused, AgentAndServer;
    behind_the_fence: AfterSqlFence, Refused, Agent;
    behind_the_fence_with_the_server: AfterSqlFence, Refused, AgentAndServer;
    before_the_commit_of_one_phase: BeforeSqlCommit, Alone, Agent;
    before_the_commit_of_one_phase_with_the_server: BeforeSqlCommit, Alone, AgentAndServer;
    behind_the_commit_of_one_phase: AfterSqlPrepared, Alone, Agent;
    behind_the_commit_of_one_phase_with_the_server: AfterSqlPrepared, Alone, AgentAndServer;
}
