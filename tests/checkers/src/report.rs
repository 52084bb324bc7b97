//! What a checker says: a verdict, and for each anomaly its name, its operations and the reason.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::action::Action;
use crate::history::{Operation, Outcome};

macro_rules! names {
    ($(#[$doc:meta])* $type:ident { $($(#[$line:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $type { $($(#[$line])* $variant,)+ }

        impl $type {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// Its name, as printed.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    };
}

names! {
    /// The checkers.
    Checker {
        /// Strict serialisability of list-append transactions.
        ListAppend = "list-append",
        /// Linearizability of each register.
        Register = "register",
        /// No money is made or lost.
        Bank = "bank",
        /// Every increment counts once.
        Counter = "counter",
        /// All branches or none.
        Atomicity = "atomicity",
        /// Everything ends.
        Liveness = "liveness",
    }
}

names! {
    /// What can be wrong. Names of isolation anomalies are Adya's.
    Name {
        /// Writes of two transactions are interleaved.
        G0 = "G0",
        /// A read of what was aborted.
        G1a = "G1a",
        /// A read of what its own writer had overwritten before it committed.
        G1b = "G1b",
        /// Circular flow of information.
        G1c = "G1c",
        /// Read skew: one anti-dependency in a cycle.
        GSingle = "G-single",
        /// Write skew: two or more anti-dependencies in a cycle.
        G2 = "G2",
        /// As G0, in an order that contradicts real time.
        G0Realtime = "G0-realtime",
        /// As G1c, in an order that contradicts real time.
        G1cRealtime = "G1c-realtime",
        /// As G-single, in an order that contradicts real time: a stale read.
        GSingleRealtime = "G-single-realtime",
        /// As G2, in an order that contradicts real time.
        G2Realtime = "G2-realtime",
        /// Two committed transactions updated the same version of a key.
        LostUpdate = "lost-update",
        /// A transaction does not see its own writes or reads.
        Internal = "internal",
        /// Two reads of a key that no one order of appends explains.
        IncompatibleOrder = "incompatible-order",
        /// An element is in a list more than once.
        DuplicateElement = "duplicate-element",
        /// An element that nobody appended.
        PhantomElement = "phantom-element",
        /// A committed append that later reads do not see.
        LostAppend = "lost-append",
        /// No order of the operations on a register explains their answers.
        NotLinearizable = "not-linearizable",
        /// The sum of all accounts has changed.
        WrongTotal = "wrong-total",
        /// An account is below zero.
        Overdraft = "overdraft",
        /// An account came or went.
        WrongAccounts = "wrong-accounts",
        /// An account is not what its transfers made it.
        WrongBalance = "wrong-balance",
        /// A counter shows less than was confirmed.
        LostIncrement = "lost-increment",
        /// A counter shows more than was asked for, or an increment is there twice.
        DoubleIncrement = "double-increment",
        /// An increment that failed, and is there.
        AbortedIncrement = "aborted-increment",
        /// An effect that no client asked for.
        Stranger = "stranger",
        /// A counter does not hold the sum of its increments.
        WrongSum = "wrong-sum",
        /// A counter is below the bound that every increment kept.
        BelowBound = "below-bound",
        /// A transaction is in some of its branches.
        Torn = "torn",
        /// A committed transaction is nowhere.
        LostTransaction = "lost-transaction",
        /// An aborted transaction is there.
        AbortedEffect = "aborted-effect",
        /// A transaction is twice in a branch.
        DuplicateEffect = "duplicate-effect",
        /// A transaction has not ended.
        Unfinished = "unfinished",
        /// A lock is left.
        LeftLocked = "left-locked",
        /// A staged branch is left.
        LeftStaged = "left-staged",
        /// The client was told something else than what happened.
        FalseAnswer = "false-answer",
    }
}

names! {
    /// Why one transaction comes before another.
    Dependency {
        /// The other overwrote (appended to) what it wrote.
        WriteWrite = "ww",
        /// The other read what it wrote.
        WriteRead = "wr",
        /// The other overwrote (appended to) what it read.
        ReadWrite = "rw",
        /// It had ended before the other began.
        Realtime = "realtime",
    }
}

/// An operation that takes part in an anomaly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Witness {
    /// The index of its invocation, its name in the report (`T<index>`).
    pub index: u64,
    /// Who asked.
    pub process: i64,
    /// `ok`, `fail` or `info`.
    pub outcome: &'static str,
    /// What was asked, with the answers if there were any.
    #[serde(flatten)]
    pub action: Action,
}

impl From<&Operation> for Witness {
    fn from(operation: &Operation) -> Self {
        let (outcome, action) = match &operation.outcome {
            Outcome::Ok(_, answered) => ("ok", answered),
            Outcome::Fail(_) => ("fail", &operation.action),
            Outcome::Unknown => ("info", &operation.action),
        };
        let (index, process) = (operation.invoked.index, operation.process);
        Self { index, process, outcome, action: action.clone() }
    }
}

/// One edge of a cycle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// The transaction that must come first.
    pub from: u64,
    /// The transaction that must come later.
    pub to: u64,
    /// The kind of edge.
    pub dependency: Dependency,
    /// The reason, for people.
    pub why: String,
}

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Anomaly {
    /// Its name.
    pub name: Name,
    /// The operations of it; of a cycle, in its order.
    pub operations: Vec<Witness>,
    /// The cycle, if it is one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cycle: Vec<Step>,
    /// What was found, for people.
    pub detail: String,
}

impl Anomaly {
    pub(crate) fn new<'h>(
        name: Name,
        operations: impl IntoIterator<Item = &'h Operation>,
        detail: impl Into<String>,
    ) -> Self {
        let operations = operations.into_iter().map(Witness::from).collect();
        Self { name, operations, cycle: Vec::new(), detail: detail.into() }
    }
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.detail)?;
        for Witness { index, process, outcome, action } in &self.operations {
            write!(f, "\n    T{index} = process {process}, {outcome}: {action}")?;
        }
        for Step { from, to, dependency, why } in &self.cycle {
            write!(f, "\n  - T{from} -{dependency}-> T{to}: {why}")?;
        }
        Ok(())
    }
}

