//! Secrets as they are kept on the host: in the workspace's folder, for its user alone, as long as
//! the workspace lives. No other file has a value.

use std::io;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use super::write::{Survives, read_bounded, replace};

const FILE: &str = "secrets.json";
/// Longer than all secrets of a workspace can be.
const MAX: u64 = 1 << 20;
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    secrets: Vec<StoredSecret>,
}

#[derive(Serialize, Deserialize)]
struct StoredSecret {
    name: String,
    /// In base64.
    value: String,
}

/// Writes names and values. Blocks.
pub(crate) fn write<'a>(
    folder: &Path,
    secrets: impl Iterator<Item = (&'a str, &'a [u8])>,
) -> io::Result<()> {
    let stored = Stored {
        format: FORMAT,
        secrets: secrets
            .map(|(name, value)| StoredSecret {
                name: name.to_string(),
                value: BASE64.encode(value),
            })
            .collect(),
    };
    replace(folder, FILE, &serde_json::to_vec(&stored)?, Survives::Power)
}

/// Reads names and values. Blocks.
pub(crate) fn read(folder: &Path) -> io::Result<Vec<(String, Vec<u8>)>> {
    // What serde_json quotes in its errors may be a value.
    let odd = || io::Error::new(io::ErrorKind::InvalidData, "it is not what was written");
    let bytes = read_bounded(&folder.join(FILE), MAX)?;
    let stored: Stored = serde_json::from_slice(&bytes).map_err(|_| odd())?;
    if stored.format != FORMAT {
        return Err(odd());
    }
    let decode = |secret: StoredSecret| {
        let value = BASE64.decode(secret.value).map_err(|_| odd())?;
        Ok((secret.name, value))
    };
    stored.secrets.into_iter().map(decode).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn values_come_back_and_only_their_user_may_read_them() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let all = [("A", &b"\x00\xff value\n"[..]), ("B", b"b")];

        write(folder.path(), all.into_iter()).expect("written");

        let path = folder.path().join(FILE);
        let mode = std::fs::metadata(path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let read = read(folder.path()).expect("read");
        assert_eq!(
            read,
            all.map(|(name, value)| (name.to_string(), value.to_vec()))
        );
    }

    #[test]
    fn an_error_quotes_nothing() {
        let folder = tempfile::tempdir().expect("temporary folder");
        std::fs::write(
            folder.path().join(FILE),
            r#"{"format":1,"secrets":"hunter22"}"#,
        )
        .expect("written");

        let error = read(folder.path()).expect_err("refused");

        assert!(!format!("{error:?}").contains("hunter22"));
    }
}
