//! Asks the branches of an implicit transaction what they have: for whoever has to find out its outcome, a coordinator that
//! knows nothing of it or a participant whose coordinator is away. What follows is [`Resolution`]'s to say.

use assent_common::outcome::{Call, Settled};
use assent_common::participant::Branches;
use assent_common::settle::Resolution;
use assent_common::wire::branch::{Batch, BranchAddress, CoordinatorRef, Message, TxidOnly};
use assent_common::{Epoch, ParticipantName, TxNumber, Txid};
use tokio::task::JoinSet;

use crate::participant::ParticipantClient;
use crate::transport::{Http, Unknown};

/// Asks all branches whose answers are missing, at once. A branch that is absent is fenced by that.
///
/// `asker` is who speaks in the batches: the branch's own log, in the asker's life of it.
pub async fn ask(
    http: &Http,
    asker: &CoordinatorRef,
    txid: Txid,
    branches: &Branches,
    mut resolution: Resolution,
) -> Resolution {
    let mut questions = JoinSet::new();
    for branch in branches.iter() {
        if resolution.missing().any(|missing| *missing == branch.participant) {
            questions.spawn(ask_one(http.clone(), asker.clone(), txid, branch.clone()));
        }
    }
    while let Some(answered) = questions.join_next().await {
        // One that panicked has not answered.
        if let Ok((participant, call)) = answered {
            resolution.answered(&participant, call);
        }
    }
    resolution
}

async fn ask_one(
    http: Http,
    coordinator: CoordinatorRef,
    txid: Txid,
    branch: BranchAddress,
) -> (ParticipantName, Call<Settled>) {
    let BranchAddress { participant, url } = branch;
    let client = match ParticipantClient::new(&http, &url) {
        Ok(client) => client,
        Err(error) => return (participant, Call::Unknown(error.to_string())),
    };
    let batch: Batch = Batch {
        participant: participant.clone(),
        coordinator,
        // Who asks here may not know how far the log is.
        low_water: TxNumber { epoch: Epoch(0), n: 0 },
        known: None,
        progress: None,
        messages: vec![Message::Settle(TxidOnly { txid })],
    };
    let call = match client.batch(&batch).await {
        Ok(mut answers) => match answers.answers.pop() {
            Some(answer) => answer.into_settled(),
            None => Call::Unknown("no answer".to_owned()),
        },
        Err(Unknown(why)) => Call::Unknown(why),
    };
    (participant, call)
}
