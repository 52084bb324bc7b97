//! How the Redis is reached: its URL, and the password in a file, which is read again with every
//! connection, so that a new password needs no restart.

use redis::{Client, ConnectionInfo, IntoConnectionInfo as _};

use super::{StoreError, StoreOptions};

impl StoreOptions {
    /// A client of the server, with the password that the file holds now.
    pub(super) fn client(&self) -> Result<Client, StoreError> {
        let info = self.connection_info()?;
        Client::open(info).map_err(|error| self.bad_url(error.category()))
    }

    /// Checks the URL and the file.
    fn connection_info(&self) -> Result<ConnectionInfo, StoreError> {
        if let Some(reason) = unfit(&self.url) {
            return Err(self.bad_url(reason));
        }
        let info = self.url.as_str().into_connection_info();
        let info = info.map_err(|_| {
            self.bad_url(
                "it must be redis://[user:password@]host:port[/db] or unix:///path/to.sock; a special character of the \
                 password stands as %XX, or the password in a file (--redis-password-file)",
            )
        })?;
        let Some(file) = &self.password_file else { return Ok(info) };
        let password = std::fs::read_to_string(file).map_err(|error| StoreError::Unavailable {
            address: self.address(),
            reason: format!("the password file {} cannot be read: {error}", file.display()),
        })?;
        // Not by way of the URL, where a password would have to be encoded.
        let settings = info.redis_settings().clone().set_password(password.trim());
        Ok(info.set_redis_settings(settings))
    }

    fn bad_url(&self, reason: &str) -> StoreError {
        StoreError::BadUrl { address: self.address(), reason: reason.to_owned() }
    }
}

/// Why a URL is none that an agent can use, where it has a better word for it than the library.
fn unfit(url: &str) -> Option<&'static str> {
    let Some((scheme, _)) = url.split_once("://") else {
        return Some("it has no scheme: write redis://host:port, or unix:///path/to.sock");
    };
    match scheme {
        "rediss" | "valkeys" => Some(
            "there is no TLS yet: use redis:// on a network that you trust, or a TLS tunnel beside the agent",
        ),
        "redis-sentinel" | "redis+sentinel" => Some(
            "Sentinel is not supported: give a host name that always leads to the master; it is resolved for every connection",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn reason(url: &str) -> String {
        StoreOptions::new(url).client().unwrap_err().to_string()
    }

    #[test]
    fn what_is_wrong_with_a_url_is_said_in_words() {
        assert!(
            reason("rediss://:pw@host:1").contains("no TLS yet"),
            "{}",
            reason("rediss://host")
        );
        assert!(reason("localhost:6379").contains("no scheme"), "{}", reason("localhost:6379"));
        assert!(reason("redis-sentinel://host").contains("Sentinel is not supported"));
        for url in ["redis://:per%cent@host:1", "http://:secret@host", "redis://"] {
            let reason = reason(url);
            assert!(reason.contains("it must be redis://"), "{reason}");
            assert!(!reason.contains("cent@") && !reason.contains("secret"), "{reason}");
        }
    }

    #[test]
    fn a_password_in_a_file_is_taken_as_it_is_each_time() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let options = StoreOptions {
            password_file: Some(file.path().to_owned()),
            ..StoreOptions::new("redis://user@host:1")
        };
        for password in ["per%cent", "%41", "w%2Ford", "a@b:c/d?e#f g"] {
            file.as_file_mut().set_len(0).unwrap();
            std::io::Seek::rewind(file.as_file_mut()).unwrap();
            writeln!(file, "{password}").unwrap();
            let info = options.connection_info().unwrap();
            assert_eq!(info.redis_settings().password(), Some(password));
            assert_eq!(info.redis_settings().username(), Some("user"));
        }
    }
}
