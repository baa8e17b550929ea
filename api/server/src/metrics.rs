//! What a monitoring system may know: counts and times, never a name or a path of anybody's.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use pyro_client::types::WorkspaceState;
use pyro_engine::Engine;

/// A route is one of ours or `unmatched`, so there are only so many.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: String,
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    method: String,
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: StateLabel,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "they are written as they are named")]
enum StateLabel {
    creating,
    starting,
    running,
    stopping,
    stopped,
    failed,
}

const STATES: [(WorkspaceState, StateLabel); 6] = [
    (WorkspaceState::Creating, StateLabel::creating),
    (WorkspaceState::Starting, StateLabel::starting),
    (WorkspaceState::Running, StateLabel::running),
    (WorkspaceState::Stopping, StateLabel::stopping),
    (WorkspaceState::Stopped, StateLabel::stopped),
    (WorkspaceState::Failed, StateLabel::failed),
];

/// All of them.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    durations: Family<RouteLabels, Histogram, fn() -> Histogram>,
    in_flight: Gauge,
    execs: Counter,
    execs_running: Gauge,
    workspaces: Family<StateLabels, Gauge>,
    machines: Gauge,
    uptime: Gauge<f64, AtomicU64>,
    started: std::time::Instant,
}

/// Something that is counted as long as it lives.
#[derive(Debug)]
pub(crate) struct Counted(Gauge);

impl Counted {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// 100 µs to 100 s and more.
fn histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.0001, 4.0, 11))
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("pyro");
        let requests = Family::default();
        let durations = Family::new_with_constructor(histogram as fn() -> Histogram);
        let metrics = Self {
            requests,
            durations,
            in_flight: Gauge::default(),
            execs: Counter::default(),
            execs_running: Gauge::default(),
            workspaces: Family::default(),
            machines: Gauge::default(),
            uptime: Gauge::default(),
            started: std::time::Instant::now(),
            registry: Registry::default(),
        };
        registry.register(
            "http_requests",
            "Requests that were answered",
            metrics.requests.clone(),
        );
        registry.register_with_unit(
            "http_request_duration",
            "Time until the last byte of the answer was taken",
            Unit::Seconds,
            metrics.durations.clone(),
        );
        registry.register(
            "http_requests_in_flight",
            "Requests that are not answered in full",
            metrics.in_flight.clone(),
        );
        registry.register(
            "execs",
            "Commands that were asked for",
            metrics.execs.clone(),
        );
        registry.register(
            "execs_running",
            "Commands that a client waits for",
            metrics.execs_running.clone(),
        );
        registry.register(
            "workspaces",
            "Workspaces by state",
            metrics.workspaces.clone(),
        );
        registry.register(
            "machines_running",
            "Workspaces with a guest",
            metrics.machines.clone(),
        );
        registry.register_with_unit(
            "uptime",
            "Time since the daemon was started",
            Unit::Seconds,
            metrics.uptime.clone(),
        );
        Self {
            registry,
            ..metrics
        }
    }

    /// A request begins.
    pub(crate) fn request(&self) -> Counted {
        Counted::new(&self.in_flight)
    }

    /// A command was asked for, and is waited for.
    pub(crate) fn exec(&self) -> Counted {
        self.execs.inc();
        Counted::new(&self.execs_running)
    }

    /// A request was answered.
    pub(crate) fn answered(&self, method: &str, route: &str, status: u16, duration: Duration) {
        self.requests
            .get_or_create(&RequestLabels {
                method: method.to_string(),
                route: route.to_string(),
                status,
            })
            .inc();
        self.durations
            .get_or_create(&RouteLabels {
                method: method.to_string(),
                route: route.to_string(),
            })
            .observe(duration.as_secs_f64());
    }

    /// All of them as text.
    pub(crate) fn render(&self, engine: &Engine) -> String {
        let workspaces = engine.list().workspaces;
        for (state, label) in STATES {
            let count = workspaces.iter().filter(|w| w.state == state).count();
            self.workspaces
                .get_or_create(&StateLabels { state: label })
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        let running = workspaces
            .iter()
            .filter(|w| {
                matches!(
                    w.state,
                    WorkspaceState::Starting | WorkspaceState::Running | WorkspaceState::Stopping
                )
            })
            .count();
        self.machines
            .set(i64::try_from(running).unwrap_or(i64::MAX));
        self.uptime.set(self.started.elapsed().as_secs_f64());
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a String takes everything");
        text
    }
}
