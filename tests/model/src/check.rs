//! Runs the checker, and tells the story of what it found.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};

use stateright::{Checker, Expectation, HasDiscoveries, Model, Path};

use crate::config::Config;
use crate::state::{Packet, State};
use crate::world::{Action, World};

/// As many as CI has cores. The counts do not depend on it.
const THREADS: usize = 2;

type Story = Path<State, Action>;

/// Explores the whole world: every property must hold in every state, every path that matters must be met, and there
/// must be exactly so many states. A count that changes says that the protocol or the model did; look before you
/// write the new one down.
pub(crate) fn explore(config: Config, states: usize) {
    let world = World { config };
    let checker = world
        .checker()
        .finish_when(HasDiscoveries::AnyFailures)
        .threads(THREADS)
        .spawn_bfs()
        .join();
    let discoveries = checker.discoveries();
    for property in checker.model().properties() {
        match (property.expectation, discoveries.get(property.name)) {
            (Expectation::Always | Expectation::Eventually, Some(path)) => {
                panic!("violated: {}\n{}", property.name, tell(path.clone()));
            }
            (Expectation::Sometimes, None) => panic!("never {}", property.name),
            _ => {}
        }
    }
    assert_eq!(checker.unique_state_count(), states, "another number of states than before");
}

/// Explores until this property is violated; whether it is.
pub(crate) fn is_violated(config: Config, property: &'static str) -> bool {
    let world = World { config };
    // One thread, so that a shortest run is found first, and the same one each time.
    let checker =
        world.checker().finish_when(HasDiscoveries::AllOf([property].into())).spawn_bfs().join();
    checker.discoveries().contains_key(property)
}

/// Whether some run comes back to a state that it was in. A fault is taken out of a budget that nothing refills, so that
/// a circle would be one of steps without faults.
pub(crate) fn has_circle(config: Config) -> bool {
    let world = World { config };
    let mut seen: HashMap<u64, OnPath> = HashMap::new();
    let mut path = Vec::new();
    for state in world.init_states() {
        seen.insert(fingerprint(&state), OnPath::Yes);
        path.push((fingerprint(&state), world.next_states(&state)));
    }
    while let Some((here, next)) = path.last_mut() {
        let Some(state) = next.pop() else {
            seen.insert(*here, OnPath::No);
            path.pop();
            continue;
        };
        let there = fingerprint(&state);
        match seen.get(&there) {
            Some(OnPath::Yes) => return true,
            Some(OnPath::No) => {}
            None => {
                seen.insert(there, OnPath::Yes);
                path.push((there, world.next_states(&state)));
            }
        }
    }
    false
}

/// Whether a state that was met is on the path that is being followed.
enum OnPath {
    Yes,
    No,
}

fn fingerprint(state: &State) -> u64 {
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    hasher.finish()
}

/// A run, step by step, and the state that it ends in.
fn tell(path: Story) -> String {
    let last = path.last_state().clone();
    let mut told = String::new();
    for (state, action) in path.into_vec() {
        let Some(action) = action else { continue };
        let what = match action {
            Action::Deliver(place) | Action::Lose { packet: place, .. } => {
                state.packets().nth(place).map(packet)
            }
            _ => None,
        };
        let _ = writeln!(told, "  {action:?}  {}", what.unwrap_or_default());
    }
    let _ = writeln!(told, "which ends in {last:#?}");
    told
}

fn packet(packet: &Packet) -> String {
    match packet {
        Packet::Ask(ask) => {
            format!("{:?} of {} to p{}, from {:?}", ask.message, ask.txid, ask.at, ask.from)
        }
        Packet::Answer(ask, answer) => format!("{} from p{}: {answer:?}", ask.txid, ask.at),
    }
}
