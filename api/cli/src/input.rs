//! What commands take from this machine: paths, files and standard input.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

use pyro_client::operations::LARGE_BODY_LIMIT;

use crate::output::{Failure, escape, note};

/// Most bytes that one call takes: base64 makes four of three, and JSON needs some as well.
const LIMIT: u64 = (LARGE_BODY_LIMIT as u64 / 4) * 3 - 4096;

/// A path of this machine as the daemon needs it, which has another working directory.
pub(crate) fn host_path(path: &Path) -> Result<String, Failure> {
    let absolute = std::path::absolute(path).map_err(|error| {
        Failure::new(
            "invalid_path",
            format!("{path:?} is no path of this machine: {error}"),
            "pass the path of a file or directory",
        )
    })?;
    absolute.into_os_string().into_string().map_err(|path| {
        Failure::new(
            "invalid_path",
            format!("the path {path:?} is not UTF-8"),
            "give it another name, or reach it through a symbolic link with a plain name",
        )
    })
}

/// The words of a guest's command.
pub(crate) fn command(words: Vec<OsString>) -> Result<Vec<String>, Failure> {
    let word = |word: OsString| {
        word.into_string().map_err(|word| {
            Failure::new(
                "invalid_command",
                format!("the argument {word:?} is not UTF-8"),
                "send other bytes on standard input, or name them with a shell's escapes",
            )
        })
    };
    words.into_iter().map(word).collect()
}

/// The content of a file of this machine; `-` is standard input.
pub(crate) fn content(path: &Path) -> Result<Vec<u8>, Failure> {
    if path == Path::new("-") {
        if io::stdin().is_terminal() {
            note("pyro: reading standard input; end it with Ctrl-D");
        }
        return bounded(io::stdin().lock(), "standard input");
    }
    let shown = escape::quoted(&path.to_string_lossy());
    let file = File::open(path).map_err(|error| unreadable(&shown, &error))?;
    bounded(file, &shown)
}

/// The text of a file of this machine; `-` is standard input.
pub(crate) fn text(path: &Path) -> Result<String, Failure> {
    String::from_utf8(content(path)?).map_err(|_| {
        Failure::new(
            "not_utf8",
            format!("{} is not UTF-8", escape::quoted(&path.to_string_lossy())),
            "pass a text file",
        )
    })
}

/// What was given as text, else what a file holds. clap has made sure that it is one of them.
pub(crate) fn text_or_file(
    text_given: Option<String>,
    path: Option<PathBuf>,
) -> Result<String, Failure> {
    match (text_given, path) {
        (Some(text), _) => Ok(text),
        (None, path) => text(&path.unwrap_or_else(|| "-".into())),
    }
}

fn bounded(mut from: impl Read, name: &str) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    from.by_ref()
        .take(LIMIT + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(name, &error))?;
    if bytes.len() as u64 > LIMIT {
        return Err(Failure::new(
            "invalid_request",
            format!("{name} is larger than {} MiB", LIMIT >> 20),
            "put large files into a workspace with `pyro workspace sync push`",
        ));
    }
    Ok(bytes)
}

fn unreadable(name: &str, error: &io::Error) -> Failure {
    Failure::new(
        "io",
        format!("cannot read {name}: {error}"),
        "check that the file is there and may be read",
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    fn code(failure: Failure) -> String {
        match failure {
            Failure::Told(error) => error.code,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn paths_are_made_absolute() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(
            host_path(Path::new("a/b")).unwrap(),
            here.join("a/b").to_str().unwrap()
        );
        assert_eq!(host_path(Path::new(".")).unwrap(), here.to_str().unwrap());
        assert_eq!(host_path(Path::new("/x")).unwrap(), "/x");
        assert_eq!(code(host_path(Path::new("")).unwrap_err()), "invalid_path");
        let bytes = PathBuf::from(OsString::from_vec(b"/\xff".to_vec()));
        assert_eq!(code(host_path(&bytes).unwrap_err()), "invalid_path");
    }

    #[test]
    fn endless_input_is_refused() {
        assert_eq!(
            code(bounded(io::repeat(b'x'), "it").unwrap_err()),
            "invalid_request"
        );
        assert_eq!(bounded(&b"abc"[..], "it").unwrap(), b"abc");
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let failure = content(Path::new("/nonexistent/file")).unwrap_err();
        let Failure::Told(error) = failure else {
            panic!("told")
        };
        assert!(error.message.contains("/nonexistent/file"), "{error}");
    }
}
