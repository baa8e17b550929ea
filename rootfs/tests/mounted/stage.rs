//! A mounted stack over a small layer, and the process that serves it.

use std::ffi::CString;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pyro_rootfs::fuse::dev::{Mount, unmount};
use pyro_rootfs::pack::{Metadata, PackLimits, PackedWriter};
use pyro_rootfs::tree::{FileType, PackedFiles, StackReader, Timestamp};
use rustix::mount::{MountFlags, UnmountFlags};
use tempfile::TempDir;

/// Content of `/etc/motd` in the lowest layer.
pub(crate) const MOTD: &[u8] = b"from the layer below\n";

/// Longest that a server may take to begin or end, or the kernel to let go of a file.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A mount, its server, and the files behind them.
pub(crate) struct Stage {
    dir: TempDir,
    server: Option<Child>,
    options: Vec<&'static str>,
    /// How many layers lie frozen between the lowest and the writable one.
    frozen: usize,
    /// Where a file system of its own holds the writable layer.
    disk: Option<PathBuf>,
}

impl Stage {
    /// Why nothing can be mounted here, or `None`.
    pub(crate) fn unavailable() -> Option<String> {
        let dir = tempfile::tempdir().unwrap();
        let error = Mount::new(dir.path()).err()?;
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        Some(format!("{error}: {}", cause.unwrap_or_default()))
    }

