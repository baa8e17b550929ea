//! Playing a story.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, test_kill_process, waitpid};
use serde_json::{Value, json};

use super::page::Page;
use super::report::Report;
use super::step::{Step, Variables};
use super::surface::{Outcome, Product, Surface, Via};
use super::{Story, expect::Expectation};

/// Between two attempts of a step.
const PAUSE: Duration = Duration::from_millis(300);
/// How long a daemon may take to end.
const DAEMON_ENDS: Duration = Duration::from_secs(60);

/// What a story is played with.
#[derive(Debug, Clone)]
pub struct Stage {
    /// The folder with the recipes.
    pub recipes: PathBuf,
    /// The program `pyro`.
    pub program: PathBuf,
    /// The environment.
    pub environment: String,
    /// The surface.
    pub via: Via,
    /// Where the transcript of a story that fails is kept, and its guests' logs.
    pub keep: PathBuf,
}

impl Stage {
    /// Plays stories, so many at a time; gives the number of those that failed. Blocks.
    pub fn play_all(&self, stories: &[Story], jobs: usize, report: Report) -> usize {
        let left = Mutex::new(stories.iter());
        let failed = AtomicUsize::new(0);
        let next = || left.lock().unwrap_or_else(PoisonError::into_inner).next();
        std::thread::scope(|scope| {
            for _ in 0..jobs.min(stories.len()) {
                scope.spawn(|| {
                    while let Some(story) = next() {
                        if let Err(error) = self.play(*story, report) {
                            report.failed(story.name, &error);
                            failed.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        failed.into_inner()
    }

    /// Plays a story in a state folder of its own. Blocks.
    ///
    /// # Errors
    /// The first step that is not as the page says, and where its transcript is.
    pub fn play(&self, story: Story, report: Report) -> Result<()> {
        let folder = self.recipes.join(story.name);
        let page = Page::read(&folder)?;
        let began = Instant::now();
        report.begin(story.name, &page.title);
        // Not /tmp, which may be in memory.
        let scratch = tempfile::Builder::new()
            .prefix("pyro-story-")
            .tempdir_in("/var/tmp")?;
        let product = Product {
            program: self.program.clone(),
            state: scratch.path().join("state"),
        };
        let out = scratch.path().join("out");
        fs::create_dir(&out)?;
        let mut variables = Variables::default();
        variables.set("environment", &self.environment);
        variables.set("fixture", text(&folder.join("fixture"))?);
        variables.set("out", text(&out)?);
        for (name, text) in &page.texts {
            variables.set(name, text);
        }
        let mut played = Played {
            out,
            variables,
            transcript: Vec::new(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let result = runtime.block_on(async {
            let mut surface = Surface::open(self.via, &product, story.profile).await?;
            let result = played.all(&mut surface, &page.steps, report, story).await;
            let closed = surface.close().await;
            result.and(closed)
        });
        let result = result.and_then(|()| nothing_is_left(&product.state));
        let kept = result.is_err().then(|| {
            let kept = self.keep(story, &product.state, &played.transcript);
            runtime.block_on(clear(&product)).and(kept)
        });
        end(&product.state)?;
        match (result, kept) {
            (Ok(()), _) => {
                report.passed(story.name, began.elapsed());
                Ok(())
            }
            (Err(error), Some(Ok(kept))) => {
                Err(error.context(format!("its transcript is in {}", kept.display())))
            }
            (Err(error), Some(Err(why))) => {
                Err(error.context(format!("its transcript cannot be kept: {why:#}")))
            }
            (Err(error), None) => Err(error),
        }
    }

    /// Keeps what tells why it failed.
    fn keep(&self, story: Story, state: &Path, transcript: &[Value]) -> Result<PathBuf> {
        let via = format!("{:?}", self.via).to_lowercase();
        let kept = self.keep.join(format!("{}-{via}", story.name));
        fs::create_dir_all(&kept)?;
        let text = serde_json::to_string_pretty(transcript)?;
        fs::write(kept.join("transcript.json"), text)?;
        copy_logs(state, &kept, 0)?;
        Ok(kept)
    }
}

/// A story that is being played.
struct Played {
    out: PathBuf,
    variables: Variables,
    transcript: Vec<Value>,
}

impl Played {
    async fn all(
        &mut self,
        surface: &mut Surface,
        steps: &[Step],
        report: Report,
        story: Story,
    ) -> Result<()> {
        for (number, step) in (1..).zip(steps) {
            let began = Instant::now();
            self.one(surface, step)
                .await
                .with_context(|| format!("step {number}: {} ({})", step.title, step.tool))?;
            report.step(story.name, number, step, began.elapsed());
        }
        Ok(())
    }

    /// Calls a step's tool until what is expected is so, or as often as it may be.
    async fn one(&mut self, surface: &mut Surface, step: &Step) -> Result<()> {
        let arguments = self.variables.fill_all(&step.arguments.clone().into())?;
        let arguments = arguments.as_object().cloned().unwrap_or_default();
        for left in (0..step.attempts).rev() {
            let began = Instant::now();
            let outcome = surface.call(&step.tool, &arguments).await;
            self.transcript.push(json!({
                "step": step.title,
                "tool": step.tool,
                "arguments": arguments,
                "outcome": match &outcome {
                    Ok(Ok(result)) => json!({"result": result}),
                    Ok(Err(told)) => json!({"error": {"code": told.code, "message": told.message}}),
                    Err(error) => json!({"broken": format!("{error:#}")}),
                },
                "milliseconds": u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            }));
            match self.hold(step, &outcome?) {
                Err(_) if left > 0 => tokio::time::sleep(PAUSE).await,
                held => return held,
            }
        }
        bail!("a step with no attempts");
    }

    fn hold(&mut self, step: &Step, outcome: &Outcome) -> Result<()> {
        let result = match (outcome, &step.fails) {
            (Ok(result), None) => result,
            (Err(told), Some(code)) if told.code == *code => {
                ensure!(
                    step.expect.is_empty() && step.save.is_empty(),
                    "a call that fails gives nothing to expect or to save"
                );
                &Value::Null
            }
            (Err(told), wanted) => bail!(
                "{}: {} (expected: {})",
                told.code,
                told.message,
                wanted.as_deref().unwrap_or("success")
            ),
            (Ok(result), Some(code)) => bail!("{code} is expected, not {result}"),
        };
        for (place, expectation) in &step.expect {
            expectation
                .hold(result.pointer(place), &self.variables)
                .with_context(|| format!("at {place}"))?;
        }
        for (path, expectation) in &step.host {
            self.on_host(path, expectation)
                .with_context(|| format!("in {path} on the host"))?;
        }
        for (name, place) in &step.save {
            match result.pointer(place) {
                Some(Value::String(text)) => self.variables.set(name, text),
                Some(Value::Number(number)) => self.variables.set(name, number.to_string()),
                _ => bail!("{place} has nothing to save in {result}"),
            }
        }
        Ok(())
    }

    /// A file's text, or a folder's names.
    fn on_host(&self, path: &str, expectation: &Expectation) -> Result<()> {
        let path = self.out.join(self.variables.fill(path)?);
        ensure!(
            path.starts_with(&self.out) && !path.components().any(|part| part.as_os_str() == ".."),
            "it is not beneath the folder for results"
        );
        let found: Option<Value> = match fs::symlink_metadata(&path) {
            Err(_) => None,
            Ok(metadata) if metadata.is_dir() => {
                let mut names: Vec<String> = fs::read_dir(&path)?
                    .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                    .collect::<Result<_>>()?;
                names.sort();
                Some(names.into())
            }
            Ok(_) => Some(fs::read_to_string(&path)?.into()),
        };
        expectation.hold(found.as_ref(), &self.variables)
    }
}

/// A story deletes what it made.
fn nothing_is_left(state: &Path) -> Result<()> {
    let left: Vec<_> = fs::read_dir(state.join("workspaces"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    ensure!(left.is_empty(), "workspaces are left: {left:?}");
    Ok(())
}

/// Deletes what a story that failed has left.
async fn clear(product: &Product) -> Result<()> {
    let mut sdk = Surface::open(Via::Sdk, product, "").await?;
    let nothing = serde_json::Map::new();
    let Ok(list) = sdk.call("workspace_list", &nothing).await? else {
        return Ok(());
    };
    for workspace in list["workspaces"].as_array().into_iter().flatten() {
        let which = json!({"workspace": workspace["workspace_id"]});
        let which = which.as_object().cloned().unwrap_or_default();
        // What cannot be deleted is told by the log that is kept.
        let _ = sdk.call("workspace_delete", &which).await?;
    }
    Ok(())
}

/// Ends the daemon of a state folder.
fn end(state: &Path) -> Result<()> {
    let daemon = fs::read_to_string(state.join("daemon.lock"))
        .ok()
        .and_then(|text| Pid::from_raw(text.trim().parse().ok()?));
    let Some(daemon) = daemon else {
        return Ok(());
    };
    let began = Instant::now();
    let _ = kill_process(daemon, Signal::TERM);
    // It may be a child of ours.
    while waitpid(Some(daemon), WaitOptions::NOHANG)
        .ok()
        .flatten()
        .is_none()
        && test_kill_process(daemon).is_ok()
    {
        ensure!(began.elapsed() < DAEMON_ENDS, "the daemon does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Copies everything that is called a log, flat.
fn copy_logs(folder: &Path, to: &Path, depth: usize) -> Result<()> {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let kind = entry.file_type()?;
        if kind.is_dir() && depth < 4 && entry.file_name() != "layers" {
            copy_logs(&path, to, depth + 1)?;
        } else if kind.is_file() && path.extension().is_some_and(|end| end == "log") {
            let name = entry.file_name();
            let parent = folder.file_name().unwrap_or_default().to_string_lossy();
            fs::copy(
                &path,
                to.join(format!("{parent}-{}", name.to_string_lossy())),
            )?;
        }
    }
    Ok(())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str()
        .with_context(|| format!("{} is no text", path.display()))
}
