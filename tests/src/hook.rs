//! A hook of the test's own process.

use std::future::{Future, IntoFuture as _};

use axum::{Json, Router};
use serde_json::Value;
use tokio::net::TcpListener;

/// Serves a hook at any path, as long as the test's runtime lives. Its base URL.
///
/// # Panics
/// If there is no port for it.
pub async fn serve_hook<F, A>(answer: F) -> String
where
    F: Fn(Value) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Value> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port for the hook");
    let address = listener.local_addr().expect("its address");
    let answer = move |Json(question): Json<Value>| {
        let answer = answer(question);
        async move { Json(answer.await) }
    };
    let router = Router::new().fallback(answer);
    tokio::spawn(axum::serve(listener, router).into_future());
    format!("http://{address}")
}
