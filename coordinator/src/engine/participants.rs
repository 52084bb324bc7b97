//! The registry of participants: their lanes, and the records that keep them over restarts.

use std::sync::Arc;

use assent_common::record::{ParticipantRemoved, ParticipantSet, Record};
use assent_common::wire::problem::Problem;
use assent_common::{ErrorCode, ParticipantName};
use tokio::sync::oneshot;

use super::Shared;
use super::core::Core;
use super::journal::Appended;
use super::lane::Lane;
use crate::log::Durability;

impl Core {
    /// The lane of a participant; made without a URL if it is not registered.
    pub(super) fn lane(&mut self, name: &ParticipantName) -> usize {
        if let Some(lane) = self.lane_of.get(name) {
            return *lane;
        }
        self.lanes.push(Lane::new(name.clone()));
        let lane = self.lanes.len() - 1;
        self.lane_of.insert(name.clone(), lane);
        lane
    }

    /// The lane of a registered participant.
    pub(super) fn registered_lane(&self, name: &ParticipantName) -> Option<usize> {
        self.lane_of.get(name).copied().filter(|lane| self.lanes[*lane].url().is_some())
    }

    /// Registers a participant, or moves it. The receiver hears when that is durable.
    pub(super) fn set_participant(
        &mut self,
        name: &ParticipantName,
        url: &str,
        shared: &Arc<Shared>,
    ) -> Result<oneshot::Receiver<()>, Problem> {
        let lane = self.lane(name);
        self.lanes[lane].set_url(url, lane, shared)?;
        let (told, durable) = oneshot::channel();
        let record =
            Record::ParticipantSet(ParticipantSet { name: name.clone(), url: url.to_owned() });
        self.append(&record, Durability::Forced, Appended::Told(told));
        Ok(durable)
    }

    /// The same from the configuration or the log, which need no record.
    pub(super) fn restore_participant(
        &mut self,
        name: &ParticipantName,
        url: &str,
        shared: &Arc<Shared>,
    ) -> Result<(), Problem> {
        let lane = self.lane(name);
        self.lanes[lane].set_url(url, lane, shared)
    }

    pub(super) fn remove_participant(
        &mut self,
        name: &ParticipantName,
    ) -> Result<oneshot::Receiver<()>, Problem> {
        let of_participant = |code, detail| Problem {
            participant: Some(name.to_string()),
            ..Problem::new(code, detail)
        };
        let Some(lane) = self.registered_lane(name) else {
            let detail = format!("no participant {name} is registered");
            return Err(of_participant(ErrorCode::NotFound, detail));
        };
        let unfinished = self.lanes[lane].unfinished.len();
        if unfinished > 0 {
            let detail = format!(
                "participant {name} has {unfinished} unfinished transactions; wait or move it"
            );
            return Err(of_participant(ErrorCode::WrongState, detail));
        }
        self.lanes[lane].clear_url();
        let (told, durable) = oneshot::channel();
        let record = Record::ParticipantRemoved(ParticipantRemoved { name: name.clone() });
        self.append(&record, Durability::Forced, Appended::Told(told));
        Ok(durable)
    }
}
