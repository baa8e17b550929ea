//! Checks arguments against the schema that the model was shown.
//!
//! The schema is the law: what it bounds is bounded, and nobody has to write the bound down again. It knows
//! the part of JSON Schema that our own schemas use.

use std::sync::LazyLock;

use serde_json::{Map, Value};

use crate::Error;
use crate::schema::Schema;

/// Required arguments that name something.
const NAMES: [&str; 6] = ["workspace", "name", "shell_id", "path", "source", "output"];

/// Checks a tool's arguments. An optional one that is `null` counts as left out.
pub(crate) fn check(
    tool: &str,
    schema: &Schema,
    mut arguments: Map<String, Value>,
) -> Result<Map<String, Value>, Error> {
    let required = required(schema);
    arguments.retain(|name, value| !value.is_null() || required.contains(&name.as_str()));
    arguments.values_mut().for_each(whole);
    object("", schema, &arguments).map_err(|problem| {
        Error::new(
            "invalid_request",
            format!("{tool}: {problem}"),
            usage(tool, schema),
        )
    })?;
    Ok(arguments)
}

/// `30.0` is an integer (JSON Schema 2020-12, 4.2.3), and some hosts have no other numbers.
fn whole(value: &mut Value) {
    if let Value::Number(number) = value
        && let Some(float) = number.as_f64().filter(|_| number.is_f64())
        && float.fract() == 0.0
        && let Ok(integer) = format!("{float:.0}").parse::<i64>()
    {
        *value = integer.into();
    }
}

/// Which arguments there are.
fn usage(tool: &str, schema: &Schema) -> String {
    let required = required(schema);
    let mut names: Vec<String> = Vec::new();
    for name in properties(schema).keys() {
        let mark = if required.contains(&name.as_str()) {
            " (required)"
        } else {
            ""
        };
        names.push(format!("{name}{mark}"));
    }
    if names.is_empty() {
        return format!("call {tool} without arguments");
    }
    format!(
        "call {tool} again with these arguments: {}",
        names.join(", ")
    )
}

fn required(schema: &Schema) -> Vec<&str> {
    let required = schema.get("required").and_then(Value::as_array);
    required
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

fn properties(schema: &Schema) -> &Schema {
    static NONE: LazyLock<Schema> = LazyLock::new(Schema::new);
    let properties = schema.get("properties").and_then(Value::as_object);
    properties.unwrap_or(&NONE)
}

/// The name of a member for a person: `publish[0]`, `labels.team`.
fn within(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_string()
    } else {
        format!("{path}.{name}")
    }
}

