//! What an owner keeps running in its workspace: services with a published port, and shells.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use pyro_client::ClientError;
use pyro_client::types::{
    NetworkPolicy, OpenShell, PublishPort, ReadShell, Readiness, Service, ServiceState,
    ShellSignal, StartService, WriteShell,
};

use super::calls::Calls;
use super::random::Random;

/// Names of services; one that has ended is begun anew.
const SERVICES: u64 = 5;
/// Most shells at a time.
const SHELLS: usize = 4;
/// The first service's port in the guest.
const FIRST_PORT: u16 = 7000;
const READY_SECONDS: u64 = 200;
/// What a shell does not show after this hangs.
const PATIENCE: Duration = Duration::from_secs(200);
/// Says its name to whoever connects.
const SERVER: &str = "my ($name, $port) = @ARGV;
my $server = IO::Socket::INET->new(
    LocalAddr => '127.0.0.1', LocalPort => $port, Listen => 9, ReuseAddr => 1) or die;
while (my $client = $server->accept) { print $client $name; close $client }";

/// What a start is told when the guest, its network or the daemon is killed in its midst.
const NOT_STARTED: &[&str] = &[
    "network_unavailable",
    "service_not_ready",
    "service_not_started",
    "service_running",
];
/// What is told of a shell whose guest is another by now.
const ANOTHER_GUEST: &[&str] = &["shell_not_found"];

#[derive(Debug, Default)]
pub(super) struct Living {
    policy: NetworkPolicy,
    shells: BTreeSet<String>,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Start,
    Stop,
    Open,
    Type,
    Close,
}

const STEPS: &[(u64, Step)] = &[
    (8, Step::Start),
    (4, Step::Stop),
    (4, Step::Open),
    (6, Step::Type),
    (3, Step::Close),
];

/// Services of a workspace are called by its owner's number and their own.
pub(super) fn prefix(owner: usize) -> String {
    format!("service-of-{owner}-")
}

impl Living {
    pub(super) fn new(policy: NetworkPolicy) -> Self {
        Self {
            policy,
            shells: BTreeSet::new(),
        }
    }

    /// The guest is another: no shell is left.
    pub(super) fn gone(&mut self) {
        self.shells.clear();
    }

    pub(super) async fn step(
        &mut self,
        calls: &Calls,
        random: &mut Random,
        id: &str,
        owner: usize,
    ) -> Result<(), ClientError> {
        let number = random.below(SERVICES);
        let name = format!("{}{number}", prefix(owner));
        let shells: Vec<String> = self.shells.iter().cloned().collect();
        let shell = random.of(&shells).cloned();
        match (random.weighted(STEPS), shell) {
            (Step::Start, _) => self.start(calls, id, name, number).await,
            (Step::Stop, _) => stop(calls, id, &name).await,
            (Step::Type, Some(shell)) => type_into(calls, random, id, &shell).await,
            (Step::Close, Some(shell)) => {
                self.shells.remove(&shell);
                let call = calls.client().shell_close(id, &shell);
                let closed = calls.call("shell close", ANOTHER_GUEST, call).await?;
                assert!(closed.closed);
                Ok(())
            }
            _ if self.shells.len() < SHELLS => {
                let request = OpenShell::default();
                let call = calls.client().shell_open(id, &request);
                let shell = calls.call("shell open", &[], call).await?;
                self.shells.insert(shell.shell_id);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn start(
        &self,
        calls: &Calls,
        id: &str,
        name: String,
        number: u64,
    ) -> Result<(), ClientError> {
        let port = FIRST_PORT + u16::try_from(number).expect("few");
        let words = ["perl", "-MIO::Socket::INET", "-e", SERVER, &name];
        let mut request = StartService::new(&name, words);
        request.command.push(port.to_string());
        request.ready_timeout_seconds = READY_SECONDS;
        request.readiness = Some(Readiness::Tcp {
            host: "localhost".to_string(),
            port,
        });
        let publishes = self.policy == NetworkPolicy::EgressPublishedPorts;
        if publishes {
            request.publish.push(PublishPort {
                host_port: None,
                guest_port: port,
            });
        }
        let call = calls.client().service_start(id, &request);
        let service = calls.call("service start", NOT_STARTED, call).await?;
        assert!(service.ready, "{service:?}");
        // None is there any more when the network was killed meanwhile.
        assert!(
            service.published.len() <= usize::from(publishes),
            "{service:?}"
        );
        let said = tokio::task::spawn_blocking(move || says_its_name(&service)).await;
        // Whether it is still there is another question.
        let _ = said.expect("its own name");
        Ok(())
    }
}

async fn stop(calls: &Calls, id: &str, name: &str) -> Result<(), ClientError> {
    let call = calls.client().service_stop(id, name);
    match calls
        .call("service stop", &["service_not_found"], call)
        .await
    {
        Ok(service) => {
            assert!(!service.state.is_live(), "{service:?}");
            assert_eq!(service.published, Vec::new(), "{service:?}");
            Ok(())
        }
        Err(error) if error.code() == "service_not_found" => Ok(()),
        Err(error) => Err(error),
    }
}

/// Types, and reads until the shell has done it. Now and then it is interrupted then: one that is
/// interrupted before it has come up ends, as everywhere.
async fn type_into(
    calls: &Calls,
    random: &mut Random,
    id: &str,
    shell: &str,
) -> Result<(), ClientError> {
    let client = calls.client();
    let word = random.below(1 << 40);
    let line = WriteShell::line(format!("echo the wo''rd is {word}"));
    let call = client.shell_write(id, shell, &line);
    calls.call("shell write", ANOTHER_GUEST, call).await?;
    let wanted = format!("the word is {word}");
    let began = Instant::now();
    loop {
        let read = ReadShell {
            plain: true,
            wait_for_idle_ms: 100,
            ..ReadShell::default()
        };
        let call = client.shell_read(id, shell, &read);
        let read = calls.call("shell read", ANOTHER_GUEST, call).await?;
        assert!(!read.closed, "nobody has closed {shell}");
        if read.output.contains(&wanted) {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{shell} hangs: {}", read.output);
    }
    if random.below(3) == 0 {
        // The signal may come before the program does: then it ends by itself.
        let line = WriteShell::line("sleep 1");
        let call = client.shell_write(id, shell, &line);
        calls.call("shell write", ANOTHER_GUEST, call).await?;
        let call = client.shell_signal(id, shell, ShellSignal::Int);
        calls.call("shell signal", ANOTHER_GUEST, call).await?;
    }
    Ok(())
}

/// Connects to a published port. Whoever answers is the one that it was published for.
///
/// # Errors
/// When nobody does.
pub(super) fn says_its_name(service: &Service) -> std::io::Result<()> {
    let Some(port) = service.published.first() else {
        return Ok(());
    };
    let mut stream = TcpStream::connect((port.host.as_str(), port.host_port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"?")?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    if said.is_empty() {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    assert_eq!(said, service.name, "on the port {}", port.host_port);
    Ok(())
}

/// Whether it counts as there.
pub(super) fn is_there(service: &Service) -> bool {
    matches!(
        service.state,
        ServiceState::Starting | ServiceState::Running
    )
}
