//! The messages of coordinators, with ops of either kind.

use assent_common::wire::branch;
use assent_common::wire::ops::BranchOps;

pub(crate) type Batch = branch::Batch<BranchOps>;
pub(crate) type Message = branch::Message<BranchOps>;
pub(crate) type PrepareMessage = branch::PrepareMessage<BranchOps>;
