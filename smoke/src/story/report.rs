//! How stories go, line by line: whole lines, since several may be played at a time.

use std::time::Duration;

use super::step::Step;

/// Prints to standard output.
#[derive(Debug, Clone, Copy)]
pub struct Report {
    /// Whether each line names its story.
    pub several: bool,
}

impl Report {
    pub(super) fn begin(self, story: &str, title: &str) {
        self.line(story, title);
    }

    pub(super) fn step(self, story: &str, number: usize, step: &Step, took: Duration) {
        let what = format!("{} ({})", step.title, step.tool);
        self.line(
            story,
            &format!("  {number:>2}  {what:<64} {:>7.1} s", took.as_secs_f64()),
        );
    }

    pub(super) fn passed(self, story: &str, took: Duration) {
        self.line(story, &format!("  passed in {:.1} s", took.as_secs_f64()));
    }

    /// Says why a story failed.
    pub fn failed(self, story: &str, error: &anyhow::Error) {
        self.line(story, &format!("  FAILED: {error:#}"));
    }

    fn line(self, story: &str, text: &str) {
        if self.several {
            println!("{story}: {text}");
        } else {
            println!("{text}");
        }
    }
}
