//! What agents that share a Redis tell each other: which branches the scripts have ended, so that who waits for one of them need
//! not look again and again. A hint: what is said while nobody listens is lost, and costs one look.

use assent_common::Txid;
use futures_util::{Stream, StreamExt as _};

use super::{Store, StoreError};

/// The channel on which they are told; `lua/control.lua` says it too.
pub(super) fn ended_channel(control_key: &str) -> String {
    format!("{control_key}:ended")
}

impl Store {
    /// The branches that any agent of this Redis ends by the scripts, from now on and until the connection breaks. A sole
    /// owner has nobody to tell, and says nothing.
    pub async fn ended(&self) -> Result<impl Stream<Item = Vec<Txid>> + use<>, StoreError> {
        let client = self.options.client()?;
        let listen = async {
            let mut listener = client.get_async_pubsub().await?;
            listener.subscribe(ended_channel(&self.options.control_key)).await?;
            Ok(listener.into_on_message())
        };
        let listened = tokio::time::timeout(self.options.connect_timeout, listen).await;
        let too_late = || std::io::Error::from(std::io::ErrorKind::TimedOut).into();
        let messages = listened.unwrap_or_else(|_| Err(too_late()));
        let messages = messages.map_err(|error: redis::RedisError| self.unavailable(&error))?;
        Ok(messages.map(|message| {
            let said = String::from_utf8_lossy(message.get_payload_bytes()).into_owned();
            said.split(' ').filter_map(|txid| txid.parse().ok()).collect()
        }))
    }
}
