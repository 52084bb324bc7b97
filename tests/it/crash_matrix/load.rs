//! The same deaths under load: several clients, the process dies at a later pass of the point, and every client insists
//! on an outcome.

use assent_common::crash::CrashPoint;
use assent_tests::cluster::{arm, restart, wait_crashed};
use assent_tests::{Bank, Cluster, Options, Told, Transfer, wait_settled};

use super::scenario::process_of;
use crate::ASSENT;

const CLIENTS: usize = 4;
const TRANSFERS: usize = 12;
const ACCOUNTS: usize = 4;

/// One client: some transfers of both shapes, each insisted on.
async fn client(bank: Bank, name: usize) -> Vec<(Transfer, Told)> {
    let mut ledger = Vec::new();
    for n in 0..TRANSFERS {
        let (from, to) = match n % 3 {
            0 => ("bank-a", "bank-b"),
            1 => ("bank-b", "bank-a"),
            _ => ("bank-b", "bank-b"),
        };
        let place = (name + n) % ACCOUNTS;
        let transfer = Transfer {
            key: format!("{name}-{n}"),
            from: (from, place),
            to: (to, (place + 1 + n % 2) % ACCOUNTS),
            amount: 1,
        };
        let told = bank.insist(&transfer).await;
        ledger.push((transfer, told));
    }
    ledger
}

/// Clients run; the process dies at the `pass`-th pass of the point, and comes back.
async fn crash_under_load(point: CrashPoint, pass: u32) {
    let mut cluster = Cluster::start(ASSENT, Options::default()).await;
    let bank = Bank::open(&cluster, ACCOUNTS).await;
    arm(process_of(&mut cluster, point), &format!("{point}:{pass}")).await;
    let clients: Vec<_> =
        (0..CLIENTS).map(|name| tokio::spawn(client(bank.clone(), name))).collect();
    let process = process_of(&mut cluster, point);
    wait_crashed(process).await;
    restart(process).await;
    let mut ledger = Vec::new();
    for client in clients {
        ledger.extend(client.await.unwrap());
    }
    wait_settled(&cluster).await;
    bank.check(&cluster, &ledger).await;
    for (transfer, told) in &ledger {
        assert_eq!(bank.ask(transfer).await, *told, "the answer of {} has changed", transfer.key);
    }
}

macro_rules! under_load {
    ($($name:ident: $point:ident, $pass:literal;)+) => {
        $(#[tokio::test]
        async fn $name() {
            crash_under_load(CrashPoint::$point, $pass).await;
        })+
    };
}

// Invariants 4, 5, 8, 11 and 15, with other transactions in every state around the one that meets the point.
under_load! {
    under_load_a_participant_dies_before_votes_are_durable: BeforeVoteDurable, 7;
    under_load_a_participant_dies_after_votes_are_durable: AfterVoteDurable, 9;
    under_load_a_participant_dies_before_it_applies: BeforeApply, 6;
    under_load_a_participant_dies_after_it_applied: AfterApply, 8;
    under_load_a_coordinator_dies_before_it_prepares: BeforePrepareSent, 11;
    under_load_a_coordinator_dies_before_it_decides: BeforeDecision, 7;
    under_load_a_coordinator_dies_before_a_sync: BeforeDecisionSync, 13;
    under_load_a_coordinator_dies_after_a_decision: AfterDecisionSync, 8;
    under_load_a_coordinator_dies_between_commits: BetweenCommits, 9;
    under_load_a_coordinator_dies_before_an_end: BeforeEnd, 10;
    under_load_a_coordinator_dies_after_an_end: AfterEnd, 10;
}
