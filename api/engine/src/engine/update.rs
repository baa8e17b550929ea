//! Changing a workspace's metadata.

use std::sync::Arc;

use pyro_client::types::{UpdateWorkspace, Workspace};

use super::{Engine, to_the_end};
use crate::error::{Code, Error, Result};
use crate::records::names;

impl Engine {
    /// Changes name and labels.
    ///
    /// # Errors
    /// [`Code::InvalidName`], [`Code::InvalidLabel`], [`Code::InvalidRequest`]; nothing is changed
    /// then.
    pub async fn update(
        self: &Arc<Self>,
        workspace: &str,
        change: UpdateWorkspace,
    ) -> Result<Workspace> {
        check(&change)?;
        let slot = self.find(workspace)?;
        let engine = Arc::clone(self);
        to_the_end(async move {
            let operation = engine.begin(&slot)?;
            slot.commit(&engine.state, |record| {
                let mut labels = record.labels.clone();
                for key in &change.clear_labels {
                    labels.remove(key);
                }
                labels.extend(change.labels.clone());
                names::check_label_count(&labels)?;
                record.labels = labels;
                if change.clear_name {
                    record.name = None;
                }
                if let Some(name) = &change.name {
                    record.name = Some(name.clone());
                }
                Ok(())
            })
            .await?;
            operation.changed();
            Ok(slot.view())
        })
        .await
    }
}

fn check(change: &UpdateWorkspace) -> Result<()> {
    if let Some(name) = &change.name {
        if change.clear_name {
            return Err(contradiction("a name cannot be set and cleared at once"));
        }
        names::check_name(name)?;
    }
    names::check_labels(&change.labels)?;
    for key in &change.clear_labels {
        names::check_label_key(key)?;
        if change.labels.contains_key(key) {
            return Err(contradiction("a label cannot be set and cleared at once"));
        }
    }
    let nothing = change.name.is_none()
        && !change.clear_name
        && change.labels.is_empty()
        && change.clear_labels.is_empty();
    if nothing {
        return Err(Error::new(
            Code::InvalidRequest,
            "there is nothing to change",
            "pass a name or a label, or one to clear",
        ));
    }
    Ok(())
}

fn contradiction(problem: &str) -> Error {
    Error::new(Code::InvalidRequest, problem, "pass one of the two")
}
