//! Schemas as models are shown them: JSON Schema 2020-12, made from the types, without what costs
//! tokens and says nothing.
//!
//! What the types say and a model has no use for goes: titles, number formats, that an optional
//! argument may also be `null`. What a profile does not have goes with its description: a field with
//! the extension [`WIDE`] is there in `workspace-full` only.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::Profile;

/// Marks a field that only the widest profile has.
pub(crate) const WIDE: &str = "x-pyro-wide";

/// A schema: always an object's.
pub(crate) type Schema = Map<String, Value>;

/// What a tool takes.
pub(crate) fn input<T: JsonSchema>(profile: Profile) -> Schema {
    let schema = generated::<T>(SchemaSettings::draft2020_12());
    let mut schema = match compact(schema, &Shape::input(profile)) {
        Value::Object(schema) => schema,
        other => unreachable!("arguments are an object: {other}"),
    };
    schema.remove("description");
    schema.insert("additionalProperties".into(), false.into());
    // Some hosts want it in any case.
    schema.entry("properties").or_insert(json!({}));
    schema
}

/// What a tool gives: those of a type's members that are named, in a form that a validator
/// understands and that costs a model little. No member is required, since some clients hold errors to the
/// same schema; results always have them all.
pub(crate) fn output<T: JsonSchema>(members: &[&str], profile: Profile) -> Schema {
    let schema = generated::<T>(SchemaSettings::draft2020_12().for_serialize());
    let depth = if profile == Profile::WorkspaceFull {
        2
    } else {
        1
    };
    let mut schema = compact(schema, &Shape::output(depth));
    let mut all = match schema.get_mut("properties").map(Value::take) {
        Some(Value::Object(all)) => all,
        _ => Map::new(),
    };
    let named: Map<String, Value> = members
        .iter()
        .map(|name| {
            let member = all.remove(*name);
            let member = member.unwrap_or_else(|| panic!("no member {name}"));
            ((*name).to_string(), member)
        })
        .collect();
    let schema = json!({"type": "object", "properties": named});
    match schema {
        Value::Object(schema) => schema,
        _ => Map::new(),
    }
}

fn generated<T: JsonSchema>(mut settings: SchemaSettings) -> Value {
    settings.inline_subschemas = true;
    settings.meta_schema = None;
    settings.into_generator().into_root_schema_for::<T>().into()
}

/// How a schema is made smaller.
#[derive(Debug, Clone, Copy)]
struct Shape {
    /// Whether it is for arguments; otherwise for results.
    input: bool,
    /// Whether wide fields stay.
    wide: bool,
    /// How many levels of objects are described.
    depth: usize,
}

impl Shape {
    fn input(profile: Profile) -> Self {
        Self {
            input: true,
            wide: profile == Profile::WorkspaceFull,
            depth: usize::MAX,
        }
    }

    fn output(depth: usize) -> Self {
        Self {
            input: false,
            wide: true,
            depth,
        }
    }
}

fn compact(schema: Value, shape: &Shape) -> Value {
    let Value::Object(mut schema) = schema else {
        // `true`: anything.
        return json!({});
    };
    for noise in ["title", "format", "$schema", WIDE] {
        schema.remove(noise);
    }
    let nothing = [Value::Null, json!({}), json!([])];
    if schema
        .get("default")
        .is_some_and(|value| nothing.contains(value))
    {
        schema.remove("default");
    }
    if !shape.input {
        for constraint in ["description", "minimum", "maximum", "default"] {
            schema.remove(constraint);
        }
    }
    // All our numbers count something, which `arguments` knows.
    if schema.get("minimum").is_some_and(|least| *least == 0) {
        schema.remove("minimum");
    }
    if let Some(Value::String(text)) = schema.get_mut("description") {
        *text = text.replace('\n', " ").trim_end_matches('.').to_string();
    }
    constants(&mut schema);
    optional(&mut schema, shape);
    if !shape.input && schema.remove("enum").is_some() {
        schema.insert(
            "type".into(),
            schema.get("type").cloned().unwrap_or("string".into()),
        );
    }
    if let Some(Value::Array(choices)) = schema.get_mut("anyOf") {
        for choice in choices {
            *choice = compact(choice.take(), shape);
        }
    }
    let inner = Shape {
        depth: shape.depth.saturating_sub(1),
        ..*shape
    };
    if shape.depth == 0 {
        for deep in ["properties", "required", "additionalProperties", "oneOf"] {
            schema.remove(deep);
        }
    }
    if let Some(items) = schema.remove("items") {
        let items = compact(items, &inner);
        let bare = json!({"type": "object"});
        let known = items != bare && items != json!({});
        if known && (shape.input || shape.depth > 0) {
            schema.insert("items".into(), items);
        }
    }
    if let Some(Value::Object(properties)) = schema.remove("properties") {
        let kept: Map<String, Value> = properties
            .into_iter()
            .filter(|(_, property)| shape.wide || property.get(WIDE).is_none())
            .map(|(name, property)| (name, compact(property, &inner)))
            .collect();
        if let Some(Value::Array(required)) = schema.get_mut("required") {
            required.retain(|name| name.as_str().is_some_and(|name| kept.contains_key(name)));
            if required.is_empty() {
                schema.remove("required");
            }
        }
        schema.insert("properties".into(), Value::Object(kept));
    }
    if !shape.input {
        schema.remove("required");
        schema.remove("additionalProperties");
    } else if let Some(values @ Value::Object(_)) = schema.get_mut("additionalProperties") {
        *values = compact(values.take(), shape);
    }
    Value::Object(schema)
}

