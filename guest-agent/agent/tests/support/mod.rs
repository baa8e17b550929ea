//! The real agent as a process of this machine, and a host's side of its protocol.

#![allow(dead_code)] // Every test binary uses a part of it.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use pyro_agent_protocol::{
    Attach, Decoder, ErrorCode, Event, Exec, ExitStatus, FileEvent, Frame, FrameKind, JobEvent,
    JobId, JobInfo, Keep, OutputStream, Request, Signal, Start, encode, encode_json,
    encode_message,
};

/// Longer than anything here takes; only a bug makes a test wait that long.
const PATIENCE: Duration = Duration::from_secs(30);

/// How the agent holds the programs it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holding {
    /// In cgroups v2, as in a guest.
    Cgroups,
    /// By what `/proc` tells.
    Traces,
}

/// A running agent. Killed with all that it runs when dropped.
pub(crate) struct Agent {
    child: Child,
    directory: tempfile::TempDir,
    cgroup: Option<PathBuf>,
}

impl Agent {
    /// Starts an agent. `None`, with the reason printed, when this machine cannot hold programs
    /// in that way.
    pub(crate) fn start(holding: Holding) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("staging")).unwrap();
        Self::start_in(directory, holding)
    }

    /// Starts an agent whose socket and `staging` are in this directory.
    pub(crate) fn start_in(directory: tempfile::TempDir, holding: Holding) -> Option<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pyro-agent"));
        command
            .arg("--listen-unix")
            .arg(directory.path().join("socket"))
            .arg("--staging")
            .arg(directory.path().join("staging"))
            .arg("--secrets")
            .arg(directory.path().join("secrets"));
        let mut cgroup = None;
        if holding == Holding::Cgroups {
            let Some(path) = make_cgroup() else {
                eprintln!("skipped: no cgroup v2 that this user may make groups in");
                return None;
            };
            command.arg("--cgroup").arg(&path);
            cgroup = Some(path);
        }
        let child = command.spawn().unwrap();
        let agent = Self {
            child,
            directory,
            cgroup,
        };
        wait_until("the agent listens", || agent.path().exists());
        Some(agent)
    }

    /// Starts an agent without cgroups, which works everywhere.
    pub(crate) fn start_anywhere() -> Self {
        Self::start(Holding::Traces).expect("needs nothing special")
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    /// Where transactions stage.
    pub(crate) fn staging(&self) -> PathBuf {
        self.directory.path().join("staging")
    }

    /// Where secrets are.
    pub(crate) fn secrets(&self) -> PathBuf {
        self.directory.path().join("secrets")
    }

    /// The transactions that stage something now.
    pub(crate) fn staged(&self) -> usize {
        std::fs::read_dir(self.staging()).unwrap().count()
    }

    /// The last message about files that answers this request, and all others.
    pub(crate) fn files(&self, request: &Request) -> FileAnswer {
        FileAnswer::collect(&mut self.request(request))
    }

    /// Starts a job; gives its stream once it runs.
    pub(crate) fn start_job(&self, start: Start) -> Stream {
        let mut stream = self.request(&Request::Start(start));
        match stream.message() {
            JobEvent::Attached { info } => stream.pid = info.pid,
            other => panic!("{other:?}"),
        }
        stream
    }

    /// Attaches to a job.
    pub(crate) fn attach(&self, attach: Attach) -> Stream {
        let mut stream = self.request(&Request::Attach(attach));
        match stream.message() {
            JobEvent::Attached { info } => stream.pid = info.pid,
            other => panic!("{other:?}"),
        }
        stream
    }

    /// The one answer to a request about jobs.
    pub(crate) fn job_answer(&self, request: &Request) -> JobEvent {
        let mut stream = self.request(request);
        let answer = stream.message();
        assert!(stream.frame().is_none(), "one answer is all");
        answer
    }

    pub(crate) fn jobs(&self) -> Vec<JobInfo> {
        match self.job_answer(&Request::Jobs) {
            JobEvent::Jobs { jobs } => jobs,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A new stream, with nothing said yet.
    pub(crate) fn connect(&self) -> Stream {
        let mut tries = 0;
        let socket = loop {
            match UnixStream::connect(self.path()) {
                Ok(socket) => break socket,
                // It exists between bind and listen, too.
                Err(_) if tries < 1000 => {
                    tries += 1;
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) => panic!("{error}"),
            }
        };
        Stream::new(socket)
    }

    /// A stream with this request sent.
    pub(crate) fn request(&self, request: &Request) -> Stream {
        let mut stream = self.connect();
        stream.send(&encode_message(request).unwrap());
        stream
    }

    /// Starts a program; gives its stream once it runs.
    pub(crate) fn exec(&self, exec: Exec) -> Stream {
        let mut stream = self.request(&Request::Exec(exec));
        match stream.event() {
            Event::Started { pid } => stream.pid = pid,
            other => panic!("{other:?}"),
        }
        stream
    }

    /// Runs a program to its end.
    pub(crate) fn run(&self, exec: Exec) -> Outcome {
        self.exec(exec).outcome()
    }

    /// Runs a shell script to its end.
    pub(crate) fn shell(&self, script: &str) -> Outcome {
        self.run(shell(script))
    }

    /// Why a program cannot be started.
    pub(crate) fn failure(&self, exec: Exec) -> (ErrorCode, String) {
        let mut stream = self.request(&Request::Exec(exec));
        match stream.event() {
            Event::Failed { code, message } => {
                assert!(stream.frame().is_none(), "a failure is the last message");
                (code, message)
            }
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn ping(&self) {
        assert_eq!(self.request(&Request::Ping).event(), Event::Done);
    }

    /// Waits for the agent to end by itself.
    pub(crate) fn wait(&mut self) -> bool {
        self.child.wait().unwrap().success()
    }

    /// The cgroups that the agent has now.
    pub(crate) fn cgroups(&self) -> usize {
        let path = self.cgroup.as_ref().expect("an agent with cgroups");
        let entries = std::fs::read_dir(path).unwrap().flatten();
        entries
            .filter(|entry| entry.file_type().unwrap().is_dir())
            .count()
    }

    /// Descriptors that the agent has open.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .unwrap()
            .count()
    }

    /// Time on a processor that the agent has used, in clock ticks.
    pub(crate) fn ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let fields: Vec<_> = stat
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        if let Ok(None) = self.child.try_wait() {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
        if let Some(cgroup) = &self.cgroup {
            let _ = std::fs::remove_dir(cgroup);
        }
    }
}

/// A cgroup of this test's own, when there is a cgroup v2 hierarchy to make it in.
fn make_cgroup() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let root = mounts
        .lines()
        .find(|line| line.split(' ').nth(2) == Some("cgroup2"))?;
    let own = tempfile::Builder::new()
        .prefix("pyro-test-")
        .tempdir_in(root.split(' ').nth(1)?);
    let path = own.ok()?.keep();
    path.join("cgroup.kill").exists().then_some(path)
}

/// The host's end of one operation.
pub(crate) struct Stream {
    pub(crate) socket: UnixStream,
    decoder: Decoder,
    input: Vec<u8>,
    /// The program's process id, once it runs.
    pub(crate) pid: u32,
}

/// All that an exec gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl Outcome {
    pub(crate) fn code(&self) -> u8 {
        match self.status {
            ExitStatus::Code { code } => code,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap().trim_end()
    }
}

impl Stream {
    pub(crate) fn new(socket: UnixStream) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        Self {
            socket,
            decoder: Decoder::new(),
            input: Vec::new(),
            pid: 0,
        }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    pub(crate) fn stdin(&mut self, bytes: &[u8]) {
        self.send(&encode(FrameKind::Stdin, bytes).unwrap());
    }

    pub(crate) fn signal(&mut self, signal: u8) {
        self.send(&encode_json(FrameKind::Signal, &Signal { signal }).unwrap());
    }

    /// The next frame; `None` when the agent has closed.
    pub(crate) fn frame(&mut self) -> Option<Frame> {
        loop {
            let mut rest = &self.input[..];
            let frame = self.decoder.decode(&mut rest).unwrap();
            let taken = self.input.len() - rest.len();
            self.input.drain(..taken);
            if frame.is_some() {
                return frame;
            }
            let mut piece = [0; 64 << 10];
            match self.socket.read(&mut piece) {
                Ok(0) => {
                    self.decoder.finish().unwrap();
                    return None;
                }
                Ok(length) => self.input.extend_from_slice(&piece[..length]),
                // A Unix socket says this when our bytes were unread as it closed.
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("the agent said nothing: {error}"),
            }
        }
    }

    /// Whether nothing more than whole frames has been read.
    pub(crate) fn is_at_a_frames_end(&self) -> bool {
        self.input.is_empty() && self.decoder.finish().is_ok()
    }

    pub(crate) fn event(&mut self) -> Event {
        self.message()
    }

    pub(crate) fn message<T: serde::de::DeserializeOwned>(&mut self) -> T {
        let frame = self.frame().expect("the agent closed without a word");
        assert_eq!(frame.kind, FrameKind::Message);
        frame.message().unwrap()
    }

    /// The next bytes of standard output.
    pub(crate) fn output(&mut self) -> Vec<u8> {
        let frame = self.frame().expect("the agent closed without output");
        assert_eq!(
            frame.kind,
            FrameKind::Stdout,
            "{:?}",
            String::from_utf8_lossy(&frame.payload)
        );
        frame.payload
    }

    /// Reads on to the end.
    pub(crate) fn outcome(&mut self) -> Outcome {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        loop {
            let frame = self
                .frame()
                .expect("the agent closed without the program's end");
            match frame.kind {
                FrameKind::Stdout => stdout.extend(frame.payload),
                FrameKind::Stderr => stderr.extend(frame.payload),
                FrameKind::Message => match frame.message().unwrap() {
                    Event::Exited {
                        status,
                        duration_ns,
                    } => {
                        assert!(duration_ns > 0);
                        assert_eq!(self.frame(), None, "the end is the last message");
                        return Outcome {
                            status,
                            stdout,
                            stderr,
                        };
                    }
                    other => panic!("{other:?}"),
                },
                other => panic!("{other:?}"),
            }
        }
    }
}

/// An exec with nothing but its arguments.
pub(crate) fn command(argv: &[&str]) -> Exec {
    Exec {
        argv: argv.iter().map(|&argument| argument.to_owned()).collect(),
        env: Default::default(),
        cwd: None,
        user: None,
        timeout_ms: None,
        stdin: false,
    }
}

/// An exec of a shell script.
pub(crate) fn shell(script: &str) -> Exec {
    command(&["sh", "-c", script])
}

/// Looks again and again until something holds.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let limit = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < limit, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether a process of this number runs; a zombie does not.
pub(crate) fn runs(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !matches!(
            stat.rsplit(')').next().unwrap().trim_start().as_bytes()[0],
            b'Z' | b'X'
        )
    })
}

