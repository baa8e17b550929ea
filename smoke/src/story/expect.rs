//! What is expected of a value.

use anyhow::{Result, bail};
use serde::Deserialize;
use serde_json::Value;

use super::step::Variables;

/// What is expected at one place of a result, or in a file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(from = "Value")]
pub enum Expectation {
    /// Exactly this.
    Is(Value),
    /// A text with all of these in it.
    Contains(Vec<String>),
    /// A text with none of these in it.
    Lacks(Vec<String>),
    /// So many items.
    Counts(usize),
    /// Nothing at all.
    Absent,
}

impl From<Value> for Expectation {
    fn from(value: Value) -> Self {
        let one = value.as_object().filter(|object| object.len() == 1);
        let Some((key, inner)) = one.and_then(|object| object.iter().next()) else {
            return Self::Is(value);
        };
        let texts = || match inner {
            Value::String(text) => Some(vec![text.clone()]),
            Value::Array(items) => items
                .iter()
                .map(|item| item.as_str().map(str::to_string))
                .collect(),
            _ => None,
        };
        let count = || inner.as_u64().and_then(|count| usize::try_from(count).ok());
        let known = match key.as_str() {
            "contains" => texts().map(Self::Contains),
            "lacks" => texts().map(Self::Lacks),
            "count" => count().map(Self::Counts),
            "absent" => (inner == &Value::Bool(true)).then_some(Self::Absent),
            _ => None,
        };
        known.unwrap_or(Self::Is(value))
    }
}

impl Expectation {
    /// Holds a value against it.
    ///
    /// # Errors
    /// What is expected, and what is there.
    pub fn hold(&self, found: Option<&Value>, variables: &Variables) -> Result<()> {
        let text = || match found {
            Some(Value::String(text)) => Ok(text.as_str()),
            other => bail!("a text is expected, not {}", shown(other)),
        };
        match self {
            Self::Is(wanted) => {
                let wanted = variables.fill_all(wanted)?;
                if found != Some(&wanted) {
                    bail!("{wanted} is expected, not {}", shown(found));
                }
            }
            Self::Contains(parts) => {
                for part in parts {
                    let part = variables.fill(part)?;
                    if !text()?.contains(&part) {
                        bail!("{part:?} is expected in {}", shown(found));
                    }
                }
            }
            Self::Lacks(parts) => {
                for part in parts {
                    let part = variables.fill(part)?;
                    if text()?.contains(&part) {
                        bail!("{part:?} is not expected in {}", shown(found));
                    }
                }
            }
            Self::Counts(count) => match found {
                Some(Value::Array(items)) if items.len() == *count => {}
                _ => bail!("{count} items are expected, not {}", shown(found)),
            },
            Self::Absent => {
                if found.is_some_and(|found| !found.is_null()) {
                    bail!("nothing is expected, not {}", shown(found));
                }
            }
        }
        Ok(())
    }
}

fn shown(value: Option<&Value>) -> String {
    value.map_or_else(|| "nothing".to_string(), Value::to_string)
}
