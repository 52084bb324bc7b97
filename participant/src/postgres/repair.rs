//! Data that may be other than was known of it: who may speak of it, and what the logs say
//! (invariants 9, 12).
//!
//! A statement that runs twice need not do the same twice. So nothing is redone: what a log has
//! committed and the data lacks is named, and the data stays fenced until an operator accepts that.

use std::collections::BTreeSet;

use assent_common::ids::LogId;
use assent_common::outcome::Refusal;
use assent_common::participant::opening_seq;
use assent_common::wire::resync::{
    DataPoint, DataView, Progress, Resync, Resynced, Served, StagedView,
};
use assent_common::{ErrorCode, ParticipantName, Txid};

use super::data::DataRow;
use super::database::{Database, LogWords};
use super::kept::{KeptInDatabase, kept};
use crate::store::{StoreError, new_incarnation};

/// Branches that one refusal names.
const LOST_NAMED_MAX: usize = 20;

impl Database {
    /// Why nothing may be done for a coordinator that knows this of the data.
    pub(crate) async fn admit(
        &self,
        known: Option<DataPoint>,
        progress: Option<Progress>,
    ) -> Option<Refusal> {
        if self.identity.is_quarantined().is_none() && self.identity.has_all_of(known, progress) {
            return None;
        }
        match self.look_again(known, progress).await {
            Ok(None) => None,
            Ok(Some(why)) => Some(Refusal::new(ErrorCode::Quarantined, why)),
            Err(error) => Some(error.refusal()),
        }
    }

    async fn look_again(
        &self,
        known: Option<DataPoint>,
        progress: Option<Progress>,
    ) -> Result<Option<String>, StoreError> {
        let client = self.own().await?;
        let found = self.identity.look(&self.connections, &client).await?;
        if let Some(why) = self.identity.is_quarantined() {
            return Ok(Some(why));
        }
        let ends = progress.filter(|told| told.incarnation == found.incarnation);
        let lacks_ends = ends.is_some_and(|told| told.ended > found.ended);
        let Some(known) = known else { return Ok(None) };
        if known.incarnation == found.incarnation && known.seq <= found.seq && !lacks_ends {
            return Ok(None);
        }
        if found.served.iter().any(|served| served.incarnation == known.incarnation) {
            let why = "the data was opened again meanwhile; the coordinator asks for its state";
            return Ok(Some(why.to_owned()));
        }
        let why = format!(
            "a coordinator knew incarnation {} with {} votes; it is {} with {}",
            known.incarnation, known.seq, found.incarnation, found.seq
        );
        self.identity.fence(&self.connections, &client, &why).await?;
        Ok(Some(why))
    }

    /// What the data is, for coordinators.
    pub(crate) async fn data(&self) -> Result<DataView, StoreError> {
        let client = self.own().await?;
        let found = self.identity.look(&self.connections, &client).await?;
        let words = self.words.lock().await;
        self.view(found, &words).await
    }

    async fn view(&self, found: DataRow, words: &LogWords) -> Result<DataView, StoreError> {
        let reason = self.identity.is_quarantined();
        let (mut owed, mut staged) = (Vec::new(), Vec::new());
        if reason.is_some() {
            let has_served =
                |log_id: &LogId| words.served.iter().any(|served| served.log_id == *log_id);
            owed = self.epochs().await?.into_keys().filter(|log_id| !has_served(log_id)).collect();
            let prepared = self.in_doubt().await?;
            staged =
                prepared.into_iter().map(|it| StagedView { txid: it.txid, seq: it.seq }).collect();
        }
        Ok(DataView {
            incarnation: Some(found.incarnation),
            seq: found.seq,
            view: self.identity.view(),
            fenced: reason.is_some(),
            reason,
            owed,
            staged,
            served: found.served,
            hole: None,
        })
    }

    /// Takes a part of what a log has committed. Whatever of it is not here is lost, because a
    /// statement cannot be redone: it is named, and the data stays fenced until an operator
    /// accepts that.
    pub(crate) async fn resync(&self, part: Resync) -> Result<Resynced, Refusal> {
        let refused = |error: StoreError| error.refusal();
        let mut words = self.words.lock().await;
        let client = self.own().await.map_err(refused)?;
        let found = self.identity.look(&self.connections, &client).await.map_err(refused)?;
        let now = self.view(found.clone(), &words).await.map_err(refused)?;
        if !now.fenced {
            let open = Some(DataPoint { incarnation: found.incarnation, seq: found.seq });
            return Ok(Resynced { open, owed: Vec::new(), redone: 0 });
        }
        if part.found != now.found() {
            let detail = "the word is about data that is another by now; ask for it again";
            return Err(Refusal::new(ErrorCode::WrongState, detail));
        }
        let log_id = part.coordinator.log_id;
        if part.part == 0 {
            words.lost.retain(|txid| txid.log_id != log_id);
        }
        for branch in &part.redo {
            match kept(self, branch.txid).await.map_err(refused)? {
                KeptInDatabase::Applied(_) | KeptInDatabase::Prepared(_) => {}
                KeptInDatabase::Fenced | KeptInDatabase::Nothing => {
                    words.lost.insert(branch.txid);
                }
            }
        }
        if part.last {
            let incarnation = part.known.map_or(found.incarnation, |known| known.incarnation);
            words.served.retain(|served| served.log_id != log_id);
            words.served.push(Served { log_id, incarnation });
        }
        let owed = self.view(found.clone(), &words).await.map_err(refused)?.owed;
        if !part.last {
            return Ok(Resynced { open: None, owed, redone: 0 });
        }
        // Before other logs are waited for: who decides not to wait has read what is lost.
        self.check_lost(&words.lost, part.alone)?;
        if !owed.is_empty() && !part.alone {
            return Ok(Resynced { open: None, owed, redone: 0 });
        }
        let highest = part.known.map_or(0, |known| known.seq).max(found.seq);
        let open = DataPoint { incarnation: new_incarnation(), seq: opening_seq(highest) };
        let served = std::mem::take(&mut *words).served;
        self.identity.open(&self.connections, &client, open, &served).await.map_err(refused)?;
        Ok(Resynced { open: Some(open), owed: Vec::new(), redone: 0 })
    }

    /// Names what is lost, unless an operator has accepted that.
    fn check_lost(&self, lost: &BTreeSet<Txid>, is_accepted: bool) -> Result<(), Refusal> {
        if lost.is_empty() {
            return Ok(());
        }
        let named: Vec<String> = lost.iter().take(LOST_NAMED_MAX).map(Txid::to_string).collect();
        let (count, named) = (lost.len(), named.join(", "));
        if is_accepted {
            tracing::error!(count, named, "committed branches are lost, which is accepted");
            return Ok(());
        }
        let name = self.options.participant.as_ref().map_or("NAME", ParticipantName::as_str);
        let detail = format!(
            "{count} committed branches are lost here: {named}; their statements are in the \
             decision log (assent log dump). Make them good, then say so: assent participants \
             accept-loss {name} --actor WHO --reason WHY"
        );
        tracing::error!(count, named, "committed branches are lost; the data stays fenced");
        Err(Refusal::new(ErrorCode::Quarantined, detail))
    }
}
