//! The documents that are generated from the code: the OpenAPI description and the table of error codes. Their committed
//! copies are `docs/reference/openapi.json` and `docs/reference/errors.md`; a test compares.

use std::fmt::Write as _;
use std::sync::LazyLock;

use assent_common::ErrorCode;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use utoipa::OpenApi as _;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Components, SecurityRequirement};

use super::reply;

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

static ERRORS_MARKDOWN: LazyLock<String> = LazyLock::new(errors_markdown);

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Assent coordinator",
        description = "Runs transactions over several services' Redis: all branches apply, or none.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    servers(
        (url = "http://127.0.0.1:7700", description = "The public API"),
        (url = "http://127.0.0.1:7701", description = "The admin API: everything tagged `admin`, and all that reads"),
    ),
    tags(
        (name = "transactions", description = "Run transactions, and look at them"),
        (name = "participants", description = "Where the participants are"),
        (name = "protocol", description = "What participants ask"),
        (name = "admin", description = "What only operators may do; on the admin listener only"),
        (name = "health", description = "Probes, version, metrics"),
        (name = "documents", description = "This document, and the error codes"),
    ),
)]
struct Description;

/// The OpenAPI 3.1 description of these routes of both listeners, as JSON.
pub(super) fn described(routes: utoipa::openapi::OpenApi) -> String {
    let mut document = Description::openapi();
    document.merge(routes);
    let token = SecurityScheme::Http(
        HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("The token of the listener, where one is configured"))
            .build(),
    );
    document.components.get_or_insert_with(Components::new).add_security_scheme("token", token);
    // Either none or the token: whether one is wanted is the operator's choice.
    document.security =
        Some(vec![SecurityRequirement::default(), SecurityRequirement::new("token", [""; 0])]);
    let mut json = document.to_pretty_json().unwrap_or_default();
    json.push('\n');
    json
}

/// The table of error codes, as Markdown with an anchor for each: what `type` of a problem document refers to.
#[must_use]
pub fn errors_markdown() -> String {
    let mut text = String::from(
        "# Error codes\n\n\
         <!-- Generated from `common/src/code.rs`; `UPDATE=1` rewrites this page. -->\n\n\
         Every error of the HTTP APIs is a problem document (RFC 9457, `application/problem+json`) \
         with one of these codes in `code`.\n\n\
         - `\"outcome\": \"aborted\"` in it means that a transaction was begun and aborted: no branch \
         applies, now or later.\n\
         - Without `outcome`, this copy of the request began nothing; an earlier copy with the \
         same key may have committed, so keep the key. The exception is `internal`: after it, \
         nothing is known.\n\
         - *Retryable* means that the same work may succeed if it is done again: after an abort as a \
         new transaction, under a new id or idempotency key; else by the same request, unchanged. \
         Work that begins with reads (`read_changed`) begins with them again.\n\n\
         | Code | Status | Retryable | What it means | What to do |\n\
         |---|---|---|---|---|\n",
    );
    for code in ErrorCode::ALL {
        let retryable = if code.retryable() { "yes" } else { "no" };
        // Writing to a string does not fail.
        let _infallible = writeln!(
            text,
            "| <a id=\"{code}\"></a>`{code}` | {} | {retryable} | {} | {} |",
            code.status(),
            code.meaning(),
            code.advice(),
        );
    }
    text
}

/// The error codes: what each means, and what to do about it.
#[utoipa::path(
    get, path = "/errors", operation_id = "getErrors", tag = "documents",
    responses((status = 200, description = "A table in Markdown", body = String, content_type = "text/plain")),
)]
pub(super) async fn errors() -> Response {
    reply::text(StatusCode::OK, ERRORS_MARKDOWN.as_str())
}
