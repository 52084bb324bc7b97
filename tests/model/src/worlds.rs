//! The worlds that are explored, and how many states each has.

use assent_common::command::Access::{Exclusive, Shared};
use assent_common::wire::transaction::Ack;

use crate::check::{explore, has_circle, is_violated};
use crate::config::{Adds, Budget, Client, Config, Questions};

/// So many lost messages and deaths of the coordinator, with all that may happen at any time.
pub(crate) fn faults(losses: u8, crashes: u8) -> Budget {
    let questions = Questions::Later;
    Budget { losses, crashes, questions, marks: true, deadlines: true, ..Budget::default() }
}

/// The same; branches in doubt do at once what they learn, and no marks come with other transactions' batches.
pub(crate) fn few_faults(losses: u8, crashes: u8) -> Budget {
    Budget { questions: Questions::AtOnce, marks: false, ..faults(losses, crashes) }
}

pub(crate) fn one(client: Client, budget: Budget) -> Config {
    Config::new(vec![client], budget)
}

/// Two transactions that write the same key at two participants; the second one is the younger.
pub(crate) fn rivals(budget: Budget) -> Config {
    let younger = Client::writer(2).aged(2).keyless();
    Config::new(vec![Client::writer(2).keyless(), younger], budget)
}

/// Each reads what the other writes.
pub(crate) fn crossed(budget: Budget) -> Config {
    let older = Client::of(&[Shared, Exclusive]).keyless();
    let younger = Client::of(&[Exclusive, Shared]).aged(2).keyless();
    Config::new(vec![older, younger], budget)
}

/// Two transactions of which each writes at one participant alone, and both at another.
pub(crate) fn overlapping(budget: Budget) -> Config {
    let mut younger = Client::writer(2).aged(2).keyless();
    younger.branches.iter_mut().for_each(|branch| branch.at += 1);
    Config::new(vec![Client::writer(2).keyless(), younger], budget)
}

/// An implicit transaction that writes at two participants.
pub(crate) fn implicit(budget: Budget) -> Config {
    one(Client::writer(2).implicit(), budget)
}

/// An older transaction of one phase, and a younger one of two that may hold its lock.
pub(crate) fn mixed(budget: Budget) -> Config {
    Config::new(vec![Client::writer(1).keyless(), Client::writer(2).aged(2).keyless()], budget)
}

/// The same; the one of one phase is the younger, and dies of a conflict.
pub(crate) fn mixed_the_other_way(budget: Budget) -> Config {
    Config::new(vec![Client::writer(2).keyless(), Client::writer(1).aged(2).keyless()], budget)
}

/// Two transactions that take one from the same counters, at two participants, in escrow.
pub(crate) fn sellers(budget: Budget) -> Config {
    let younger = Client::seller(2).aged(2).keyless();
    Config::new(vec![Client::seller(2).keyless(), younger], budget)
}

/// One takes one and minds no bound; the other adds one, and needs what was there to stay.
pub(crate) fn a_seller_and_one_who_keeps_a_bound(budget: Budget) -> Config {
    let keeper = Adds { delta: 1, at_least: 3, at_most: 3 };
    let taker = Adds { delta: -1, at_least: 0, at_most: i64::MAX };
    let younger = Client::adder(2, taker).aged(2).keyless();
    Config::new(vec![Client::adder(2, keeper).keyless(), younger], budget)
}

pub(crate) fn attempts(attempts: u32, config: Config) -> Config {
    Config { attempts, ..config }
}

mod one_phase {
    use super::*;

    #[test]
    fn a_keyed_write() {
        explore(one(Client::writer(1), faults(2, 2)), 11_459);
    }

    #[test]
    fn a_write_without_a_key() {
        explore(one(Client::writer(1).keyless(), faults(2, 2)), 2_645);
    }

    #[test]
    fn a_keyed_read() {
        explore(one(Client::of(&[Shared]), faults(2, 1)), 11_309);
    }

    #[test]
    fn a_write_that_fails() {
        explore(one(Client::writer(1).failing(0), faults(2, 2)), 8_558);
    }

    #[test]
    fn two_writes_of_one_key() {
        let younger = Client::writer(1).aged(2).keyless();
        let clients = vec![Client::writer(1).keyless(), younger];
        explore(Config::new(clients, faults(1, 1)), 49_433);
    }
}

mod two_branches {
    use super::*;

    #[test]
    fn answered_when_applied() {
        explore(one(Client::writer(2), faults(2, 0)), 136_792);
    }

    #[test]
    fn answered_when_decided() {
        explore(one(Client::writer(2).ack(Ack::Decided), faults(2, 0)), 136_792);
    }

    #[test]
    fn answered_when_applied_with_a_crash() {
        explore(one(Client::writer(2).keyless(), faults(1, 1)), 71_761);
    }

    #[test]
    fn answered_when_decided_with_a_crash() {
        explore(one(Client::writer(2).keyless().ack(Ack::Decided), faults(1, 1)), 71_761);
    }

    #[test]
    fn two_crashes() {
        explore(one(Client::writer(2).keyless(), faults(0, 2)), 20_652);
    }

