//! The host's resolvers, as `/etc/resolv.conf` names them now.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::PORT;

/// Most resolvers, as in resolv.conf(5).
const RESOLVERS_MAX: usize = 3;
/// Most bytes of the file that are looked at.
const FILE_MAX: u64 = 64 << 10;
/// How often the file is looked at, at most.
const INTERVAL: Duration = Duration::from_secs(1);

/// What tells one state of the file from another.
type Stamp = (u64, u64, i64, i64);

/// The resolvers, read again when their file has changed.
#[derive(Debug)]
pub(crate) struct Resolvers {
    path: PathBuf,
    stamp: Option<Stamp>,
    looked: Option<Instant>,
    found: Vec<SocketAddr>,
}

impl Resolvers {
    /// Those of the file at `path`.
    pub(crate) fn of(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            stamp: None,
            looked: None,
            found: Vec::new(),
        }
    }

    /// Those of the host.
    pub(crate) fn of_host() -> Self {
        Self::of("/etc/resolv.conf")
    }

    /// All, in the order in which to ask them.
    pub(crate) fn all(&mut self) -> &[SocketAddr] {
        let now = Instant::now();
        if self.looked.is_none_or(|looked| now - looked >= INTERVAL) {
            self.looked = Some(now);
            self.look();
        }
        &self.found
    }

    /// The first.
    pub(crate) fn first(&mut self) -> Option<SocketAddr> {
        self.all().first().copied()
    }

    fn look(&mut self) {
        use std::io::Read;
        use std::os::unix::fs::MetadataExt;
        let Ok(file) = std::fs::File::open(&self.path) else {
            return;
        };
        let stamp = file
            .metadata()
            .ok()
            .map(|meta| (meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec()));
        if stamp.is_some() && stamp == self.stamp {
            return;
        }
        let mut text = Vec::new();
        if file.take(FILE_MAX).read_to_end(&mut text).is_ok() {
            self.found = parse(&String::from_utf8_lossy(&text));
            self.stamp = stamp;
        }
    }
}

/// The name servers of a resolv.conf(5); without one, this host itself.
fn parse(text: &str) -> Vec<SocketAddr> {
    let named = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next()? == "nameserver").then_some(())?;
        let address = words.next()?;
        // An interface behind the address is a number or a name that we do not look up.
        let (address, zone) = address.split_once('%').unwrap_or((address, "0"));
        Some(match address.parse().ok()? {
            IpAddr::V6(v6) => SocketAddrV6::new(v6, PORT, 0, zone.parse().unwrap_or(0)).into(),
            v4 => SocketAddr::new(v4, PORT),
        })
    });
    let found: Vec<_> = named.take(RESOLVERS_MAX).collect();
    if found.is_empty() {
        return vec![SocketAddr::from(([127, 0, 0, 1], PORT))];
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_found_among_everything_else() {
        let text = "# nameserver 192.0.2.9\nsearch example.org\nnameserver 192.0.2.1 # first\n\
                    nameserver\t2001:db8::1\noptions ndots:1\nnameserver nonsense\n\
                    nameserver fe80::1%3\nnameserver 192.0.2.4\n";
        let found: Vec<_> = parse(text).iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            ["192.0.2.1:53", "[2001:db8::1]:53", "[fe80::1%3]:53"]
        );
    }

    #[test]
    fn a_file_without_any_means_this_host() {
        assert_eq!(parse("search example.org")[0].to_string(), "127.0.0.1:53");
    }

    #[test]
    fn a_changed_file_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("resolv.conf");
        std::fs::write(&path, "nameserver 192.0.2.1\n").unwrap();
        let mut resolvers = Resolvers::of(&path);
        assert_eq!(resolvers.first().unwrap().to_string(), "192.0.2.1:53");
        let new = directory.path().join("new");
        std::fs::write(&new, "nameserver 192.0.2.2\n").unwrap();
        std::fs::rename(&new, &path).unwrap();
        resolvers.looked = None;
        assert_eq!(resolvers.first().unwrap().to_string(), "192.0.2.2:53");
        // A file that is gone for a moment changes nothing.
        std::fs::remove_file(&path).unwrap();
        resolvers.looked = None;
        assert_eq!(resolvers.first().unwrap().to_string(), "192.0.2.2:53");
    }
}
