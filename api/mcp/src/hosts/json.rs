//! JSON with comments, changed in place.

use jsonc_parser::ParseOptions;
use jsonc_parser::cst::{CstInputValue, CstRootNode};
use serde_json::Value;

use super::NAME;

/// Puts our entry among the servers.
pub(super) fn merge(before: Option<&str>, servers: &str, entry: Value) -> Result<String, String> {
    let options = ParseOptions::default();
    let root = CstRootNode::parse(before.unwrap_or("{}"), &options).map_err(|e| e.to_string())?;
    let top = root
        .object_value_or_create()
        .ok_or("it is not a JSON object")?;
    let among = top
        .object_value_or_create(servers)
        .ok_or_else(|| format!("`{servers}` in it is not an object"))?;
    let Some(ours) = among.get(NAME) else {
        among.append(NAME, input(entry));
        return Ok(ended(root.to_string()));
    };
    match (ours.object_value(), entry) {
        // What a user has set beside our own keys stays.
        (Some(members), Value::Object(entry)) => {
            for (name, value) in entry {
                match members.get(&name) {
                    Some(member) => member.set_value(input(value)),
                    None => {
                        members.append(&name, input(value));
                    }
                }
            }
        }
        (_, entry) => ours.set_value(input(entry)),
    }
    Ok(ended(root.to_string()))
}

fn ended(mut text: String) -> String {
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

fn input(value: Value) -> CstInputValue {
    match value {
        Value::Null => CstInputValue::Null,
        Value::Bool(value) => CstInputValue::Bool(value),
        Value::Number(value) => CstInputValue::Number(value.to_string()),
        Value::String(value) => CstInputValue::String(value),
        Value::Array(items) => CstInputValue::Array(items.into_iter().map(input).collect()),
        Value::Object(members) => {
            let member = |(name, value)| (name, input(value));
            CstInputValue::Object(members.into_iter().map(member).collect())
        }
    }
}
