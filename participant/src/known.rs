//! Whom this participant asks, and gives a token to.
//!
//! A message names its coordinator, and of an implicit transaction the other participants. Whoever may send messages
//! may name anybody. So a token goes only where an operator has said that it belongs, and where there is a list, nobody
//! else is asked.

use assent_client::{Token, parse_base_url};
use url::Url;

use crate::error::Error;

/// The addresses of one kind of servers.
#[derive(Debug)]
pub(crate) struct Known {
    /// What the addresses are of, and the setting that lists them.
    kind: &'static str,
    setting: &'static str,
    listed: Vec<String>,
    has_token: bool,
}

impl Known {
    pub(crate) fn coordinators(urls: &[String], token: Option<&Token>) -> Result<Self, Error> {
        Self::new("coordinators", "--coordinator", urls, token)
    }

    pub(crate) fn peers(urls: &[String], token: Option<&Token>) -> Result<Self, Error> {
        Self::new("participants", "--peer", urls, token)
    }

    fn new(
        kind: &'static str,
        setting: &'static str,
        urls: &[String],
        token: Option<&Token>,
    ) -> Result<Self, Error> {
        for url in urls {
            parse_base_url(url).map_err(|source| Error::Listed { setting, source })?;
        }
        let listed = urls.iter().map(|url| plain(url)).collect();
        Ok(Self { kind, setting, listed, has_token: token.is_some() })
    }

    /// Whether there is a token, and nobody to send it to.
    pub(crate) fn is_useless(&self) -> bool {
        self.has_token && self.listed.is_empty()
    }

    /// Nothing, if this address may be asked; else what to do about it.
    pub(crate) fn refusal(&self, url: &str) -> Option<String> {
        let is_open = self.listed.is_empty() && !self.has_token;
        if is_open || self.listed.contains(&plain(url)) {
            return None;
        }
        let Self { kind, setting, .. } = self;
        let url = assent_common::text::cut(url, 200);
        Some(format!("{url} is not asked: it is not one of the configured {kind}; see {setting}"))
    }
}

/// Two ways to write an address are one address.
fn plain(url: &str) -> String {
    let parsed = Url::parse(url).map_or_else(|_| url.to_owned(), String::from);
    parsed.trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_to_configured_addresses_only() {
        let token = Token::new("secret");
        let urls = ["http://One:80/".to_owned(), "http://two:7700/assent".to_owned()];
        let known = Known::coordinators(&urls, Some(&token)).unwrap();
        for (url, is_asked) in [
            ("http://one", true),
            ("http://two:7700/assent/", true),
            ("http://two:7700", false),
            ("http://one:7700", false),
            ("http://one.evil.example", false),
            ("http://one@evil.example", false),
            ("nonsense", false),
        ] {
            assert_eq!(known.refusal(url).is_none(), is_asked, "{url}");
        }
        let nobody = Known::coordinators(&[], Some(&token)).unwrap();
        assert!(nobody.is_useless() && nobody.refusal("http://one").is_some());
        let open = Known::peers(&[], None).unwrap();
        assert!(!open.is_useless() && open.refusal("http://anybody").is_none());
        assert!(Known::peers(&urls, None).unwrap().refusal("http://anybody").is_some());
    }

    /// Promise: an address that nobody could be asked at ends the start, and says of which setting
    /// it is; it would be noticed only when a branch is in doubt.
    #[test]
    fn what_is_no_address_is_refused_by_its_setting() {
        for wrong in ["nonsense", "two:7700", "https://two", "http://a@two", ""] {
            let urls = ["http://one".to_owned(), wrong.to_owned()];
            let error = Known::coordinators(&urls, None).unwrap_err().to_string();
            assert!(error.starts_with("--coordinator: ") && error.contains(wrong), "{error}");
            assert!(error.contains("http://host:port"), "{error}");
        }
        let error = Known::peers(&["two".to_owned()], None).unwrap_err().to_string();
        assert!(error.starts_with("--peer: "), "{error}");
    }
}
