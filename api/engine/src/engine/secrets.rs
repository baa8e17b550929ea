//! Secrets of a workspace: declared when it is made, put into its guest at every boot, taken out of
//! all that the guest prints ([`crate::redact`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use pyro_agent_protocol as protocol;
use pyro_client::types::{DeclareSecret, Secret, SecretSource};
use tokio::sync::mpsc;

use super::slot::Slot;
use super::{Engine, blocking};
use crate::agent;
use crate::error::{Code, Error, Result};
use crate::machine::guest::Guest;
use crate::records;
use crate::redact::{MIN_VALUE, Redactor, trimmed};
use crate::run_dir::unwritable;

/// Most bytes of all values of a workspace.
const MAX_BYTES: usize = 256 << 10;
/// How long the guest may take to keep them.
const DEADLINE: Duration = Duration::from_secs(30);

/// A workspace's secrets.
#[derive(Default)]
pub(super) struct Secrets {
    values: BTreeMap<String, Vec<u8>>,
    redactor: Redactor,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

impl Secrets {
    fn new(values: impl IntoIterator<Item = (String, Vec<u8>)>) -> Self {
        let values: BTreeMap<_, _> = values.into_iter().collect();
        let redactor = Redactor::new(values.values().map(Vec::as_slice));
        Self { values, redactor }
    }

    /// What was declared. Reads files: blocks.
    ///
    /// # Errors
    /// [`Code::InvalidSecret`].
    pub(super) fn declared(declared: &[DeclareSecret]) -> Result<Self> {
        check(declared)?;
        let values = declared
            .iter()
            .map(|secret| Ok((secret.name.clone(), value(secret)?)))
            .collect::<Result<Vec<_>>>()?;
        let bytes: usize = values.iter().map(|(_, value)| value.len()).sum();
        if bytes > MAX_BYTES {
            return Err(refused(
                "the secrets have more than 256 KiB together",
                "pass fewer or shorter ones",
            ));
        }
        Ok(Self::new(values))
    }

    /// Keeps them in a workspace's folder. Blocks.
    pub(super) fn store(&self, folder: &Path) -> Result<()> {
        if self.values.is_empty() {
            return Ok(());
        }
        let values = self.values.iter();
        records::secrets::write(
            folder,
            values.map(|(name, value)| (name.as_str(), value.as_slice())),
        )
        .map_err(|error| unwritable(folder, error))
    }

    /// Those of a workspace's folder, of which the record has the names. Blocks.
    ///
    /// # Errors
    /// [`Code::RecordUnreadable`]: without its values, nothing may be shown of the workspace.
    pub(super) fn load(folder: &Path, names: &[Secret]) -> Result<Self> {
        if names.is_empty() {
            return Ok(Self::default());
        }
        let unreadable = || {
            Error::new(
                Code::RecordUnreadable,
                format!("the secrets in {} cannot be read", folder.display()),
                "restore them from a backup, or move the folder out of the state directory; \
                 nothing of it was changed",
            )
        };
        let values = records::secrets::read(folder).map_err(|e| unreadable().caused_by(e))?;
        let secrets = Self::new(values);
        match names
            .iter()
            .all(|one| secrets.values.contains_key(&one.name))
        {
            true => Ok(secrets),
            false => Err(unreadable()),
        }
    }

    /// Takes their values out.
    pub(super) fn redactor(&self) -> &Redactor {
        &self.redactor
    }

