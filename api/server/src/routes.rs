//! What is answered at which path.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router, middleware};
use hyper::{Method, Uri, header};
use pyro_client::operations as op;

use crate::api::Api;
use crate::context::Context;
use crate::refusal::{Cause, Refusal};
use crate::{observe, openapi};

/// Longest that a record is waited for.
const MAX_WAIT: Duration = Duration::from_secs(3600);

/// Everything, without the daemon's state.
pub(crate) fn router(context: Arc<Context>) -> Router {
    with(operations(), context)
}

/// The given operations and what is no operation.
pub(crate) fn with(api: Api, context: Arc<Context>) -> Router {
    api.into_router()
        .route("/v1/openapi.json", get(document))
        .route("/metrics", get(metrics))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(
            Arc::clone(&context),
            observe::observe,
        ))
        .with_state(context)
}

#[rustfmt::skip]
fn operations() -> Api {
    Api::default()
        .route::<op::Health, _, _>(async |e, _, _| Ok(e.health()))
        .stream_with_input::<op::Run, _, _, _>(async |e, _, i, stdin| e.run_with_input(i, stdin).await)
        .route::<op::EnvironmentList, _, _>(async |e, _, _| e.environments().await)
        .route::<op::WorkspaceReap, _, _>(async |e, _, _| Ok(e.reap().await))
        .rendered::<op::WorkspaceList, _>(|e, _, _| Ok(e.list_rendered()))
        .route::<op::WorkspaceCreate, _, _>(async |e, _, i| e.create(i).await)
        .route::<op::WorkspaceStatus, _, _>(async |e, p, _| e.get(&p.w))
        .route::<op::WorkspaceUpdate, _, _>(async |e, p, i| e.update(&p.w, i).await)
        .route::<op::WorkspaceDelete, _, _>(async |e, p, _| e.delete(&p.w).await)
        .route::<op::WorkspaceStart, _, _>(async |e, p, _| e.start(&p.w).await)
        .route::<op::WorkspaceStop, _, _>(async |e, p, _| e.stop(&p.w).await)
        .route::<op::WorkspaceReset, _, _>(async |e, p, i| e.reset(&p.w, i).await)
        .route::<op::WorkspaceLogs, _, _>(async |e, p, _| e.logs(&p.w).await)
        .stream::<op::WorkspaceExec, _, _, _>(async |e, p, i| e.exec(&p.w, i).await)
        .route::<op::ExecGet, _, _>(async |e, p, i| {
            let wait = Duration::from_secs(i.wait_seconds).min(MAX_WAIT);
            e.exec_get(&p.w, p.seq, wait).await
        })
        .route::<op::ExecCancel, _, _>(async |e, p, _| e.exec_cancel(&p.w, p.seq).await)
        .route::<op::SyncPush, _, _>(async |e, p, i| e.sync_push(&p.w, i).await)
        .route::<op::Export, _, _>(async |e, p, i| e.export(&p.w, i).await)
        .route::<op::Diff, _, _>(async |e, p, _| e.diff(&p.w).await)
        .route::<op::PatchApply, _, _>(async |e, p, i| e.patch_apply(&p.w, i).await)
        .route::<op::FileList, _, _>(async |e, p, i| e.file_list(&p.w, i).await)
        .route::<op::FileRead, _, _>(async |e, p, i| e.file_read(&p.w, i).await)
        .route::<op::FileWrite, _, _>(async |e, p, i| e.file_write(&p.w, i).await)
        .route::<op::SnapshotList, _, _>(async |e, p, _| e.snapshot_list(&p.w).await)
        .route::<op::SnapshotCreate, _, _>(async |e, p, i| e.snapshot_create(&p.w, i).await)
        .route::<op::SnapshotDelete, _, _>(async |e, p, _| e.snapshot_delete(&p.w, &p.name).await)
        .route::<op::ServiceList, _, _>(async |e, p, _| e.service_list(&p.w))
        .route::<op::ServiceStart, _, _>(async |e, p, i| e.service_start(&p.w, i).await)
        .route::<op::ServiceStatus, _, _>(async |e, p, _| e.service_status(&p.w, &p.name))
        .route::<op::ServiceLogs, _, _>(async |e, p, i| e.service_logs(&p.w, &p.name, i).await)
        .route::<op::ServiceStop, _, _>(async |e, p, _| e.service_stop(&p.w, &p.name).await)
        .route::<op::ShellList, _, _>(async |e, p, _| e.shell_list(&p.w).await)
        .route::<op::ShellOpen, _, _>(async |e, p, i| e.shell_open(&p.w, i).await)
        .route::<op::ShellRead, _, _>(async |e, p, i| e.shell_read(&p.w, &p.shell, i).await)
        .stream::<op::ShellFollow, _, _, _>(async |e, p, i| e.shell_follow(&p.w, &p.shell, i).await)
        .route::<op::ShellWrite, _, _>(async |e, p, i| e.shell_write(&p.w, &p.shell, i).await)
        .route::<op::ShellSignal, _, _>(async |e, p, i| e.shell_signal(&p.w, &p.shell, i).await)
        .route::<op::ShellResize, _, _>(async |e, p, i| e.shell_resize(&p.w, &p.shell, i).await)
        .route::<op::ShellClose, _, _>(async |e, p, _| e.shell_close(&p.w, &p.shell).await)
        .route::<op::DiskExport, _, _>(async |e, p, i| e.disk_export(&p.w, i).await)
        .route::<op::DiskList, _, _>(async |e, p, i| e.disk_list(&p.w, i).await)
        .route::<op::DiskRead, _, _>(async |e, p, i| e.disk_read(&p.w, i).await)
}

async fn document() -> Response {
    Json(openapi::openapi()).into_response()
}

async fn metrics(State(context): State<Arc<Context>>) -> Response {
    let text = context.metrics.render(&context.engine);
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

async fn unknown(uri: Uri) -> Refusal {
    Cause::UnknownRoute(uri.path().chars().take(200).collect()).into()
}

async fn wrong_method(method: Method) -> Refusal {
    Cause::WrongMethod(method.as_str().chars().take(40).collect()).into()
}
