//! What stands before a member and says more of it than its header can: PAX records (POSIX pax,
//! "pax Extended Header") and GNU long names.

use std::collections::BTreeMap;

use crate::tree::Timestamp;

/// What is known of the next member before its header.
#[derive(Clone, Debug, Default)]
pub(super) struct Extension {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<Timestamp>,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Where GNU tar, bsdtar and star put extended attributes.
const XATTR: &[u8] = b"SCHILY.xattr.";

impl Extension {
    /// Takes the records of one extended header; the reason when they are none.
    pub(super) fn read_pax(&mut self, mut records: &[u8]) -> Result<(), &'static str> {
        while !records.is_empty() {
            let (key, value) = next_record(&mut records).ok_or("its extended header is damaged")?;
            self.set(key, value)?;
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(decimal(value).ok_or("its size is no number")?),
            b"uid" => self.uid = Some(decimal(value).ok_or("its owner is no number")?),
            b"gid" => self.gid = Some(decimal(value).ok_or("its group is no number")?),
            b"mtime" => self.mtime = Some(time(value).ok_or("its time is no number")?),
            _ if key.starts_with(b"GNU.sparse.") => {
                return Err("sparse members are not understood");
            }
            _ => {
                if let Some(name) = key.strip_prefix(XATTR) {
                    self.xattrs.insert(name.to_vec(), value.to_vec());
                }
            }
        }
        Ok(())
    }
}

/// Takes one record, `LENGTH KEY=VALUE\n`, off the front; the length counts all of it.
fn next_record<'a>(records: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    let space = records.iter().position(|&byte| byte == b' ')?;
    let len = usize::try_from(decimal(&records[..space])?).ok()?;
    let (record, rest) = records.split_at_checked(len)?;
    let body = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|&byte| byte == b'=')?;
    *records = rest;
    Some((&body[..equals], &body[equals + 1..]))
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Seconds with an optional fraction, perhaps negative.
fn time(text: &[u8]) -> Option<Timestamp> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = match text.iter().position(|&byte| byte == b'.') {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &[][..]),
    };
    let secs = i64::try_from(decimal(whole)?).ok()?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let nanos = (0..9).fold(0, |nanos, place| {
        nanos * 10 + u32::from(fraction.get(place).map_or(0, |digit| digit - b'0'))
    });
    Some(match (negative, nanos) {
        (false, nanos) => Timestamp { secs, nanos },
        (true, 0) => Timestamp {
            secs: -secs,
            nanos: 0,
        },
        (true, nanos) => Timestamp {
            secs: -secs - 1,
            nanos: 1_000_000_000 - nanos,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_nanoseconds_on_both_sides_of_1970() {
        assert_eq!(
            time(b"12.5"),
            Some(Timestamp {
                secs: 12,
                nanos: 500_000_000
            })
        );
        assert_eq!(
            time(b"-0.25"),
            Some(Timestamp {
                secs: -1,
                nanos: 750_000_000
            })
        );
        assert_eq!(time(b"7"), Some(Timestamp { secs: 7, nanos: 0 }));
        assert_eq!(time(b"1.0000000019"), Some(Timestamp { secs: 1, nanos: 1 }));
        for bad in [&b""[..], b".5", b"1.x", b"--1", b"99999999999999999999"] {
            assert_eq!(time(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn records_that_lie_about_their_length_are_refused() {
        for bad in [
            &b"9 a=b\n"[..],
            b"2 a=b\n",
            b"0 a=b\n",
            b"6 a=b",
            b"6 a-b\n",
            b"99999999999999999999999 a=b\n",
            b"no space",
        ] {
            assert!(Extension::default().read_pax(bad).is_err(), "{bad:?}");
        }
        let mut extension = Extension::default();
        extension
            .read_pax(b"10 path=a\n26 SCHILY.xattr.user.k=\0\n\n")
            .unwrap();
        assert_eq!(extension.path.as_deref(), Some(&b"a"[..]));
        assert_eq!(extension.xattrs[&b"user.k"[..]], b"\0\n");
    }
}
