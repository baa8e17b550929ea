//! The machine's own Debian mirror, from apt's configuration.
//!
//! Both forms are read: one line per source (`sources.list(5)`), and deb822 stanzas. Of what is
//! configured, sources that serve Debian itself are kept (a known suite, component `main`), and
//! the suite is replaced by the one wanted. A machine with a security mirror gets the wanted
//! suite's security updates, one without does not.

use std::fs;
use std::path::Path;

use crate::Error;

/// Where a mirror's address may be given instead of apt's configuration.
pub const OVERRIDE: &str = "PYRO_DEBIAN_MIRROR";

/// The suites that have the shape of ours. Another distribution's source is never one of them.
const SUITES: [&str; 8] = [
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "oldoldstable",
    "oldstable",
    "stable",
    "testing",
];

/// Debian's own key ring, under its names in different releases.
const KEYRINGS: [&str; 2] = [
    "/usr/share/keyrings/debian-archive-keyring.pgp",
    "/usr/share/keyrings/debian-archive-keyring.gpg",
];

/// Which of Debian's archives a source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Main,
    Updates,
    Security,
}

/// The machine's mirrors: at most one of each kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirrors {
    main: String,
    updates: Option<String>,
    security: Option<String>,
}

/// One source for one suite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The archive's address, possibly with credentials.
    pub uri: String,
    /// The suite, such as `bookworm-security`.
    pub suite: String,
}

impl Source {
    /// The address without user name and password: the form that may be stored and shown.
    pub fn public_uri(&self) -> String {
        public(&self.uri)
    }

    /// The source as apt's one-line form, its signatures checked with `keyring` when given.
    pub(crate) fn line(&self, keyring: Option<&str>) -> String {
        let signed = keyring
            .map(|path| format!("[signed-by={path}] "))
            .unwrap_or_default();
        format!("deb {signed}{} {} main", self.uri, self.suite)
    }
}

impl Mirrors {
    /// The mirrors of this machine: `PYRO_DEBIAN_MIRROR` when it is set, else what apt has.
    ///
    /// # Errors
    /// [`Error::NoMirror`], [`Error::BadMirror`].
    pub fn of_machine() -> Result<Mirrors, Error> {
        match std::env::var_os(OVERRIDE) {
            Some(uri) if !uri.is_empty() => {
                Mirrors::at(uri.into_string().map_err(|_| Error::BadMirror)?)
            }
            _ => Mirrors::of_apt(Path::new("/etc/apt")),
        }
    }

    /// One mirror for all, at an address that somebody gave.
    fn at(uri: String) -> Result<Mirrors, Error> {
        if !uri.contains(":/") || uri.contains(char::is_whitespace) {
            return Err(Error::BadMirror);
        }
        Ok(Mirrors {
            main: uri,
            updates: None,
            security: None,
        })
    }

    fn of_apt(directory: &Path) -> Result<Mirrors, Error> {
        let mut found = Vec::new();
        let list = directory.join("sources.list");
        let mut files: Vec<_> = fs::read_dir(directory.join("sources.list.d"))
            .map(|entries| {
                entries
                    .filter_map(|entry| Some(entry.ok()?.path()))
                    .collect()
            })
            .unwrap_or_default();
        files.sort();
        files.insert(0, list);
        for file in files {
            let Ok(text) = fs::read_to_string(&file) else {
                continue;
            };
            match file.extension().and_then(|extension| extension.to_str()) {
                Some("list") => found.extend(one_line_sources(&text)),
                Some("sources") => found.extend(deb822_sources(&text)),
                _ => {}
            }
        }
        // A third party may use Debian's suite names; Debian's own archives end like this.
        found.sort_by_key(|(_, uri)| {
            let path = uri.trim_end_matches('/');
            !(path.ends_with("/debian") || path.ends_with("/debian-security"))
        });
        let first = |kind| {
            found
                .iter()
                .find(|(k, _)| *k == kind)
                .map(|(_, uri)| uri.clone())
        };
        let main = first(Kind::Main)
            .or_else(|| first(Kind::Updates))
            .ok_or(Error::NoMirror)?;
        Ok(Mirrors {
            main,
            updates: first(Kind::Updates),
            security: first(Kind::Security),
        })
    }

    /// The sources for `suite`, the suite itself first.
    pub fn sources(&self, suite: &str) -> Vec<Source> {
        let mut sources = vec![Source {
            uri: self.main.clone(),
            suite: suite.to_owned(),
        }];
        if let Some(uri) = &self.updates {
            sources.push(Source {
                uri: uri.clone(),
                suite: format!("{suite}-updates"),
            });
        }
        if let Some(uri) = &self.security {
            sources.push(Source {
                uri: uri.clone(),
                suite: format!("{suite}-security"),
            });
        }
        sources
    }
}

/// The key ring that Debian's signatures are checked with; `None` leaves it to apt's own.
pub(crate) fn keyring() -> Option<&'static str> {
    KEYRINGS.into_iter().find(|path| Path::new(path).is_file())
}

