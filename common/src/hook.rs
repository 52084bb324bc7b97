//! What becomes of a branch that a hook decides about. The hook is asked before anything is locked;
//! what it reads is only evaluated. The branch that is staged then holds, in front of its ops, that
//! each key that was read is what it was: so a hook decides on what is still so when its branch
//! commits. If a key was changed meanwhile, the hook is asked anew.
//!
//! ```text
//!            ┌──────────── a key was changed ◄───────────┐
//!            ▼                                           │
//! hook ─ read ─► look ─► (evaluate) ─► looked ─► hook    │
//!   └─ stage ─► branch ─► (prepare) ─► refused ──────────┤
//!   └─ veto ──► a no                                     └─► a no
//! ```
//!
//! No I/O and no clock: the caller asks, evaluates and prepares.

use serde_json::value::RawValue;

use crate::code::ErrorCode;
use crate::command::{Expect, OpRequest, ValidatedBranch};
use crate::limits;
use crate::outcome::{Call, Done, Prepared, Refusal};
use crate::value::Arg;
use crate::wire::hook::Veto;

/// How far a branch and its hook are.
#[derive(Debug, Clone)]
pub struct Consultation {
    /// The client's ops.
    given: Vec<OpRequest>,
    /// The keys that the hook has read in this turn, and what each was.
    seen: Vec<(Arg, Option<Arg>)>,
    /// How often it has read in this turn.
    reads: usize,
    /// Bytes of the replies of this turn.
    bytes: usize,
    /// How often it was asked anew.
    turns: usize,
}

/// What is to be evaluated for a hook.
#[derive(Debug, Clone)]
pub struct HookLook {
    /// The digests, then what the branch does, then what is read.
    pub ops: Vec<OpRequest>,
    /// The keys of the digests.
    keys: Vec<Arg>,
    /// Which of the client's ops stand behind them.
    given: Vec<usize>,
    /// How many ops stand before those that are read.
    before: usize,
}

/// The branch that a hook wants.
#[derive(Debug, Clone)]
pub struct HookedOps {
    /// What must still be so, then the client's ops, then the hook's.
    pub ops: Vec<OpRequest>,
    /// How many ops stand before the client's.
    pub before: usize,
    /// How many are the client's.
    pub given: usize,
}

/// Why a hook is not asked on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HookStop {
    /// A key that it has read was changed: everything anew.
    Anew,
    /// The branch votes no.
    No(Refusal),
}

impl From<Refusal> for HookStop {
    fn from(refusal: Refusal) -> Self {
        Self::No(refusal)
    }
}

/// The no of a veto: what the hook said is in its reply, for programs.
#[must_use]
pub fn vetoed(veto: &Veto) -> Refusal {
    let Veto { code, reason } = veto;
    let said = if reason.is_empty() { code.clone() } else { format!("{code}: {reason}") };
    let reply = serde_json::to_string(veto).ok().map(Into::into);
    Refusal { reply, ..Refusal::new(ErrorCode::Vetoed, said) }
}

/// The no to a hook that breaks the rules.
#[must_use]
pub fn invalid(what: impl std::fmt::Display) -> Refusal {
    Refusal::new(ErrorCode::HookInvalid, format!("the hook's answer cannot be used: {what}"))
}

impl Consultation {
    /// Of a branch with these ops of its client.
    #[must_use]
    pub const fn new(given: Vec<OpRequest>) -> Self {
        Self { given, seen: Vec::new(), reads: 0, bytes: 0, turns: 0 }
    }

