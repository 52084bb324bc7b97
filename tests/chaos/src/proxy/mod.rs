//! A TCP proxy in a container of its own, through which the servers of a chaos run talk to each other, and the door by
//! which its links are made worse and better.
//!
//! ```text
//! GET /links                    every link with its weather and counters
//! PUT /links/{name}/weather     what it does to bytes from now on
//! PUT /links/{name}/target      where new connections go
//! ```

pub(crate) mod link;

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, put};
use axum::{Json, Router};
use clap::Args;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use self::link::{Link, Weather};

/// The flags of `assent-chaos proxy`.
#[derive(Debug, Args)]
pub(crate) struct ProxyArgs {
    /// A link: its name, its port here, its target
    #[arg(long = "link", value_name = "NAME=PORT=HOST:PORT", required = true)]
    links: Vec<LinkArg>,
    /// The port of the door
    #[arg(long, default_value_t = 9000)]
    control: u16,
}

#[derive(Debug, Clone)]
struct LinkArg {
    name: String,
    port: u16,
    target: String,
}

impl FromStr for LinkArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.splitn(3, '=');
        let parsed = (|| {
            let (name, port, target) = (parts.next()?, parts.next()?, parts.next()?);
            Some(Self {
                name: name.to_owned(),
                port: port.parse().ok()?,
                target: target.to_owned(),
            })
        })();
        parsed
            .ok_or_else(|| "write NAME=PORT=HOST:PORT, as in redis-a=6301=redis-a:6379".to_owned())
    }
}

type Links = Arc<BTreeMap<String, Arc<Link>>>;

/// Serves until the process is ended.
pub(crate) async fn run(args: ProxyArgs) -> Result<(), String> {
    let mut links = BTreeMap::new();
    for LinkArg { name, port, target } in args.links {
        let link = Link::new(name.clone(), target);
        // Any address: this is inside a container, on the networks of one compose project.
        let listener = bind(port).await?;
        tokio::spawn(Arc::clone(&link).serve(listener));
        if links.insert(name.clone(), link).is_some() {
            return Err(format!("two links have the name {name}"));
        }
    }
    let listener = bind(args.control).await?;
    axum::serve(listener, door(Arc::new(links))).await.map_err(|error| error.to_string())
}

async fn bind(port: u16) -> Result<TcpListener, String> {
    let bound = TcpListener::bind(("0.0.0.0", port)).await;
    bound.map_err(|error| format!("cannot listen on port {port}: {error}"))
}

fn door(links: Links) -> Router {
    Router::new()
        .route("/links", get(show))
        .route("/links/{name}/weather", put(set_weather))
        .route("/links/{name}/target", put(set_target))
        .with_state(links)
}

async fn show(State(links): State<Links>) -> Json<Value> {
    let links: Vec<Value> = links
        .values()
        .map(|link| {
            let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
            json!({
                "name": link.name,
                "target": *link.target.borrow(),
                "weather": *link.weather.borrow(),
                "connections": count(&link.counters.connections),
                "bytes": count(&link.counters.bytes),
                "lost": count(&link.counters.lost),
                "broken": count(&link.counters.broken),
            })
        })
        .collect();
    Json(json!({ "links": links }))
}

async fn set_weather(
    State(links): State<Links>,
    Path(name): Path<String>,
    Json(weather): Json<Weather>,
) -> StatusCode {
    let Some(link) = links.get(&name) else { return StatusCode::NOT_FOUND };
    link.weather.send_replace(weather);
    StatusCode::NO_CONTENT
}

async fn set_target(
    State(links): State<Links>,
    Path(name): Path<String>,
    Json(target): Json<String>,
) -> StatusCode {
    let Some(link) = links.get(&name) else { return StatusCode::NOT_FOUND };
    link.target.send_replace(target);
    StatusCode::NO_CONTENT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_read_and_nonsense_is_not() {
        let link: LinkArg = "redis-a=6301=redis-a:6379".parse().unwrap();
        assert_eq!(
            (link.name.as_str(), link.port, link.target.as_str()),
            ("redis-a", 6301, "redis-a:6379")
        );
        for nonsense in ["", "a", "a=1", "a=x=y:1", "a=70000=y:1"] {
            assert!(nonsense.parse::<LinkArg>().is_err(), "{nonsense}");
        }
    }
}
