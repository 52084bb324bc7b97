//! A transaction that is ready to be sent, for the first time or again.

use assent_common::wire::transaction::TransactionRequest;
use assent_common::{IdempotencyKey, TransactionId};

/// A transaction with what is known of it: under which id or key, at which coordinator, and whether
/// a copy of it may have been taken. Sent again it is the same transaction, done once.
#[derive(Debug)]
pub struct SealedTransaction {
    pub(crate) request: TransactionRequest,
    pub(crate) key: Option<IdempotencyKey>,
    pub(crate) id: Option<TransactionId>,
    pub(crate) coordinator: Option<String>,
    /// Whether its id or key may have been sent by somebody before.
    pub(crate) is_kept: bool,
    /// Whether an earlier copy of it was taken, or may have been.
    pub(crate) may_be_taken: bool,
}

impl SealedTransaction {
    pub(crate) const fn new(request: TransactionRequest, is_kept: bool) -> Self {
        let id = request.id;
        Self { request, key: None, id, coordinator: None, is_kept, may_be_taken: false }
    }

    /// Under an idempotency key of your own, such as an order's number, instead of the id: the
    /// coordinator makes the id.
    #[must_use]
    pub fn with_key(mut self, key: IdempotencyKey) -> Self {
        (self.request.id, self.id) = (None, None);
        (self.key, self.is_kept) = (Some(key), true);
        self
    }

    /// At this coordinator, to which an earlier copy was sent: needed with a kept id or key, where
    /// the client has several.
    #[must_use]
    pub fn at(mut self, coordinator: impl Into<String>) -> Self {
        self.coordinator = Some(coordinator.into());
        self
    }

    /// Its id. Under a key it is not known before the first answer.
    #[must_use]
    pub const fn id(&self) -> Option<TransactionId> {
        self.id
    }

    /// The key that was given.
    #[must_use]
    pub const fn key(&self) -> Option<&IdempotencyKey> {
        self.key.as_ref()
    }

    /// The base URL of the coordinator that it was sent to, and that alone knows it.
    #[must_use]
    pub fn coordinator(&self) -> Option<&str> {
        self.coordinator.as_deref()
    }
}

/// Somebody may have sent it before.
impl From<TransactionRequest> for SealedTransaction {
    fn from(request: TransactionRequest) -> Self {
        let is_kept = request.id.is_some();
        Self::new(request, is_kept)
    }
}
