//! `pyro demo`: the one-shot path once, in words for somebody who sees it for the first time.

use pyro_client::ClientError;
use pyro_client::types::{RunEvent, RunRequest, RunResult};
use pyro_engine::paths::Paths;
use pyro_engine::{Code, Error};

use super::run::ready;
use crate::args::Demo;
use crate::environment;
use crate::output::{Colour, Failure, Paint, escape, print};

/// What runs in the guest. Plain sh: the smallest environment has nothing else.
const SCRIPT: &str = r#"
. /etc/os-release
echo "system:  $PRETTY_NAME"
echo "user:    $(id -un), who may do anything in here, and nothing outside"
echo "a note I leave: $(date >/root/note && echo /root/note)"
if command -v git >/dev/null; then git --version; fi
echo "Linux $(uname -r)"
"#;
/// Generous: the demonstration should also work on a slow, emulated host.
const TIMEOUT_SECONDS: u64 = 120;

pub(crate) async fn demo(args: &Demo, paths: &Paths) -> Result<u8, Failure> {
    let paint = Paint::stdout();
    let name = &args.environment;
    let recipe = pyro_engine::environments::recipe(name)?;
    let request = RunRequest {
        pull: false,
        timeout_seconds: TIMEOUT_SECONDS,
        ..RunRequest::new(name, ["sh", "-c", SCRIPT])
    };
    let step = |number: u8, text: &str| {
        print(&format!(
            "{} {text}\n",
            paint.bold(Colour::Blue, &format!("[{number}/4]"))
        ))
    };
    step(1, "Checking that this machine can run virtual machines.")?;
    let (client, mut interrupts) = ready(paths, &request).await?;
    step(
        2,
        &format!(
            "Booting a fresh {name} ({}) in a virtual machine of its own:",
            recipe.summary
        ),
    )?;
    print(&format!(
        "      {} CPU, {} MiB of memory, no network, an unmodified Debian kernel.\n",
        request.vcpu_count, request.mem_mib,
    ))?;
    let call = || async { Ok(client.run_stream(&request).await?) };
    let mut stream = environment::pulled_when_missing(paths, recipe, &mut interrupts, call).await?;
    let followed = async {
        while let Some(event) = stream.next().await? {
            match event {
                RunEvent::Started { boot_ms, .. } => {
                    let seconds = boot_ms / 1e3;
                    let up = format!(
                        "It is up after {seconds:.2} s. A shell script runs in it and says:"
                    );
                    step(3, &up)?;
                }
                RunEvent::Stdout { .. } | RunEvent::Stderr { .. } => {}
                RunEvent::Ended { result } => return Ok(*result),
                RunEvent::Failed { error } => return Err(error.into()),
            }
        }
        Err(Failure::from(ClientError::Broken { source: None }))
    };
    let result: RunResult = tokio::select! {
        result = followed => result?,
        signal = interrupts.wait() => return Ok(signal.exit_status()),
    };
    if result.exit_code != 0 {
        let message = format!(
            "the demonstration's command ended with status {}",
            result.exit_code
        );
        let error = Error::new(
            Code::ExecFailed,
            message,
            "run `pyro doctor`, then report this",
        );
        return Err(error.with_detail(result.stdout).into());
    }
    let mut shown = String::new();
    for line in result.stdout.lines() {
        shown.push_str(&format!(
            "      {} {}\n",
            paint.dim("|"),
            escape::line(line)
        ));
    }
    print(&shown)?;
    step(
        4,
        &format!(
            "The machine is gone, with its disk and the note on it ({:.1} s in all).",
            result.total_ms / 1e3
        ),
    )?;
    print(&format!(
        "\nYour turn: {}\n",
        paint.bold(Colour::Green, &format!("pyro run {name} -- COMMAND"),)
    ))?;
    Ok(0)
}