/// What a checker found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "lowercase")]
pub enum Verdict {
    /// The history has nothing for this checker.
    Absent,
    /// What the checker proves is true of the history.
    Holds,
    /// It is not.
    Violated {
        /// What is wrong; never empty.
        anomalies: Vec<Anomaly>,
    },
    /// It cannot be said.
    Unknown {
        /// Why not.
        why: String,
    },
}

/// What a checker says of a history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Which checker.
    pub checker: Checker,
    /// How many operations and entries of documents it looked at.
    pub examined: usize,
    /// What it found.
    #[serde(flatten)]
    pub verdict: Verdict,
}

impl Report {
    pub(crate) const fn absent(checker: Checker) -> Self {
        Self { checker, examined: 0, verdict: Verdict::Absent }
    }

    pub(crate) fn unknown(checker: Checker, examined: usize, why: impl Into<String>) -> Self {
        Self { checker, examined, verdict: Verdict::Unknown { why: why.into() } }
    }

    pub(crate) fn of(checker: Checker, examined: usize, anomalies: Vec<Anomaly>) -> Self {
        let verdict =
            if anomalies.is_empty() { Verdict::Holds } else { Verdict::Violated { anomalies } };
        Self { checker, examined, verdict }
    }

    /// Whether nothing is wrong and something was looked at.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.verdict == Verdict::Holds
    }

    /// What is wrong.
    #[must_use]
    pub fn anomalies(&self) -> &[Anomaly] {
        match &self.verdict {
            Verdict::Violated { anomalies } => anomalies,
            Verdict::Absent | Verdict::Holds | Verdict::Unknown { .. } => &[],
        }
    }

    /// The names of what is wrong, each once.
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        let mut names: Vec<_> = self.anomalies().iter().map(|one| one.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// How many anomalies of one name are printed in full.
const SHOWN: usize = 5;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<12} ", self.checker)?;
        let anomalies = match &self.verdict {
            Verdict::Absent => return f.write_str("absent: nothing of it in this history"),
            Verdict::Holds => return write!(f, "holds ({} examined)", self.examined),
            Verdict::Unknown { why } => {
                return write!(f, "unknown ({} examined): {why}", self.examined);
            }
            Verdict::Violated { anomalies } => anomalies,
        };
        write!(f, "VIOLATED ({} examined)", self.examined)?;
        for &name in Name::ALL {
            let these = || anomalies.iter().filter(|one| one.name == name);
            for anomaly in these().take(SHOWN) {
                write!(f, "\n  {anomaly}")?;
            }
            if these().count() > SHOWN {
                write!(f, "\n  … and {} more of {name}", these().count() - SHOWN)?;
            }
        }
        Ok(())
    }
}
