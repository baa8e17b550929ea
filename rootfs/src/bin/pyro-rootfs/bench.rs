//! How long layer operations take with much beneath.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use pyro_rootfs::pack::{Metadata, PackLimits, PackedWriter};
use pyro_rootfs::store::{LayerStore, Point, StackSpec};
use pyro_rootfs::tree::{Ino, Name, NewNode, Owner, PackedFiles, SetAttr, StackReader, Tree};

/// How often each operation is measured.
const ROUNDS: usize = 20;

/// Files in one directory.
const PER_DIRECTORY: u64 = 500;

/// One of so many files has a content file on the host; the others are one hole.
const WITH_CONTENT: u64 = 20;

/// Builds a stack in `dir` and prints what operations on it take.
pub(crate) fn run(dir: &Path, files: u64, bytes: u64) -> Result<()> {
    std::fs::create_dir(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let layers = dir.join("layers");
    std::fs::create_dir(&layers)?;
    let store = LayerStore::new(File::open(&layers)?.into());
    let packed = Packed::new(dir, 1000)?;
    let start = Instant::now();
    let mut stack = StackSpec::over(Point::packed(), store.create()?.keep());
    let mut tree = Tree::open(store.stack(vec![packed.files()?], &stack)?)?;
    let last = fill(&mut tree, files, bytes / files.max(1))?;
    tree.sync().context("cannot sync")?;
    say("make the stack", start.elapsed());
    let (mut made, mut clean, mut dirty) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..2 * ROUNDS {
        // A layer that was in use for a while.
        write(&mut tree, last, b"synced")?;
        tree.sync().context("cannot sync")?;
        if round % 2 == 1 {
            write(&mut tree, last, b"dirty")?;
        }
        let start = Instant::now();
        let layer = store.create()?;
        made.push(start.elapsed());
        stack = stack.frozen_under(layer.id());
        let start = Instant::now();
        tree.freeze(layer.dir()?)?;
        if round % 2 == 1 {
            &mut dirty
        } else {
            &mut clean
        }
        .push(start.elapsed());
        layer.keep();
    }
    median("make a layer (one fsync of a directory)", made);
    median("freeze into it, nothing dirty", clean);
    median("freeze into it, one file of 4 KiB dirty", dirty);
    drop(tree);
    let start = Instant::now();
    let tree = Tree::open(store.stack(vec![packed.files()?], &stack)?)?;
    say("open the stack", start.elapsed());
    drop(tree);
    let mut branches = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let layer = store.create()?;
        let _branch = StackSpec::over(stack.beneath().clone(), layer.id());
        layer.keep();
        branches.push(start.elapsed());
    }
    median("drop or branch (making a layer)", branches);
    changes(dir, &store, &packed)
}

/// What one edited file in a tree of a GiB costs to find, whether the tree was imported above an
/// environment or is one.
fn changes(dir: &Path, store: &LayerStore, small: &Packed) -> Result<()> {
    const FILES: u64 = 20_000;
    let stack = StackSpec::over(Point::packed(), store.create()?.keep());
    let mut tree = Tree::open(store.stack(vec![small.files()?], &stack)?)?;
    let last = fill(&mut tree, FILES, (1 << 30) / FILES)?;
    let layer = store.create()?;
    let stack = stack.frozen_under(layer.id());
    tree.freeze(layer.dir()?)?;
    layer.keep();
    write(&mut tree, last, b"edited")?;
    tree.sync().context("cannot sync")?;
    measure_changes(store, small, &stack, 1, "imported")?;
    let large = Packed::new(dir, FILES)?;
    let stack = StackSpec::over(Point::packed(), store.create()?.keep());
    let mut tree = Tree::open(store.stack(vec![large.files()?], &stack)?)?;
    let first = tree.lookup(Ino::ROOT, name(b"d0")?)?.ino;
    let edited = tree.lookup(first, name(b"f7")?)?.ino;
    write(&mut tree, edited, b"edited")?;
    tree.sync().context("cannot sync")?;
    measure_changes(store, &large, &stack, 0, "packed")
}

