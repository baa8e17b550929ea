//! Binary files in a patch, in the form that `git apply` takes ("GIT binary patch"; Git's `apply.c`, `base85.c`).

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::ZlibEncoder;
use sha1::{Digest, Sha1};

/// Bytes of a line before they are encoded.
const LINE: usize = 52;

/// Digits of base 85, as Git orders them.
const DIGITS: &[u8; 85] =
    b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~";

/// The name that Git has for a content, by which it knows that a patch fits.
pub(super) fn object_id(content: Option<&[u8]>) -> String {
    let Some(content) = content else {
        return "0".repeat(40);
    };
    let mut hash = Sha1::new();
    hash.update(format!("blob {}\0", content.len()));
    hash.update(content);
    hash.finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Writes both contents whole: the new one, and the old one for the way back.
pub(super) fn write_binary(out: &mut impl Write, old: &[u8], new: &[u8]) -> io::Result<()> {
    out.write_all(b"GIT binary patch\n")?;
    literal(out, new)?;
    literal(out, old)
}

fn literal(out: &mut impl Write, content: &[u8]) -> io::Result<()> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content)?;
    writeln!(out, "literal {}", content.len())?;
    for line in encoder.finish()?.chunks(LINE) {
        // The length of a line is a letter: A for 1 to Z for 26, a for 27 to z for 52.
        let len = line.len() as u8;
        let mut text = vec![if len <= 26 {
            b'A' + len - 1
        } else {
            b'a' + len - 27
        }];
        for chunk in line.chunks(4) {
            let mut bytes = [0; 4];
            bytes[..chunk.len()].copy_from_slice(chunk);
            let mut number = u32::from_be_bytes(bytes);
            let mut digits = [0; 5];
            for digit in digits.iter_mut().rev() {
                *digit = DIGITS[(number % 85) as usize];
                number /= 85;
            }
            text.extend(digits);
        }
        text.push(b'\n');
        out.write_all(&text)?;
    }
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_have_the_names_that_git_gives_them() {
        assert_eq!(
            object_id(Some(b"")),
            "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
        );
        assert_eq!(
            object_id(Some(b"hello\n")),
            "ce013625030ba8dba906f756967f9e9ca394464a"
        );
        assert_eq!(object_id(None), "0".repeat(40));
    }
}
