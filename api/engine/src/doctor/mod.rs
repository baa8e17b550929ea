//! What is wrong with this host, and what to do about it.
//!
//! Each [`Check`] is a sentence with a verdict; everything but a pass has a remedy. Checks look and
//! try, they never repair, and what they make is gone when they return. What cannot be found out counts as a
//! warning, never as a pass.

mod environments;
mod host;
mod kvm;

use serde::Serialize;

use crate::paths::Paths;

/// The verdict of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// Fine.
    Pass,
    /// Works, but something will not, or not well.
    Warn,
    /// Guests cannot run until this is repaired.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// A stable name.
    pub id: &'static str,
    /// The verdict.
    pub status: Status,
    /// What was found, one sentence.
    pub summary: String,
    /// What to do; always there unless the check passed.
    pub remedy: Option<String>,
}

impl Check {
    fn pass(id: &'static str, summary: impl Into<String>) -> Self {
        Self {
            id,
            status: Status::Pass,
            summary: summary.into(),
            remedy: None,
        }
    }

    fn warn(id: &'static str, summary: impl Into<String>, remedy: impl Into<String>) -> Self {
        let (summary, remedy) = (summary.into(), Some(remedy.into()));
        Self {
            id,
            status: Status::Warn,
            summary,
            remedy,
        }
    }

    fn fail(id: &'static str, summary: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            status: Status::Fail,
            ..Self::warn(id, summary, remedy)
        }
    }

    fn failed(id: &'static str, error: &crate::Error) -> Self {
        Self::fail(id, error.sentence(), error.remedy())
    }
}

/// All checks of one visit, in the order in which a person should read them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The worst verdict.
    pub status: Status,
    /// The product's version.
    pub version: &'static str,
    /// The checks.
    pub checks: Vec<Check>,
}

impl Report {
    fn of(checks: Vec<Check>) -> Self {
        let status = checks
            .iter()
            .map(|check| check.status)
            .max()
            .unwrap_or(Status::Pass);
        Self {
            status,
            version: env!("CARGO_PKG_VERSION"),
            checks,
        }
    }
}

/// Looks at this host; with `environment`, says of that one whether it is cold, warm or stale.
///
/// An unknown environment is an error, not a check.
pub async fn examine(paths: &Paths, environment: Option<&str>) -> crate::Result<Report> {
    let environment = environments::check(paths, environment)?;
    let mut checks = vec![host::platform()];
    checks.extend(kvm::checks(paths).await);
    checks.push(host::helper("monitor", &paths.monitor));
    checks.push(host::helper("agent", &paths.agent));
    checks.push(host::state_folder(paths));
    checks.push(environments::store_folder(paths));
    checks.push(environment);
    checks.push(host::pull());
    checks.push(host::disk(paths));
    checks.push(host::memory());
    checks.push(host::network(paths));
    Ok(Report::of(checks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_check_decides() {
        let report = Report::of(vec![
            Check::pass("a", ""),
            Check::fail("b", "", "repair it"),
            Check::warn("c", "", "look at it"),
        ]);
        assert_eq!(report.status, Status::Fail);
        assert_eq!(Report::of(Vec::new()).status, Status::Pass);
    }

    #[test]
    fn a_check_is_plain_in_json() {
        let json = serde_json::to_value(Check::warn("disk", "full", "tidy up")).expect("JSON");
        let expected = serde_json::json!(
            {"id": "disk", "status": "WARN", "summary": "full", "remedy": "tidy up"}
        );
        assert_eq!(json, expected);
    }
}
