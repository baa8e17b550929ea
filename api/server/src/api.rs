//! Routing of operations: what is routed has the types that the list of operations says.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};
use axum::{Json, Router};
use pyro_client::operations::{Method, Operation, PathParameters, Streaming};
use pyro_engine::Engine;

use crate::body;
use crate::context::Context;
use crate::refusal::{Cause, Refusal};
use crate::stream::{self, Source};

type EngineResult<T> = pyro_engine::Result<T>;

/// The routes so far.
#[derive(Debug, Default)]
pub(crate) struct Api {
    router: Router<Arc<Context>>,
}

impl Api {
    /// Routes an operation.
    pub(crate) fn route<O, F, R>(self, handler: F) -> Self
    where
        O: Operation,
        F: Fn(Arc<Engine>, O::Path, O::Input) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = EngineResult<O::Output>> + Send,
    {
        self.on::<O, _, _>(move |context: Arc<Context>, request| {
            let handler = handler.clone();
            async move {
                let (path, input, _) = parse::<O>(&context, request).await?;
                let output = handler(Arc::clone(&context.engine), path, input).await?;
                Ok(Json(output).into_response())
            }
        })
    }

    /// Routes an operation that can stream.
    pub(crate) fn stream<O, F, R, S>(self, handler: F) -> Self
    where
        O: Streaming,
        F: Fn(Arc<Engine>, O::Path, O::Input) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = EngineResult<S>> + Send,
        S: Source<O>,
    {
        self.on::<O, _, _>(move |context: Arc<Context>, request| {
            let handler = handler.clone();
            async move {
                let (path, input, events) = parse::<O>(&context, request).await?;
                let source = handler(Arc::clone(&context.engine), path, input).await?;
                if events {
                    return Ok(stream::response::<O, S>(&context, source));
                }
                let output = stream::result::<O, S>(&context, source).await?;
                Ok(Json(output).into_response())
            }
        })
    }

    fn on<O, F, R>(mut self, handler: F) -> Self
    where
        O: Operation,
        F: Fn(Arc<Context>, Request) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Result<Response, Refusal>> + Send,
    {
        let filter = match O::INFO.method {
            Method::Get => MethodFilter::GET,
            Method::Post => MethodFilter::POST,
            Method::Put => MethodFilter::PUT,
            Method::Patch => MethodFilter::PATCH,
            Method::Delete => MethodFilter::DELETE,
        };
        let handler = move |State(context): State<Arc<Context>>, request: Request| {
            let answer = handler(context, request);
            async move { answer.await.unwrap_or_else(Refusal::into_response) }
        };
        self.router = self.router.route(O::INFO.path, on(filter, handler));
        self
    }

    pub(crate) fn into_router(self) -> Router<Arc<Context>> {
        self.router
    }
}

/// What a request says, and whether it asks for events.
async fn parse<O: Operation>(
    context: &Context,
    request: Request<Body>,
) -> Result<(O::Path, O::Input, bool), Refusal> {
    let (mut parts, body) = request.into_parts();
    let path = if O::Path::NAMES.is_empty() {
        // axum has no parameters to offer where a path has none.
        serde_json::from_str("{}").map_err(|error| Cause::PathParameter(error.to_string()))?
    } else {
        let Path(path) = Path::<O::Path>::from_request_parts(&mut parts, &())
            .await
            .map_err(|error| Cause::PathParameter(error.body_text()))?;
        path
    };
    let input = match O::INFO.method {
        Method::Get | Method::Delete => body::query(parts.uri.query())?,
        Method::Post | Method::Put | Method::Patch => {
            // What a query string says would be ignored otherwise.
            if let Some(query) = parts.uri.query().filter(|query| !query.is_empty()) {
                return Err(Cause::Query(format!("{query:?} belongs into the body")).into());
            }
            body::json(context, body, O::INFO.body_limit).await?
        }
    };
    Ok((path, input, stream::wanted(&parts.headers)))
}