/// The numbers that a program has written into a file, one a line.
pub(crate) fn pids_in(file: &Path) -> Vec<u32> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// All that was answered to a request about files.
#[derive(Debug)]
pub(crate) struct FileAnswer {
    pub(crate) before: Vec<FileEvent>,
    pub(crate) content: Vec<u8>,
    pub(crate) last: FileEvent,
}

impl FileAnswer {
    pub(crate) fn collect(stream: &mut Stream) -> Self {
        let (mut messages, mut content) = (Vec::new(), Vec::new());
        while let Some(frame) = stream.frame() {
            match frame.kind {
                FrameKind::Message => messages.push(frame.message().unwrap()),
                FrameKind::Stdout => content.extend(frame.payload),
                other => panic!("{other:?}"),
            }
        }
        let last = messages.pop().expect("the agent closed without a word");
        Self {
            before: messages,
            content,
            last,
        }
    }

    /// Why it failed.
    pub(crate) fn code(&self) -> ErrorCode {
        match &self.last {
            FileEvent::Failed { code, .. } => *code,
            other => panic!("{other:?}"),
        }
    }
}

/// A job with an output to keep of this length.
pub(crate) fn job(name: &str, capture_bytes: u64, exec: Exec) -> Start {
    Start {
        job: id(name),
        exec,
        output: Keep::HeadTail {
            bytes: capture_bytes,
        },
        terminal: None,
        hold: false,
    }
}

