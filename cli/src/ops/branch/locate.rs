//! Where participants are: by the coordinator's list, or by what the participant says of itself.

use std::net::SocketAddr;

use assent_client::{ParticipantAdmin, ParticipantClient};
use assent_common::ParticipantName;
use assent_common::wire::transaction::ParticipantView;
use reqwest::Url;

use crate::config::ClientSettings;
use crate::exit::{Exit, Failure};

/// The participants that the coordinator knows.
async fn registered(settings: &ClientSettings) -> Result<Vec<ParticipantView>, Failure> {
    let list = settings.coordinator()?.participants().await;
    let list = list.map_err(|error| {
        let failure = Failure::of_call(&settings.url, error);
        // The case in which these commands are needed most.
        let hint = "without a coordinator, name the participant by its URL: --participant http://…";
        match failure.exit {
            Exit::Unreachable => Failure::unreachable(format!("{failure}; {hint}")),
            _ => failure,
        }
    })?;
    Ok(list.participants)
}

/// Who is asked, each by a name for people and its base URL: those that were named; if none was,
/// all that the coordinator knows.
pub(in crate::ops) async fn asked(
    named: &[String],
    settings: &ClientSettings,
) -> Result<Vec<(String, String)>, Failure> {
    if named.is_empty() {
        let all = registered(settings).await?;
        return Ok(all.into_iter().map(|view| (view.name.to_string(), view.url)).collect());
    }
    let mut asked = Vec::new();
    for participant in named {
        asked.push((participant.clone(), public_url(participant, settings).await?));
    }
    Ok(asked)
}

/// The base URL of a participant's public API: what was given, or what the coordinator has for the
/// name.
pub(super) async fn public_url(
    participant: &str,
    settings: &ClientSettings,
) -> Result<String, Failure> {
    if participant.contains("://") {
        return Ok(participant.to_owned());
    }
    let name: ParticipantName = participant.parse().map_err(|error| {
        Failure::usage(format!(
            "--participant {participant:?} is neither a URL nor a name: {error}"
        ))
    })?;
    let found = registered(settings).await?.into_iter().find(|view| view.name == name);
    found.map(|view| view.url).ok_or_else(|| {
        Failure::error(format!("the coordinator at {} knows no participant {name}", settings.url))
    })
}

/// A client of a participant's API for operators. Either of its two addresses leads there: the
/// version that both serve says where it listens.
pub(super) async fn admin(
    participant: &str,
    settings: &ClientSettings,
) -> Result<ParticipantAdmin, Failure> {
    let url = public_url(participant, settings).await?;
    let http = settings.participant_http()?;
    let version = ParticipantClient::new(&http, &url)?.version().await;
    let version = version.map_err(|error| Failure::of_call(&url, error))?;
    let admin_url = match version.admin_listen.as_deref() {
        Some(listen) => admin_url(&url, listen).map_err(Failure::error)?,
        // Mounted into an application: only its operator knows the address, and has given it.
        None => url,
    };
    Ok(ParticipantAdmin::new(&http, &admin_url)?)
}

/// Where the API for operators is reached from here, given an address of the participant and where
/// it listens.
fn admin_url(given: &str, listen: &str) -> Result<String, String> {
    let unfit =
        |error: &dyn std::fmt::Display| format!("{given} or {listen} is no address: {error}");
    let mut url = Url::parse(given).map_err(|error| unfit(&error))?;
    let listen: SocketAddr = listen.parse().map_err(|error| unfit(&error))?;
    if url.port_or_known_default() == Some(listen.port()) {
        return Ok(given.to_owned());
    }
    let ip = listen.ip();
    let is_local = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    if ip.is_loopback() && !is_local {
        return Err(format!(
            "the API for operators listens on {listen} of its own machine only: run this there, with --participant \
             http://{listen}"
        ));
    }
    if !ip.is_loopback() && !ip.is_unspecified() {
        url.set_ip_host(ip).map_err(|()| unfit(&"its host cannot be set"))?;
    }
    url.set_port(Some(listen.port())).map_err(|()| unfit(&"its port cannot be set"))?;
    Ok(url.to_string())
}

#[cfg(test)]
mod tests {
    use super::admin_url;

    #[test]
    fn the_operators_api_is_found_from_either_address() {
        let found = |given: &str, listen: &str| admin_url(given, listen);
        let ok = |url: &str| Ok(url.to_owned());
        assert_eq!(found("http://127.0.0.1:7710", "127.0.0.1:7711"), ok("http://127.0.0.1:7711/"));
        assert_eq!(found("http://127.0.0.1:7711", "127.0.0.1:7711"), ok("http://127.0.0.1:7711"));
        assert_eq!(found("http://bank-a:7710", "0.0.0.0:7711"), ok("http://bank-a:7711/"));
        assert_eq!(found("http://bank-a:7710", "10.0.0.5:7711"), ok("http://10.0.0.5:7711/"));
        let elsewhere = found("http://bank-a:7710", "127.0.0.1:7711").unwrap_err();
        assert!(elsewhere.contains("--participant http://127.0.0.1:7711"), "{elsewhere}");
        assert!(found("http://bank-a:7710", "nowhere").is_err());
    }
}
