//! Where the packages came from, as the archives' signed release files tell.

use std::fs;
use std::path::Path;

use super::mirror::Source;
use crate::store::manifest::Archive;

/// A release file's interesting fields are in its first lines.
const HEAD: usize = 4096;

/// Reads every release file in `directory`. One that cannot be understood is left out: apt has
/// verified what was used, and this is for people.
pub(crate) fn archives(directory: &Path, sources: &[Source]) -> Vec<Archive> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut archives: Vec<Archive> = entries
        .filter_map(|entry| fs::read(entry.ok()?.path()).ok())
        .filter_map(|text| {
            archive(
                &String::from_utf8_lossy(&text[..text.len().min(HEAD)]),
                sources,
            )
        })
        .collect();
    archives.sort_by(|a, b| a.codename.cmp(&b.codename));
    archives.dedup();
    archives
}

fn archive(release: &str, sources: &[Source]) -> Option<Archive> {
    let field = |name: &str| {
        let value = |line: &str| {
            Some(
                line.strip_prefix(name)?
                    .strip_prefix(':')?
                    .trim()
                    .to_owned(),
            )
        };
        release.lines().find_map(value)
    };
    let codename = field("Codename")?;
    let source = sources.iter().find(|source| source.suite == codename);
    Some(Archive {
        uri: source.map(Source::public_uri).unwrap_or_default(),
        codename,
        version: field("Version"),
        date: field("Date")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_file_tells_suite_version_and_date() {
        let directory = tempfile::tempdir().unwrap();
        let release = "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nOrigin: Debian\n\
                       Suite: oldstable\nVersion: 12.9\nCodename: bookworm\n\
                       Date: Sat, 11 Jan 2025 10:00:00 UTC\n";
        fs::write(directory.path().join("a_InRelease"), release).unwrap();
        fs::write(directory.path().join("b_InRelease"), "nonsense").unwrap();
        let source = Source {
            uri: "http://u:p@mirror.example/debian".into(),
            suite: "bookworm".into(),
        };

        let archives = archives(directory.path(), &[source]);

        let expected = Archive {
            uri: "http://mirror.example/debian".into(),
            codename: "bookworm".into(),
            version: Some("12.9".into()),
            date: "Sat, 11 Jan 2025 10:00:00 UTC".into(),
        };
        assert_eq!(archives, [expected]);
    }
}