/// A job of whose output the last bytes are kept.
pub(crate) fn tail(name: &str, bytes: u64, exec: Exec) -> Start {
    Start {
        output: Keep::Tail { bytes },
        ..job(name, 0, exec)
    }
}

/// Writes to a job's input; gives the answer.
pub(crate) fn write_job(agent: &Agent, name: &str, bytes: &[u8]) -> JobEvent {
    let mut stream = agent.request(&Request::WriteJob { job: id(name) });
    for piece in bytes.chunks(200_000) {
        stream.stdin(piece);
    }
    stream.stdin(b"");
    let answer = stream.message();
    assert!(stream.frame().is_none(), "one answer is all");
    answer
}

/// Runs a test in both ways of holding programs.
pub(crate) fn in_both_ways(test: impl Fn(&Agent)) {
    for holding in [Holding::Cgroups, Holding::Traces] {
        if let Some(agent) = Agent::start(holding) {
            test(&agent);
            agent.ping();
        }
    }
}

/// Why something about jobs has failed.
pub(crate) fn failure(event: &JobEvent) -> ErrorCode {
    match event {
        JobEvent::Failed { code, .. } => *code,
        other => panic!("{other:?}"),
    }
}

/// A job's name.
pub(crate) fn id(name: &str) -> JobId {
    name.parse().unwrap()
}

