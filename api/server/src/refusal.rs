//! Errors as they are answered: the one place where a failure gets its HTTP status.

use axum::Json;
use axum::response::{IntoResponse, Response};
use hyper::StatusCode;
use pyro_client::types::{ApiError, ErrorBody};
use pyro_engine::Kind;

/// An answer that is no success.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) error: ApiError,
}

/// What the server itself refuses: the request never gets to the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cause {
    /// There is nothing at this path.
    UnknownRoute(String),
    /// There is something, with other methods.
    WrongMethod(String),
    /// The path's parameters are not of their types.
    PathParameter(String),
    /// The query string is not the request.
    Query(String),
    /// The body is not the request.
    Json(String),
    /// The body is longer than allowed, in bytes.
    BodyTooLarge(usize),
    /// The body did not arrive in time.
    BodyTimeout,
    /// The body ended before its end.
    BodyBroken(String),
    /// The peer is another user.
    Peer(u32),
    /// The daemon ends.
    Ending,
    /// The stream of events ended without a last one.
    NoEnd,
}

impl From<Cause> for Refusal {
    fn from(cause: Cause) -> Self {
        let document = "see /v1/openapi.json for what there is";
        let (status, code, message, remedy) = match cause {
            Cause::UnknownRoute(path) => (
                StatusCode::NOT_FOUND,
                "route_not_found",
                format!("there is nothing at {path}"),
                document.into(),
            ),
            Cause::WrongMethod(method) => (
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                format!("{method} is not possible here"),
                "use one of the methods in the Allow header".into(),
            ),
            Cause::PathParameter(why) => (
                StatusCode::BAD_REQUEST,
                "invalid_path_parameter",
                format!("the path cannot be understood: {why}"),
                document.into(),
            ),
            Cause::Query(why) => (
                StatusCode::BAD_REQUEST,
                "invalid_query",
                format!("the query string is not this operation's request: {why}"),
                document.into(),
            ),
            Cause::Json(why) => (
                StatusCode::BAD_REQUEST,
                "invalid_json",
                format!("the body is not this operation's request: {why}"),
                document.into(),
            ),
            Cause::BodyTooLarge(limit) => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "body_too_large",
                format!("the body has more than {} MiB", limit >> 20),
                "put large contents into a directory or an archive and use sync push".into(),
            ),
            Cause::BodyTimeout => (
                StatusCode::REQUEST_TIMEOUT,
                "body_timeout",
                "the body did not arrive in time".into(),
                "send the body without pauses".into(),
            ),
            Cause::BodyBroken(why) => (
                StatusCode::BAD_REQUEST,
                "body_incomplete",
                format!("the body did not arrive: {why}"),
                "send the request again".into(),
            ),
            Cause::Peer(uid) => (
                StatusCode::FORBIDDEN,
                "peer_not_allowed",
                format!("this daemon belongs to another user than {uid}"),
                "use a daemon of your own: leave PYRO_STATE_DIR unset".into(),
            ),
            Cause::Ending => (
                StatusCode::SERVICE_UNAVAILABLE,
                "daemon_stopping",
                "the daemon ends".into(),
                "repeat the command, which starts the daemon again; workspaces go on running"
                    .into(),
            ),
            Cause::NoEnd => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "command_lost",
                "the command's end is not known".into(),
                "look at the workspace's status and logs".into(),
            ),
        };
        Self {
            status,
            error: ApiError {
                code: code.into(),
                message,
                remedy,
                detail: None,
            },
        }
    }
}

impl From<pyro_engine::Error> for Refusal {
    fn from(error: pyro_engine::Error) -> Self {
        Self {
            status: status(error.code().kind()),
            error: error.to_api(),
        }
    }
}

/// The status of each kind of the engine's errors.
fn status(kind: Kind) -> StatusCode {
    match kind {
        Kind::Invalid => StatusCode::BAD_REQUEST,
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::Conflict => StatusCode::CONFLICT,
        Kind::Refused => StatusCode::UNPROCESSABLE_ENTITY,
        Kind::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
        Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Kind::Failed => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The code of an answer that is an error, for the log.
#[derive(Debug, Clone)]
pub(crate) struct ErrorCode(pub(crate) String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let code = ErrorCode(self.error.code.clone());
        let body = ErrorBody { error: self.error };
        let mut response = (self.status, Json(body)).into_response();
        response.extensions_mut().insert(code);
        response
    }
}

impl Refusal {
    /// What an operation told as its last event: it failed after it had begun.
    pub(crate) fn failed(error: ApiError) -> Self {
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            error,
        }
    }
}