    /// Adds to a program's variables those that secrets are to be in.
    ///
    /// # Errors
    /// [`Code::SecretNotFound`], [`Code::InvalidEnvironment`].
    pub(super) fn environment(
        &self,
        env: &BTreeMap<String, String>,
        wanted: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, String>> {
        let mut env = env.clone();
        for (name, variable) in wanted {
            let odd = |problem: String, remedy: &str| {
                Error::new(Code::InvalidEnvironment, problem, remedy)
            };
            let Some(value) = self.values.get(name) else {
                return Err(Error::new(
                    Code::SecretNotFound,
                    format!("the workspace has no secret {name:?}"),
                    "secrets are declared when a workspace is made; see its status for their names",
                ));
            };
            let text = std::str::from_utf8(trimmed(value))
                .ok()
                .filter(|text| !text.contains('\0'));
            let Some(text) = text else {
                return Err(odd(
                    format!("the value of the secret {name} cannot be in a variable"),
                    "let the program read it from its file in /run/pyro-secrets",
                ));
            };
            if variable.is_empty() || variable.contains(['=', '\0']) {
                return Err(odd(
                    format!("the variable {variable:?} cannot be set"),
                    "pass a name without `=`",
                ));
            }
            if env.insert(variable.clone(), text.to_string()).is_some() {
                return Err(odd(
                    format!("the variable {variable} is set twice"),
                    "pass it once",
                ));
            }
        }
        Ok(env)
    }
}

/// Refuses what cannot be declared, as far as that can be seen without reading files.
pub(super) fn check(declared: &[DeclareSecret]) -> Result<()> {
    if declared.len() > protocol::SECRETS_MAX {
        return Err(refused(
            &format!("more than {} secrets are declared", protocol::SECRETS_MAX),
            "declare fewer",
        ));
    }
    let mut names = BTreeSet::new();
    for secret in declared {
        let name = secret.name.as_str();
        if name.parse::<protocol::SecretName>().is_err() {
            return Err(refused(
                &format!("{name:?} cannot be a secret's name"),
                "pass 1 to 64 letters, digits and underscores, no digit first",
            ));
        }
        if !names.insert(name) {
            return Err(refused(
                &format!("the secret {name} is declared twice"),
                "declare it once",
            ));
        }
        match (&secret.value, &secret.path) {
            (Some(value), None) => check_value(name, value.as_bytes())?,
            (None, Some(path)) if Path::new(path).is_absolute() => {}
            (None, Some(path)) => {
                return Err(refused(
                    &format!("the path {path:?} of the secret {name} is not absolute"),
                    "pass the absolute path of a file on the host",
                ));
            }
            _ => {
                return Err(refused(
                    &format!("the secret {name} has no value, or two"),
                    "pass either its value or the path of a file",
                ));
            }
        }
    }
    Ok(())
}

/// As it is shown and kept in the record.
pub(super) fn shown(declared: &[DeclareSecret]) -> Vec<Secret> {
    let shown = |secret: &DeclareSecret| Secret {
        name: secret.name.clone(),
        source: match secret.path {
            Some(_) => SecretSource::File,
            None => SecretSource::Literal,
        },
    };
    declared.iter().map(shown).collect()
}

fn value(secret: &DeclareSecret) -> Result<Vec<u8>> {
    let Some(path) = &secret.path else {
        return Ok(secret.value.clone().unwrap_or_default().into_bytes());
    };
    let mut bytes = Vec::new();
    let read = File::open(path)
        .and_then(|file| file.take(protocol::SECRET_MAX + 1).read_to_end(&mut bytes));
    read.map_err(|error| {
        let sentence = format!(
            "the file {path:?} of the secret {} cannot be read",
            secret.name
        );
        refused(&sentence, "pass the path of a file that this user may read").caused_by(error)
    })?;
    check_value(&secret.name, &bytes)?;
    Ok(bytes)
}

fn check_value(name: &str, value: &[u8]) -> Result<()> {
    let plain = trimmed(value);
    let problem = if value.len() as u64 > protocol::SECRET_MAX {
        "is longer than 64 KiB"
    } else if plain.len() < MIN_VALUE {
        "is shorter than 4 bytes, and would be found in all that programs print"
    } else if plain.iter().all(u8::is_ascii_whitespace) {
        "is nothing but blanks"
    } else {
        return Ok(());
    };
    Err(refused(
        &format!("the value of the secret {name} {problem}"),
        "pass a value of 4 bytes to 64 KiB, newlines at its end not counted",
    ))
}

fn refused(problem: &str, remedy: &str) -> Error {
    Error::new(Code::InvalidSecret, problem, remedy)
}

impl Engine {
    /// Takes in the secrets of a workspace that was there before.
    pub(super) async fn load_secrets(&self, slot: &Slot) -> Result<()> {
        let (folder, record) = (slot.folder().to_path_buf(), slot.record());
        let secrets = blocking(move || Secrets::load(&folder, &record.secrets)).await?;
        slot.living.set_secrets(secrets);
        Ok(())
    }

    /// Puts the secrets into a guest that was just booted.
    pub(super) async fn materialise(&self, slot: &Slot, guest: &Guest) -> Result<()> {
        let secrets = slot.living.secrets();
        if secrets.values.is_empty() {
            return Ok(());
        }
        let named = |(name, value): (&String, &Vec<u8>)| protocol::Secret {
            name: name.parse().expect("checked when it was declared"),
            size: value.len() as u64,
        };
        let request = protocol::Request::Secrets(protocol::Secrets {
            secrets: secrets.values.iter().map(named).collect(),
        });
        let sent = agent::transact_simple(guest, &request, {
            let (sender, frames) = mpsc::channel(1);
            tokio::spawn(async move {
                for value in secrets.values.values() {
                    for piece in value.chunks(protocol::MAX_FRAME) {
                        let frame = protocol::encode(protocol::FrameKind::Stdin, piece)
                            .expect("cut into frames");
                        if sender.send(frame).await.is_err() {
                            return;
                        }
                    }
                }
            });
            frames
        });
        match tokio::time::timeout(DEADLINE, sent).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error @ agent::AgentError::Refused { .. })) => Err(Error::new(
                Code::AgentFailed,
                "the guest cannot keep the workspace's secrets",
                "give the guest more memory; when it happens again, report it",
            )
            .caused_by(error)),
            Ok(Err(error)) => Err(guest.lost(error).await),
            Err(_) => {
                let late = std::io::Error::from(std::io::ErrorKind::TimedOut);
                Err(guest.lost(agent::AgentError::Lost(late)).await)
            }
        }
    }
}
