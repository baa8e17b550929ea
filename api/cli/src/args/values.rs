//! Values with a form of their own.

use clap::ValueEnum;
use pyro_client::types::{NetworkPolicy, PublishPort};

/// What the guest may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Network {
    /// No network device at all
    Off,
    /// Outgoing connections; the host's own, private, link-local and metadata addresses are refused
    Egress,
    /// Outgoing connections, and services' ports published on 127.0.0.1
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

/// A secret's value as it is typed: `NAME=VALUE`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SecretValue {
    /// The name; not empty.
    pub(crate) name: String,
    /// The value.
    pub(crate) value: String,
}

impl std::fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SecretValue").field(&self.name).finish()
    }
}

/// Reads a secret with its value.
pub(crate) fn secret(text: &str) -> Result<SecretValue, String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok(SecretValue {
            name: name.to_string(),
            value: value.to_string(),
        }),
        // What was typed may be a value: it is not repeated by us.
        _ => Err("a secret is NAME=VALUE".to_string()),
    }
}

/// A secret's file as it is typed: `NAME=PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SecretFile {
    /// The name; not empty.
    pub(crate) name: String,
    /// The file on this machine.
    pub(crate) path: std::path::PathBuf,
}

/// Reads a secret with its file.
pub(crate) fn secret_file(text: &str) -> Result<SecretFile, String> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => Ok(SecretFile {
            name: name.to_string(),
            path: path.into(),
        }),
        _ => Err("a secret's file is NAME=PATH, such as DEPLOY_KEY=./key.pem".to_string()),
    }
}

/// A variable for a secret: `SECRET` or `SECRET=ENV_VAR`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SecretVariable {
    /// The secret's name.
    pub(crate) secret: String,
    /// The variable.
    pub(crate) variable: String,
}

/// Reads a variable for a secret.
pub(crate) fn secret_variable(text: &str) -> Result<SecretVariable, String> {
    let (secret, variable) = text.split_once('=').unwrap_or((text, text));
    if secret.is_empty() || variable.is_empty() {
        return Err("say SECRET or SECRET=ENV_VAR, such as API_TOKEN=TOKEN".to_string());
    }
    Ok(SecretVariable {
        secret: secret.to_string(),
        variable: variable.to_string(),
    })
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// An address, without brackets, or `localhost`.
    pub(crate) host: String,
    /// The port.
    pub(crate) port: u16,
}

/// Reads a host and a port: `localhost:80`, `[::1]:80`.
pub(crate) fn address(text: &str) -> Result<Address, String> {
    let odd = || "say HOST:PORT, such as localhost:5432".to_string();
    let (host, port) = text.rsplit_once(':').ok_or_else(odd)?;
    let host = match host.strip_prefix('[') {
        Some(host) => host.strip_suffix(']').ok_or_else(odd)?,
        None => host,
    };
    let port = port
        .parse()
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(odd)?;
    if host.is_empty() {
        return Err(odd());
    }
    Ok(Address {
        host: host.to_string(),
        port,
    })
}

/// Reads a port to publish: `8080` or `18080:8080`.
pub(crate) fn publish(text: &str) -> Result<PublishPort, String> {
    let port = |text: &str| text.parse().ok().filter(|port| *port != 0);
    let parsed = match text.split_once(':') {
        None => port(text).map(|guest_port| PublishPort {
            host_port: None,
            guest_port,
        }),
        Some((host, guest)) => port(host)
            .zip(port(guest))
            .map(|(host, guest_port)| PublishPort {
                host_port: Some(host),
                guest_port,
            }),
    };
    parsed.ok_or_else(|| {
        "say GUEST or HOST:GUEST, such as 8080 (a free port of the host) or 18080:8080".to_string()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_cut_at_their_first_equals_sign_and_never_shown() {
        let read = secret("TOKEN=a=b").expect("a secret");
        assert_eq!((read.name.as_str(), read.value.as_str()), ("TOKEN", "a=b"));
        assert!(!format!("{read:?}").contains("a=b"));
        assert!(
            !secret("hunter22")
                .expect_err("no name")
                .contains("hunter22")
        );
        assert!(secret("=x").is_err());
        assert!(secret_file("A=").is_err());
        let one = secret_variable("A").expect("a name");
        assert_eq!((one.secret, one.variable), ("A".into(), "A".into()));
        assert!(secret_variable("A=").is_err());
    }

    #[test]
    fn ports_and_addresses_are_read_as_people_write_them() {
        let port = |host_port, guest_port| {
            Ok(PublishPort {
                host_port,
                guest_port,
            })
        };
        assert_eq!(publish("8080"), port(None, 8080));
        assert_eq!(publish("18080:8080"), port(Some(18080), 8080));
        for odd in ["", "0", "x", "1:0", "0:1", ":1", "1:", "70000", "1:2:3"] {
            assert!(publish(odd).is_err(), "{odd}");
        }
        let read = |text| address(text).map(|address| (address.host, address.port));
        assert_eq!(read("localhost:80"), Ok(("localhost".into(), 80)));
        assert_eq!(read("[::1]:80"), Ok(("::1".into(), 80)));
        for odd in ["", "localhost", ":80", "localhost:0", "[::1:80"] {
            assert!(address(odd).is_err(), "{odd}");
        }
    }

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