    /// The hook wants to read, and has staged so far what it would do.
    pub fn look(
        &mut self,
        staged: &[OpRequest],
        read: Vec<OpRequest>,
    ) -> Result<HookLook, Refusal> {
        self.reads += 1;
        let most = limits::HOOK_READS_MAX;
        if self.reads > most {
            return Err(invalid(format!("it has asked to read more than {most} times")));
        }
        if read.is_empty() {
            return Err(invalid("`read` is empty"));
        }
        let checked =
            ValidatedBranch::new(read.clone()).map_err(|no| invalid(in_list("read", &no)))?;
        if !checked.read_only || read.iter().any(|op| op.escrow || op.expect.is_some()) {
            let what = "an op of `read` writes, or has `expect` or `escrow`; writes go into `ops`";
            return Err(invalid(what));
        }
        let mut keys: Vec<Arg> = self.seen.iter().map(|(key, _)| key.clone()).collect();
        let mut ops: Vec<OpRequest> = self.guards().collect();
        for lock in checked.locks {
            if !keys.contains(&lock.key) {
                ops.push(OpRequest::digest(lock.key.clone()));
                keys.push(lock.key);
            }
        }
        // What is added in escrow depends on what others add meanwhile; no key of it can be read.
        let given = self.given.iter().enumerate().filter(|(_, op)| !op.escrow);
        let (given, of_client): (Vec<_>, Vec<_>) = given.map(|(at, op)| (at, op.clone())).unzip();
        ops.extend(of_client);
        ops.extend(staged.iter().filter(|op| !op.escrow).cloned());
        let before = ops.len();
        ops.extend(read);
        Ok(HookLook { ops, keys, given, before })
    }

    /// What the look came to: the replies of what the hook wanted to read.
    pub fn looked(
        &mut self,
        look: &HookLook,
        call: Call<Prepared>,
    ) -> Result<Vec<Box<RawValue>>, HookStop> {
        let unclear = |why: String| Refusal::new(ErrorCode::RedisUnavailable, why);
        let replies = match call {
            Call::Applied(Prepared::Committed(Done { replies, .. })) => replies,
            Call::Applied(_) => return Err(unclear("a look was answered otherwise".into()).into()),
            Call::Refused(no) => return Err(refused_at(&no, look.keys.len(), &look.given)),
            Call::Unknown(why) => return Err(unclear(why).into()),
        };
        let unreadable = |error: serde_json::Error| unclear(format!("the replies: {error}"));
        let replies: Vec<Box<RawValue>> = serde_json::from_str(&replies).map_err(unreadable)?;
        if replies.len() != look.ops.len() {
            let counts = format!("{} replies to {} ops", replies.len(), look.ops.len());
            return Err(unclear(counts).into());
        }
        for (key, digest) in look.keys.iter().zip(&replies).skip(self.seen.len()) {
            let digest = serde_json::from_str(digest.get()).map_err(unreadable)?;
            self.seen.push((key.clone(), digest));
        }
        let read = replies.into_iter().skip(look.before).collect::<Vec<_>>();
        self.bytes += read.iter().map(|reply| reply.get().len()).sum::<usize>();
        let most = limits::HOOK_REPLIES_BYTES_MAX;
        if self.bytes > most {
            let detail = format!("the hook has read more than {most} bytes");
            return Err(Refusal::new(ErrorCode::TooLarge, detail).into());
        }
        Ok(read)
    }

    /// The branch that the hook wants; what it replies is the caller's to add.
    #[must_use]
    pub fn stage(&self, ops: Vec<OpRequest>) -> HookedOps {
        let (before, given) = (self.seen.len(), self.given.len());
        let all = self.guards().chain(self.given.iter().cloned()).chain(ops).collect();
        HookedOps { ops: all, before, given }
    }

    /// The branch was refused. If that is because of what the hook has read, it is asked anew; else
    /// that is the no.
    pub fn refused(&mut self, refusal: &Refusal) -> Result<(), Refusal> {
        let given: Vec<usize> = (0..self.given.len()).collect();
        match refused_at(refusal, self.seen.len(), &given) {
            HookStop::No(refusal) => Err(refusal),
            HookStop::Anew => self.anew(),
        }
    }

    /// Everything anew; the no, if that has been so too often: a conflict, which the coordinator
    /// tries again after a pause, as long as there is time.
    pub fn anew(&mut self) -> Result<(), Refusal> {
        self.turns += 1;
        let most = limits::HOOK_TURNS_MAX;
        if self.turns >= most {
            let detail =
                format!("keys that the hook reads were changed while it decided, {most} times");
            return Err(Refusal::new(ErrorCode::LockConflict, detail));
        }
        (self.reads, self.bytes) = (0, 0);
        self.seen.clear();
        Ok(())
    }

