//! Work that is undone when nobody waits for its result any more.
//!
//! The daemon ends what it was asked for, whatever becomes of who asked. So a request that makes
//! something is not part of its call: when the call is dropped, the request is waited for and what it
//! made is taken away again.

use std::time::Duration;

use pyro_client::ClientError;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use crate::Error;

/// Longest that a request is waited for which nobody wants any more.
const LONGEST: Duration = Duration::from_secs(15 * 60);
/// What is refused is refused at once: a request that has no answer by then has been accepted.
pub(crate) const ACCEPTED_WITHIN: Duration = Duration::from_secs(1);

/// A request, and how what it makes is taken away.
#[derive(Debug)]
pub(crate) struct Undo<T, U, F>
where
    T: Send + 'static,
    U: FnOnce(Option<T>) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    tasks: TaskTracker,
    request: Option<JoinHandle<Result<T, ClientError>>>,
    made: Option<T>,
    undo: Option<U>,
    patience: Duration,
}

impl<T, U, F> Undo<T, U, F>
where
    T: Clone + Send + 'static,
    U: FnOnce(Option<T>) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    /// Begins a request. `undo` is called when this is dropped and not kept, with what was made.
    pub(crate) fn begin(
        tasks: &TaskTracker,
        request: impl Future<Output = Result<T, ClientError>> + Send + 'static,
        undo: U,
    ) -> Self {
        Self {
            request: Some(tasks.spawn(request)),
            tasks: tasks.clone(),
            made: None,
            undo: Some(undo),
            patience: LONGEST,
        }
    }

    /// When the request has no answer for so long after the drop, it is given up and `undo` is called
    /// with `None`: it knows what is being made without it.
    pub(crate) fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Waits for the answer. Cancel safe.
    pub(crate) async fn made(&mut self) -> Result<T, Error> {
        if let Some(request) = self.request.as_mut() {
            let answer = request.await;
            self.request = None;
            let broke_off = |error| {
                Error::new(
                    "adapter_failed",
                    format!("the request broke off: {error}"),
                    "call it again, and report it if it happens again",
                )
            };
            match answer.map_err(broke_off)? {
                Ok(made) => self.made = Some(made),
                Err(error) => {
                    self.undo = None;
                    return Err(error.into());
                }
            }
        }
        self.made
            .clone()
            .ok_or_else(|| Error::new("adapter_failed", "the request has failed", "call it again"))
    }

    /// Leaves what was made as it is.
    pub(crate) fn keep(mut self) {
        self.undo = None;
    }

    /// What was made, to stay.
    pub(crate) async fn kept(mut self) -> Result<T, Error> {
        let made = self.made().await?;
        self.keep();
        Ok(made)
    }
}

impl<T, U, F> Drop for Undo<T, U, F>
where
    T: Send + 'static,
    U: FnOnce(Option<T>) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    fn drop(&mut self) {
        let Some(undo) = self.undo.take() else {
            return;
        };
        let (request, made, patience) = (self.request.take(), self.made.take(), self.patience);
        self.tasks.spawn(async move {
            let made = match request {
                None => made,
                Some(mut request) => match tokio::time::timeout(patience, &mut request).await {
                    Ok(Ok(Ok(made))) => Some(made),
                    // It was refused: there is nothing.
                    Ok(_) => return,
                    Err(_) => {
                        request.abort();
                        None
                    }
                },
            };
            undo(made).await;
        });
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn what_nobody_waits_for_is_undone_also_before_it_is_there() {
        let tasks = TaskTracker::new();
        let (answer, answered) = oneshot::channel();
        let (undone, seen) = oneshot::channel();
        let request = async move { Ok(answered.await.unwrap()) };
        drop(Undo::begin(&tasks, request, |made| async move {
            undone.send(made).unwrap();
        }));
        answer.send(7).unwrap();
        assert_eq!(seen.await, Ok(Some(7)));

        let (undone, seen) = oneshot::channel();
        let undo = |made: Option<u8>| async move { undone.send(made).unwrap() };
        let never = Undo::begin(&tasks, std::future::pending(), undo);
        drop(never.patience(Duration::from_millis(1)));
        assert_eq!(seen.await, Ok(None));
    }

    #[tokio::test]
    async fn what_is_kept_and_what_was_refused_is_not_undone() {
        let tasks = TaskTracker::new();
        let never = |_: Option<u8>| async { panic!("nothing is to be undone") };
        let kept = Undo::begin(&tasks, async { Ok(7) }, never).kept().await;
        assert_eq!(kept.unwrap(), 7);
        let refused = || async { Err(ClientError::Broken { source: None }) };
        assert!(Undo::begin(&tasks, refused(), never).kept().await.is_err());
        drop(Undo::begin(&tasks, refused(), never));
        tasks.close();
        tasks.wait().await;
    }
}
