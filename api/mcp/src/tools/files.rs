//! Files of a workspace.

use pyro_client::types::{
    Encoding, FileContent, FileList, ListFiles, ReadFile, WriteFile, WrittenFile,
};
use schemars::JsonSchema;
use serde::Deserialize;

use super::command::{max_bytes, root};
use super::{Answer, Members, fit};
use crate::Error;
use crate::call::Call;

pub(super) const LISTED: Members = Members {
    all: &["entries", "next"],
    wide: &["workspace_id", "path", "truncated"],
};
pub(super) const CONTENT: Members = Members {
    all: &["content", "sha256", "next"],
    wide: &[
        "truncated",
        "workspace_id",
        "path",
        "size_bytes",
        "offset",
        "bytes_read",
        "encoding",
    ],
};
pub(super) const WRITTEN: Members = Members {
    all: &["sha256", "created"],
    wide: &["workspace_id", "path", "size_bytes"],
};

const fn limit() -> u64 {
    200
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct List {
    /// Id or name
    pub(super) workspace: String,
    #[serde(default = "root")]
    path: String,
    #[serde(default)]
    recursive: bool,
    #[serde(default = "limit")]
    #[schemars(range(min = 1, max = 500))]
    limit: u64,
    #[serde(default)]
    offset: u64,
}

impl List {
    pub(super) fn request(&self) -> ListFiles {
        ListFiles {
            path: self.path.clone(),
            recursive: self.recursive,
        }
    }

    /// The part of a listing that was asked for.
    pub(super) fn part(&self, tool: &str, mut list: FileList) -> Answer<FileList> {
        let all = list.entries.len();
        let offset = usize::try_from(self.offset).unwrap_or(usize::MAX).min(all);
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        list.entries.drain(..offset);
        list.entries.truncate(limit);
        fit(&mut list.entries);
        let end = offset + list.entries.len();
        let more = end < all;
        let next = match (more, list.truncated) {
            (true, _) => Some(format!(
                "{tool} with offset {end} lists on, of {all} entries"
            )),
            (false, true) => {
                Some("there are more entries than can be listed: list a directory in it".into())
            }
            (false, false) => None,
        };
        list.truncated |= more;
        Answer::from(list).maybe_next(next)
    }
}

pub(super) async fn list(call: Call, input: List) -> Result<Answer<FileList>, Error> {
    let request = input.request();
    let list = call.client.file_list(&input.workspace, &request).await?;
    Ok(input.part("workspace_file_list", list))
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct Read {
    /// Id or name
    pub(super) workspace: String,
    path: String,
    #[serde(default)]
    offset: u64,
    #[serde(default = "max_bytes")]
    #[schemars(range(min = 1, max = 65536))]
    max_bytes: u64,
    /// base64 for what is no text
    #[serde(default)]
    encoding: Encoding,
}

impl Read {
    pub(super) fn request(&self) -> ReadFile {
        ReadFile {
            path: self.path.clone(),
            max_bytes: self.max_bytes,
            offset: self.offset,
            encoding: self.encoding,
        }
    }
}

/// A content, and how to get the rest.
pub(super) fn content(tool: &str, content: FileContent) -> Answer<FileContent> {
    let end = content.offset + content.bytes_read;
    let next = content.truncated.then(|| {
        format!(
            "{tool} with offset {end} reads on, of {} bytes",
            content.size_bytes
        )
    });
    Answer::from(content).maybe_next(next)
}

pub(super) async fn read(call: Call, input: Read) -> Result<Answer<FileContent>, Error> {
    let request = input.request();
    let found = call.client.file_read(&input.workspace, &request).await?;
    Ok(content("workspace_file_read", found))
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct Write {
    /// Id or name
    workspace: String,
    path: String,
    content: String,
    /// base64 for what is no text
    #[serde(default)]
    encoding: Encoding,
    /// Refuses if the file has another
    expect_sha256: Option<String>,
}

pub(super) async fn write(call: Call, input: Write) -> Result<Answer<WrittenFile>, Error> {
    let request = WriteFile {
        path: input.path,
        content: input.content,
        encoding: input.encoding,
        expect_sha256: input.expect_sha256,
    };
    Ok(call
        .client
        .file_write(&input.workspace, &request)
        .await?
        .into())
}
