//! What is committed to the repository is what is served.

use std::path::Path;

use assent_coordinator::http::{errors_markdown, openapi_json};
use serde_json::Value;

use super::rig::Rig;

/// Compares a committed document with the code; `UPDATE=1` rewrites it.
#[track_caller]
fn is_committed(path: &str, generated: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, generated).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == generated,
        "{} is not what the code says; rewrite it: UPDATE=1 cargo nextest run -p assent-coordinator contract",
        path.display()
    );
}

#[test]
fn the_committed_openapi_document_is_the_codes() {
    is_committed("docs/reference/openapi.json", &openapi_json());
}

#[test]
fn the_committed_error_table_is_the_codes() {
    is_committed("docs/reference/errors.md", &errors_markdown());
}

#[test]
fn every_operation_has_an_id_of_its_own_and_documents_its_errors() {
    let document: Value = serde_json::from_str(&openapi_json()).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let mut ids = std::collections::BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let id = operation["operationId"].as_str();
            assert!(id.is_some_and(|id| ids.insert(id.to_owned())), "{method} {path}: {id:?}");
            assert!(!operation["tags"][0].is_null(), "{method} {path}");
            if let Some(parameters) = operation["parameters"].as_array() {
                let named = parameters.iter().filter(|parameter| parameter["in"] == "path").count();
                assert_eq!(named, path.matches('{').count(), "{method} {path}");
            }
        }
    }
    assert!(ids.contains("submitTransaction") && ids.contains("abandonBranch"), "{ids:?}");
}

#[test]
fn every_reference_in_the_document_resolves() {
    fn check(value: &Value, document: &Value) {
        match value {
            Value::Object(members) => {
                if let Some(Value::String(reference)) = members.get("$ref") {
                    let pointer = reference.strip_prefix('#').unwrap();
                    assert!(document.pointer(pointer).is_some(), "{reference}");
                }
                members.values().for_each(|member| check(member, document));
            }
            Value::Array(elements) => elements.iter().for_each(|element| check(element, document)),
            _ => {}
        }
    }
    let document: Value = serde_json::from_str(&openapi_json()).unwrap();
    check(&document, &document);
}

#[tokio::test]
async fn both_listeners_serve_the_documents() {
    let rig = Rig::start(&[]).await;
    for base in [rig.url(""), rig.admin_url("")] {
        let served = rig.request_to(reqwest::Method::GET, &format!("{base}/openapi.json"));
        let served = served.send().await.unwrap();
        assert_eq!(served.headers()["content-type"], "application/json");
        assert_eq!(served.text().await.unwrap(), openapi_json());
        let errors = rig.request_to(reqwest::Method::GET, &format!("{base}/errors"));
        assert_eq!(errors.send().await.unwrap().text().await.unwrap(), errors_markdown());
    }
}