fn object(path: &str, schema: &Schema, members: &Map<String, Value>) -> Result<(), String> {
    let properties = properties(schema);
    for name in required(schema) {
        match members.get(name) {
            None => return Err(format!("`{}` is missing", within(path, name))),
            // What names something is never empty; contents may be.
            Some(Value::String(text)) if text.is_empty() && NAMES.contains(&name) => {
                return Err(format!("`{}` is empty", within(path, name)));
            }
            Some(_) => {}
        }
    }
    for (name, member) in members {
        let here = within(path, name);
        match (properties.get(name), schema.get("additionalProperties")) {
            (Some(Value::Object(schema)), _) | (None, Some(Value::Object(schema))) => {
                value(&here, schema, member)?;
            }
            (None, Some(Value::Bool(false))) => {
                let near = properties.keys().find(|known| {
                    known
                        .replace('_', "")
                        .eq_ignore_ascii_case(&name.replace(['_', '-'], ""))
                });
                let hint = near.map(|near| format!("; did you mean `{near}`?"));
                return Err(format!(
                    "there is no argument `{here}`{}",
                    hint.unwrap_or_default()
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

fn value(path: &str, schema: &Schema, found: &Value) -> Result<(), String> {
    if let Some(choices) = schema.get("anyOf").and_then(Value::as_array) {
        let choices = choices.iter().filter_map(Value::as_object);
        let mut problems = Vec::new();
        for choice in choices {
            match value(path, choice, found) {
                Ok(()) => return Ok(()),
                // Of a choice of the right type, the problem says more.
                Err(problem) if is_of(kind(choice), found) => return Err(problem),
                Err(_) => problems.push(article(kind(choice))),
            }
        }
        return Err(format!(
            "`{path}` is {}; it must be {}",
            article(kind_of(found)),
            problems.join(" or ")
        ));
    }
    let kind = kind(schema);
    if !is_of(kind, found) {
        let shown = match found {
            Value::Number(number) => number.to_string(),
            other => article(kind_of(other)),
        };
        return Err(format!("`{path}` is {shown}; it must be {}", article(kind)));
    }
    match found {
        Value::Number(_) => range(path, schema, found),
        Value::String(text) => string(path, schema, text),
        Value::Array(items) => array(path, schema, items),
        Value::Object(members) => object(path, schema, members),
        Value::Null | Value::Bool(_) => Ok(()),
    }
}

fn kind(schema: &Schema) -> &str {
    schema.get("type").and_then(Value::as_str).unwrap_or("")
}

fn is_of(kind: &str, found: &Value) -> bool {
    match kind {
        "string" => found.is_string(),
        "boolean" => found.is_boolean(),
        "integer" => found.is_i64() || found.is_u64(),
        "number" => found.is_number(),
        "array" => found.is_array(),
        "object" => found.is_object(),
        _ => true,
    }
}

fn kind_of(found: &Value) -> &'static str {
    match found {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn article(kind: &str) -> String {
    match kind {
        "null" => "null".into(),
        "integer" => "an integer".into(),
        "array" => "an array".into(),
        "object" => "an object".into(),
        "boolean" => "true or false".into(),
        other => format!("a {other}"),
    }
}

fn bound(schema: &Schema, name: &str) -> Option<i128> {
    let bound = schema.get(name)?;
    let whole = bound.as_i64().map(i128::from);
    whole.or_else(|| bound.as_u64().map(i128::from))
}

fn range(path: &str, schema: &Schema, found: &Value) -> Result<(), String> {
    let number = found.as_i64().map(i128::from);
    let Some(number) = number.or_else(|| found.as_u64().map(i128::from)) else {
        return Ok(());
    };
    // Nothing that is counted is negative.
    let least = Some(bound(schema, "minimum").unwrap_or(0));
    let most = bound(schema, "maximum");
    if least.is_none_or(|least| number >= least) && most.is_none_or(|most| number <= most) {
        return Ok(());
    }
    let wanted = match (least, most) {
        (Some(least), Some(most)) => format!("{least} to {most}"),
        (Some(least), None) => format!("at least {least}"),
        (None, most) => format!("at most {}", most.unwrap_or_default()),
    };
    Err(format!("`{path}` is {number}; it must be {wanted}"))
}

fn string(path: &str, schema: &Schema, text: &str) -> Result<(), String> {
    if let Some(choices) = schema.get("enum").and_then(Value::as_array)
        && !choices.iter().any(|choice| choice == text)
    {
        let choices: Vec<&str> = choices.iter().filter_map(Value::as_str).collect();
        return Err(format!(
            "`{path}` is {:?}; it must be {}",
            crate::cut::front(text, 60),
            choices.join(", ")
        ));
    }
    let length = text.chars().count() as i128;
    if bound(schema, "minLength").is_some_and(|least| length < least) {
        return Err(format!("`{path}` is empty"));
    }
    if let Some(most) = bound(schema, "maxLength")
        && length > most
    {
        return Err(format!("`{path}` is longer than {most} characters"));
    }
    Ok(())
}

fn array(path: &str, schema: &Schema, items: &[Value]) -> Result<(), String> {
    if bound(schema, "minItems").is_some_and(|least| (items.len() as i128) < least) {
        return Err(format!("`{path}` is empty"));
    }
    let Some(Value::Object(schema)) = schema.get("items") else {
        return Ok(());
    };
    for (index, item) in items.iter().enumerate() {
        value(&format!("{path}[{index}]"), schema, item)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Schema {
        let schema = json!({
            "type": "object",
            "properties": {
                "workspace": {"type": "string", "minLength": 1},
                "count": {"type": "integer", "minimum": 1, "maximum": 9},
                "kind": {"type": "string", "enum": ["a", "b"]},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "command": {"anyOf": [{"type": "string"},
                    {"type": "array", "items": {"type": "string"}, "minItems": 1}]},
                "all": {"type": "boolean"},
                "ports": {"type": "array", "items": {"type": "object",
                    "properties": {"guest": {"type": "integer"}}, "required": ["guest"],
                    "additionalProperties": false}},
            },
            "required": ["workspace"],
            "additionalProperties": false,
        });
        schema.as_object().unwrap().clone()
    }

    fn problem(mut arguments: Value) -> String {
        let members = arguments.as_object_mut().unwrap();
        members.entry("workspace").or_insert("w".into());
        let error = check("t", &schema(), members.clone()).unwrap_err();
        assert_eq!(error.0.code, "invalid_request");
        assert!(error.0.remedy.contains("workspace (required)"), "{error:?}");
        error.0.message
    }

    #[test]
    fn a_number_without_a_fraction_is_an_integer() {
        let arguments = json!({"workspace": "w", "count": 3.0});
        let checked = check("t", &schema(), arguments.as_object().unwrap().clone()).unwrap();
        assert_eq!(checked["count"], json!(3));
        assert!(problem(json!({"count": 1e300})).contains("must be an integer"));
    }

    #[test]
    fn what_is_wrong_is_told_by_the_fields_name() {
        for (arguments, message) in [
            (
                json!({"workspace": 3}),
                "t: `workspace` is 3; it must be a string",
            ),
            (json!({"workspace": ""}), "t: `workspace` is empty"),
            (
                json!({"workspace": null}),
                "t: `workspace` is null; it must be a string",
            ),
            (json!({"count": 10}), "t: `count` is 10; it must be 1 to 9"),
            (json!({"count": -1}), "t: `count` is -1; it must be 1 to 9"),
            (
                json!({"count": 1.5}),
                "t: `count` is 1.5; it must be an integer",
            ),
            (
                json!({"count": "1"}),
                "t: `count` is a string; it must be an integer",
            ),
            (json!({"kind": "c"}), "t: `kind` is \"c\"; it must be a, b"),
            (
                json!({"labels": {"a": 1}}),
                "t: `labels.a` is 1; it must be a string",
            ),
            (
                json!({"command": 1}),
                "t: `command` is a number; it must be a string or an array",
            ),
            (
                json!({"command": ["a", 1]}),
                "t: `command[1]` is 1; it must be a string",
            ),
            (json!({"command": []}), "t: `command` is empty"),
            (
                json!({"all": "yes"}),
                "t: `all` is a string; it must be true or false",
            ),
            (json!({"ports": [{}]}), "t: `ports[0].guest` is missing"),
            (
                json!({"ports": [{"guest": 1, "x": 1}]}),
                "t: there is no argument `ports[0].x`",
            ),
            (json!({"other": 1}), "t: there is no argument `other`"),
            (
                json!({"Kind": 1}),
                "t: there is no argument `Kind`; did you mean `kind`?",
            ),
        ] {
            assert_eq!(problem(arguments), message);
        }
        let error = check("t", &schema(), Map::new()).unwrap_err();
        assert_eq!(error.0.message, "t: `workspace` is missing");
    }

    #[test]
    fn what_is_right_passes_and_null_is_left_out() {
        let arguments =
            json!({"workspace": "w", "count": null, "command": ["a"], "labels": {"a": "b"}});
        let checked = check("t", &schema(), arguments.as_object().unwrap().clone()).unwrap();
        assert!(!checked.contains_key("count"));
        assert_eq!(checked.len(), 3);
    }
}
