//! Taking connections until the end, and the end.

use std::sync::Arc;

use axum::Router;
use pyro_engine::Engine;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::context::{Context, Limits};
use crate::idle::Busy;
use crate::listener::Listener;
use crate::{connection, routes};

/// Answers requests with `engine` until `shutdown` is ready. Then nobody finds the socket any more,
/// requests that are under way are answered (streams that go on longer than [`Limits::drain`] get a
/// last event that says why), and it returns.
pub async fn serve(
    engine: Arc<Engine>,
    listener: Listener,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) {
    serve_busy(engine, listener, limits, Busy::new(), shutdown).await;
}

/// The same; `busy` counts the requests.
pub(crate) async fn serve_busy(
    engine: Arc<Engine>,
    listener: Listener,
    limits: Limits,
    busy: Arc<Busy>,
    shutdown: impl Future<Output = ()>,
) {
    let context = Context::new(engine, limits, busy);
    let router = routes::router(Arc::clone(&context));
    serve_router(context, router, listener, shutdown).await;
}

/// The same for any routes.
pub(crate) async fn serve_router(
    context: Arc<Context>,
    router: Router,
    listener: Listener,
    shutdown: impl Future<Output = ()>,
) {
    let ending = watch::Sender::new(false);
    let places = Arc::new(Semaphore::new(context.limits.connections));
    let mut connections = JoinSet::new();
    let begin = |connections: &mut JoinSet<()>, stream, place| {
        let router = router.clone();
        let limits = context.limits.clone();
        let ending = ending.subscribe();
        connections.spawn(async move {
            connection::serve(stream, router, limits, ending).await;
            drop(place);
        });
    };

    tokio::pin!(shutdown);
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (listener.accept().await, place)
        };
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    warn!(%error, "a connection's task failed");
                }
            }
            (stream, place) = next => begin(&mut connections, stream, place),
        }
    }

    // Who connected before the end is served.
    for stream in listener.close() {
        match Arc::clone(&places).try_acquire_owned() {
            Ok(place) => begin(&mut connections, stream, Ok(place)),
            Err(_) => break,
        }
    }
    ending.send_replace(true);
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(context.limits.drain, all)
        .await
        .is_err()
    {
        info!("ending requests that take too long");
        context.ending.send_replace(true);
        // Time to send the last events to those who read.
        let all = async { while connections.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(std::time::Duration::from_secs(1), all).await;
    }
    connections.shutdown().await;
}
