//! What every SDK must do: the cases of `sdk/contract`, by the public API of the Rust client,
//! against a live coordinator. Their form is in the README there.

mod player;
mod world;

use std::time::Duration;

use assent_client::{AssentClient, Http, HttpOptions};
use serde_json::{Value, json};

use player::Player;
use world::{World, text};

/// How long a case may take: a bound for what hangs, not a measure.
const CASE_BOUND: Duration = Duration::from_secs(30);

/// Whether it is about `https:`, which this client does not speak.
fn needs_tls(case: &Value) -> bool {
    let mut steps = case["steps"].as_array().unwrap().iter();
    steps.any(|step| step["via"].as_array().is_some_and(|via| via.contains(&json!("tls"))))
}

/// Promise: each that a case names, and that a program says the same in every language.
#[tokio::test]
async fn the_rust_client_does_what_every_sdk_must_do() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../sdk/contract/cases.json");
    let cases: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let world = World::start().await;
    let mut broken = Vec::new();
    for case in &cases {
        if needs_tls(case) {
            let http = Http::new(&HttpOptions::default()).unwrap();
            let refused = AssentClient::new(&http, ["https://127.0.0.1:7700"]);
            assert!(refused.is_err(), "what this client cannot speak to is refused at once");
            continue;
        }
        let mut player = Player::new(&world);
        let mut broken_by = async || {
            for step in case["steps"].as_array().unwrap() {
                player.play(step).await.map_err(|why| format!("{step}: {why}"))?;
            }
            Ok(())
        };
        let played = tokio::time::timeout(CASE_BOUND, broken_by()).await;
        if let Err(why) = played.unwrap_or_else(|_| Err("it hangs".to_owned())) {
            broken.push(format!("{}: {}\n  {why}", text(&case["name"]), text(&case["promise"])));
        }
    }
    assert!(!cases.is_empty(), "{file} has no cases");
    let count = format!("{} of {} cases", broken.len(), cases.len());
    assert!(broken.is_empty(), "{count}:\n{}", broken.join("\n"));
    world.stop().await;
}
