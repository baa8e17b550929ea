//! What can be asked for, and where: the one list of the API's operations.
//!
//! An [`Operation`] ties a method and a path to the types of its request and its result. The server
//! can only route an operation with a handler of these types, the SDK can only call it with them, and
//! the OpenAPI document says what they are, so that the three cannot drift apart.

mod event;
mod list;
mod path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use event::Event;
pub use list::*;
pub use path::{InExec, InService, InShell, InSnapshot, InWorkspace, PathParameters, Top};

/// The media type of a stream of events, one JSON document a line.
pub const NDJSON: &str = "application/x-ndjson";
/// The media type of a request on one line that standard input follows, as it is, to the body's end.
pub const INPUT: &str = "application/vnd.pyro.input";
/// The response header with the operation's id, as it is in the daemon's log.
pub const OPERATION_ID_HEADER: &str = "pyro-operation-id";

/// The methods that the API uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Reads; the request is the query string.
    Get,
    /// Does; the request is a JSON body.
    Post,
    /// Replaces; the request is a JSON body.
    Put,
    /// Changes; the request is a JSON body.
    Patch,
    /// Removes; there is no request.
    Delete,
}

impl Method {
    /// As it is in a request line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// Where an operation is, and what it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Info {
    /// Its name in the OpenAPI document.
    pub id: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// Its method.
    pub method: Method,
    /// Its path, with parameters in braces.
    pub path: &'static str,
    /// The SDK's method, and the one that streams where there is one.
    pub sdk: &'static [&'static str],
    /// Most bytes of its body.
    pub body_limit: usize,
}

/// Most bytes of a request's body where nothing else is said.
pub const BODY_LIMIT: usize = 1 << 20;
/// Most bytes of the body of a file write and of a patch.
pub const LARGE_BODY_LIMIT: usize = 32 << 20;

/// An operation of the API, with the types that it takes and gives.
pub trait Operation: Send + Sync + 'static {
    /// Where it is, and what it is called.
    const INFO: Info;
    /// What its path names.
    type Path: PathParameters;
    /// Its request: the query string of a `GET`, otherwise the JSON body.
    type Input: Serialize + DeserializeOwned + JsonSchema + Send + 'static;
    /// Its result.
    type Output: Serialize + DeserializeOwned + JsonSchema + Send + 'static;
}

/// An operation that can also stream events, for `Accept: application/x-ndjson`.
pub trait Streaming: Operation {
    /// A line of the stream.
    type Event: Event;
}

/// Something that is to see every operation with its types.
pub trait Visitor {
    /// Sees one.
    fn visit<O: Operation>(&mut self);
}

/// No request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_places_and_sdk_methods_are_unique() {
        let ids: BTreeSet<_> = ALL.iter().map(|info| info.id).collect();
        let places: BTreeSet<_> = ALL
            .iter()
            .map(|info| (info.method.as_str(), info.path))
            .collect();
        let methods: Vec<_> = ALL.iter().flat_map(|info| info.sdk).collect();

        assert_eq!(ids.len(), ALL.len());
        assert_eq!(places.len(), ALL.len());
        assert_eq!(methods.iter().collect::<BTreeSet<_>>().len(), methods.len());
    }

    #[test]
    fn paths_have_exactly_the_parameters_of_their_types() {
        struct Check;
        impl Visitor for Check {
            fn visit<O: Operation>(&mut self) {
                let named: Vec<_> = O::INFO
                    .path
                    .split('/')
                    .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
                    .collect();
                assert_eq!(named, O::Path::NAMES, "{}", O::INFO.id);
            }
        }
        visit(&mut Check);
    }
}
