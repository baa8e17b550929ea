//! The bootstrap's command line.

use std::path::Path;
use std::process::Command;

use super::mirror::{self, Source};
use super::namespace;
use crate::Recipe;

const FETCH: &str = include_str!("hooks/fetch.sh");
const FINISH: &str = include_str!("hooks/finish.sh");
/// mmdebstrap(1), "HOOKS": merges `/usr` before anything is unpacked.
const MERGED_USR: &str = "/usr/share/mmdebstrap/hooks/merged-usr";

/// apt's settings of this machine that a new root needs as well: how old a mirror may be.
const KEPT: [&str; 2] = ["Acquire::Check-Valid-Until", "Acquire::Check-Date"];
/// apt's settings of this machine that only the bootstrap needs: how to reach the mirror.
const PROXIES: [&str; 2] = ["Acquire::http::Proxy", "Acquire::https::Proxy"];
/// A mirror that does not answer is given up on after this many seconds, and this many tries more.
const TIMEOUT_SECONDS: u32 = 20;
const RETRIES: u32 = 2;

/// What of an environment is to be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The root, as a tar stream on standard output.
    pub(crate) root: bool,
    /// The kernel's package.
    pub(crate) kernel: bool,
}

impl Wanted {
    pub(crate) const ALL: Wanted = Wanted {
        root: true,
        kernel: true,
    };
}

/// The bootstrap for `recipe`, ready to be spawned. It unpacks below `scratch`, and leaves
/// `packages`, `releases/*` and `kernel/*.deb` below `out`, directories that exist.
pub(crate) fn bootstrap(
    recipe: &Recipe,
    sources: &[Source],
    wanted: Wanted,
    scratch: &Path,
    out: &Path,
) -> Command {
    let mut command = namespace::isolated("mmdebstrap");
    // The namespaces are made: inside them this is root.
    command.args(["--mode=root", "--verbose", "--architectures=amd64"]);
    if wanted.root {
        command.args(["--variant=minbase", "--format=tar"]);
        command.arg(format!("--include={}", recipe.packages.join(",")));
        if recipe.merge_usr_hook && Path::new(MERGED_USR).is_dir() {
            command.arg(format!("--hook-directory={MERGED_USR}"));
        }
        for option in [
            "path-exclude=/usr/share/doc/*",
            "path-include=/usr/share/doc/*/copyright",
            "path-exclude=/usr/share/man/*",
            "path-exclude=/usr/share/info/*",
            "path-exclude=/usr/share/locale/*",
            "path-include=/usr/share/locale/locale.alias",
            "force-unsafe-io",
        ] {
            command.arg(format!("--dpkgopt={option}"));
        }
        command.arg(format!("--customize-hook={FETCH}"));
        command.arg(format!("--customize-hook={FINISH}"));
    } else {
        command.args(["--variant=custom", "--format=null"]);
        command.arg(format!("--customize-hook={FETCH}"));
    }
    command.arg(format!("--aptopt=Acquire::Retries \"{RETRIES}\""));
    for scheme in ["http", "https"] {
        command.arg(format!(
            "--aptopt=Acquire::{scheme}::Timeout \"{TIMEOUT_SECONDS}\""
        ));
    }
    command.arg("--aptopt=Acquire::Languages \"none\"");
    let kept = settings(&KEPT);
    for setting in kept.iter().chain(&settings(&PROXIES)) {
        command.arg(format!("--aptopt={setting}"));
    }
    command.arg(&recipe.suite).arg("-");
    command.args(sources.iter().map(|source| source.line(mirror::keyring())));

    let guest_sources: Vec<String> = sources
        .iter()
        .map(|source| format!("{} {}", source.public_uri(), source.suite))
        .collect();
    command
        .env("TMPDIR", scratch)
        .env("LC_ALL", "C")
        .env("PYRO_OUT", out)
        .env("PYRO_KERNEL_PACKAGE", &recipe.kernel_package)
        .env("PYRO_WANT_KERNEL", if wanted.kernel { "yes" } else { "" })
        .env("PYRO_SOURCES", guest_sources.join("\n"))
        .env(
            "PYRO_APT_CONF",
            kept.iter()
                .map(|line| format!("{line};"))
                .collect::<Vec<_>>()
                .join("\n"),
        )
        .env_remove("APT_CONFIG")
        .env_remove("MMDEBSTRAP_APT_CONFIG");
    command
}

/// Those of apt's settings that this machine sets, as configuration lines.
fn settings(names: &[&str]) -> Vec<String> {
    let Ok(output) = Command::new("apt-config")
        .env("PATH", namespace::PATH)
        .arg("dump")
        .output()
    else {
        return Vec::new();
    };
    let dump = String::from_utf8_lossy(&output.stdout).into_owned();
    dump.lines()
        .filter_map(|line| line.strip_suffix(';')?.split_once(' '))
        .filter(|(name, value)| names.contains(name) && *value != "\"\"")
        .map(|(name, value)| format!("{name} {value}"))
        .collect()
}