fn measure_changes(
    store: &LayerStore,
    packed: &Packed,
    stack: &StackSpec,
    since: usize,
    what: &str,
) -> Result<()> {
    let (mut opened, mut listed) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let layers = store.layers(&stack.whole())?;
        let reader = StackReader::open(vec![packed.files()?], &layers)?;
        opened.push(start.elapsed());
        let start = Instant::now();
        let changes = reader.changes(since)?.collect::<Result<Vec<_>, _>>()?;
        listed.push(start.elapsed());
        anyhow::ensure!(
            changes.len() == 1,
            "{} changes instead of one",
            changes.len()
        );
    }
    median(&format!("open a reader, 1 GiB {what}"), opened);
    median(&format!("list one edited file, 1 GiB {what}"), listed);
    Ok(())
}

/// A packed layer of so many files of 52 KiB, with nothing stored twice.
struct Packed {
    index: PathBuf,
    data: PathBuf,
}

impl Packed {
    fn new(dir: &Path, files: u64) -> Result<Self> {
        let path = |what| dir.join(format!("{files}.{what}"));
        let packed = Self {
            index: path("index"),
            data: path("data"),
        };
        let create = |path| {
            File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .open(path)
        };
        let (index, data) = (create(&packed.index)?, create(&packed.data)?);
        let mut writer = PackedWriter::new(&index, &data, PackLimits::default())?;
        let meta = || Metadata {
            mode: 0o755,
            ..Metadata::default()
        };
        writer.add_directory(b"", meta())?;
        let content = vec![0x5a; (1 << 30) / 20_000];
        for i in 0..files {
            let path = format!("d{}/f{i}", i / PER_DIRECTORY);
            let len = content.len() as u64;
            writer.add_file(path.as_bytes(), meta(), &mut &*content, len)?;
        }
        writer.finish()?;
        Ok(packed)
    }

    fn files(&self) -> Result<PackedFiles> {
        Ok(PackedFiles {
            index: File::open(&self.index)?,
            data: File::open(&self.data)?,
        })
    }
}

/// Makes `files` files of `size` bytes each; the last one.
fn fill(tree: &mut Tree, files: u64, size: u64) -> Result<Ino> {
    let (mut dir, mut last) = (Ino::ROOT, Ino::ROOT);
    for i in 0..files {
        if i % PER_DIRECTORY == 0 {
            dir = tree
                .mkdir(node(Ino::ROOT, format!("big{i}").as_bytes())?)?
                .ino;
        }
        last = tree
            .create_file(node(dir, format!("file{i}").as_bytes())?)?
            .ino;
        if i % WITH_CONTENT == 0 {
            write(tree, last, format!("{i}\n").as_bytes())?;
        }
        let size = SetAttr {
            size: Some(size),
            ..SetAttr::default()
        };
        tree.set_attr(last, &size)?;
    }
    Ok(last)
}

fn name(bytes: &[u8]) -> Result<Name<'_>> {
    Name::new(bytes).context("not a name")
}

fn node(parent: Ino, of: &[u8]) -> Result<NewNode<'_>> {
    Ok(NewNode {
        parent,
        name: name(of)?,
        owner: Owner { uid: 0, gid: 0 },
        mode: 0o644,
    })
}

fn write(tree: &mut Tree, ino: Ino, bytes: &[u8]) -> Result<()> {
    tree.reserve(ino, 0, bytes.len() as u64)?;
    tree.content_mut(ino)?.write_all_at(bytes, 0)?;
    tree.wrote(ino, bytes.len() as u64, None)?;
    Ok(())
}

fn median(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let worst = times.last().copied().unwrap_or_default();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    let line = format!("{what:44} {median:>10.3?}  worst {worst:>10.3?}");
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn say(what: &str, time: Duration) {
    let _ = writeln!(std::io::stdout(), "{what:44} {time:>10.3?}");
}
