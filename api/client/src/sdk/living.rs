//! Methods for what runs in a workspace: services and shells.

use super::stream::EventStream;
use super::{Client, Result};
use crate::operations::{self as op, InService, InShell, InWorkspace, Nothing};
use crate::types::{
    ClosedShell, FollowShell, OpenShell, ReadServiceLogs, ReadShell, ResizeShell, Service,
    ServiceList, ServiceLogs, Shell, ShellEvent, ShellList, ShellOutput, ShellSignal, ShellWritten,
    SignalShell, StartService, WriteShell,
};

/// A shell's output, event by event. Dropping it leaves the shell as it is.
pub type ShellStream = EventStream<ShellEvent>;

fn within(workspace: &str) -> InWorkspace {
    InWorkspace {
        w: workspace.to_string(),
    }
}

fn service(workspace: &str, name: &str) -> InService {
    InService {
        w: workspace.to_string(),
        name: name.to_string(),
    }
}

fn shell(workspace: &str, shell: &str) -> InShell {
    InShell {
        w: workspace.to_string(),
        shell: shell.to_string(),
    }
}

impl Client {
    /// A workspace's services.
    pub async fn service_list(&self, workspace: &str) -> Result<ServiceList> {
        self.pool
            .call::<op::ServiceList>(within(workspace), &Nothing {})
            .await
    }

    /// Starts a service, and waits until it is ready. Going away does not stop it.
    ///
    /// ```no_run
    /// # async fn example(client: pyro_client::Client) -> Result<(), pyro_client::ClientError> {
    /// use pyro_client::types::{Readiness, StartService};
    ///
    /// let service = client
    ///     .service_start(
    ///         "box",
    ///         &StartService {
    ///             readiness: Some(Readiness::Http {
    ///                 url: "http://localhost:8000/".into(),
    ///             }),
    ///             ..StartService::new("web", ["python3", "-m", "http.server"])
    ///         },
    ///     )
    ///     .await?;
    /// assert!(service.ready);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn service_start(&self, workspace: &str, request: &StartService) -> Result<Service> {
        self.pool
            .call::<op::ServiceStart>(within(workspace), request)
            .await
    }

    /// A service's record.
    pub async fn service_status(&self, workspace: &str, name: &str) -> Result<Service> {
        self.pool
            .call::<op::ServiceStatus>(service(workspace, name), &Nothing {})
            .await
    }

    /// The end of a service's log.
    pub async fn service_logs(
        &self,
        workspace: &str,
        name: &str,
        request: &ReadServiceLogs,
    ) -> Result<ServiceLogs> {
        self.pool
            .call::<op::ServiceLogs>(service(workspace, name), request)
            .await
    }

    /// Ends a service. One that has ended already is left as it is.
    pub async fn service_stop(&self, workspace: &str, name: &str) -> Result<Service> {
        self.pool
            .call::<op::ServiceStop>(service(workspace, name), &Nothing {})
            .await
    }

    /// A workspace's shells.
    pub async fn shell_list(&self, workspace: &str) -> Result<ShellList> {
        self.pool
            .call::<op::ShellList>(within(workspace), &Nothing {})
            .await
    }

    /// Opens a shell.
    ///
    /// ```no_run
    /// # async fn example(client: pyro_client::Client) -> Result<(), pyro_client::ClientError> {
    /// use pyro_client::types::{OpenShell, ReadShell, WriteShell};
    ///
    /// let shell = client.shell_open("box", &OpenShell::default()).await?;
    /// client
    ///     .shell_write("box", &shell.shell_id, &WriteShell::line("ls -la"))
    ///     .await?;
    /// let read = ReadShell {
    ///     plain: true,
    ///     wait_for_idle_ms: 300,
    ///     ..ReadShell::default()
    /// };
    /// println!("{}", client.shell_read("box", &shell.shell_id, &read).await?.output);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn shell_open(&self, workspace: &str, request: &OpenShell) -> Result<Shell> {
        self.pool
            .call::<op::ShellOpen>(within(workspace), request)
            .await
    }

    /// What a shell wrote.
    pub async fn shell_read(
        &self,
        workspace: &str,
        id: &str,
        request: &ReadShell,
    ) -> Result<ShellOutput> {
        self.pool
            .call::<op::ShellRead>(shell(workspace, id), request)
            .await
    }

    /// Waits for the end of a shell's program.
    pub async fn shell_wait(&self, workspace: &str, id: &str) -> Result<Shell> {
        self.pool
            .call::<op::ShellFollow>(shell(workspace, id), &FollowShell::default())
            .await
    }

    /// What a shell writes, as it comes.
    pub async fn shell_follow(
        &self,
        workspace: &str,
        id: &str,
        request: &FollowShell,
    ) -> Result<ShellStream> {
        self.pool
            .stream::<op::ShellFollow>(shell(workspace, id), request)
            .await
    }

    /// Types into a shell.
    pub async fn shell_write(
        &self,
        workspace: &str,
        id: &str,
        request: &WriteShell,
    ) -> Result<ShellWritten> {
        self.pool
            .call::<op::ShellWrite>(shell(workspace, id), request)
            .await
    }

    /// Sends a signal to what runs in the foreground of a shell.
    pub async fn shell_signal(
        &self,
        workspace: &str,
        id: &str,
        signal: ShellSignal,
    ) -> Result<Shell> {
        self.pool
            .call::<op::ShellSignal>(shell(workspace, id), &SignalShell { signal })
            .await
    }

    /// Gives a shell's terminal another size.
    pub async fn shell_resize(
        &self,
        workspace: &str,
        id: &str,
        request: &ResizeShell,
    ) -> Result<Shell> {
        self.pool
            .call::<op::ShellResize>(shell(workspace, id), request)
            .await
    }

    /// Ends a shell with all that runs in it.
    pub async fn shell_close(&self, workspace: &str, id: &str) -> Result<ClosedShell> {
        self.pool
            .call::<op::ShellClose>(shell(workspace, id), &Nothing {})
            .await
    }
}
