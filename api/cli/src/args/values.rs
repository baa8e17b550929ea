//! Values with a form of their own.

use clap::ValueEnum;
use pyro_client::types::NetworkPolicy;

/// What the guest may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Network {
    /// No network device at all
    Off,
    /// Outgoing connections (not available yet)
    Egress,
    /// Outgoing connections and published ports (not available yet)
    #[value(name = "egress+published-ports")]
    EgressPublishedPorts,
}

impl From<Network> for NetworkPolicy {
    fn from(network: Network) -> Self {
        match network {
            Network::Off => Self::Off,
            Network::Egress => Self::Egress,
            Network::EgressPublishedPorts => Self::EgressPublishedPorts,
        }
    }
}

/// A label as it is typed: `KEY=VALUE`. The daemon judges the key's characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Label {
    /// The key; not empty.
    pub(crate) key: String,
    /// The value; may be empty, may hold `=`.
    pub(crate) value: String,
}

/// Reads a label.
pub(crate) fn label(text: &str) -> Result<Label, String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok(Label {
            key: key.to_string(),
            value: value.to_string(),
        }),
        _ => Err("a label is KEY=VALUE, such as issue=42".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_cut_at_its_first_equals_sign() {
        let label = |text| label(text).map(|label| (label.key, label.value));
        assert_eq!(label("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(label("a="), Ok(("a".into(), String::new())));
        assert!(label("=b").is_err());
        assert!(label("a").is_err());
        assert!(label("").is_err());
    }

    #[test]
    fn policies_are_called_as_in_the_api() {
        for network in Network::value_variants() {
            let typed = network.to_possible_value().unwrap().get_name().to_string();
            let policy = NetworkPolicy::from(*network);
            assert_eq!(serde_json::to_value(policy).unwrap(), typed);
        }
    }
}
