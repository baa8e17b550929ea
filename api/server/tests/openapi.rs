//! The OpenAPI document, and `docs/public-contract.md` made from it.

mod common;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use common::Server;
use pyro_client::operations::{self, Info};
use pyro_server::openapi;
use serde_json::Value;

fn operation(info: &Info) -> &'static Value {
    &openapi()["paths"][info.path][info.method.as_str().to_ascii_lowercase()]
}

fn walk(value: &Value, see: &mut impl FnMut(&Value)) {
    see(value);
    match value {
        Value::Object(members) => members.values().for_each(|value| walk(value, see)),
        Value::Array(items) => items.iter().for_each(|value| walk(value, see)),
        _ => {}
    }
}

fn resolve(reference: &str) -> &'static Value {
    let pointer = reference.strip_prefix('#').expect("a local reference");
    openapi()
        .pointer(pointer)
        .unwrap_or_else(|| panic!("{reference} leads nowhere"))
}

#[tokio::test]
async fn the_served_document_is_the_generated_one() {
    let server = Server::start().await;

    assert_eq!(&server.client().openapi().await.expect("served"), openapi());
}

#[test]
fn every_operation_is_described_with_its_parts() {
    for info in operations::ALL {
        let operation = operation(info);

        assert_eq!(operation["operationId"], info.id);
        assert!(
            operation["summary"]
                .as_str()
                .is_some_and(|text| text.ends_with('.'))
        );
        assert!(operation["responses"]["200"]["content"]["application/json"]["schema"].is_object());
        assert!(operation["responses"]["default"]["$ref"].is_string());
        let parameters = operation["parameters"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let in_path: Vec<_> = parameters
            .iter()
            .filter(|parameter| parameter["in"] == "path")
            .map(|parameter| parameter["name"].as_str().expect("a name"))
            .collect();
        assert_eq!(in_path.len(), info.path.matches('{').count(), "{}", info.id);
        for name in in_path {
            assert!(info.path.contains(&format!("{{{name}}}")));
        }
    }
    let described: usize = openapi()["paths"]
        .as_object()
        .expect("paths")
        .values()
        .map(|item| item.as_object().expect("an item").len())
        .sum();
    // And the document itself, and the metrics.
    assert_eq!(described, operations::ALL.len() + 2);
}

#[test]
fn every_reference_leads_somewhere_and_every_schema_is_used() {
    let mut used = BTreeSet::new();
    walk(openapi(), &mut |value| {
        if let Some(reference) = value.get("$ref").and_then(Value::as_str) {
            resolve(reference);
            used.insert(reference.to_string());
        }
    });
    for name in openapi()["components"]["schemas"]
        .as_object()
        .expect("schemas")
        .keys()
    {
        assert!(
            used.contains(&format!("#/components/schemas/{name}")),
            "{name}"
        );
    }
}

#[test]
fn everything_that_crosses_the_socket_is_described() {
    let schemas = openapi()["components"]["schemas"]
        .as_object()
        .expect("schemas");
    for (name, schema) in schemas {
        let Some(members) = schema["properties"].as_object() else {
            continue;
        };
        for (member, schema) in members {
            let described = schema["description"].is_string() || schema["const"].is_string();
            assert!(described, "{name}.{member}");
        }
    }
}

#[tokio::test]
async fn every_described_route_is_routed() {
    let server = Server::start().await;
    for info in operations::ALL {
        let target = info
            .path
            .replace("{w}", "none")
            .replace("{seq}", "1")
            .replace("{name}", "a");

        let answer = server.send(info.method.as_str(), &target, "").await;

        if answer.status != 200 {
            let code = answer.code();
            assert!(
                !["route_not_found", "method_not_allowed"].contains(&code.as_str()),
                "{target}"
            );
        }
    }
}

/// A schema's members as a person reads them; optional ones with a question mark.
fn members(schema: &Value) -> String {
    let schema = match schema.get("$ref").and_then(Value::as_str) {
        Some(reference) => resolve(reference),
        None => schema,
    };
    let required: Vec<_> = schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .collect();
    let mut names: Vec<_> = schema["properties"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| {
            let optional = if required.iter().any(|r| *r == name) {
                ""
            } else {
                "?"
            };
            format!("`{name}{optional}`")
        })
        .collect();
    // Whatever order the documents of this build keep.
    names.sort();
    if names.is_empty() {
        "–".into()
    } else {
        names.join(" ")
    }
}

fn request(operation: &Value) -> String {
    if let Some(schema) = operation["requestBody"]["content"]["application/json"].get("schema") {
        return members(schema);
    }
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    let mut names: Vec<_> = parameters
        .filter(|parameter| parameter["in"] == "query")
        .map(|parameter| {
            let optional = if parameter["required"] == true {
                ""
            } else {
                "?"
            };
            format!(
                "`{}{optional}`",
                parameter["name"].as_str().expect("a name")
            )
        })
        .collect();
    // Whatever order the documents of this build keep.
    names.sort();
    if names.is_empty() {
        "–".into()
    } else {
        names.join(" ")
    }
}

fn table() -> String {
    let mut text = String::from(
        "| operation | HTTP | SDK | request | result |\n| --- | --- | --- | --- | --- |\n",
    );
    for info in operations::ALL {
        let operation = operation(info);
        let sdk: Vec<_> = info.sdk.iter().map(|name| format!("`{name}`")).collect();
        let result =
            members(&operation["responses"]["200"]["content"]["application/json"]["schema"]);
        writeln!(
            text,
            "| `{}` | `{} {}` | {} | {} | {} |",
            info.id,
            info.method.as_str(),
            info.path,
            sdk.join(" "),
            request(operation),
            result
        )
        .expect("a String takes everything");
    }
    text
}

#[test]
fn the_public_contract_lists_what_there_is() {
    const BEGIN: &str =
        "<!-- operations: made by `UPDATE=1 cargo test -p pyro-server --test openapi` -->\n";
    const END: &str = "<!-- /operations -->";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/public-contract.md");
    let text = std::fs::read_to_string(&path).expect("docs/public-contract.md");
    let (before, rest) = text.split_once(BEGIN).expect("the beginning of the table");
    let (present, after) = rest.split_once(END).expect("the end of the table");
    let table = table();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}")).expect("written");
        return;
    }
    assert_eq!(present, table, "run it with UPDATE=1");
}