/// `uri` without its user part.
pub(crate) fn public(uri: &str) -> String {
    let Some((scheme, rest)) = uri.split_once("://") else {
        return uri.to_owned();
    };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

fn kind(suite: &str) -> Option<Kind> {
    let (base, kind) = if let Some(base) = suite.strip_suffix("-updates") {
        (base, Kind::Updates)
    } else if let Some(base) = suite.strip_suffix("-security") {
        (base, Kind::Security)
    } else {
        (suite, Kind::Main)
    };
    SUITES.contains(&base).then_some(kind)
}

/// `sources.list(5)`, "ONE-LINE-STYLE FORMAT".
fn one_line_sources(text: &str) -> Vec<(Kind, String)> {
    let source = |line: &str| {
        let line = line.split('#').next()?.trim();
        let mut rest = line
            .strip_prefix("deb")?
            .strip_prefix([' ', '\t'])?
            .trim_start();
        if let Some(options) = rest.strip_prefix('[') {
            rest = options.split_once(']')?.1;
        }
        let mut words = rest.split_whitespace();
        let (uri, suite) = (words.next()?, words.next()?);
        words.any(|component| component == "main").then_some(())?;
        Some((kind(suite)?, uri.to_owned()))
    };
    text.lines().filter_map(source).collect()
}

/// `sources.list(5)`, "DEB822-STYLE FORMAT".
fn deb822_sources(text: &str) -> Vec<(Kind, String)> {
    let mut found = Vec::new();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    for stanza in lines.split(|line| line.trim().is_empty()) {
        let mut fields: Vec<(String, String)> = Vec::new();
        for line in stanza {
            if line.starts_with([' ', '\t']) {
                if let Some((_, value)) = fields.last_mut() {
                    value.push(' ');
                    value.push_str(line);
                }
            } else if let Some((name, value)) = line.split_once(':') {
                fields.push((name.to_lowercase(), value.to_owned()));
            }
        }
        let words = |name: &str| -> Vec<&str> {
            let field = fields.iter().find(|(field, _)| field == name);
            field
                .map(|(_, value)| value.split_whitespace().collect())
                .unwrap_or_default()
        };
        let off = matches!(words("enabled").first(), Some(&"no" | &"false" | &"0"));
        if off || !words("types").contains(&"deb") || !words("components").contains(&"main") {
            continue;
        }
        for uri in words("uris") {
            let kinds = words("suites").into_iter().filter_map(kind);
            found.extend(kinds.map(|kind| (kind, uri.to_owned())));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apt(files: &[(&str, &str)]) -> Result<Mirrors, Error> {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("sources.list.d")).unwrap();
        for (name, text) in files {
            fs::write(directory.path().join(name), text).unwrap();
        }
        Mirrors::of_apt(directory.path())
    }

    fn source(uri: &str, suite: &str) -> Source {
        Source {
            uri: uri.to_owned(),
            suite: suite.to_owned(),
        }
    }

    #[test]
    fn deb822_sources_are_read_and_the_suite_is_replaced() {
        let mirrors = apt(&[(
            "sources.list.d/debian.sources",
            "Types: deb\n# a comment\nURIs: http://mirror.example/debian\n\
             Suites: bookworm\n bookworm-updates\nComponents: main contrib\n\n\
             Types: deb deb-src\nURIs: http://mirror.example/debian-security\n\
             Suites: bookworm-security\nComponents: main\n",
        )])
        .unwrap();

        let expected = [
            source("http://mirror.example/debian", "trixie"),
            source("http://mirror.example/debian", "trixie-updates"),
            source("http://mirror.example/debian-security", "trixie-security"),
        ];
        assert_eq!(mirrors.sources("trixie"), expected);
    }

    #[test]
    fn one_line_sources_are_read_and_no_other_archive_is_added() {
        let mirrors = apt(&[(
            "sources.list",
            "# deb http://old.example/debian bookworm main\n\
             deb-src http://mirror.example/debian bookworm main\n\
             deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian stable main # ours\n",
        )])
        .unwrap();

        assert_eq!(
            mirrors.sources("bookworm"),
            [source("http://mirror.example/debian", "bookworm")]
        );
    }

    #[test]
    fn a_third_party_with_debian_s_suite_names_comes_last() {
        let mirrors = apt(&[
            (
                "sources.list",
                "deb http://vendor.example/tools bookworm main\n",
            ),
            (
                "sources.list.d/z.list",
                "deb http://mirror.example/debian bookworm main\n",
            ),
        ])
        .unwrap();

        assert_eq!(mirrors.main, "http://mirror.example/debian");
    }

    #[test]
    fn a_machine_without_a_debian_source_is_told_so() {
        let disabled = "Enabled: no\nTypes: deb\nURIs: http://mirror.example/debian\n\
                        Suites: bookworm\nComponents: main\n";
        for files in [
            vec![],
            vec![(
                "sources.list",
                "deb http://vendor.example/tools nodistro main\n",
            )],
            vec![("sources.list.d/debian.sources", disabled)],
        ] {
            assert!(matches!(apt(&files), Err(Error::NoMirror)), "{files:?}");
        }
    }

    #[test]
    fn a_given_mirror_must_be_an_address() {
        let given = Mirrors::at("http://mirror/debian".to_owned()).unwrap();
        assert_eq!(
            given.sources("trixie"),
            [source("http://mirror/debian", "trixie")]
        );
        for wrong in ["mirror", "http://mirror/debian main", "/srv/mirror"] {
            let refused = Mirrors::at(wrong.to_owned());
            assert!(matches!(refused, Err(Error::BadMirror)), "{wrong}");
        }
    }

    #[test]
    fn credentials_are_not_public() {
        assert_eq!(
            public("http://me:pass@mirror.example/a@b"),
            "http://mirror.example/a@b"
        );
        assert_eq!(public("file:/srv/debian"), "file:/srv/debian");
    }
}