    #[test]
    fn a_client_that_asks_again_after_a_crash() {
        let budget = Budget { questions: Questions::AtOnce, ..faults(0, 1) };
        explore(attempts(1, one(Client::writer(2), budget)), 327_856);
    }

    #[test]
    fn a_branch_that_votes_no() {
        explore(one(Client::writer(2).failing(1), faults(2, 0)), 74_421);
    }

    #[test]
    fn a_branch_that_only_reads() {
        explore(one(Client::of(&[Shared, Exclusive]).keyless(), faults(1, 1)), 71_761);
    }

    #[test]
    fn branches_that_only_read() {
        explore(one(Client::of(&[Shared, Shared]).keyless(), faults(1, 1)), 71_761);
    }
}

mod three_branches {
    use super::*;

    #[test]
    fn with_a_loss() {
        explore(one(Client::writer(3), Budget { marks: false, ..faults(1, 0) }), 429_653);
    }

    #[test]
    fn with_a_crash() {
        explore(one(Client::writer(3).keyless(), faults(0, 1)), 217_013);
    }

    #[test]
    fn one_of_which_only_reads() {
        let client = Client::of(&[Shared, Exclusive, Exclusive]).keyless().ack(Ack::Decided);
        explore(one(client, faults(0, 1)), 217_013);
    }
}

/// A hook decides about a branch: the others are asked behind it.
mod hooked {
    use super::*;

    fn client() -> Client {
        Client::writer(2).hooked(1).keyless()
    }

    #[test]
    fn with_a_loss_and_a_crash() {
        explore(one(client(), faults(1, 1)), 30_046);
    }

    #[test]
    fn that_votes_no() {
        explore(one(client().failing(1), faults(1, 0)), 648);
    }

    #[test]
    fn of_three_branches() {
        let three = Client::writer(3).hooked(1).keyless();
        explore(one(three, faults(0, 1)), 82_440);
    }

    #[test]
    fn of_an_implicit_transaction() {
        explore(one(client().implicit(), faults(1, 0)), 17_757);
    }

    /// Each locks first what the other locks last.
    #[test]
    fn in_conflict_with_another() {
        let clients = vec![client(), Client::writer(2).hooked(0).aged(2).keyless()];
        explore(attempts(1, Config::new(clients, Budget::default())), 2_381);
    }
}

/// Transactions whose votes are their decision. Every staged branch may ask the others at any time, also while its coordinator
/// is at work: it may be cut off.
mod implicit {
    use super::*;

    fn reader() -> Client {
        Client::of(&[Shared, Exclusive]).implicit()
    }

    #[test]
    fn answered_when_applied() {
        explore(implicit(faults(1, 0)), 130_939);
    }

    #[test]
    fn answered_when_decided_with_a_crash() {
        explore(one(Client::writer(2).implicit().ack(Ack::Decided), faults(0, 1)), 36_017);
    }

    #[test]
    fn with_a_loss_and_a_crash() {
        explore(implicit(few_faults(1, 1)), 108_576);
    }

    #[test]
    fn of_which_a_branch_votes_no() {
        explore(one(Client::writer(2).implicit().failing(1), faults(1, 0)), 27_015);
    }

    #[test]
    fn of_which_a_branch_only_reads() {
        explore(one(reader(), faults(0, 1)), 36_017);
    }

    #[test]
    fn of_three_branches() {
        explore(one(Client::writer(3).implicit(), few_faults(0, 0)), 479_262);
    }

    #[test]
    fn in_conflict_with_a_logged_one() {
        let younger = Client::writer(2).aged(2).keyless();
        let clients = vec![Client::writer(2).implicit(), younger];
        explore(attempts(1, Config::new(clients, Budget::default())), 41_792);
    }

    #[test]
    fn in_conflict_with_another() {
        let clients = vec![Client::writer(2).implicit(), Client::writer(2).aged(2).implicit()];
        explore(attempts(1, Config::new(clients, Budget::default())), 114_559);
    }
}

mod conflicts {
    use super::*;

    /// Wait-die alone must end every waiting: no deadline passes here.
    #[test]
    fn of_two_writers() {
        explore(attempts(1, rivals(Budget::default())), 24_081);
    }

    #[test]
    fn of_two_that_read_what_the_other_writes() {
        explore(attempts(1, crossed(Budget::default())), 24_081);
    }

    #[test]
    fn of_two_writers_with_a_crash() {
        let budget = Budget { deadlines: false, ..few_faults(0, 1) };
        explore(attempts(1, rivals(budget)), 178_635);
    }

    #[test]
    fn of_two_writers_that_share_one_participant_and_try_again() {
        explore(overlapping(Budget::default()), 474_721);
    }

    #[test]
    fn of_a_younger_one_phase_with_two() {
        explore(mixed_the_other_way(Budget::default()), 532);
    }

    #[test]
    fn of_one_phase_with_two() {
        explore(mixed(few_faults(0, 1)), 236_606);
    }
}

/// Two hold one counter at once, where there is room for both; where there is none, wait-die.
mod escrow {
    use super::*;