/// All of a job, from its beginning.
pub(crate) fn whole(name: &str) -> Attach {
    Attach {
        job: id(name),
        stdout_from: 0,
        stderr_from: 0,
        follow: true,
        hold: false,
    }
}

/// What an attached stream gives until its last message.
#[derive(Debug)]
pub(crate) struct Followed {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    /// Which output, at which length of what came before it, and how many bytes.
    pub(crate) gaps: Vec<(OutputStream, usize, u64)>,
    pub(crate) last: JobEvent,
}

impl Stream {
    /// Reads an attached stream to its end.
    pub(crate) fn followed(&mut self) -> Followed {
        let (mut stdout, mut stderr, mut gaps) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            let frame = self.frame().expect("the agent closed without a last word");
            match frame.kind {
                FrameKind::Stdout => stdout.extend(frame.payload),
                FrameKind::Stderr => stderr.extend(frame.payload),
                _ => match frame.message().unwrap() {
                    JobEvent::Gap { stream, bytes } => {
                        let so_far = match stream {
                            OutputStream::Stdout => stdout.len(),
                            OutputStream::Stderr => stderr.len(),
                        };
                        gaps.push((stream, so_far, bytes));
                    }
                    last => {
                        assert_eq!(self.frame(), None, "nothing follows {last:?}");
                        return Followed {
                            stdout,
                            stderr,
                            gaps,
                            last,
                        };
                    }
                },
            }
        }
    }
}

impl Followed {
    /// How the program ended.
    pub(crate) fn status(&self) -> ExitStatus {
        match self.last {
            JobEvent::Exited { status, .. } => status,
            ref other => panic!("{other:?}"),
        }
    }
}
