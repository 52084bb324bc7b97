//! Cycles, named after the edges that they need.
//!
//! Each kind of cycle is looked for in the subgraph of the edges that it may have, one strongly connected component at a
//! time, the worst kinds first. A component in which a cycle as bad or worse is known is passed over, so that every
//! cycle of what is left is of the kind looked for. Of a component one cycle is reported, the shortest that
//! the budget finds; a run of real-time edges counts as one, because real time is transitive.

use std::collections::VecDeque;

use petgraph::algo::kosaraju_scc;
use petgraph::graph::{DiGraph, NodeIndex};

use crate::report::{Anomaly, Dependency, Name, Step};

use super::graph::{Edge, Graph, Why};
use super::transactions::Transactions;

/// How many edges may be walked for the shortest cycle of one component. Only the length is at stake.
const BUDGET: usize = 20_000_000;

/// How many anti-dependencies (`rw`) a cycle has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Anti {
    None,
    One,
    Many,
}

/// A kind of cycle.
#[derive(Debug, Clone, Copy)]
struct Kind {
    /// What may be in it, besides `rw`.
    reads: bool,
    realtime: bool,
    anti: Anti,
    /// The lower, the worse.
    rank: u8,
}

const KINDS: [Kind; 8] = [
    Kind { reads: false, realtime: false, anti: Anti::None, rank: 0 },
    Kind { reads: true, realtime: false, anti: Anti::None, rank: 1 },
    Kind { reads: true, realtime: false, anti: Anti::One, rank: 2 },
    Kind { reads: true, realtime: false, anti: Anti::Many, rank: 3 },
    Kind { reads: false, realtime: true, anti: Anti::None, rank: 0 },
    Kind { reads: true, realtime: true, anti: Anti::None, rank: 1 },
    Kind { reads: true, realtime: true, anti: Anti::One, rank: 2 },
    Kind { reads: true, realtime: true, anti: Anti::Many, rank: 3 },
];

impl Kind {
    /// Whether the edge may be in it, other than as its one `rw`.
    const fn admits(self, edge: &Edge) -> bool {
        match edge.why.dependency() {
            Dependency::WriteWrite => true,
            Dependency::WriteRead => self.reads,
            Dependency::ReadWrite => matches!(self.anti, Anti::Many),
            Dependency::Realtime => self.realtime,
        }
    }

    /// Whether every cycle of it can be turned so that it begins with this edge, or one like it.
    fn anchors(self, edge: &Edge) -> bool {
        match self.anti {
            Anti::None => edge.why != Why::Realtime && self.admits(edge),
            Anti::One | Anti::Many => edge.why.dependency() == Dependency::ReadWrite,
        }
    }
}

pub(super) fn find(graph: &Graph, transactions: &Transactions<'_>) -> Vec<Anomaly> {
    let mut found = Vec::new();
    let all = Subgraph::new(graph.nodes, graph.edges.clone(), (0..graph.nodes).collect());
    for component in all.split(|_| true) {
        let mut known: Vec<(u8, Vec<usize>)> = Vec::new();
        for kind in KINDS {
            let candidates = |edge: &Edge| kind.admits(edge) || kind.anchors(edge);
            for part in component.split(candidates) {
                let worse = |(rank, nodes): &(u8, Vec<usize>)| {
                    *rank <= kind.rank && nodes.iter().all(|node| part.has(*node))
                };
                if known.iter().any(worse) {
                    continue;
                }
                if let Some(cycle) = part.shortest(kind) {
                    known.push((kind.rank, cycle.iter().map(|edge| edge.from).collect()));
                    found.push(describe(&cycle, transactions));
                }
            }
        }
    }
    found
}

