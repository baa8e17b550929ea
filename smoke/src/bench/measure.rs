//! The measurements, inside the host.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::{BIN, ENVIRONMENT, GUEST_MIB, IMAGES, PROGRAMS, idle, network, records, workspace};

/// Boots that are counted, after one that warms caches up.
const RUNS: usize = 3;

/// One cold boot that runs `true`, with a daemon that runs already, in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
struct Boot {
    /// From the start of `pyro` to the agent's greeting: the whole process less what came after
    /// the greeting.
    process_to_ready_ms: f64,
    /// From the start of `pyro` until it is gone.
    process_to_exit_ms: f64,
    /// From the start of the monitor to the agent's greeting.
    monitor_to_ready_ms: f64,
    /// From the greeting until command and VM are gone.
    ready_to_gone_ms: f64,
}

/// A program's size.
#[derive(Debug, Serialize)]
struct Size {
    program: &'static str,
    bytes: u64,
}

/// Everything that is measured.
#[derive(Debug, Serialize)]
struct Report {
    environment: &'static str,
    guest_mib: u64,
    boots: Vec<Boot>,
    idle: idle::Idle,
    exec: Vec<workspace::RoundTrip>,
    network: network::Network,
    records: Vec<records::Asked>,
    sizes: Vec<Size>,
}

/// Measures, and prints a table or a JSON document.
///
/// # Errors
/// When a guest does not run as it should.
pub fn run(json: bool) -> Result<()> {
    // Where the store remembers what it has verified; a pull would have made it.
    fs::create_dir_all(Path::new(IMAGES).join("stamps/sha256"))?;
    boot()?;
    let boots = (0..RUNS).map(|_| boot()).collect::<Result<_>>()?;
    let size = |program| {
        let bytes = fs::metadata(Path::new(BIN).join(program))?.len();
        Ok(Size { program, bytes })
    };
    let report = Report {
        environment: ENVIRONMENT,
        guest_mib: GUEST_MIB,
        boots,
        idle: idle::measure(&mut pyro(&["sleep", "3"]))?,
        exec: workspace::measure()?,
        network: network::measure()?,
        records: records::measure()?,
        sizes: PROGRAMS.into_iter().map(size).collect::<Result<_>>()?,
    };
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", table(&report));
    }
    Ok(())
}

/// `pyro run` of a command in the environment.
fn pyro(command: &[&str]) -> Command {
    let mut pyro = Command::new(Path::new(BIN).join("pyro"));
    pyro.args(["run", ENVIRONMENT, "--json", "--mem-mib"])
        .arg(GUEST_MIB.to_string())
        .arg("--")
        .args(command)
        .stdin(Stdio::null());
    pyro
}

/// What of `pyro run --json` is used here.
#[derive(Deserialize)]
struct Document {
    boot_ms: f64,
    total_ms: f64,
}

fn boot() -> Result<Boot> {
    let started = Instant::now();
    let output = pyro(&["true"]).stderr(Stdio::inherit()).output()?;
    let process = started.elapsed().as_secs_f64() * 1000.0;
    ensure!(
        output.status.success(),
        "pyro run failed: {}",
        output.status
    );
    let document: Document =
        serde_json::from_slice(&output.stdout).context("pyro run printed no document")?;
    Ok(split(process, &document))
}

fn split(process: f64, document: &Document) -> Boot {
    let after = document.total_ms - document.boot_ms;
    Boot {
        process_to_ready_ms: process - after,
        process_to_exit_ms: process,
        monitor_to_ready_ms: document.boot_ms,
        ready_to_gone_ms: after,
    }
}

fn table(report: &Report) -> String {
    let mut rows = Vec::new();
    let mut boots = |what: &str, value: fn(&Boot) -> f64| {
        let values: Vec<_> = report
            .boots
            .iter()
            .map(|boot| format!("{:.1}", value(boot)))
            .collect();
        rows.push((what.to_owned(), values.join("  "), "ms"));
    };
    boots("process start to agent ready", |b| b.process_to_ready_ms);
    boots("process start to exit", |b| b.process_to_exit_ms);
    boots("monitor start to agent ready", |b| b.monitor_to_ready_ms);
    boots("agent ready to VM gone", |b| b.ready_to_gone_ms);
    let idle = &report.idle;
    rows.push((
        "monitor's private memory".into(),
        idle.private_kib.to_string(),
        "KiB",
    ));
    rows.push((
        "guest's memory in use".into(),
        idle.guest_kib.to_string(),
        "KiB",
    ));
    for (what, count) in &idle.exits {
        rows.push((format!("{what} until idle"), count.to_string(), ""));
    }
    let mut trips = |what: &str, value: fn(&workspace::RoundTrip) -> f64| {
        let values: Vec<_> = report
            .exec
            .iter()
            .map(|trip| format!("{:.2}", value(trip)))
            .collect();
        rows.push((what.to_owned(), values.join("  "), "ms"));
    };
    trips("exec of true, from the client", |trip| trip.client_ms);
    trips("exec of true, in the guest", |trip| trip.guest_ms);
    for (what, figures) in [
        ("into a published port", &report.network.published),
        ("out through pyro-net", &report.network.egress),
    ] {
        let latencies = [figures.connection_ms, figures.round_trip_ms];
        let rates = [figures.up_ms, figures.down_ms].map(network::rate);
        let pair = |[first, second]: [f64; 2]| format!("{first:.2}  {second:.2}");
        rows.push((format!("{what}: connect; trip"), pair(latencies), "ms"));
        rows.push((format!("{what}: up; down"), pair(rates), "MiB/s"));
    }
    let mut asked = |what: &str, value: fn(&records::Asked) -> f64| {
        let values = report.records.iter();
        let values: Vec<_> = values.map(|asked| format!("{:.2}", value(asked))).collect();
        rows.push((what.to_owned(), values.join("  "), "ms"));
    };
    asked("list of 1,000, from the client", |asked| asked.list_ms);
    asked("status among 1,000", |asked| asked.status_ms);
    for size in &report.sizes {
        rows.push((size.program.into(), (size.bytes >> 10).to_string(), "KiB"));
    }
    let mut text = format!(
        "{} with {} MiB, virtual time\n",
        report.environment, report.guest_mib
    );
    for (what, value, unit) in rows {
        text.push_str(&format!("  {what:<32} {value:>32} {unit}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_after_the_greeting_does_not_count_as_boot() {
        let document = Document {
            boot_ms: 400.0,
            total_ms: 450.0,
        };
        let boot = split(470.0, &document);
        assert_eq!(boot.process_to_ready_ms, 420.0);
        assert_eq!(boot.ready_to_gone_ms, 50.0);
    }
}
