//! TOML, changed in place.

use serde_json::Value;
use toml_edit::{Array, DocumentMut, Item, Table, value};

use super::NAME;

/// Where Codex has its servers.
const SERVERS: &str = "mcp_servers";

/// Puts our entry among the servers. What a user has set beside our own keys stays.
pub(super) fn merge(before: Option<&str>, entry: &Value) -> Result<String, String> {
    let mut document: DocumentMut = before.unwrap_or("").parse().map_err(told)?;
    let servers = document.entry(SERVERS).or_insert_with(|| {
        let mut servers = Table::new();
        servers.set_implicit(true);
        Item::Table(servers)
    });
    let servers = servers
        .as_table_like_mut()
        .ok_or_else(|| format!("`{SERVERS}` in it is not a table"))?;
    let ours = servers
        .entry(NAME)
        .or_insert_with(|| Item::Table(Table::new()));
    let ours = ours
        .as_table_like_mut()
        .ok_or_else(|| format!("`{SERVERS}.{NAME}` in it is not a table"))?;
    for (key, found) in entry.as_object().into_iter().flatten() {
        let item = match found {
            Value::String(text) => value(text.as_str()),
            Value::Array(items) => value(items.iter().filter_map(Value::as_str).collect::<Array>()),
            Value::Number(number) => value(number.as_i64().unwrap_or(0)),
            _ => continue,
        };
        ours.insert(key, item);
    }
    Ok(document.to_string())
}

fn told(error: toml_edit::TomlError) -> String {
    error.message().to_string()
}
