//! What tells a retry from another request under the same idempotency key or id.

use assent_common::record::Identity;
use assent_common::wire::problem::Problem;
use assent_common::wire::submission::Submission;
use assent_common::wire::transaction::TransactionRequest;
use sha2::{Digest as _, Sha256};

/// The SHA-256 of a request, in both ways that a log may have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    /// Of its one form, as records have it now.
    form: [u8; 32],
    /// Of the body's bytes, as older records have it.
    bytes: [u8; 32],
}

impl Fingerprint {
    /// Checks a request, and takes its fingerprint; `body` is what it was read from.
    pub fn of(request: TransactionRequest, body: &[u8]) -> Result<(Submission, Self), Problem> {
        let mut form = Sha256::new();
        let submission = request.validate_into(&mut |piece| form.update(piece))?;
        let (form, bytes) = (form.finalize().into(), Sha256::digest(body).into());
        Ok((submission, Self { form, bytes }))
    }

    /// What a record keeps of it.
    pub(crate) const fn recorded(self) -> [u8; 32] {
        self.form
    }

    /// Whether the request is the one that began this transaction.
    #[must_use]
    pub fn began(this: Option<Self>, identity: &Identity) -> bool {
        match (this, identity.fingerprint) {
            (Some(this), Some(recorded)) => recorded == this.form || recorded == this.bytes,
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use assent_common::time::Millis;

    use super::*;

    const BODY: &str = r#"{"branches":[{"participant":"a","ops":[{"cmd":["INCRBY","k",30]}]}]}"#;

    fn of(body: &str) -> Option<Fingerprint> {
        let request = serde_json::from_str(body).unwrap();
        Some(Fingerprint::of(request, body.as_bytes()).unwrap().1)
    }

    fn recorded(fingerprint: Option<[u8; 32]>) -> Identity {
        let id = "0198f1c2-a4b2-7c1d-9c0e-000000000001".parse().unwrap();
        Identity { id, key: None, fingerprint, name: None, created_at: Millis(1) }
    }

    /// Logs from before requests had a form are still read: their keys compare by bytes.
    #[test]
    fn a_record_of_the_bodys_bytes_is_known_by_its_bytes_only() {
        let old = recorded(Some(Sha256::digest(BODY).into()));
        assert!(Fingerprint::began(of(BODY), &old));
        assert!(!Fingerprint::began(of(&format!("{BODY} ")), &old));
        assert!(!Fingerprint::began(of(&BODY.replace("30", "31")), &old));
    }

    #[test]
    fn a_record_of_a_form_is_known_by_whatever_says_the_same() {
        let new = recorded(of(BODY).map(Fingerprint::recorded));
        assert!(Fingerprint::began(of(BODY), &new));
        assert!(Fingerprint::began(of(&format!("{BODY} ")), &new));
        assert!(!Fingerprint::began(of(&BODY.replace("30", "31")), &new));
        assert!(!Fingerprint::began(None, &new));
        assert!(!Fingerprint::began(of(BODY), &recorded(None)));
    }
}
