//! Reading requests: within a size, within a time, and only so many large ones at once.

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use pyro_client::operations::BODY_LIMIT;
use serde::de::DeserializeOwned;

use crate::context::Context;
use crate::refusal::{Cause, Refusal};

/// The request in a JSON body. No body at all counts as `{}`.
pub(crate) async fn json<T: DeserializeOwned>(
    context: &Context,
    body: Body,
    limit: usize,
) -> Result<T, Refusal> {
    let hint = body.size_hint();
    if hint.lower() > limit as u64 {
        return Err(Cause::BodyTooLarge(limit).into());
    }
    // A body that does not say how long it is may be as long as allowed.
    let large = hint.upper().unwrap_or(u64::MAX).min(limit as u64) > BODY_LIMIT as u64;
    let _place = if large {
        context.large_bodies.acquire().await.ok()
    } else {
        None
    };
    let body = tokio::time::timeout(context.limits.body, collect(body, limit))
        .await
        .map_err(|_| Refusal::from(Cause::BodyTimeout))??;
    parse(&body)
}

/// The request in these bytes.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    let text: &[u8] = if body.is_empty() { b"{}" } else { body };
    Ok(serde_json::from_slice(text).map_err(|error| Cause::Json(error.to_string()))?)
}

async fn collect(body: Body, limit: usize) -> Result<Bytes, Refusal> {
    match Limited::new(body, limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Cause::BodyTooLarge(limit).into()),
        Err(error) => Err(Cause::BodyBroken(error.to_string()).into()),
    }
}

/// The request in a query string.
pub(crate) fn query<T: DeserializeOwned>(query: Option<&str>) -> Result<T, Refusal> {
    Ok(serde_urlencoded::from_str(query.unwrap_or_default())
        .map_err(|error| Cause::Query(error.to_string()))?)
}
