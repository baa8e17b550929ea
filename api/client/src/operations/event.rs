//! Events of a streamed operation.

use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};

use crate::types::{ApiError, ExecEvent, RunEvent, ShellEvent};

/// A line of a stream.
pub trait Event: Serialize + DeserializeOwned + JsonSchema + Send + 'static {
    /// Whether none follows.
    fn is_last(&self) -> bool;
    /// The last event when the product failed.
    fn failed(error: ApiError) -> Self;
}

impl Event for ExecEvent {
    fn is_last(&self) -> bool {
        matches!(self, Self::Ended { .. } | Self::Failed { .. })
    }

    fn failed(error: ApiError) -> Self {
        Self::Failed { error }
    }
}

impl Event for RunEvent {
    fn is_last(&self) -> bool {
        matches!(self, Self::Ended { .. } | Self::Failed { .. })
    }

    fn failed(error: ApiError) -> Self {
        Self::Failed { error }
    }
}

impl Event for ShellEvent {
    fn is_last(&self) -> bool {
        matches!(self, Self::Closed { .. } | Self::Failed { .. })
    }

    fn failed(error: ApiError) -> Self {
        Self::Failed { error }
    }
}
