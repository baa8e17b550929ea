//! What a boot costs: `make bench`.
//!
//! [`run`] puts this program, the product's and an environment into a fresh host in deterministic
//! time ([`crate::host::bench`]) and runs [`measure`] there. Times are virtual milliseconds: one
//! nanosecond an instruction, the same on every run and machine. They say nothing absolute about
//! hardware; docs/benchmarks.md tells how to read them.

mod idle;
pub mod measure;
mod network;
mod records;
mod workspace;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::host::client::Ending;
use crate::host::{HostDir, bench};
use crate::wire::Exec;

/// What is measured: the default environment of every example.
const ENVIRONMENT: &str = "debian:12";
/// The guest's memory in MiB.
const GUEST_MIB: u64 = 256;
/// The host's memory: it holds the environment twice for a moment.
const HOST_MIB: u64 = 4096;
/// The hidden command that measures, inside.
pub const MEASURE: &str = "measure";
/// The product's programs.
const PROGRAMS: [&str; 4] = ["pyro", "pyro-vmm", "pyro-agent", "pyro-net"];
/// Where they are inside.
const BIN: &str = "/tmp/bench";
const IMAGES: &str = "/tmp/images";
const STATE: &str = "/tmp/state";

/// Measures in deterministic time, with the programs beside this one and the installed
/// environment, and prints a table or, with `json`, a document.
///
/// # Errors
/// When a program or the environment is missing, or the host does not boot.
pub fn run(host: &HostDir, images: &Path, json: bool, say: &mut dyn FnMut(&str)) -> Result<Ending> {
    let own = std::env::current_exe().context("this program's own path is not known")?;
    let mut files = vec![(own.clone(), Path::new(BIN).join("pyro-smoke"))];
    for program in PROGRAMS {
        let path = own.with_file_name(program);
        ensure!(
            path.is_file(),
            "{} is missing: run `make build`",
            path.display()
        );
        files.push((path, Path::new(BIN).join(program)));
    }
    files.extend(environment(images)?);
    let mut argv: Vec<OsString> = vec![Path::new(BIN).join("pyro-smoke").into(), MEASURE.into()];
    if json {
        argv.push("--json".into());
    }
    let exec = Exec {
        argv,
        env: vec![
            ("PYRO_IMAGE_DIR".into(), IMAGES.into()),
            ("PYRO_STATE_DIR".into(), STATE.into()),
        ],
        ..Exec::default()
    };
    say("measuring in deterministic time; this takes a minute or two");
    bench::run(host, &files, HOST_MIB, exec, say)
}

/// The environment's manifest and the artefacts that it names, with their places inside.
fn environment(images: &Path) -> Result<Vec<(PathBuf, PathBuf)>> {
    let manifest = Path::new("environments")
        .join(ENVIRONMENT.replace(':', "-"))
        .join("manifest.json");
    let text = fs::read_to_string(images.join(&manifest)).with_context(|| {
        format!("{ENVIRONMENT} is not installed: run `pyro env pull {ENVIRONMENT}`")
    })?;
    let document: serde_json::Value =
        serde_json::from_str(&text).context("the manifest is no JSON")?;
    let mut digests = Vec::new();
    collect(&document, &mut digests);
    let artefacts = digests
        .iter()
        .map(|digest| Path::new("artefacts/sha256").join(digest));
    Ok(artefacts
        .chain([manifest])
        .map(|path| (images.join(&path), Path::new(IMAGES).join(path)))
        .filter(|(from, _)| from.is_file())
        .collect())
}

/// All values of members called `sha256`.
fn collect<'a>(value: &'a serde_json::Value, digests: &mut Vec<&'a str>) {
    match value {
        serde_json::Value::Object(members) => {
            for (name, member) in members {
                match member.as_str() {
                    Some(digest) if name == "sha256" => digests.push(digest),
                    _ => collect(member, digests),
                }
            }
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| collect(item, digests)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_artefacts_of_a_manifest_are_found_wherever_they_are_named() {
        let images = tempfile::tempdir().unwrap();
        let folder = images.path().join("environments/debian-12");
        let artefacts = images.path().join("artefacts/sha256");
        fs::create_dir_all(&folder).unwrap();
        fs::create_dir_all(&artefacts).unwrap();
        let manifest =
            r#"{"kernel":{"vmlinux":{"sha256":"aa"}},"layers":[{"data":{"sha256":"bb"}}]}"#;
        fs::write(folder.join("manifest.json"), manifest).unwrap();
        for name in ["aa", "bb", "unrelated"] {
            fs::write(artefacts.join(name), name).unwrap();
        }

        let files = environment(images.path()).unwrap();

        let inside: Vec<_> = files.iter().map(|(_, to)| to.to_str().unwrap()).collect();
        assert_eq!(
            inside,
            [
                "/tmp/images/artefacts/sha256/aa",
                "/tmp/images/artefacts/sha256/bb",
                "/tmp/images/environments/debian-12/manifest.json",
            ]
        );
    }

    #[test]
    fn an_environment_that_is_not_installed_is_said_with_its_remedy() {
        let images = tempfile::tempdir().unwrap();
        let error = environment(images.path()).unwrap_err().to_string();
        assert!(error.contains("pyro env pull debian:12"), "{error}");
    }
}
