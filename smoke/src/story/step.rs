//! A step, as a page writes it down.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::expect::Expectation;

/// A call of a tool, and what is expected of its result.
///
/// In all of its strings `${name}` stands for a variable: `environment`, `fixture` (the folder on the
/// host), `out` (an empty folder on the host), a named block of the page, or what an earlier step saved.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// What it does: the heading that it stands under.
    #[serde(skip)]
    pub title: String,
    /// The tool's name.
    pub tool: String,
    /// Its arguments.
    #[serde(default)]
    pub arguments: Map<String, Value>,
    /// Variables to set, each with the place in the result (RFC 6901) that it is taken from.
    #[serde(default)]
    pub save: BTreeMap<String, String>,
    /// Places in the result, each with what is expected there.
    #[serde(default)]
    pub expect: BTreeMap<String, Expectation>,
    /// The code of the error that it must end with; without one it must succeed.
    #[serde(default)]
    pub fails: Option<String>,
    /// Files beneath `out`, each with what is expected in it after the call.
    #[serde(default)]
    pub host: BTreeMap<String, Expectation>,
    /// How often it is called at most, until what is expected is so: what reads a terminal may have to
    /// look again.
    #[serde(default = "once")]
    pub attempts: u32,
}

const fn once() -> u32 {
    1
}

/// The variables of a story that is played.
#[derive(Debug, Clone, Default)]
pub struct Variables(BTreeMap<String, String>);

impl Variables {
    /// Sets one.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.insert(name.into(), value.into());
    }

    /// A text with the variables' values in it.
    ///
    /// # Errors
    /// When one is unknown, or not closed.
    pub fn fill(&self, text: &str) -> Result<String> {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let (name, after) = after
                .split_once('}')
                .with_context(|| format!("{text:?} has a variable that is not closed"))?;
            let Some(value) = self.0.get(name) else {
                bail!("{text:?} has the variable {name:?}, which nothing has set");
            };
            out.push_str(before);
            out.push_str(value);
            rest = after;
        }
        out.push_str(rest);
        Ok(out)
    }

    /// The same in all strings of a value; keys stay as they are.
    ///
    /// # Errors
    /// Those of [`fill`](Self::fill).
    pub fn fill_all(&self, value: &Value) -> Result<Value> {
        Ok(match value {
            Value::String(text) => self.fill(text)?.into(),
            Value::Array(items) => items
                .iter()
                .map(|item| self.fill_all(item))
                .collect::<Result<Vec<_>>>()?
                .into(),
            Value::Object(members) => Value::Object(
                members
                    .iter()
                    .map(|(key, member)| Ok((key.clone(), self.fill_all(member)?)))
                    .collect::<Result<_>>()?,
            ),
            other => other.clone(),
        })
    }
}
