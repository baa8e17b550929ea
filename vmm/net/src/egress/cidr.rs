//! A range of addresses.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A range of addresses, written `10.1.0.0/16`; a bare address is a range of one. Bits beyond the
/// prefix must be zero, so that nobody allows more than they meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    base: IpAddr,
    prefix: u8,
}

/// Why a text is no range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadCidr {
    /// Not an address, or not a number of bits behind it.
    #[error("\"{0}\" is no range of addresses such as 10.1.0.0/16")]
    Syntax(String),
    /// Bits beyond the prefix.
    #[error("\"{0}\" has bits beyond its prefix; did you mean {1}?")]
    HostBits(String, String),
}

impl Cidr {
    /// Its lowest address.
    pub fn first(&self) -> IpAddr {
        self.base
    }

    /// Whether `address` lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.base, address) {
            (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => {
                masked(address, self.prefix) == self.base
            }
            _ => false,
        }
    }
}

/// `address` without its bits beyond `prefix`.
fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    let prefix = u32::from(prefix);
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - prefix.min(32)).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - prefix.min(128)).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    }
}

impl FromStr for Cidr {
    type Err = BadCidr;

    fn from_str(text: &str) -> Result<Self, BadCidr> {
        let syntax = || BadCidr::Syntax(text.to_owned());
        let (base, prefix) = match text.split_once('/') {
            Some((base, prefix)) => (base, Some(prefix)),
            None => (text, None),
        };
        let base: IpAddr = base.parse().map_err(|_| syntax())?;
        let most = if base.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => most,
            Some(prefix) => prefix
                .parse()
                .ok()
                .filter(|prefix| *prefix <= most)
                .ok_or_else(syntax)?,
        };
        let meant = masked(base, prefix);
        if meant != base {
            return Err(BadCidr::HostBits(
                text.to_owned(),
                format!("{meant}/{prefix}"),
            ));
        }
        Ok(Self { base, prefix })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

impl TryFrom<String> for Cidr {
    type Error = BadCidr;

    fn try_from(text: String) -> Result<Self, BadCidr> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(range: Cidr) -> Self {
        range.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn a_range_holds_its_addresses_and_no_others() {
        let cases = [
            ("10.1.0.0/16", "10.1.255.255", true),
            ("10.1.0.0/16", "10.2.0.0", false),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.6", false),
            ("0.0.0.0/0", "255.255.255.255", true),
            ("0.0.0.0/0", "::1", false),
            ("fd00::/8", "fdff::1", true),
            ("fd00::/8", "fe00::1", false),
            ("::/0", "2001:db8::1", true),
        ];
        for (text, address, expected) in cases {
            let address = address.parse().unwrap();
            assert_eq!(range(text).contains(address), expected, "{text} {address}");
        }
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in [
            "",
            "10",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0.0/8/8",
            "::/129",
            "a/8",
        ] {
            let bad = BadCidr::Syntax(text.to_owned());
            assert_eq!(text.parse::<Cidr>(), Err(bad));
        }
    }

    #[test]
    fn bits_beyond_the_prefix_are_refused_with_what_was_meant() {
        let bad = BadCidr::HostBits("10.1.2.3/8".into(), "10.0.0.0/8".into());
        assert_eq!("10.1.2.3/8".parse::<Cidr>(), Err(bad));
    }

    #[test]
    fn it_is_written_as_it_is_read() {
        for text in ["10.1.0.0/16", "fd00::/8"] {
            assert_eq!(range(text).to_string(), text);
        }
        assert_eq!(range("192.0.2.7").to_string(), "192.0.2.7/32");
    }
}
