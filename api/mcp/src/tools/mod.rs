//! The table of tools.
//!
//! A tool is one [`Tool`]: [`tool`] ties its words to the types of its arguments and its result and to its
//! handler, so that what is shown, checked and called cannot differ. The order is the contract's, and
//! stays.

mod answer;
mod changes;
mod command;
mod create;
mod disk;
mod exec;
mod files;
mod logs;
mod run;
mod services;
mod shells;
mod snapshots;
mod vm;
mod workspace;

use std::fmt;
use std::pin::Pin;
use std::sync::LazyLock;

use rmcp::model::ToolAnnotations;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::call::Call;
use crate::calls::Outcome;
use crate::schema::{self, Schema};
use crate::{Error, Profile};

pub(crate) use answer::Answer;
use answer::fit;

type Handler = Box<
    dyn Fn(Call, Map<String, Value>) -> Pin<Box<dyn Future<Output = Outcome> + Send>> + Send + Sync,
>;

/// A tool.
pub struct Tool {
    /// Its name.
    pub name: &'static str,
    /// Its name for people.
    pub title: &'static str,
    /// The narrowest profile that has it; wider ones have it, too.
    pub since: Profile,
    /// When to use it and what comes next.
    description: &'static str,
    /// What more there is to be said in `workspace-full`.
    wide: &'static str,
    hints: Hints,
    input: fn(Profile) -> Schema,
    output: Box<dyn Fn(Profile) -> Schema + Send + Sync>,
    handler: Handler,
}

impl fmt::Debug for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tool")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// What a host may want to know before it lets a model call a tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hints {
    /// It changes nothing.
    read_only: bool,
    /// It can undo or overwrite what was there.
    destructive: bool,
    /// Calling it again changes nothing more.
    idempotent: bool,
    /// What it does may reach the world beyond this machine, where the profile has networks.
    open_world: bool,
}

/// Only looks.
const READS: Hints = Hints {
    read_only: true,
    destructive: false,
    idempotent: true,
    open_world: false,
};
/// Adds something, every time.
const ADDS: Hints = Hints {
    read_only: false,
    destructive: false,
    idempotent: false,
    open_world: false,
};
/// Brings about a state that it can be in already.
const SETS: Hints = Hints {
    read_only: false,
    destructive: false,
    idempotent: true,
    open_world: false,
};
/// Takes something away or replaces it.
const REPLACES: Hints = Hints {
    read_only: false,
    destructive: true,
    idempotent: true,
    open_world: false,
};
/// Runs what the model wants.
const RUNS: Hints = Hints {
    read_only: false,
    destructive: true,
    idempotent: false,
    open_world: true,
};

impl Hints {
    /// The same for what cannot reach the world.
    const fn closed(self) -> Self {
        Self {
            open_world: false,
            ..self
        }
    }
}

/// Words of a tool.
struct Words {
    name: &'static str,
    title: &'static str,
    since: Profile,
    description: &'static str,
    wide: &'static str,
}

impl Words {
    /// Words of a tool of `workspace-core`.
    const fn core(name: &'static str, title: &'static str, description: &'static str) -> Self {
        Self {
            name,
            title,
            since: Profile::WorkspaceCore,
            description,
            wide: "",
        }
    }

    /// Words of a tool of `workspace-full`.
    const fn full(name: &'static str, title: &'static str, description: &'static str) -> Self {
        Self {
            name,
            title,
            since: Profile::WorkspaceFull,
            description,
            wide: "",
        }
    }

    /// What more there is to be said in `workspace-full`.
    const fn wide(mut self, wide: &'static str) -> Self {
        self.wide = wide;
        self
    }
}

/// Members of a result that its schema tells of.
#[derive(Debug, Clone, Copy)]
struct Members {
    /// In every profile.
    all: &'static [&'static str],
    /// In `workspace-full` as well.
    wide: &'static [&'static str],
}

impl Members {
    const fn all(all: &'static [&'static str]) -> Self {
        Self { all, wide: &[] }
    }
}

/// A tool of these words and this handler.
fn tool<I, O, F, R>(words: Words, hints: Hints, members: Members, handler: F) -> Tool
where
    I: DeserializeOwned + JsonSchema,
    O: Serialize + JsonSchema,
    F: Fn(Call, I) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Answer<O>, Error>> + Send + 'static,
{
    let name = words.name;
    let output = move |profile| {
        let mut names = members.all.to_vec();
        if profile == Profile::WorkspaceFull {
            names.extend(members.wide);
        }
        let next = names.iter().position(|name| *name == "next");
        if let Some(next) = next {
            names.remove(next);
        }
        let mut schema = schema::output::<O>(&names, profile);
        if next.is_some() {
            schema["properties"]["next"] = json!({"type": "string"});
        }
        schema
    };
    let handler: Handler = Box::new(move |call, arguments| {
        let profile = call.profile;
        let input = serde_json::from_value::<I>(Value::Object(arguments)).map_err(|error| {
            // The schema was checked; what it cannot say is told here.
            let remedy = "correct what the message names and call it again";
            Error::new("invalid_request", format!("{name}: {error}"), remedy)
        });
        let answer = input.map(|input| handler(call, input));
        Box::pin(async move { answer?.await?.into_value(profile) })
    });
    Tool {
        name,
        title: words.title,
        since: words.since,
        description: words.description,
        wide: words.wide,
        hints,
        input: schema::input::<I>,
        output: Box::new(output),
        handler,
    }
}

impl Tool {
    /// When to use it and what comes next.
    pub fn description(&self, profile: Profile) -> String {
        if profile == Profile::WorkspaceFull && !self.wide.is_empty() {
            format!("{} {}", self.description, self.wide)
        } else {
            self.description.to_string()
        }
    }

    /// The schema of its arguments.
    pub fn input(&self, profile: Profile) -> Map<String, Value> {
        (self.input)(profile)
    }

    /// The schema of its result.
    pub fn output(&self, profile: Profile) -> Map<String, Value> {
        (self.output)(profile)
    }

    /// As it is listed.
    pub fn listed(&self, profile: Profile) -> rmcp::model::Tool {
        let hints = ToolAnnotations::new()
            .read_only(self.hints.read_only)
            .destructive(self.hints.destructive)
            .idempotent(self.hints.idempotent)
            .open_world(self.hints.open_world && profile == Profile::WorkspaceFull);
        rmcp::model::Tool::new(self.name, self.description(profile), self.input(profile))
            .with_title(self.title)
            .with_raw_output_schema(self.output(profile).into())
            .with_annotations(hints)
    }

    /// Runs it with arguments that were checked.
    pub(crate) fn call(
        &self,
        call: Call,
        arguments: Map<String, Value>,
    ) -> impl Future<Output = Outcome> + Send + 'static + use<> {
        (self.handler)(call, arguments)
    }
}

/// All tools, in their order.
pub fn all() -> &'static [Tool] {
    static TABLE: LazyLock<Vec<Tool>> = LazyLock::new(|| {
        let mut table = Vec::new();
        table.extend(vm::tools());
        table.extend(workspace::tools());
        table.extend(snapshots::tools());
        table.extend(services::tools());
        table.extend(shells::tools());
        table
    });
    &TABLE
}

/// The tools of a profile, in their order.
pub fn of(profile: Profile) -> impl Iterator<Item = &'static Tool> {
    all().iter().filter(move |tool| tool.since <= profile)
}

/// A tool of a profile.
pub fn find(profile: Profile, name: &str) -> Option<&'static Tool> {
    of(profile).find(|tool| tool.name == name)
}
