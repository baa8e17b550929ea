//! `pyro demo`: the one-shot path once, in words for somebody who sees it for the first time.

use std::collections::BTreeMap;
use std::io::{self, Write};

use pyro_engine::capture::Capture;
use pyro_engine::exec::Streams;
use pyro_engine::limits::Wanted;
use pyro_engine::oneshot::{self, Prepared, Request, Run};
use pyro_engine::paths::Paths;
use pyro_engine::{Code, Error};
use tokio::io::Empty;
use tokio::runtime::Runtime;

use crate::args::Demo;
use crate::environment;
use crate::interrupt::Interrupts;
use crate::output::{Colour, Failure, Paint, print};

/// What runs in the guest. Plain sh: the smallest environment has nothing else.
const SCRIPT: &str = r#"
. /etc/os-release
echo "system:  $PRETTY_NAME"
echo "user:    $(id -un), who may do anything in here, and nothing outside"
echo "a note I leave: $(date >/root/note && echo /root/note)"
if command -v git >/dev/null; then git --version; fi
echo "Linux $(uname -r)"
"#;
/// Most bytes of output that are shown.
const SHOWN: usize = 64 * 1024;
/// Generous: the demonstration should also work on a slow, emulated host.
const TIMEOUT_SECONDS: u64 = 120;

pub(crate) fn demo(args: &Demo, paths: &Paths, runtime: &Runtime) -> Result<u8, Failure> {
    let paint = Paint::stdout();
    let name = &args.environment;
    let recipe = pyro_engine::environments::recipe(name)?;
    let wanted = Wanted {
        timeout_seconds: TIMEOUT_SECONDS,
        ..Wanted::default()
    };
    let argv = ["sh", "-c", SCRIPT].map(str::to_string).to_vec();
    let request = Request {
        argv,
        env: BTreeMap::new(),
        wanted,
        debug_console: false,
    };

    let step = |number: u8, text: &str| {
        print(&format!(
            "{} {text}\n",
            paint.bold(Colour::Blue, &format!("[{number}/4]"))
        ))
    };
    step(1, "Checking that this machine can run virtual machines.")?;
    let prepared = runtime.block_on(oneshot::prepare(paths, request))?;
    let opened = environment::open_or_pull(paths, recipe)?;
    step(
        2,
        &format!(
            "Booting a fresh {name} ({}) in a virtual machine of its own:",
            recipe.summary
        ),
    )?;
    print(&format!(
        "      {} CPU, {} MiB of memory, no network, an unmodified Debian kernel {}.\n",
        prepared.limits().vcpu_count(),
        prepared.limits().memory_mib(),
        opened.manifest.kernel.release,
    ))?;
    let (ran, output) = runtime.block_on(boot(prepared, opened, paint))?;
    let report = match ran {
        Run::Finished(report) => report,
        Run::Interrupted(signal) => return Ok(signal.exit_status()),
        Run::OutputClosed(error) => return Err(Failure::Output(error)),
    };
    let text = String::from_utf8_lossy(output.bytes()).into_owned();
    let code = report.end.exit_code();
    if code != 0 {
        let message = format!("the demonstration's command ended with status {code}");
        let error = Error::new(
            Code::ExecFailed,
            message,
            "run `pyro doctor`, then report this",
        );
        return Err(error.with_detail(text).into());
    }
    let mut shown = String::new();
    for line in text.lines() {
        shown.push_str(&format!("      {} {line}\n", paint.dim("|")));
    }
    print(&shown)?;
    step(
        4,
        &format!(
            "The machine is gone, with its disk and the note on it ({:.1} s in all).",
            report.total.as_secs_f64()
        ),
    )?;
    print(&format!(
        "\nYour turn: {}\n",
        paint.bold(Colour::Green, &format!("pyro run {name} -- COMMAND"),)
    ))?;
    Ok(0)
}

async fn boot(
    prepared: Prepared,
    opened: pyro_engine::environments::Opened,
    paint: Paint,
) -> Result<(Run<crate::interrupt::Interrupt>, Capture), Failure> {
    let interrupts = Interrupts::install()?;
    let mut output = Capture::new(SHOWN);
    let mut errors = Capture::new(SHOWN);
    let streams = Streams {
        stdin: None::<Empty>,
        stdout: &mut output,
        stderr: &mut errors,
    };
    let announce = |ready: &oneshot::Ready| {
        let number = paint.bold(Colour::Blue, "[3/4]");
        let seconds = ready.boot.as_secs_f64();
        // A closed standard output shows at the next step.
        let _ = writeln!(
            io::stdout().lock(),
            "{number} It is up after {seconds:.2} s. A shell script runs in it and says:"
        );
    };
    let ran = prepared
        .run(opened.artefacts, streams, interrupts.next(), announce)
        .await?;
    Ok((ran, output))
}
