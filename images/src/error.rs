//! What can go wrong with environments, as a person hears it.
//!
//! Every variant has a stable [`Error::code`], a sentence (its `Display`) and a
//! [`Error::remedy`]: what to do next.

use std::io;
use std::path::PathBuf;

/// A failure that reaches a person.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The name is not in the catalogue.
    #[error("there is no environment named {name:?}")]
    UnknownEnvironment {
        /// The name as given.
        name: String,
        /// The nearest known names, best first.
        nearest: Vec<String>,
    },
    /// The environment was never pulled.
    #[error("environment {name} is not installed")]
    EnvironmentCold {
        /// The environment.
        name: String,
    },
    /// The environment's manifest is of another generation of the store.
    #[error("environment {name} was installed by another version and cannot be used as it is")]
    EnvironmentStale {
        /// The environment.
        name: String,
    },
    /// A manifest or an artefact does not verify.
    #[error("environment {name} is damaged: {what}")]
    EnvironmentDamaged {
        /// The environment.
        name: String,
        /// Which part, and how it was noticed.
        what: String,
    },
    /// The disk of the store is full, or will be.
    #[error("not enough free space for {what} in {}", path.display())]
    NoSpace {
        /// What the space is for.
        what: String,
        /// Where.
        path: PathBuf,
    },
    /// The store's directory cannot be used.
    #[error("cannot {action} {}", path.display())]
    Store {
        /// What was tried, as a verb: "create", "read".
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A program that a pull needs is not there.
    #[error("{program} is not installed")]
    ToolMissing {
        /// The program.
        program: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// Neither root nor a usable user namespace.
    #[error("this user cannot make the namespaces that a bootstrap needs: {reason}")]
    NoNamespaces {
        /// The reason, as the tool said it.
        reason: String,
    },
    /// apt's configuration names no Debian mirror.
    #[error("no Debian mirror is configured on this machine")]
    NoMirror,
    /// `PYRO_DEBIAN_MIRROR` is set to something else than an address.
    #[error("PYRO_DEBIAN_MIRROR is not the address of a Debian mirror")]
    BadMirror,
    /// The mirror did not answer.
    #[error("the Debian mirror {mirror} cannot be reached: {detail}")]
    MirrorUnreachable {
        /// Its address, without credentials.
        mirror: String,
        /// apt's own words.
        detail: String,
    },
    /// The mirror answered, but not with what is needed.
    #[error("the Debian mirror {mirror} cannot serve {suite}: {detail}")]
    MirrorUnusable {
        /// Its address, without credentials.
        mirror: String,
        /// The suite asked for.
        suite: String,
        /// apt's own words.
        detail: String,
    },
    /// The suite's signature cannot be checked with the keys of this machine.
    #[error("the signature of {suite} cannot be verified with this machine's keys: {detail}")]
    KeyringOutdated {
        /// The suite.
        suite: String,
        /// apt's own words.
        detail: String,
    },
    /// The bootstrap failed for a reason of its own.
    #[error("the bootstrap failed: {detail}")]
    Bootstrap {
        /// The last lines it said.
        detail: String,
    },
    /// The root's archive was refused.
    #[error("the root file system could not be packed")]
    Pack {
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The kernel package is not what was expected.
    #[error("the kernel package cannot be used")]
    Kernel {
        /// Why.
        #[from]
        source: crate::kernel::KernelError,
    },
}

impl Error {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Error::UnknownEnvironment { .. } => "unknown_environment",
            Error::EnvironmentCold { .. } => "environment_cold",
            Error::EnvironmentStale { .. } => "environment_stale",
            Error::EnvironmentDamaged { .. } => "environment_damaged",
            Error::NoSpace { .. } => "no_space",
            Error::Store { .. } => "image_store",
            Error::ToolMissing { .. } => "tool_missing",
            Error::NoNamespaces { .. } => "no_user_namespaces",
            Error::NoMirror => "no_debian_mirror",
            Error::BadMirror => "invalid_debian_mirror",
            Error::MirrorUnreachable { .. } => "mirror_unreachable",
            Error::MirrorUnusable { .. } => "mirror_unusable",
            Error::KeyringOutdated { .. } => "keyring_outdated",
            Error::Bootstrap { .. } => "bootstrap_failed",
            Error::Pack { .. } => "pack_failed",
            Error::Kernel { .. } => "kernel_unusable",
        }
    }

    /// What to do next, as a sentence without its full stop.
    pub fn remedy(&self) -> String {
        match self {
            Error::UnknownEnvironment { nearest, .. } => format!(
                "did you mean {}? `pyro env list` shows all environments",
                nearest.join(", ")
            ),
            Error::EnvironmentCold { name }
            | Error::EnvironmentStale { name }
            | Error::EnvironmentDamaged { name, .. } => format!("run `pyro env pull {name}`"),
            Error::NoSpace { path, .. } => format!(
                "free space in {}, run `pyro env prune`, or set PYRO_IMAGE_DIR to a larger disk",
                path.display()
            ),
            Error::Store { path, .. } => format!(
                "make sure that {} can be written by this user, or set PYRO_IMAGE_DIR",
                path.display()
            ),
            Error::ToolMissing { package, .. } => format!("run `sudo apt-get install {package}`"),
            Error::NoNamespaces { .. } => "run as root, or allow user namespaces: \
                 `sudo apt-get install uidmap` and a line for this user in /etc/subuid and \
                 /etc/subgid (`sudo usermod --add-subuids 100000-165535 --add-subgids \
                 100000-165535 USER`)"
                .to_owned(),
            Error::NoMirror => "add a Debian source to /etc/apt/sources.list, or set \
                 PYRO_DEBIAN_MIRROR to a mirror's address"
                .to_owned(),
            Error::BadMirror => "set PYRO_DEBIAN_MIRROR to an address such as \
                 http://mirror.example/debian, or unset it to use apt's mirror"
                .to_owned(),
            Error::MirrorUnreachable { .. } => "check the network, apt's proxy settings \
                 (`sudo apt-get update` must work) and PYRO_DEBIAN_MIRROR if it is set, \
                 then pull again"
                .to_owned(),
            Error::MirrorUnusable { .. } => "use a complete mirror: change apt's sources, or set \
                 PYRO_DEBIAN_MIRROR to its address"
                .to_owned(),
            Error::KeyringOutdated { .. } => "run `sudo apt-get update && sudo apt-get install \
                 debian-archive-keyring`"
                .to_owned(),
            Error::Bootstrap { .. } | Error::Pack { .. } | Error::Kernel { .. } => {
                "pull again; when it fails the same way, report it with this message".to_owned()
            }
        }
    }

    /// An I/O failure on the store: a full disk is told apart.
    pub(crate) fn store(
        action: &'static str,
        path: impl Into<PathBuf>,
        source: impl Into<io::Error>,
    ) -> Error {
        let (path, source) = (path.into(), source.into());
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::NoSpace {
                what: format!("the pull to {action} files"),
                path,
            },
            _ => Error::Store {
                action,
                path,
                source,
            },
        }
    }
}