    /// A fresh mount.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let create = |name| {
            let path = dir.path().join(name);
            File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .open(path)
                .unwrap()
        };
        pack(&create("index"), &create("data"));
        std::fs::create_dir(dir.path().join("mnt")).unwrap();
        let mut stage = Self {
            dir,
            server: None,
            options: vec!["--no-disk-sync"],
            frozen: 0,
            disk: None,
        };
        stage.mount();
        stage
    }

    /// Mounts again with further options.
    pub(crate) fn remount_with(&mut self, options: &[&'static str]) {
        self.stop();
        self.options.extend(options);
        self.mount();
    }

    /// Unmounts in peace and mounts again with the writable layer on a disk of `bytes` bytes, to
    /// which it really syncs.
    pub(crate) fn remount_on_disk(&mut self, bytes: u64) {
        self.stop();
        let disk = self.dir.path().join(layer_name(self.frozen));
        let size = CString::new(format!("size={bytes}")).unwrap();
        let flags = MountFlags::empty();
        rustix::mount::mount("tmpfs", &disk, "tmpfs", flags, size.as_c_str()).unwrap();
        self.disk = Some(disk);
        self.options.retain(|option| *option != "--no-disk-sync");
        self.mount();
    }

    /// Unmounts in peace and mounts again.
    pub(crate) fn remount(&mut self) {
        self.remount_with(&[]);
    }

    /// Unmounts in peace, freezes the writable layer and mounts again with a new one.
    pub(crate) fn freeze(&mut self) {
        self.stop();
        self.frozen += 1;
        self.mount();
    }

    /// Freezes the writable layer while the mount is in use; how many layers are frozen then.
    pub(crate) fn freeze_live(&mut self) -> usize {
        self.command(&format!("freeze {}", layer_name(self.frozen + 1)));
        self.frozen += 1;
        self.frozen
    }

    /// Tells the server something, and waits until it obeyed.
    pub(crate) fn command(&mut self, line: &str) {
        let server = self.server.as_mut().expect("it is mounted");
        writeln!(server.stdin.as_mut().unwrap(), "{line}").unwrap();
        let mut answer = String::new();
        // One line is answered by one, so nothing is lost in a buffer that is thrown away.
        let mut answers = BufReader::new(server.stdout.as_mut().unwrap());
        answers.read_line(&mut answer).unwrap();
        assert_eq!(answer, "ok\n", "{line}");
    }

    /// What the lowest `frozen` frozen layers say, read beside the mount.
    pub(crate) fn read_frozen(&self, frozen: usize) -> StackReader {
        let dir = |i| File::open(self.dir.path().join(layer_name(i))).unwrap();
        let frozen: Vec<OwnedFd> = (0..frozen).map(|i| dir(i).into()).collect();
        StackReader::open(vec![self.packed()], &frozen).unwrap()
    }

    /// The lowest layer.
    pub(crate) fn packed(&self) -> PackedFiles {
        let file = |name| File::open(self.dir.path().join(name)).unwrap();
        PackedFiles {
            index: file("index"),
            data: file("data"),
        }
    }

    /// Unmounts in peace and mounts again with the lowest `frozen` frozen layers alone, and a new
    /// writable one.
    pub(crate) fn reset(&mut self, frozen: usize) {
        self.stop();
        for place in frozen..=self.frozen {
            std::fs::remove_dir_all(self.dir.path().join(layer_name(place))).unwrap();
        }
        self.frozen = frozen;
        self.mount();
    }

    /// Kills the server and mounts again.
    pub(crate) fn crash(&mut self) {
        let mut server = self.server.take().expect("it is mounted");
        server.kill().unwrap();
        server.wait().unwrap();
        unmount(&self.root()).unwrap();
        self.mount();
    }

    /// Ends the test: unmounts, and makes sure that the server found nothing to complain about.
    pub(crate) fn end(mut self) {
        self.stop();
    }

    /// The mount point.
    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    /// A path in the mount.
    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        self.root().join(inside)
    }

    /// A directory beside the mount, on the host.
    pub(crate) fn outside(&self) -> &Path {
        self.dir.path()
    }

    fn mount(&mut self) {
        let device = |path: &Path| path.metadata().map(|meta| meta.dev()).ok();
        let before = device(&self.root());
        let mut server = Command::new(env!("CARGO_BIN_EXE_pyro-rootfs"))
            .args(["mount", "--layer", "index", "data"])
            .args((0..self.frozen).flat_map(|i| ["--frozen".to_owned(), layer_name(i)]))
            .args(["--writable", &layer_name(self.frozen)])
            .args(&self.options)
            .args(["--commands", "mnt"])
            .current_dir(self.dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let start = Instant::now();
        while device(&self.root()) == before {
            if let Some(status) = server.try_wait().unwrap() {
                panic!("the server did not start: {status}");
            }
            assert!(start.elapsed() < PATIENCE, "the server does not start");
            std::thread::sleep(Duration::from_millis(2));
        }
        self.server = Some(server);
    }

    fn stop(&mut self) {
        unmount(&self.root()).unwrap();
        let mut server = self.server.take().expect("it is mounted");
        let start = Instant::now();
        let status = loop {
            if let Some(status) = server.try_wait().unwrap() {
                break status;
            }
            if start.elapsed() > PATIENCE {
                server.kill().unwrap();
                panic!("the server does not end");
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        assert!(status.success(), "the server ended with {status}");
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
            let _ = unmount(&self.root());
        }
        if let Some(disk) = &self.disk {
            let _ = rustix::mount::unmount(disk, UnmountFlags::DETACH);
        }
    }
}

/// Directory of the layer number `place` above the lowest.
fn layer_name(place: usize) -> String {
    match place {
        0 => "top".to_owned(),
        place => format!("top{place}"),
    }
}

/// The lowest layer.
fn pack(index: &File, data: &File) {
    let mut layer = PackedWriter::new(index, data, PackLimits::default()).unwrap();
    let meta = |mode| Metadata {
        mode,
        mtime: Timestamp {
            secs: 1_000_000_000,
            nanos: 5,
        },
        ..Metadata::default()
    };
    let file = |layer: &mut PackedWriter<'_>, path: &str, mode, content: &[u8]| {
        let len = content.len() as u64;
        layer
            .add_file(path.as_bytes(), meta(mode), &mut &*content, len)
            .unwrap();
    };
    layer.add_directory(b"", meta(0o755)).unwrap();
    layer.add_directory(b"tmp", meta(0o1777)).unwrap();
    file(&mut layer, "etc/motd", 0o644, MOTD);
    file(&mut layer, "bin/su", 0o4755, b"#!/bin/sh\n");
    layer.add_hard_link(b"bin/sudo", b"bin/su").unwrap();
    file(&mut layer, "big", 0o644, &pattern(3 << 20));
    layer
        .add_symlink(b"link", meta(0o777), b"etc/motd")
        .unwrap();
    layer
        .add_node(b"null", meta(0o666), FileType::CharDevice, 0x103)
        .unwrap();
    for package in 0..5 {
        for module in 0..20 {
            let path = format!("usr/lib/pkg{package}/sub/mod{module}.txt");
            file(&mut layer, &path, 0o644, path.as_bytes());
        }
    }
    layer.finish().unwrap();
}

/// `len` bytes that tell where they come from.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i / 251 + i % 251) as u8).collect()
}

/// Runs a command and expects it to succeed; its standard output.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{err}",
        output.status
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Makes the kernel forget what it holds of the mount at `root`, as far as it can, so that the
/// server is asked again.
pub(crate) fn drop_caches(root: &Path) {
    let directory = File::open(root).unwrap();
    rustix::fs::syncfs(&directory).unwrap();
    drop(directory);
    // Only root may; without it the test still holds, it only says less.
    let _ = std::fs::write("/proc/sys/vm/drop_caches", "2");
}