/// The name of a cycle, by its edges alone.
fn name(cycle: &[Edge]) -> Name {
    let count = |kind| cycle.iter().filter(|edge| edge.why.dependency() == kind).count();
    let realtime = count(Dependency::Realtime) > 0;
    match (count(Dependency::ReadWrite), count(Dependency::WriteRead), realtime) {
        (0, 0, false) => Name::G0,
        (0, 0, true) => Name::G0Realtime,
        (0, _, false) => Name::G1c,
        (0, _, true) => Name::G1cRealtime,
        (1, _, false) => Name::GSingle,
        (1, _, true) => Name::GSingleRealtime,
        (_, _, false) => Name::G2,
        (_, _, true) => Name::G2Realtime,
    }
}

fn describe(cycle: &[Edge], transactions: &Transactions<'_>) -> Anomaly {
    let operations = cycle.iter().map(|edge| transactions.operation(edge.from));
    let detail = format!("a cycle of {} transactions", cycle.len());
    let mut anomaly = Anomaly::new(name(cycle), operations, detail);
    let step = |edge: &Edge| {
        let (from, to) = (transactions.name(edge.from), transactions.name(edge.to));
        Step {
            from: transactions.operation(edge.from).invoked.index,
            to: transactions.operation(edge.to).invoked.index,
            dependency: edge.why.dependency(),
            why: edge.why.explain(&transactions.keys, &from, &to),
        }
    };
    anomaly.cycle = cycle.iter().map(step).collect();
    anomaly
}

/// Some nodes of the graph and the edges between them.
struct Subgraph {
    /// The sorted nodes; edges say them by their place in here.
    nodes: Vec<usize>,
    edges: Vec<Edge>,
    /// Where the edges of each node begin in `edges`.
    starts: Vec<usize>,
}

impl Subgraph {
    /// The edges are sorted, and are of places in `nodes`.
    fn new(count: usize, edges: Vec<Edge>, nodes: Vec<usize>) -> Self {
        let mut starts = vec![0; count + 1];
        for edge in &edges {
            starts[edge.from + 1] += 1;
        }
        for node in 0..count {
            starts[node + 1] += starts[node];
        }
        Self { nodes, edges, starts }
    }

    fn has(&self, node: usize) -> bool {
        self.nodes.binary_search(&node).is_ok()
    }

    /// Its strongly connected components by these edges, each before those that it can be reached from.
    fn components(&self, admits: impl Fn(&Edge) -> bool) -> Vec<Vec<NodeIndex>> {
        let mut graph = DiGraph::<(), ()>::with_capacity(self.nodes.len(), self.edges.len());
        for _ in &self.nodes {
            graph.add_node(());
        }
        for edge in self.edges.iter().filter(|edge| admits(edge)) {
            graph.add_edge(NodeIndex::new(edge.from), NodeIndex::new(edge.to), ());
        }
        kosaraju_scc(&graph)
    }

    /// The components that have cycles, by these edges, with all edges that they have.
    fn split(&self, admits: impl Fn(&Edge) -> bool) -> Vec<Self> {
        let mut parts = Vec::new();
        let mut local = vec![usize::MAX; self.nodes.len()];
        for component in self.components(admits) {
            if component.len() < 2 {
                continue;
            }
            let mut members: Vec<usize> = component.iter().map(|node| node.index()).collect();
            members.sort_unstable();
            for (place, member) in members.iter().enumerate() {
                local[*member] = place;
            }
            let mut edges = Vec::new();
            for member in &members {
                for edge in &self.edges[self.starts[*member]..self.starts[*member + 1]] {
                    if local[edge.to] != usize::MAX {
                        edges.push(Edge { from: local[edge.from], to: local[edge.to], ..*edge });
                    }
                }
            }
            for member in &members {
                local[*member] = usize::MAX;
            }
            let nodes = members.iter().map(|member| self.nodes[*member]).collect();
            parts.push(Self::new(members.len(), edges, nodes));
        }
        parts.sort_by_key(|part| part.nodes.first().copied());
        parts
    }