/// An enumeration whose values were described one by one.
fn constants(schema: &mut Map<String, Value>) {
    let Some(Value::Array(choices)) = schema.get("oneOf") else {
        return;
    };
    let values: Option<Vec<Value>> = choices
        .iter()
        .map(|choice| choice.get("const").cloned())
        .collect();
    if let Some(values) = values {
        schema.remove("oneOf");
        schema.insert("type".into(), "string".into());
        schema.insert("enum".into(), values.into());
    }
}

/// What may be `null`. An argument that may is one that may be left out.
fn optional(schema: &mut Map<String, Value>, shape: &Shape) {
    let is_null = |choice: &Value| choice.get("type").is_some_and(|kind| kind == "null");
    let mut nullable = false;
    if let Some(Value::Array(choices)) = schema.get_mut("anyOf") {
        let before = choices.len();
        choices.retain(|choice| !is_null(choice));
        nullable = choices.len() != before;
        if let [Value::Object(only)] = choices.as_mut_slice() {
            let mut only = std::mem::take(only);
            schema.remove("anyOf");
            constants(&mut only);
            for (key, value) in only {
                schema.entry(key).or_insert(value);
            }
        }
    }
    if let Some(Value::Array(kinds)) = schema.get_mut("type") {
        let before = kinds.len();
        kinds.retain(|kind| kind != "null");
        nullable |= kinds.len() != before;
        if let [only] = kinds.as_mut_slice() {
            let only = only.take();
            schema.insert("type".into(), only);
        }
    }
    if nullable && !shape.input {
        let kind = schema.remove("type").unwrap_or("object".into());
        schema.remove("oneOf");
        schema.insert("type".into(), json!([kind, "null"]));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Serialize};

    use super::*;

    /// Something.
    #[derive(Serialize, Deserialize, JsonSchema)]
    struct Sample {
        /// How
        /// many.
        #[serde(default)]
        #[schemars(range(min = 1, max = 9))]
        count: u64,
        /// Which.
        kind: Option<Kind>,
        #[schemars(extend("x-pyro-wide" = true))]
        secret: String,
        #[serde(default)]
        labels: BTreeMap<String, String>,
        inner: Option<Inner>,
    }

    #[derive(Serialize, Deserialize, JsonSchema)]
    #[serde(rename_all = "snake_case")]
    enum Kind {
        /// The first.
        One,
        /// The second.
        Two,
    }

    #[derive(Serialize, Deserialize, JsonSchema)]
    struct Inner {
        all: Vec<Kind>,
    }

    #[test]
    fn arguments_are_shown_without_noise_and_without_what_a_profile_lacks() {
        let narrow = Value::Object(input::<Sample>(Profile::WorkspaceCore));
        assert_eq!(
            narrow,
            json!({
                "type": "object",
                "properties": {
                    "count": {"type": "integer", "description": "How many", "default": 0, "minimum": 1, "maximum": 9},
                    "kind": {"type": "string", "description": "Which", "enum": ["one", "two"]},
                    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                    "inner": {"type": "object", "properties": {"all": {
                        "type": "array", "items": {"type": "string", "enum": ["one", "two"]}}},
                        "required": ["all"]},
                },
                "additionalProperties": false,
            })
        );
        let wide = input::<Sample>(Profile::WorkspaceFull);
        assert_eq!(wide["properties"]["secret"], json!({"type": "string"}));
        assert_eq!(wide["required"], json!(["secret"]));
    }

    #[test]
    fn results_are_shown_by_the_members_that_matter() {
        let narrow = output::<Sample>(&["count", "kind", "inner"], Profile::WorkspaceCore);
        assert_eq!(
            Value::Object(narrow),
            json!({"type": "object", "properties": {
                "count": {"type": "integer"},
                "kind": {"type": ["string", "null"]},
                "inner": {"type": ["object", "null"]},
            }})
        );
        let wide = output::<Sample>(&["inner"], Profile::WorkspaceFull);
        assert_eq!(
            wide["properties"]["inner"],
            json!({"type": ["object", "null"], "properties": {"all": {"type": "array"}}})
        );
    }
}
