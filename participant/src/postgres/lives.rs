//! The lives of logs, as this database remembers them.

use assent_common::ids::LogId;
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use super::connection::Pools;
use crate::store::{LifeChange, LifeStore, StoreError, StoredLife, Swapped};

/// The rows of logs.
pub(super) struct LivesInPostgres<'a> {
    pub(super) connections: &'a Pools,
    pub(super) client: &'a Client,
}

impl LifeStore for LivesInPostgres<'_> {
    async fn stored(&self, log_id: LogId) -> Result<StoredLife, StoreError> {
        const STORED: &str = "SELECT life, told FROM assent.logs WHERE log_id = $1";
        let log_id = log_id.to_string();
        let param: [(&(dyn ToSql + Sync), Type); 1] = [(&log_id, Type::TEXT)];
        let rows = self.connections.within(self.client.query_typed(STORED, &param)).await?;
        let text = |place| rows.first().map_or_else(String::new, |row| row.get(place));
        Ok(StoredLife::new(text(0), text(1)))
    }

    /// Without waiting for the disk: what is done on the word of this life does.
    async fn write_if_same(
        &self,
        log_id: LogId,
        life: LifeChange<'_>,
        told: Option<LifeChange<'_>>,
    ) -> Result<Swapped, StoreError> {
        const WRITE: &str = "INSERT INTO assent.logs AS l \
             (log_id, epoch, low_epoch, low_n, life, told) \
             VALUES ($1, 0, 0, 0, $3, coalesce($5, '')) ON CONFLICT (log_id) DO UPDATE \
             SET life = $3, told = coalesce($5, l.told) \
             WHERE l.life = $2 AND l.told = coalesce($4, l.told) RETURNING log_id";
        let log_id = log_id.to_string();
        let (told_holds, told_is) = (told.map(|told| told.holds), told.map(|told| told.is_to_hold));
        let params: [(&(dyn ToSql + Sync), Type); 5] = [
            (&log_id, Type::TEXT),
            (&life.holds, Type::TEXT),
            (&life.is_to_hold, Type::TEXT),
            (&told_holds, Type::TEXT),
            (&told_is, Type::TEXT),
        ];
        let rows = self.connections.within(self.client.query_typed(WRITE, &params)).await?;
        Ok(if rows.is_empty() { Swapped::ByAnother } else { Swapped::Yes })
    }

    fn contended(&self, reason: String) -> StoreError {
        self.connections.unavailable(reason)
    }
}
