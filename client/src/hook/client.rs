//! The client of a service's hook, which is no server of Assent's: what it answers is JSON of its
//! own making.

use assent_common::limits;
use assent_common::wire::hook::{HookAnswer, HookQuestion, HookSays};
use assent_common::wire::{place_of, read_json, too_deep_at};
use hyper::Method;
use url::Url;

use crate::transport::{Endpoint, Http, InvalidBaseUrl, Media, Request, Unheard, Unknown};

/// Asks one hook.
#[derive(Debug, Clone)]
pub struct HookClient {
    http: Http,
    url: Url,
    host: String,
}

/// What a hook has answered.
#[derive(Debug)]
pub enum HookHeard {
    /// This.
    Says(HookSays),
    /// Something that no hook may answer.
    Invalid(String),
    /// Something that is no word of a hook, as a status of 500 or of 404: it may be asked again,
    /// and is most often told the same.
    Failed(String),
    /// Nothing: it may be asked again.
    Unclear(String),
}

impl HookClient {
    /// A client of the hook at this URL.
    pub fn new(http: &Http, url: &str) -> Result<Self, InvalidBaseUrl> {
        let url = Endpoint::new(http, url)?.url(&[]);
        let host = url.host_str().unwrap_or_default();
        let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        Ok(Self { http: http.clone(), url, host })
    }

    /// Its host and port, for people.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Asks once.
    pub async fn ask(&self, question: &HookQuestion<'_>) -> HookHeard {
        let request = Request::new(Method::POST, self.url.clone(), Media::Json);
        let request = request.at_most(limits::HOOK_ANSWER_BYTES_MAX).json(question);
        let said = match request {
            Ok(request) => self.http.say_to_stranger(request).await,
            Err(unknown) => Err(Unheard::Unknown(unknown)),
        };
        match said {
            Ok(body) => read(&body),
            // It would be as large again.
            Err(Unheard::TooLarge { bytes_max }) => {
                HookHeard::Invalid(format!("its answer has more than {bytes_max} bytes"))
            }
            Err(Unheard::Useless(why)) => HookHeard::Failed(why),
            Err(Unheard::Unknown(Unknown(why))) => HookHeard::Unclear(why),
        }
    }

    /// Whether somebody listens there; else why not. It is asked nothing.
    pub async fn reach(&self) -> Result<(), Unknown> {
        let host = self.url.host_str().unwrap_or_default();
        // Brackets are for addresses in URLs.
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = self.url.port_or_known_default().unwrap_or_default();
        let connected = tokio::net::TcpStream::connect((host, port)).await;
        connected.map(drop).map_err(|error| Unknown(error.to_string()))
    }
}

/// What is no JSON at all need not be the hook's own word.
fn read(body: &[u8]) -> HookHeard {
    let max = limits::JSON_DEPTH_MAX;
    if too_deep_at(body, max).is_some() {
        return HookHeard::Invalid(format!(
            "it has more than {max} arrays and objects inside each other"
        ));
    }
    let answer: HookAnswer = match read_json(body) {
        Ok(answer) => answer,
        Err(error) if error.is_data() => return HookHeard::Invalid(in_words(body, &error)),
        Err(error) => return HookHeard::Failed(format!("its answer is no JSON: {}", at(&error))),
    };
    answer.says().map_or_else(HookHeard::Invalid, HookHeard::Says)
}

/// What is wrong with it. Fields are named; values are not quoted.
fn in_words(body: &[u8], error: &serde_json::Error) -> String {
    let said = error.to_string();
    let is_about_fields =
        ["unknown field", "missing field", "duplicate field"].iter().any(|it| said.starts_with(it));
    let words = match (is_about_fields, place_of(body, error)) {
        (true, _) => said,
        (false, place) if place.is_empty() => format!("it is no object, {}", at(error)),
        (false, place) => format!("`{place}` has a value of the wrong kind, {}", at(error)),
    };
    assent_common::text::cut_owned(words, limits::VETO_REASON_BYTES_MAX)
}

fn at(error: &serde_json::Error) -> String {
    format!("line {}, column {}", error.line(), error.column())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_an_answer_is_said_without_its_values() {
        let invalid = |body: &str| match read(body.as_bytes()) {
            HookHeard::Invalid(what) => what,
            heard => panic!("{body}: {heard:?}"),
        };
        assert!(invalid(r#"{"commit":"secret"}"#).starts_with("unknown field `commit`"));
        for (body, place) in [
            (r#"{"ops":"secret"}"#, "`ops` has a value of the wrong kind"),
            (r#"{"ops":[{"cmd":["GET","k"],"expect":["secret"]}]}"#, "`ops[0].expect` has"),
            (r#"{"veto":{"code":["secret"]}}"#, "`veto.code` has a value of the wrong kind"),
            (r#"{"veto":["secret"]}"#, "`veto` has a value of the wrong kind"),
            (r#""secret""#, "it is no object"),
            (r#"["secret"]"#, "it is no object"),
        ] {
            let what = invalid(body);
            assert!(what.starts_with(place) && !what.contains("secret"), "{body}: {what}");
        }
        assert!(invalid(&format!("{}{}", "[".repeat(40), "]".repeat(40))).contains("inside"));
        for body in ["", "<html>", r#"{"ops":["#] {
            assert!(matches!(read(body.as_bytes()), HookHeard::Failed(_)), "{body}");
        }
        assert!(matches!(read(br#"{"ops":[]}"#), HookHeard::Says(_)));
    }
}
