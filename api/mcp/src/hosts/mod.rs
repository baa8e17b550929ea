//! Configuration of programs that speak MCP: what it is, where it is, and putting ourselves into it.
//!
//! A file that is there already keeps everything else that is in it, comments and order included; another
//! entry of our name is replaced. A file that cannot be understood is left alone.

mod json;
mod merge;
mod toml;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::{Error, Profile};

pub use merge::install;

/// Our name among a host's servers.
pub const NAME: &str = "pyro";

/// A program that starts MCP servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    /// Claude Code; `.mcp.json` of the project.
    ClaudeCode,
    /// Claude Desktop.
    ClaudeDesktop,
    /// Codex, its command line and its extension.
    Codex,
    /// Cursor; `.cursor/mcp.json` of the project.
    Cursor,
    /// VS Code; `.vscode/mcp.json` of the project.
    VsCode,
    /// opencode; `opencode.json` of the project.
    OpenCode,
}

/// How a host starts us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The program, by its absolute path: hosts that were started from a desktop have another `PATH`.
    pub program: String,
    /// What the model is shown.
    pub profile: Profile,
}

impl Entry {
    fn arguments(&self) -> Vec<String> {
        let words = ["mcp", "serve", "--profile", self.profile.as_str()];
        words.map(String::from).to_vec()
    }
}

/// Where configuration is looked for.
#[derive(Debug, Clone)]
pub struct Places {
    /// The project: the present directory.
    pub project: PathBuf,
    /// The user's own directory.
    pub home: PathBuf,
    /// `$XDG_CONFIG_HOME`, when it is set.
    pub config: Option<PathBuf>,
    /// `$CODEX_HOME`, when it is set.
    pub codex: Option<PathBuf>,
}

impl Places {
    /// The places that a process' environment means.
    pub fn from_variables(
        project: PathBuf,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, Error> {
        let directory = |name: &str| variable(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let home = directory("HOME").ok_or_else(|| {
            Error::new(
                "invalid_path",
                "HOME is not set, so there is no place for a user's configuration",
                "set HOME, or print the configuration without --install",
            )
        })?;
        Ok(Self {
            project,
            home,
            config: directory("XDG_CONFIG_HOME"),
            codex: directory("CODEX_HOME"),
        })
    }

    fn config(&self) -> PathBuf {
        let home = || self.home.join(".config");
        self.config.clone().unwrap_or_else(home)
    }
}

/// How a configuration file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// JSON with comments, and the members that lead to the servers.
    Json(&'static str),
    /// TOML with a table of servers.
    Toml,
}

impl Host {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::ClaudeCode,
        Self::ClaudeDesktop,
        Self::Codex,
        Self::Cursor,
        Self::VsCode,
        Self::OpenCode,
    ];

    /// Its name on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClaudeCode => "claude-code",
            Self::ClaudeDesktop => "claude-desktop",
            Self::Codex => "codex",
            Self::Cursor => "cursor",
            Self::VsCode => "vscode",
            Self::OpenCode => "opencode",
        }
    }

    /// The host of a name.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|host| host.as_str() == name)
    }

    /// Its configuration file. Of the project, where a host has such a file: then the server starts in
    /// the project, and relative paths mean what they say.
    pub fn file(self, places: &Places) -> PathBuf {
        let project = |path: &str| places.project.join(path);
        match self {
            Self::ClaudeCode => project(".mcp.json"),
            Self::ClaudeDesktop => places.config().join("Claude/claude_desktop_config.json"),
            Self::Codex => {
                let home = || places.home.join(".codex");
                let folder = places.codex.clone().unwrap_or_else(home);
                folder.join("config.toml")
            }
            Self::Cursor => project(".cursor/mcp.json"),
            Self::VsCode => project(".vscode/mcp.json"),
            Self::OpenCode => {
                // Either is read; the one that is there wins.
                let commented = project("opencode.jsonc");
                if commented.exists() {
                    commented
                } else {
                    project("opencode.json")
                }
            }
        }
    }

    fn format(self) -> Format {
        match self {
            Self::ClaudeCode | Self::ClaudeDesktop | Self::Cursor => Format::Json("mcpServers"),
            Self::VsCode => Format::Json("servers"),
            Self::OpenCode => Format::Json("mcp"),
            Self::Codex => Format::Toml,
        }
    }

    /// Our entry among its servers.
    fn entry(self, entry: &Entry) -> Value {
        let (program, arguments) = (&entry.program, entry.arguments());
        match self {
            Self::ClaudeCode | Self::VsCode | Self::Cursor => {
                json!({"type": "stdio", "command": program, "args": arguments})
            }
            Self::ClaudeDesktop => json!({"command": program, "args": arguments}),
            Self::OpenCode => {
                let mut command = vec![program.clone()];
                command.extend(arguments);
                // Milliseconds; the host's own is too short for a first boot.
                json!({"type": "local", "command": command, "enabled": true, "timeout": 60000})
            }
            Self::Codex => json!({"command": program, "args": arguments, "tool_timeout_sec": 120}),
        }
    }

    /// The whole of a configuration file with us in it; of `before`, everything else stays.
    ///
    /// # Errors
    /// When `before` cannot be understood, or has something else where servers belong.
    pub fn configure(self, entry: &Entry, before: Option<&str>) -> Result<String, Error> {
        let before = before.filter(|text| !text.trim().is_empty());
        let made = match self.format() {
            Format::Json(servers) => json::merge(before, servers, self.entry(entry)),
            Format::Toml => toml::merge(before, &self.entry(entry)),
        };
        made.map_err(|problem| {
            Error::new(
                "invalid_request",
                format!(
                    "the configuration of {} cannot be changed: {problem}",
                    self.as_str()
                ),
                "correct the file, or put in by hand what the command prints without --install",
            )
        })
    }

    /// What to do when the configuration is there.
    pub fn next(self) -> &'static str {
        match self {
            Self::ClaudeCode => {
                "start `claude` in this directory and allow the server; /mcp shows it"
            }
            Self::ClaudeDesktop => "start Claude Desktop again; the tools are behind the plus sign",
            Self::Codex => "start `codex` again; /mcp shows it",
            Self::Cursor => "open this directory in Cursor; Settings, MCP shows it",
            Self::VsCode => "open this directory in VS Code; `MCP: List Servers` starts it",
            Self::OpenCode => "start `opencode` in this directory; `opencode mcp list` shows it",
        }
    }
}

/// The program as hosts have to call it: this very file.
///
/// # Errors
/// When it cannot be told, or is not UTF-8.
pub fn program(this: std::io::Result<PathBuf>) -> Result<String, Error> {
    let path = this.ok().and_then(|path| path.to_str().map(str::to_string));
    path.filter(|path| Path::new(path).is_absolute())
        .ok_or_else(|| {
            Error::new(
                "invalid_path",
                "where this program is cannot be written into a configuration",
                "install it below a directory with a plain name",
            )
        })
}

#[cfg(test)]
mod tests;
