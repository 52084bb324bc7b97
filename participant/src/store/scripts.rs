//! The scripts: their sources, composed from the files in `lua/`, and the digests by which Redis knows them.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use assent_common::command::Family;

const BASE: &str = include_str!("../lua/base.lua");
const BUDGET: &str = include_str!("../lua/budget.lua");
const OVERLAY: &str = include_str!("../lua/overlay.lua");
const RIGHTS: &str = include_str!("../lua/rights.lua");
const RUN: &str = include_str!("../lua/run.lua");
const EVALUATE: &str = include_str!("../lua/evaluate.lua");
const APPLY: &str = include_str!("../lua/apply.lua");
const MAY: &str = include_str!("../lua/may.lua");
const CLAIM: &str = include_str!("../lua/claim.lua");
const REDO: &str = include_str!("../lua/redo.lua");
const FENCED: &str = include_str!("../lua/fenced.lua");
const FENCE: &str = include_str!("../lua/fence.lua");

/// The handlers of each family.
const OPS: [(Family, &str); 8] = [
    (Family::Strings, include_str!("../lua/ops/strings.lua")),
    (Family::Keys, include_str!("../lua/ops/keys.lua")),
    (Family::Hashes, include_str!("../lua/ops/hashes.lua")),
    (Family::Sets, include_str!("../lua/ops/sets.lua")),
    (Family::SortedSets, include_str!("../lua/ops/zsets.lua")),
    (Family::Lists, include_str!("../lua/ops/lists.lua")),
    (Family::Streams, include_str!("../lua/ops/streams.lua")),
    (Family::Shadow, include_str!("../lua/ops/shadow.lua")),
];

/// A script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Script {
    /// Says what the ops of branches come to, which are of these families: a call creates no
    /// closures that it does not need.
    Evaluate(u8),
    /// Writes what an owner's round came to.
    Apply,
    /// Says which branches may end.
    May,
    /// Makes an agent the owner.
    Claim,
    /// Applies committed branches to fenced data.
    Redo,
    /// Fences data that is not what it should be.
    Fence,
    /// Writes fields of it, and opens it after its repair.
    Fenced,
}

impl Script {
    /// The whole text.
    pub(super) fn source(self) -> String {
        match self {
            Self::Redo => [BASE, REDO].concat(),
            Self::Fenced => FENCED.to_owned(),
            Self::Fence => FENCE.to_owned(),
            Self::Apply => [BASE, RIGHTS, APPLY].concat(),
            Self::May => [BASE, RIGHTS, MAY].concat(),
            Self::Claim => CLAIM.to_owned(),
            Self::Evaluate(families) => {
                [&[BASE, BUDGET, OVERLAY], &*handlers(families), &[RIGHTS, RUN, EVALUATE]]
                    .concat()
                    .concat()
            }
        }
    }
}

/// The handlers of the ops of these families.
fn handlers(families: u8) -> Vec<&'static str> {
    let wanted = OPS.iter().filter(|(family, _)| families & family.bit() != 0);
    wanted.map(|(_, handlers)| *handlers).collect()
}

/// The digests that are known. A digest is that of the text, so that it stays true whatever happens to the server.
#[derive(Debug, Default)]
pub(super) struct Scripts {
    digests: RwLock<HashMap<Script, Arc<str>>>,
}

impl Scripts {
    pub(super) fn digest(&self, script: Script) -> Option<Arc<str>> {
        self.digests.read().unwrap_or_else(PoisonError::into_inner).get(&script).cloned()
    }

    pub(super) fn learn(&self, script: Script, digest: Arc<str>) {
        self.digests.write().unwrap_or_else(PoisonError::into_inner).insert(script, digest);
    }
}

#[cfg(test)]
mod tests {
    use assent_common::command::{OpRequest, RunBy};
    use assent_common::limits;

    use super::*;

    #[test]
    fn the_bounds_in_the_scripts_are_those_of_the_limits() {
        let materialised = limits::MATERIALISED_ELEMENTS_MAX;
        assert!(BUDGET.contains(&format!("local MATERIALISED_MAX = {materialised}\n")));
        assert!(BUDGET.contains(&format!("VALUE_BYTES_MAX = {}\n", limits::BRANCH_BYTES_MAX)));
        assert!(BUDGET.contains(&format!("local WORK_MAX = {}\n", limits::BRANCH_STEPS_MAX)));
        assert!(BUDGET.contains(&format!("DIGEST_STEPS = {}, 16\n", limits::DIGEST_BYTES_MAX)));
        let bytes = limits::REPLY_BYTES_MAX;
        assert!(BUDGET.contains(&format!("local REPLY_BYTES_MAX = {bytes}\n")));
    }

    #[test]
    fn every_command_has_a_handler_in_the_file_of_its_family() {
        for command in assent_common::command::COMMANDS {
            let handler = match command.name {
                _ if command.run_by != RunBy::Handler => "SHADOW",
                "INCR" | "DECR" | "DECRBY" => "INCRBY",
                "GETSET" | "SETEX" | "PSETEX" => "SET",
                "SUBSTR" => "GETRANGE",
                name if name.starts_with("ZR") && name.contains("RANGE") => "ZRANGE",
                "UNLINK" => "DEL",
                "ASSENT.DIGEST" => OpRequest::DIGEST_HANDLER,
                "PEXPIRE" | "EXPIREAT" | "PEXPIREAT" => "EXPIRE",
                "ZINCRBY" => "ZADD",
                name => name,
            };
            let (_, handlers) = OPS[command.family as usize];
            assert!(handlers.contains(&format!("ops.{handler} = function(")), "{command}");
        }
    }
}
