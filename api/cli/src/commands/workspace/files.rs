//! `pyro workspace file …`, and how lists and contents of files are shown; disks do the same.

use std::io::{self, IsTerminal};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use pyro_client::ClientError;
use pyro_client::types::{
    Encoding, FileContent, FileEntry, FileKind, FileList, ListFiles, ReadFile, WriteFile,
};

use super::show;
use crate::args::{File, ListFiles as ListArgs, WriteFile as WriteArgs};
use crate::daemon;
use crate::input;
use crate::output::{
    Column, Failure, Paint, Table, escape, human, note, print, print_bytes, print_json,
};

pub(super) async fn file(command: File) -> Result<(), Failure> {
    match command {
        File::List(args) => {
            let client = daemon::client().await?;
            let list = client
                .file_list(&args.workspace, &list_request(&args))
                .await?;
            show_list(args.json.json, &list)
        }
        File::Read(args) => {
            let request = ReadFile {
                path: args.path,
                max_bytes: args.max.max_bytes,
                offset: args.offset,
                encoding: encoding(args.json.json),
            };
            let client = daemon::client().await?;
            let content = client.file_read(&args.workspace, &request).await?;
            show_content(&content, args.json.json, args.content_only)
        }
        File::Write(args) => write(args).await,
    }
}

async fn write(args: WriteArgs) -> Result<(), Failure> {
    let bytes = match (args.text, args.text_file) {
        (Some(text), _) => text.into_bytes(),
        (None, path) => input::content(&path.unwrap_or_else(|| "-".into()))?,
    };
    let (content, encoding) = match String::from_utf8(bytes) {
        Ok(text) => (text, Encoding::Utf8),
        Err(error) => (BASE64.encode(error.as_bytes()), Encoding::Base64),
    };
    let request = WriteFile {
        path: args.path,
        content,
        encoding,
        expect_sha256: args.expect_sha256,
    };
    let client = daemon::client().await?;
    let written = client.file_write(&args.workspace, &request).await?;
    show(args.json.json, &written, |written| {
        format!(
            "{} {}: {}, SHA-256 {}\n",
            if written.created { "Made" } else { "Replaced" },
            escape::line(&written.path),
            human::bytes(written.size_bytes),
            escape::line(&written.sha256)
        )
    })
}

/// What a list of files is asked for with.
pub(super) fn list_request(args: &ListArgs) -> ListFiles {
    ListFiles {
        path: args.path.clone(),
        recursive: args.recursive,
    }
}

/// How content is asked for: documents hold text, people and pipes get the very bytes.
pub(super) fn encoding(json: bool) -> Encoding {
    if json {
        Encoding::Utf8
    } else {
        Encoding::Base64
    }
}

/// Prints a list.
pub(super) fn show_list(json: bool, list: &FileList) -> Result<(), Failure> {
    if json {
        print_json(list)?;
        return Ok(());
    }
    if list.entries.is_empty() {
        note(&format!("pyro: {} is empty", escape::line(&list.path)));
    } else {
        // Paths are for copying: they are never cut.
        print(&table(&list.entries).render(None, Paint::stdout()))?;
    }
    if list.truncated {
        note("pyro: there are more entries; list a directory further down");
    }
    Ok(())
}

fn table(entries: &[FileEntry]) -> Table<3> {
    let mut table = Table::new([
        Column::fixed("MODE", 0),
        Column::number("SIZE", 0),
        Column::fixed("PATH", 0),
    ]);
    for entry in entries {
        let size = match entry.kind {
            FileKind::File => human::bytes(entry.size_bytes),
            _ => "-".to_string(),
        };
        let path = match (&entry.kind, &entry.link_target) {
            (FileKind::Directory, _) => format!("{}/", entry.path),
            (_, Some(target)) => format!("{} -> {target}", entry.path),
            _ => entry.path.clone(),
        };
        table.row([mode(entry).into(), size.into(), path.into()]);
    }
    table
}

/// Kind and permissions as `ls` has them.
fn mode(entry: &FileEntry) -> String {
    let mut text = String::from(match entry.kind {
        FileKind::File => "-",
        FileKind::Directory => "d",
        FileKind::Symlink => "l",
        FileKind::Other => "?",
    });
    let Ok(bits) = u32::from_str_radix(&entry.mode, 8) else {
        return format!("{text} {}", entry.mode);
    };
    let special = [(0o4000, 's'), (0o2000, 's'), (0o1000, 't')];
    for (index, (bit, letter)) in special.into_iter().enumerate() {
        let three = bits >> (6 - 3 * index);
        text.push(if three & 4 != 0 { 'r' } else { '-' });
        text.push(if three & 2 != 0 { 'w' } else { '-' });
        text.push(match (three & 1 != 0, bits & bit != 0) {
            (true, true) => letter,
            (false, true) => letter.to_ascii_uppercase(),
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// Prints a content: the bytes as they are, unless a person would see them on a terminal.
pub(super) fn show_content(
    content: &FileContent,
    json: bool,
    content_only: bool,
) -> Result<(), Failure> {
    if json {
        print_json(content)?;
        return Ok(());
    }
    let bytes = match content.encoding {
        Encoding::Utf8 => content.content.clone().into_bytes(),
        Encoding::Base64 => {
            BASE64
                .decode(&content.content)
                .map_err(|source| ClientError::Answer {
                    source: source.into(),
                })?
        }
    };
    if content_only || !io::stdout().is_terminal() {
        print_bytes(&bytes)?;
    } else {
        let mut text = escape::bytes(&bytes);
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        print(&text)?;
    }
    if content.truncated && !content_only {
        let end = content.offset.saturating_add(content.bytes_read);
        note(&format!(
            "pyro: bytes {} to {end} of {}; --max-bytes shows more",
            content.offset, content.size_bytes
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: FileKind, mode: &str) -> FileEntry {
        FileEntry {
            path: "/workspace/x".into(),
            kind,
            size_bytes: 1536,
            mode: mode.into(),
            link_target: None,
        }
    }

    #[test]
    fn modes_are_those_of_ls() {
        let mode = |kind, octal| mode(&entry(kind, octal));
        assert_eq!(mode(FileKind::File, "0644"), "-rw-r--r--");
        assert_eq!(mode(FileKind::Directory, "1777"), "drwxrwxrwt");
        assert_eq!(mode(FileKind::File, "4750"), "-rwsr-x---");
        assert_eq!(mode(FileKind::File, "2640"), "-rw-r-S---");
        assert_eq!(mode(FileKind::Other, "zzz"), "? zzz");
    }

    #[test]
    fn names_are_whole_and_harmless() {
        let mut link = entry(FileKind::Symlink, "0777");
        link.path = format!("/workspace/{}", "long".repeat(50));
        link.link_target = Some("a\x1b[2J".into());
        let text = table(&[link, entry(FileKind::File, "0600")]).render(None, Paint::fixed(false));
        assert!(text.contains(&format!("{} -> a\\x1b[2J", "long".repeat(50))));
        assert!(text.contains("1.5 KiB  /workspace/x\n"), "{text}");
    }
}
