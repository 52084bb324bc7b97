//! The payments service of the shop: accounts in its own Redis, and a vote on every purchase.
//!
//! The participant is built into the service, so there is no agent beside it. A purchase comes with
//! an input, `{"customer": 7, "amount": 40}`. The hook below looks at the customer's account and
//! stages the payment, or vetoes. Nothing of a vetoed purchase is done, in this service or in any
//! other.
//!
//! ```text
//! coordinator ── POST /assent/v1/batch ──► Participant ── asks ──► Till: reads, stages or vetoes
//! anybody     ── GET /accounts/7 ────────► account                          │
//!                                             └── plain Redis client        ▼
//!                                                      └───────────────► Redis
//! ```

use std::error::Error;

use assent_participant::hook::{Hook, HookCall, HookError, HookStage};
use assent_participant::{Participant, Token};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

/// Purchases of one customer in the sale; whoever wants more is a reseller.
const PURCHASES_MAX: i64 = 2;

/// What comes with a purchase.
#[derive(serde::Deserialize)]
struct Payment {
    customer: u32,
    amount: i64,
}

/// Decides who may pay.
struct Till;

impl Hook for Till {
    type Input = Payment; // an input that is none is vetoed with `bad_input`

    async fn prepare(
        &self,
        _: &HookCall,
        payment: Payment,
        stage: &mut HookStage<'_>,
    ) -> Result<Value, HookError> {
        let Payment { customer, amount } = payment;
        if amount <= 0 {
            return Err(HookError::veto("bad_input", "an amount above 0 is needed"));
        }
        let (balance_key, count_key) =
            (format!("balance:{customer}"), format!("purchases:{customer}"));
        // What is read here is still so when the purchase commits: a customer with two purchases
        // under way at once cannot spend his money twice, or get past the limit.
        let read = stage.read(["MGET", &balance_key, &count_key]).await?;
        let (balance, purchases) = (number(&read[0]), number(&read[1]));
        if purchases >= PURCHASES_MAX {
            let reason = format!("customer {customer} has bought {purchases} times already");
            return Err(HookError::veto("fraud", &reason));
        }
        if balance < amount {
            let reason = format!("customer {customer} has {balance}, and {amount} is to be paid");
            return Err(HookError::veto("overdraft", &reason));
        }
        stage.op(["DECRBY", &balance_key, &amount.to_string()]);
        stage.op(["INCR", &count_key]);
        // Every purchase adds to the shop's own account. In escrow they share it, and wait for each
        // other no more than at a customer's.
        stage.op_in_escrow(["INCRBY", "balance:shop", &amount.to_string()]);
        Ok(json!({"balance": balance - amount}))
    }
}

/// A number that Redis keeps as text; 0 if there is none yet.
fn number(reply: &Value) -> i64 {
    reply.as_str().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// What an account holds. Reading needs no transaction: the service has its Redis to itself.
async fn account(
    State(redis): State<redis::Client>,
    Path(name): Path<String>,
) -> Result<Json<Value>, (StatusCode, String)> {
    let unavailable = |error: redis::RedisError| {
        (StatusCode::SERVICE_UNAVAILABLE, format!("the accounts cannot be read: {error}"))
    };
    let key = format!("balance:{name}");
    let mut redis = redis.get_multiplexed_async_connection().await.map_err(unavailable)?;
    let balance: Option<i64> =
        redis::cmd("GET").arg(&key).query_async(&mut redis).await.map_err(unavailable)?;
    match balance {
        Some(balance) => Ok(Json(json!({"balance": balance}))),
        None => Err((StatusCode::NOT_FOUND, format!("there is no account {name}"))),
    }
}

/// The participant with its hook. Where other machines reach this service, the environment names
/// the files of two tokens: the one that the coordinator must send, and the one that it is asked
/// with.
async fn participant(redis_url: &str) -> Result<Participant, Box<dyn Error>> {
    let mut builder = Participant::builder("payments").redis(redis_url).hook(Till);
    if let Ok(file) = std::env::var("PAYMENTS_TOKEN_FILE") {
        builder = builder.token(Token::new(&std::fs::read_to_string(file)?));
    }
    if let Ok(file) = std::env::var("PAYMENTS_COORDINATOR_TOKEN_FILE") {
        let coordinator = setting("PAYMENTS_COORDINATOR", "http://127.0.0.1:7700");
        let token = Token::new(&std::fs::read_to_string(file)?);
        builder = builder.coordinator_token(token, [coordinator]);
    }
    Ok(builder.build().await?)
}

fn setting(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let redis_url = setting("PAYMENTS_REDIS", "redis://127.0.0.1:6379");
    let participant = participant(&redis_url).await?;
    let app = Router::new()
        .route("/accounts/{name}", get(account))
        .with_state(redis::Client::open(redis_url)?)
        .nest("/assent", participant.router());
    let address = setting("PAYMENTS_LISTEN", "127.0.0.1:8002");
    let listener = tokio::net::TcpListener::bind(&address).await?;
    let interrupted = async {
        let _told = tokio::signal::ctrl_c().await;
    };
    // It may be killed as well, at any moment: all that must survive is in its Redis.
    axum::serve(listener, app).with_graceful_shutdown(interrupted).await?;
    participant.shutdown().await;
    Ok(())
}
