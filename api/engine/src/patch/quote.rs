//! Paths as Git quotes them: in C style when they hold more than plain letters (core.quotePath).

/// `path` with `prefix` before it, quoted when it has to be.
pub(super) fn quote(prefix: &str, path: &[u8]) -> Vec<u8> {
    let plain = |byte: &u8| matches!(byte, 0x20..=0x7e) && !matches!(byte, b'"' | b'\\');
    let mut out = prefix.as_bytes().to_vec();
    if path.iter().all(plain) {
        out.extend_from_slice(path);
        return out;
    }
    out.insert(0, b'"');
    for byte in path {
        match byte {
            b'"' | b'\\' => out.extend([b'\\', *byte]),
            0x07 => out.extend(b"\\a"),
            0x08 => out.extend(b"\\b"),
            b'\t' => out.extend(b"\\t"),
            b'\n' => out.extend(b"\\n"),
            0x0b => out.extend(b"\\v"),
            0x0c => out.extend(b"\\f"),
            b'\r' => out.extend(b"\\r"),
            byte if plain(byte) => out.push(*byte),
            byte => out.extend(format!("\\{byte:03o}").bytes()),
        }
    }
    out.push(b'"');
    out
}

/// Takes a quoted path off the front of `text`; what is in it, and what follows.
pub(super) fn unquote(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut rest = text.strip_prefix(b"\"")?;
    let mut path = Vec::new();
    loop {
        let (&byte, after) = rest.split_first()?;
        rest = after;
        if byte == b'"' {
            return Some((path, rest));
        }
        if byte != b'\\' {
            path.push(byte);
            continue;
        }
        let (&escaped, after) = rest.split_first()?;
        rest = after;
        path.push(match escaped {
            b'"' | b'\\' => escaped,
            b'a' => 0x07,
            b'b' => 0x08,
            b't' => b'\t',
            b'n' => b'\n',
            b'v' => 0x0b,
            b'f' => 0x0c,
            b'r' => b'\r',
            b'0'..=b'3' => {
                let (low, after) = rest.split_at_checked(2)?;
                rest = after;
                let digits = [escaped, low[0], low[1]];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 8).ok()?
            }
            _ => return None,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_paths_come_back() {
        let all: Vec<u8> = (1..=255).collect();
        for path in [&b"plain name"[..], b"a\"b\\c\n\t", "größe".as_bytes(), &all] {
            let quoted = quote("a/", path);
            let back = match unquote(&quoted) {
                Some((back, rest)) => {
                    assert!(rest.is_empty());
                    back
                }
                None => quoted.clone(),
            };
            assert_eq!(back, [b"a/", path].concat());
        }
        assert_eq!(quote("a/", "ö".as_bytes()), b"\"a/\\303\\266\"");
        for bad in [
            &b"\"open"[..],
            b"\"\\",
            b"\"\\4\"",
            b"\"\\12",
            b"\"\\9\"",
            b"\"\\399\"",
        ] {
            assert_eq!(unquote(bad), None);
        }
    }
}
