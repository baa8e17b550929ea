//! `pyro serve`: a daemon's life.
//!
//! Two locks in the state directory say who is what. `daemon.lock` is the engine's, for as long as it
//! lives. `starting.lock` is held while a daemon is on its way between taking that and taking
//! connections, and again from when it stops to be found until it is gone. So whoever gets the second
//! and not the first knows that another daemon takes connections *now*, and nobody has to try again
//! after a while.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pyro_client::socket;
use pyro_client::types::Announcement;
use pyro_engine::paths::Paths;
use pyro_engine::{Code, Engine, Error, Result};
use rustix::fs::{FlockOperation, OFlags, flock};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};

use crate::context::Limits;
use crate::idle::{Busy, idle_for};
use crate::listener::{Listener, private_folder};
use crate::log;
use crate::serve::serve_busy;

/// How long nobody has to want anything until a daemon ends.
pub const DEFAULT_IDLE: Duration = Duration::from_secs(60);

/// What is to be done once connections are taken; gets the socket's path.
pub type Ready = Box<dyn FnOnce(&Path) + Send>;

/// How a daemon is to run.
pub struct Options {
    /// Ends after this time without a request, a running guest or an operation; `None` never.
    pub idle: Option<Duration>,
    /// Started by another command (`pyro serve --on-demand`): makes a session of its own, says on
    /// standard output in one line ([`Announcement`]) what has become of it, and lets go of its
    /// terminal, its standard streams and its working directory.
    pub on_demand: bool,
    /// Called once connections are taken.
    pub ready: Option<Ready>,
    /// What is logged, such as `info,pyro_engine=debug`; `None` for the usual.
    pub log: Option<String>,
    /// What the engine may hold.
    pub engine: pyro_engine::Options,
    /// What clients may do.
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            idle: Some(DEFAULT_IDLE),
            on_demand: false,
            ready: None,
            log: None,
            engine: pyro_engine::Options::default(),
            limits: Limits::default(),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("idle", &self.idle)
            .field("on_demand", &self.on_demand)
            .field("log", &self.log)
            .field("engine", &self.engine)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// Runs a daemon on `paths.state` until it is idle for long enough, or SIGTERM or SIGINT asks it to
/// end. Guests go on running. Blocks; must be called outside any async runtime.
///
/// With `on_demand`, a daemon that finds another one running says so and that is a success.
///
/// # Errors
/// [`Code::StateLocked`] when another daemon runs; [`Code::StateUnwritable`].
pub fn daemon(paths: Paths, mut options: Options) -> Result<()> {
    let on_demand = options.on_demand;
    if on_demand {
        // Fails only when this process leads its group already: then somebody detached it before.
        let _ = rustix::process::setsid();
        let then = options.ready.take();
        options.ready = Some(Box::new(move |path| {
            announce(&Announcement::Ready {
                pid: std::process::id(),
            });
            if let Some(then) = then {
                then(path);
            }
        }));
    }
    let ended = run(paths, options);
    match &ended {
        Err(error) if on_demand && error.code() == Code::StateLocked => {
            announce(&Announcement::AlreadyRunning);
            return Ok(());
        }
        // Nobody listens any more when it was ready before.
        Err(error) if on_demand => announce(&Announcement::Failed {
            error: error.to_api(),
        }),
        _ => {}
    }
    ended
}

/// Says what has become of the daemon, and closes standard output.
fn announce(announcement: &Announcement) {
    let mut line = serde_json::to_vec(announcement).expect("the API's types are JSON");
    line.push(b'\n');
    let mut stdout = io::stdout().lock();
    // Whoever started it may be gone.
    let _ = stdout.write_all(&line).and_then(|()| stdout.flush());
    if let Ok(null) = rustix::fs::open(
        "/dev/null",
        OFlags::RDWR | OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    ) {
        let _ = rustix::stdio::dup2_stdout(&null);
        let _ = rustix::stdio::dup2_stdin(&null);
        let _ = rustix::stdio::dup2_stderr(&null);
    }
    // A daemon keeps no file system busy but its own.
    let _ = std::env::set_current_dir("/");
}

fn run(paths: Paths, options: Options) -> Result<()> {
    let cannot = |what: &'static str| {
        move |source: io::Error| {
            Error::new(
                Code::StateUnwritable,
                format!("the daemon cannot {what}"),
                "check the state directory and the limits of this user (`ulimit -a`)",
            )
            .caused_by(source)
        }
    };
    // Relative paths would mean something else once the working directory is left.
    let mut paths = paths;
    paths.state = std::path::absolute(&paths.state).map_err(cannot("find its state directory"))?;
    paths.images = std::path::absolute(&paths.images).map_err(cannot("find its images"))?;
    let state = paths.state.clone();
    private_folder(&state)?;
    let starting = Starting::lock(&state).map_err(cannot("lock its state directory"))?;
    log::init(&state.join("daemon.log"), options.log.as_deref())
        .map_err(cannot("write its log"))?;
    log_panics();
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("pyro-serve")
        .build()
        .map_err(cannot("start its threads"))?;
    runtime.block_on(async move {
        let engine = Engine::open(paths, options.engine).await?;
        let listener = Listener::bind(&state.join(socket::FILE_NAME))?;
        let mut terminate = signal(SignalKind::terminate()).map_err(cannot("take signals"))?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot("take signals"))?;
        drop(starting);
        info!(version = env!("CARGO_PKG_VERSION"), socket = %listener.path().display(), "ready");
        if let Some(ready) = options.ready {
            ready(listener.path());
        }

        let busy = Busy::new();
        let maintenance = tokio::spawn(Arc::clone(&engine).maintain());
        let mut ending = None;
        let shutdown = async {
            let idle = async {
                match options.idle {
                    Some(limit) => idle_for(&busy, engine.idle(), limit).await,
                    None => std::future::pending().await,
                }
            };
            let why = tokio::select! {
                () = idle => "idle",
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            info!(why, "ending");
            // Held until this process is gone, so that the next daemon waits for that.
            let lock = tokio::task::spawn_blocking(move || Starting::lock(&state)).await;
            ending = lock.ok().and_then(io::Result::ok);
        };
        serve_busy(
            Arc::clone(&engine),
            listener,
            options.limits,
            Arc::clone(&busy),
            shutdown,
        )
        .await;
        maintenance.abort();
        info!("ended");
        Ok(ending)
    })
    .map(|ending| {
        // What the engine was doing ends with the runtime, and with it the engine's lock.
        runtime.shutdown_timeout(Duration::from_secs(5));
        drop(ending);
    })
}

/// The lock of a daemon that is not, or not any more, to be found.
#[derive(Debug)]
struct Starting {
    _file: File,
}

impl Starting {
    /// Waits for it.
    fn lock(state: &Path) -> io::Result<Self> {
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(state.join("starting.lock"))?;
        loop {
            match flock(&file, FlockOperation::LockExclusive) {
                Err(rustix::io::Errno::INTR) => {}
                locked => break locked?,
            }
        }
        Ok(Self { _file: file })
    }
}

/// Every connection and every guest needs some descriptors; the soft limit is often 1024.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}

/// A panic ends in the log, too: a daemon's standard error goes nowhere.
fn log_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map(ToString::to_string);
        error!(message = %panic, place, "panicked");
        before(panic);
    }));
}
