//! Who a request says that it is for, and where it comes from.
//!
//! A browser on this machine can be made to speak to a server on loopback: by a page whose name is pointed at 127.0.0.1
//! (then `Host` is that name), or by a form that is posted across sites (then `Origin` is that site). Where a token is
//! asked for, a page has none. Where none is, the server answers to its own names only.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use assent_common::ErrorCode;
use assent_common::wire::problem::Problem;
use axum::http::header::{HOST, HeaderMap, ORIGIN};
use axum::http::{Method, Uri};
use url::Url;

/// Bytes of a foreign name that are shown.
const SHOWN_BYTES_MAX: usize = 100;

/// By which names a listener may be addressed.
#[derive(Debug, Clone)]
pub enum HostRule {
    /// By any: a token is asked for, or the listener is open to a network on purpose.
    Any,
    /// By those of this machine, and these.
    Own(BTreeSet<String>),
}

impl HostRule {
    /// The rule of a listener at this address. `names` are what the operator has configured: hosts, or URLs with one.
    pub fn new<'a>(
        address: SocketAddr,
        has_token: bool,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        if has_token || !address.ip().is_loopback() {
            return Self::Any;
        }
        let name = |text: &str| {
            let url = Url::parse(text).ok();
            let host = url.as_ref().and_then(Url::host_str).unwrap_or(text);
            host.to_ascii_lowercase()
        };
        Self::Own(names.into_iter().map(name).collect())
    }

    /// Why a request is not served, if it is not.
    pub(crate) fn refusal(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Option<Problem> {
        // RFC 9112, 3.2: of two one could be for somebody else on the way. HTTP/1.0 needs none.
        if headers.get_all(HOST).iter().nth(1).is_some() {
            let detail = "the request has more than one Host header";
            return Some(Problem::new(ErrorCode::BadRequest, detail));
        }
        // The target's own authority counts before the header.
        let host = uri.authority().map(|authority| authority.as_str());
        let host = host.or_else(|| headers.get(HOST).and_then(|host| host.to_str().ok()));
        if let (Self::Own(names), Some(host)) = (self, host)
            && !is_own(names, host)
        {
            let host = assent_common::text::cut(host, SHOWN_BYTES_MAX);
            let detail = format!("the request is for {host:?}, which is not a name of this server");
            return Some(Problem::new(ErrorCode::Forbidden, detail));
        }
        let changes = !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
        if changes && is_cross_site(headers, host) {
            let detail = "the request comes from a page of another site";
            return Some(Problem::new(ErrorCode::Forbidden, detail));
        }
        None
    }
}

fn is_own(names: &BTreeSet<String>, host: &str) -> bool {
    let name = without_port(host);
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
        || names.contains(&name.to_ascii_lowercase())
}

/// Only browsers say these headers, and no page can forge them.
fn is_cross_site(headers: &HeaderMap, host: Option<&str>) -> bool {
    let site = headers.get("sec-fetch-site").map(|site| site.as_bytes());
    if site.is_some_and(|site| !matches!(site, b"same-origin" | b"none")) {
        return true;
    }
    let Some(origin) = headers.get(ORIGIN) else { return false };
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    origin.map(|(_, authority)| authority) != host
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(rule: &HostRule, method: Method, headers: &[(&'static str, &str)]) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        rule.refusal(&method, &Uri::from_static("/v1/transactions"), &map).is_some()
    }

    #[test]
    fn without_a_token_only_own_names_are_answered() {
        let here: SocketAddr = "127.0.0.1:7700".parse().unwrap();
        let own = HostRule::new(here, false, ["http://Assent.internal:7700", "proxy"]);
        for host in [
            "localhost",
            "LOCALHOST:7700",
            "127.0.0.1:1",
            "127.9.9.9",
            "[::1]:7700",
            "[::1]",
            "assent.internal:7700",
            "proxy",
        ] {
            assert!(!refused(&own, Method::GET, &[("host", host)]), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "10.0.0.1", "127.0.0.1.nip.io", ""] {
            assert!(refused(&own, Method::GET, &[("host", host)]), "{host}");
        }
        assert!(!refused(&own, Method::GET, &[]), "a browser always says it");
        let two = [("host", "localhost"), ("host", "localhost")];
        assert!(refused(&own, Method::GET, &two), "one of them may be meant for another server");
        let foreign = Uri::from_static("http://evil.example/v1/transactions");
        let headers = HeaderMap::from_iter([(HOST, "localhost".parse().unwrap())]);
        assert!(own.refusal(&Method::GET, &foreign, &headers).is_some(), "the target counts");
        let outside: SocketAddr = "10.0.0.1:7700".parse().unwrap();
        for any in [HostRule::new(here, true, []), HostRule::new(outside, false, [])] {
            assert!(!refused(&any, Method::GET, &[("host", "evil.example")]));
        }
    }

    #[test]
    fn a_page_of_another_site_changes_nothing() {
        let rule = HostRule::new("127.0.0.1:1".parse().unwrap(), true, []);
        let host = ("host", "127.0.0.1:7701");
        for headers in [
            [("origin", "http://evil.example"), host],
            [("origin", "null"), host],
            [("origin", "http://127.0.0.1:7700"), host],
            [("sec-fetch-site", "cross-site"), host],
            [("sec-fetch-site", "same-site"), host],
        ] {
            assert!(refused(&rule, Method::POST, &headers), "{headers:?}");
            assert!(!refused(&rule, Method::GET, &headers), "{headers:?}");
        }
        let own = [("origin", "http://127.0.0.1:7701"), ("sec-fetch-site", "same-origin"), host];
        assert!(!refused(&rule, Method::POST, &own));
        assert!(!refused(&rule, Method::DELETE, &[host]));
    }
}