    /// Each key that was read is what it was.
    fn guards(&self) -> impl Iterator<Item = OpRequest> {
        self.seen.iter().map(|(key, digest)| {
            let expect = Expect { eq: Some(digest.clone()), ..Expect::default() };
            OpRequest { expect: Some(expect), ..OpRequest::digest(key.clone()) }
        })
    }
}

/// A refusal of ops, in the words of who sent them: behind so many digests those ops of the client
/// stand, and then the hook's.
fn refused_at(refusal: &Refusal, digests: usize, given: &[usize]) -> HookStop {
    let place = refusal.op.and_then(|op| usize::try_from(op).ok());
    let Some(place) = place else { return HookStop::No(refusal.clone()) };
    let Some(place) = place.checked_sub(digests) else {
        return match refusal.code {
            ErrorCode::ReadChanged => HookStop::Anew,
            _ => HookStop::No(Refusal { op: None, ..refusal.clone() }),
        };
    };
    let of_client = given.get(place).and_then(|op| u32::try_from(*op).ok());
    let detail = match of_client {
        Some(_) => refusal.detail.clone(),
        None => format!("an op of the hook: {}", refusal.detail),
    };
    HookStop::No(Refusal { op: of_client, detail, ..refusal.clone() })
}

/// Which op of a list of the hook's is wrong, and why.
fn in_list(list: &str, refusal: &Refusal) -> String {
    let place = refusal.op.map(|op| format!("[{op}]")).unwrap_or_default();
    format!("`{list}{place}`: {}: {}", refusal.code, refusal.detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(words: &[&str]) -> OpRequest {
        OpRequest::new(words.iter().copied())
    }

    fn words(ops: &[OpRequest]) -> Vec<String> {
        let text = |op: &OpRequest| {
            let words = op.cmd.iter().map(|word| String::from_utf8_lossy(&word.0).into_owned());
            let guard = if op.expect.is_some() { "!" } else { "" };
            format!("{}{guard}", words.collect::<Vec<_>>().join(" "))
        };
        ops.iter().map(text).collect()
    }

    fn replied(json: &str) -> Call<Prepared> {
        Call::Applied(Prepared::Committed(json.into()))
    }

    fn changed(op: u32) -> Refusal {
        Refusal::new(ErrorCode::ReadChanged, "changed").at_op(op)
    }

    #[test]
    fn what_was_read_stands_before_the_branch() {
        let escrow = OpRequest { escrow: true, ..op(&["INCR", "sold"]) };
        let mut consultation = Consultation::new(vec![escrow, op(&["SET", "b", "1"])]);
        let look = consultation.look(&[], vec![op(&["MGET", "a", "b"])]).unwrap();
        let digests = ["ASSENT.DIGEST a", "ASSENT.DIGEST b"];
        assert_eq!(words(&look.ops), [digests[0], digests[1], "SET b 1", "MGET a b"]);
        let read = consultation.looked(&look, replied(r#"["x",null,"OK",["5","1"]]"#)).unwrap();
        assert_eq!(read.iter().map(|reply| reply.get()).collect::<Vec<_>>(), [r#"["5","1"]"#]);
        // Everything that it reads is of one moment.
        let staged = [op(&["INCR", "c"])];
        let look = consultation.look(&staged, vec![op(&["GET", "c"]), op(&["GET", "a"])]).unwrap();
        let guards = ["ASSENT.DIGEST a!", "ASSENT.DIGEST b!"];
        let first = [guards[0], guards[1], "ASSENT.DIGEST c", "SET b 1", "INCR c", "GET c"];
        assert_eq!(words(&look.ops)[..6], first);
        let replies = replied(r#"["x",null,"y","OK",1,"1","5"]"#);
        assert_eq!(consultation.looked(&look, replies).unwrap().len(), 2);
        let HookedOps { ops, before, given } = consultation.stage(staged.to_vec());
        let branch = ["ASSENT.DIGEST c!", "INCR sold", "SET b 1", "INCR c"];
        assert_eq!((&words(&ops)[2..], before, given), (&branch.map(str::to_owned)[..], 3, 2));
        let nil = Expect { eq: Some(None), ..Expect::default() };
        assert_eq!(ops[1].expect, Some(nil), "a key that was not there is held too");
    }

    #[test]
    fn a_change_of_what_was_read_asks_anew_and_not_for_ever() {
        let mut consultation = Consultation::new(vec![op(&["GET", "k"])]);
        for _ in 1..limits::HOOK_TURNS_MAX {
            let look = consultation.look(&[], vec![op(&["GET", "a"])]).unwrap();
            consultation.looked(&look, replied(r#"["x",null,"1"]"#)).unwrap();
            let again = consultation.look(&[], vec![op(&["GET", "b"])]).unwrap();
            let stop = consultation.looked(&again, Call::Refused(changed(0))).unwrap_err();
            assert_eq!(stop, HookStop::Anew);
            consultation.refused(&changed(0)).unwrap();
            assert_eq!(words(&consultation.stage(Vec::new()).ops), ["GET k"]);
        }
        assert_eq!(consultation.anew().unwrap_err().code, ErrorCode::LockConflict);
    }

    #[test]
    fn a_refusal_names_the_op_of_who_sent_it() {
        let escrow = OpRequest { escrow: true, ..op(&["INCR", "sold"]) };
        let mut consultation = Consultation::new(vec![escrow, op(&["GET", "k"])]);
        let look = consultation.look(&[], vec![op(&["GET", "a"])]).unwrap();
        let no = |op| Call::Refused(Refusal::new(ErrorCode::WrongType, "no").at_op(op));
        let named = |stop| match stop {
            HookStop::No(refusal) => (refusal.op, refusal.detail),
            HookStop::Anew => panic!("it is a no"),
        };
        let looked = |consultation: &mut Consultation, op| {
            named(consultation.looked(&look, no(op)).unwrap_err())
        };
        // Behind the digest stands the second op of the client: the first one is in escrow.
        assert_eq!(looked(&mut consultation, 1), (Some(1), "no".to_owned()));
        assert_eq!(looked(&mut consultation, 0), (None, "no".to_owned()));
        assert_eq!(looked(&mut consultation, 2), (None, "an op of the hook: no".to_owned()));
        consultation.looked(&look, replied(r#"["x",null,"1"]"#)).unwrap();
        let mut of_branch = |op| {
            let refusal = Refusal::new(ErrorCode::WrongType, "no").at_op(op);
            consultation.refused(&refusal).unwrap_err().op
        };
        assert_eq!([1, 2, 3].map(&mut of_branch), [Some(0), Some(1), None]);
        // A digest that the client asked for itself is the client's.
        assert_eq!(consultation.refused(&changed(2)).unwrap_err().op, Some(1));
    }

    #[test]
    fn a_hook_reads_only_and_not_without_end() {
        let mut consultation = Consultation::new(Vec::new());
        let expects = OpRequest {
            expect: Some(Expect { exists: Some(Some(true)), ..Expect::default() }),
            ..op(&["GET", "a"])
        };
        for wrong in [vec![], vec![op(&["SET", "a", "1"])], vec![op(&["NOSUCH"])], vec![expects]] {
            let refusal = consultation.look(&[], wrong).unwrap_err();
            assert_eq!(refusal.code, ErrorCode::HookInvalid);
        }
        let read = || vec![op(&["GET", "a"])];
        let reads = (0..limits::HOOK_READS_MAX).map(|_| consultation.look(&[], read()).is_ok());
        assert_eq!(reads.filter(|is_taken| *is_taken).count(), limits::HOOK_READS_MAX - 4);
        let mut consultation = Consultation::new(Vec::new());
        let look = consultation.look(&[], read()).unwrap();
        let long = "x".repeat(limits::HOOK_REPLIES_BYTES_MAX);
        let stop = consultation.looked(&look, replied(&format!(r#"["d","{long}"]"#))).unwrap_err();
        assert!(matches!(stop, HookStop::No(no) if no.code == ErrorCode::TooLarge));
    }
}
