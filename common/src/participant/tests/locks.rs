//! Who waits for a lock, who dies of it, and what frees it.

use super::*;

#[test]
fn locks_conflict_by_mode_and_wait_die_judges_by_age() {
    // what 5 holds, what is wanted, by an older (4), by a younger (6)
    let table = [
        (Shared, Shared, "yes", "yes"),
        (Shared, Exclusive, "wait for 5 on k", "no: lock_conflict by 5"),
        (Exclusive, Shared, "wait for 5 on k", "no: lock_conflict by 5"),
        (Exclusive, Exclusive, "wait for 5 on k", "no: lock_conflict by 5"),
    ];
    for (held, wanted, older, younger) in table {
        for mode in [Mode::TwoPhase, Mode::OnePhase] {
            for (n, expected) in [(4, older), (6, younger)] {
                let mut participant = Participant::new(INCARNATION);
                staged(&mut participant, 5, &[("k", held)]);
                let request = to_prepare(n, prepare(n, mode, &[("k", wanted)]));
                let expected = match (expected, mode) {
                    ("yes", Mode::TwoPhase) => format!("yes [{n}] seq 2"),
                    ("yes", Mode::OnePhase) => format!("committed [{n}]; applies [{n}]"),
                    (other, _) => other.to_owned(),
                };
                let answer = words(step(&mut participant, request));
                assert_eq!(answer, expected, "{held:?}, {wanted:?}, {mode:?} by {n}");
            }
        }
    }
}

/// An older transaction waits only if it is older than *every* holder: one older holder among them
/// could close a cycle.
#[test]
fn among_several_readers_one_older_holder_is_enough_to_die() {
    let mut participant = Participant::new(INCARNATION);
    for n in [7, 3, 9] {
        staged(&mut participant, n, &[("k", Shared)]);
    }
    let mut write = |n| {
        let request = to_prepare(n, prepare(n, Mode::TwoPhase, &[("k", Exclusive)]));
        words(step(&mut participant, request))
    };
    assert_eq!(write(2), "wait for 3 on k");
    assert_eq!(write(5), "no: lock_conflict by 3");
    assert_eq!(write(10), "no: lock_conflict by 3");
    // Conflicts on different keys count together.
    staged(&mut participant, 4, &[("other", Exclusive)]);
    let keys = [("other", Shared), ("k", Exclusive)];
    let request = to_prepare(2, prepare(2, Mode::TwoPhase, &keys));
    assert_eq!(words(step(&mut participant, request)), "wait for 4 on other");
    let keys = [("k", Exclusive), ("other", Shared)];
    let mut prepare = prepare(20, Mode::TwoPhase, &keys);
    prepare.id = "0198f1c2-a4b2-7c1d-9c0d-ffffffffffff".parse().unwrap();
    let answer = words(step(&mut participant, to_prepare(20, prepare)));
    assert_eq!(answer, "wait for 3 on k", "the age is the public id's, not the number's");
}

/// The earlier attempt's abort may still be on its way: the retry must not read or write around it.
#[test]
fn a_retry_waits_for_its_own_earlier_attempt() {
    let mut participant = Participant::new(INCARNATION);
    staged(&mut participant, 4, &[("k", Exclusive)]);
    let retry = Txid { attempt: Attempt(1), ..txid(4) };
    let again = BranchMessage::Prepare(prepare(4, Mode::TwoPhase, &[("k", Exclusive)]));
    let request = (retry, again);
    assert_eq!(words(step(&mut participant, request.clone())), "wait for 4 on k");
    step(&mut participant, abort(4));
    assert_eq!(words(step(&mut participant, request)), "yes [4] seq 2");
}

#[test]
fn the_stronger_lock_wins_where_a_branch_names_a_key_twice() {
    for locks in [[("k", Shared), ("k", Exclusive)], [("k", Exclusive), ("k", Shared)]] {
        let mut participant = Participant::new(INCARNATION);
        staged(&mut participant, 4, &locks);
        let lock = participant.locks().get(&Key::from("k")).cloned();
        assert_eq!(lock, Some(Lock::Exclusive(txid(4), id(4))));
        step(&mut participant, commit(4));
        assert!(participant.locks().is_empty());
    }
}

#[test]
fn readers_share_a_key_until_the_last_of_them_ends() {
    let mut participant = Participant::new(INCARNATION);
    for n in [5, 6, 7] {
        staged(&mut participant, n, &[("k", Shared)]);
    }
    for (n, end) in [(6, abort(6)), (5, commit(5))] {
        step(&mut participant, end);
        let lock = participant.locks().get(&Key::from("k")).unwrap();
        assert!(lock.owners().all(|(owner, _)| owner != txid(n)));
        let request = to_prepare(8, prepare(8, Mode::TwoPhase, &[("k", Exclusive)]));
        assert!(words(step(&mut participant, request)).starts_with("no: lock_conflict"));
    }
    step(&mut participant, commit(7));
    assert!(participant.locks().is_empty());
    staged(&mut participant, 8, &[("k", Exclusive)]);
}

/// Invariant 13. The keys of a staged record are what its own vote locked; that another owner
/// stands there is what the
/// comparison is for (a restored backup, an operator's hand), so the state is made by hand.
#[test]
fn a_lock_of_another_owner_is_never_freed() {
    for end in [commit(4), abort(4)] {
        let mut participant = Participant::new(INCARNATION);
        staged(&mut participant, 4, &[("mine", Exclusive), ("x", Exclusive), ("s", Shared)]);
        for (key, access) in [("x", Exclusive), ("s", Shared)] {
            participant.locks.free(txid(4), &Key::from(key));
            participant.locks.take(txid(9), id(9), &Key::from(key), access);
        }
        step(&mut participant, end);
        let left: Vec<_> = participant
            .locks()
            .iter()
            .map(|(key, lock)| (key.clone(), lock.owners().collect::<Vec<_>>()))
            .collect();
        let owner = vec![(txid(9), id(9))];
        assert_eq!(left, [(Key::from("s"), owner.clone()), (Key::from("x"), owner)]);
    }
}