    #[test]
    fn of_two_sellers_with_enough_for_both() {
        explore(attempts(1, sellers(Budget::default())).stocked(2), 3_221);
    }

    #[test]
    fn of_two_sellers_of_the_last_one() {
        explore(attempts(1, sellers(Budget::default())).stocked(1), 29_317);
    }

    #[test]
    fn of_a_seller_and_one_who_keeps_a_bound() {
        let config = a_seller_and_one_who_keeps_a_bound(Budget::default());
        explore(attempts(1, config).stocked(2), 29_055);
    }

    #[test]
    fn of_two_sellers_with_a_crash() {
        let budget = Budget { deadlines: false, ..few_faults(0, 1) };
        explore(attempts(1, sellers(budget)).stocked(2), 110_052);
    }

    #[test]
    fn of_one_phase_with_two() {
        let younger = Client::seller(2).aged(2).keyless();
        let clients = vec![Client::seller(1).keyless(), younger];
        explore(Config::new(clients, few_faults(0, 1)).stocked(1), 220_132);
    }

    #[test]
    fn of_one_phase_with_a_loss() {
        let clients = vec![Client::seller(1).keyless(), Client::seller(1).aged(2).keyless()];
        explore(Config::new(clients, faults(1, 1)).stocked(2), 49_433);
    }

    #[test]
    fn of_a_seller_and_a_writer() {
        let younger = Client::writer(2).aged(2).keyless();
        let clients = vec![Client::seller(2).keyless(), younger];
        explore(attempts(1, Config::new(clients, Budget::default())).stocked(1), 24_081);
    }
}

/// What is quiet has ended: that says something only if every run without faults comes to a quiet state.
#[test]
fn no_run_goes_in_a_circle() {
    assert!(!has_circle(one(Client::writer(1), faults(2, 1))));
    assert!(!has_circle(one(Client::writer(2), faults(1, 0))));
    assert!(!has_circle(one(Client::writer(2).keyless(), faults(0, 1))));
    assert!(!has_circle(attempts(1, rivals(Budget::default()))));
}

/// HTTP promises that a message whose answer was heard has no other copy under way; proxies that send requests again
/// break it. Two phases do not need that promise.
mod repeated_messages {
    use super::*;

    #[test]
    fn are_harmless_to_two_phases() {
        explore(one(Client::writer(2), Budget { repeats: 1, ..faults(1, 0) }), 146_632);
    }

    /// A prepare that was refused may come again and be staged: the refusal alone decides nothing.
    #[test]
    fn are_harmless_to_implicit_transactions() {
        explore(implicit(Budget { repeats: 1, ..few_faults(0, 0) }), 33_749);
    }

    /// One phase does: a refused prepare is run anew at once, and the copy would be a second run. Not a bug, and no
    /// promise: no proxy that sends requests again may stand between a coordinator and a participant.
    #[test]
    fn would_run_one_phase_twice() {
        let budget = Budget { repeats: 1, ..Budget::default() };
        let property = "15 one request commits once at most";
        assert!(is_violated(mixed_the_other_way(budget), property));
    }
}

mod lost_data {
    use super::*;

    fn keyless() -> Client {
        Client::writer(2).keyless()
    }

    #[test]
    fn of_a_redis_that_goes_back() {
        explore(one(keyless(), Budget { rollbacks: 1, ..few_faults(1, 0) }), 30_097);
    }

    #[test]
    fn of_a_redis_whose_branch_only_reads() {
        let client = Client::of(&[Shared, Exclusive]).keyless();
        explore(one(client, Budget { rollbacks: 1, ..few_faults(1, 0) }), 29_483);
    }

    #[test]
    fn of_a_redis_that_is_replaced() {
        explore(one(keyless(), Budget { replacements: 1, ..few_faults(1, 0) }), 51_490);
    }
}

#[test]
fn an_operator_gives_up_a_branch() {
    let budget = Budget { overrides: 1, ..few_faults(1, 1) };
    explore(one(Client::writer(2).keyless(), budget), 27_468);
}

/// Larger worlds, a minute or some each: `make model`. Without its variable these tests are empty.
mod large {
    use super::*;

    fn explore_if_asked(config: Config, states: usize) {
        if std::env::var_os("ASSENT_MODEL_LARGE").is_some() {
            explore(config, states);
        }
    }

    #[test]
    fn three_losses() {
        explore_if_asked(one(Client::writer(2), faults(3, 0)), 376_167);
    }

    #[test]
    fn two_losses_and_two_crashes() {
        explore_if_asked(one(Client::writer(2).keyless(), faults(2, 2)), 769_017);
    }

    #[test]
    fn a_client_that_asks_again_after_a_loss_and_a_crash() {
        explore_if_asked(attempts(1, one(Client::writer(2), few_faults(1, 1))), 1_145_934);
    }

    #[test]
    fn three_branches_with_a_loss_and_a_crash() {
        explore_if_asked(one(Client::writer(3).keyless(), few_faults(1, 1)), 291_807);
    }

    #[test]
    fn an_implicit_one_of_three_branches_with_a_crash() {
        explore_if_asked(one(Client::writer(3).implicit(), few_faults(0, 1)), 1_013_171);
    }
}
