//! `pyro doctor`.

use pyro_engine::doctor::{Report, Status, examine};
use pyro_engine::paths::Paths;

use crate::args::Doctor;
use crate::output::{Colour, Failure, Paint, print, print_json, status};

pub(crate) async fn doctor(args: &Doctor, paths: &Paths) -> Result<u8, Failure> {
    let report = examine(paths, args.environment.as_deref()).await?;
    if args.json.json {
        print_json(&report)?;
    } else {
        print(&text(&report, Paint::stdout()))?;
    }
    Ok(if report.status == Status::Fail {
        status::FAILED
    } else {
        0
    })
}

fn text(report: &Report, paint: Paint) -> String {
    let mut text = String::new();
    for check in &report.checks {
        let verdict = match check.status {
            Status::Pass => paint.bold(Colour::Green, "PASS"),
            Status::Warn => paint.bold(Colour::Yellow, "WARN"),
            Status::Fail => paint.bold(Colour::Red, "FAIL"),
        };
        text.push_str(&format!("{verdict}  {:<12} {}\n", check.id, check.summary));
        if let Some(remedy) = &check.remedy {
            text.push_str(&format!("{:>18} {} {remedy}\n", "", paint.dim("fix:")));
        }
    }
    let count = |status| {
        report
            .checks
            .iter()
            .filter(|check| check.status == status)
            .count()
    };
    let end = match report.status {
        Status::Pass => {
            "This machine is ready: try `pyro run debian:12 -- git --version`.".to_string()
        }
        Status::Warn => format!("Guests can run; {} warning(s).", count(Status::Warn)),
        Status::Fail => format!(
            "Guests cannot run here yet: {} check(s) failed.",
            count(Status::Fail)
        ),
    };
    text.push_str(&format!("\n{end}\n"));
    text
}