    /// The shortest cycle of this kind that the budget finds, by transactions.
    fn shortest(&self, kind: Kind) -> Option<Vec<Edge>> {
        // With one `rw`, the way back has none: if that part has no cycle, it has an order, and a way back exists only
        // for an `rw` that goes against the order, and stays between its ends.
        let mut rank = vec![0; self.nodes.len()];
        if kind.anti == Anti::One {
            let order = self.components(|edge| kind.admits(edge));
            for (place, component) in order.iter().rev().enumerate() {
                for node in component {
                    rank[node.index()] = place;
                }
            }
        }
        let mut walk = Walk::new(self, kind, rank);
        let mut best: Option<Vec<Edge>> = None;
        for anchor in self.edges.iter().filter(|edge| kind.anchors(edge)) {
            let bound = best.as_ref().map_or(usize::MAX, Vec::len);
            if bound == 2 || walk.walked > BUDGET {
                break;
            }
            if let Some(cycle) = walk.around(anchor, bound) {
                best = Some(cycle);
            }
        }
        let place = |node: usize| self.nodes[node];
        let named = |edge: Edge| Edge { from: place(edge.from), to: place(edge.to), ..edge };
        best.map(|cycle| cycle.into_iter().map(named).collect())
    }
}

/// Breadth-first search for ways back. A place is a node and whether it was reached by real time, from where a further
/// real-time edge is free.
struct Walk<'s> {
    graph: &'s Subgraph,
    kind: Kind,
    rank: Vec<usize>,
    /// How each place was reached last.
    reached: Vec<Reached>,
    /// In which round each place was left.
    left: Vec<u32>,
    round: u32,
    walked: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Reached {
    round: u32,
    /// Edges from the anchor on, and the anchor.
    cost: usize,
    /// The edge, and the place where it begins; nothing at the end of the anchor.
    by: Option<(usize, usize)>,
}

impl<'s> Walk<'s> {
    fn new(graph: &'s Subgraph, kind: Kind, rank: Vec<usize>) -> Self {
        let places = graph.nodes.len() * 2;
        let (reached, left) = (vec![Reached::default(); places], vec![0; places]);
        Self { graph, kind, rank, reached, left, round: 0, walked: 0 }
    }

    /// The shortest cycle through this edge of fewer than `bound` transactions.
    fn around(&mut self, anchor: &Edge, bound: usize) -> Option<Vec<Edge>> {
        let (from, to) = (anchor.to, anchor.from);
        if self.rank[from] > self.rank[to] {
            return None;
        }
        self.round += 1;
        let mut queue = VecDeque::from([from * 2]);
        self.reached[from * 2] = Reached { round: self.round, cost: 1, by: None };
        while let Some(place) = queue.pop_front() {
            if self.left[place] == self.round {
                continue;
            }
            self.left[place] = self.round;
            let (node, cost) = (place / 2, self.reached[place].cost);
            if node == to {
                return Some(self.unwind(place, anchor));
            }
            for number in self.graph.starts[node]..self.graph.starts[node + 1] {
                self.walked += 1;
                let edge = &self.graph.edges[number];
                let between = self.rank[edge.to] <= self.rank[to];
                if !between || !self.kind.admits(edge) {
                    continue;
                }
                let realtime = edge.why == Why::Realtime;
                let free = realtime && place % 2 == 1;
                let (next, cost) = (edge.to * 2 + usize::from(realtime), cost + usize::from(!free));
                let known =
                    self.reached[next].round == self.round && self.reached[next].cost <= cost;
                if known || cost >= bound {
                    continue;
                }
                self.reached[next] = Reached { round: self.round, cost, by: Some((number, place)) };
                if free { queue.push_front(next) } else { queue.push_back(next) }
            }
        }
        None
    }

    /// The anchor and the way to this place, with each run of real-time edges as one.
    fn unwind(&self, mut place: usize, anchor: &Edge) -> Vec<Edge> {
        let mut way: Vec<Edge> = Vec::new();
        while let Some((number, before)) = self.reached[place].by {
            let edge = self.graph.edges[number];
            match way.last_mut() {
                Some(Edge { from, why: Why::Realtime, .. }) if edge.why == Why::Realtime => {
                    *from = edge.from;
                }
                _ => way.push(edge),
            }
            place = before;
        }
        way.push(*anchor);
        way.reverse();
        way
    }
}
