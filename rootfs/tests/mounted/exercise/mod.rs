//! Files under exercise, in the manner of fsx: random operations of every kind on a few files, each
//! compared with what bytes in memory say, while layers are frozen beneath them.
//!
//! A seed says all that happens, and a difference is reported with the seed and the operations that
//! led to it. `PYRO_EXERCISE_SEEDS=1000..1010 PYRO_EXERCISE_OPERATIONS=100000` does more.

mod file;
mod operation;
mod random;

use std::fmt::Write;
use std::fs;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use pyro_rootfs::export::ReadTree;
use pyro_rootfs::tree::{Content, ResolveError, StackReader};

use self::file::Exercised;
use self::operation::Operation;
pub(crate) use self::random::Random;
use super::stage::{Stage, pattern};

/// The largest that a file gets.
const SIZE_MAX: usize = 256 << 10;

/// After how many operations all of all files is compared.
const COMPARE_EVERY: usize = 100;

/// How many operations are told when there is a difference.
const TOLD: usize = 200;

/// How often one exercise freezes.
const FREEZES: usize = 6;

/// A difference, in words.
type Difference = String;

pub(crate) fn one_file_is_what_a_model_says(stage: &mut Stage) {
    exercise(stage, 1, 1500, false);
}

pub(crate) fn several_files_are_what_a_model_says(stage: &mut Stage) {
    exercise(stage, 4, 2000, false);
}

pub(crate) fn written_through_they_are_too(stage: &mut Stage) {
    stage.remount_with(&["--write-through"]);
    exercise(stage, 3, 1500, true);
}

/// Freezes come between any two operations: with handles open, files mapped, names gone.
pub(crate) fn live_freezes_change_nothing_and_stay_as_they_were(stage: &mut Stage) {
    exercise(stage, 3, 2000, true);
}

/// Freezes while others are in the middle of anything. What was synced before a freeze is in it, and
/// whatever else is in it stays.
pub(crate) fn freezes_under_load_stay_as_they_were(stage: &mut Stage) {
    let root = stage.root();
    let load = |seed: u64| {
        let mut files = [Exercised::open(&root, format!("tmp/load{seed}"))];
        let mut random = Random::new(seed);
        for n in 0..1000 {
            let operation = Operation::any(&mut random, &files, false);
            let told = format!("seed {seed}, operation {n}: {operation:?}");
            let result = apply(&mut files, operation, n).and_then(|()| files[0].check_size());
            result.unwrap_or_else(|difference| panic!("{told}: {difference}"));
        }
        files[0].check().unwrap();
    };
    let everything = |stage: &Stage, frozen: usize| -> Vec<Option<Vec<u8>>> {
        let mut reader = stage.read_frozen(frozen);
        let paths = (0..3).map(|seed| format!("tmp/load{seed}"));
        paths.map(|path| find(&mut reader, &path)).collect()
    };
    let mut points = Vec::new();
    std::thread::scope(|scope| {
        let load = &load;
        let threads: Vec<_> = (0..3).map(|seed| scope.spawn(move || load(seed))).collect();
        while points.len() < 20 || threads.iter().any(|thread| !thread.is_finished()) {
            let marker = format!("point {}", points.len());
            let mut file = fs::File::create(stage.path("tmp/marker")).unwrap();
            std::io::Write::write_all(&mut file, marker.as_bytes()).unwrap();
            file.sync_all().unwrap();
            let frozen = stage.freeze_live();
            let mut reader = stage.read_frozen(frozen);
            assert_eq!(find(&mut reader, "tmp/marker"), Some(marker.into_bytes()));
            points.push(everything(stage, frozen));
            if points.len() == 60 {
                break;
            }
        }
    });
    stage.remount();
    for (i, point) in points.iter().enumerate() {
        assert!(everything(stage, i + 1) == *point, "point {i} changed");
    }
    assert!(
        points
            .iter()
            .any(|point| point.iter().flatten().any(|content| !content.is_empty()))
    );
}

/// The seeds that were asked for, or else the `usual` ones.
pub(crate) fn seeds(usual: Range<u64>) -> Range<u64> {
    std::env::var("PYRO_EXERCISE_SEEDS").map_or(usual, |range| {
        let (from, to) = range.split_once("..").unwrap();
        from.parse().unwrap()..to.parse().unwrap()
    })
}

fn exercise(stage: &mut Stage, files: usize, usual: usize, freezing: bool) {
    let operations = std::env::var("PYRO_EXERCISE_OPERATIONS");
    let operations = operations.map_or(usual, |n| n.parse().unwrap());
    for seed in seeds(1..4) {
        Exercise::new(stage, seed, files, freezing).run(operations);
    }
}

/// What a freeze kept: content by path.
struct Point {
    frozen: usize,
    contents: Vec<(String, Vec<u8>)>,
}

struct Exercise<'a> {
    stage: &'a mut Stage,
    seed: u64,
    random: Random,
    files: Vec<Exercised>,
    freezing: bool,
    points: Vec<Point>,
    log: Vec<String>,
}

impl<'a> Exercise<'a> {
    fn new(stage: &'a mut Stage, seed: u64, files: usize, freezing: bool) -> Self {
        let mut opened = Vec::new();
        for i in 0..files {
            // The first one lies in the lowest layer.
            let path = match i {
                0 => "big".to_owned(),
                i => format!("tmp/{i}"),
            };
            let mut file = Exercised::open(&stage.root(), path);
            let content = match i {
                0 => pattern(SIZE_MAX / 2),
                _ => Vec::new(),
            };
            file.cut_to(content);
            opened.push(file);
        }
        Self {
            stage,
            seed,
            random: Random::new(seed),
            files: opened,
            freezing,
            points: Vec::new(),
            log: Vec::new(),
        }
    }

    fn run(mut self, operations: usize) {
        for n in 0..operations {
            let operation = Operation::any(&mut self.random, &self.files, self.freezing);
            self.log.push(format!("{n}: {operation:?}"));
            let result = self.apply(operation, n).and_then(|()| {
                let compare = n % COMPARE_EVERY == COMPARE_EVERY - 1;
                let mut files = self.files.iter();
                files.try_for_each(|file| {
                    file.check_size()?;
                    if compare { file.check() } else { Ok(()) }
                })
            });
            self.expect(result);
        }
        self.end();
    }

    fn apply(&mut self, operation: Operation, n: usize) -> Result<(), Difference> {
        match operation {
            Operation::Freeze { only } => self.freeze(only),
            operation => apply(&mut self.files, operation, n),
        }
    }

    /// Freezes when all is synced, or file `only` is.
    fn freeze(&mut self, only: Option<usize>) -> Result<(), Difference> {
        if self.points.len() == FREEZES {
            return Ok(());
        }
        match only {
            Some(file) => self.files[file].sync(),
            // Not with syncfs(2): FUSE's need not wait.
            None => self.files.iter().for_each(Exercised::sync),
        }
        let frozen = self.stage.freeze_live();
        let contents = self
            .files
            .iter()
            .enumerate()
            .filter(|(i, file)| only.is_none_or(|only| only == *i) && file.is_named());
        let contents = contents
            .map(|(_, file)| (file.path().to_owned(), file.model().to_vec()))
            .collect();
        self.points.push(Point { frozen, contents });
        self.check_points()?;
        self.files.iter().try_for_each(Exercised::check)
    }

    /// Reads all points beside the mount.
    fn check_points(&self) -> Result<(), Difference> {
        for point in &self.points {
            let mut reader = self.stage.read_frozen(point.frozen);
            for (path, content) in &point.contents {
                compare(
                    &format!("{path} in point {}", point.frozen),
                    &find(&mut reader, path).ok_or("it is not there")?,
                    content,
                )?;
            }
        }
        Ok(())
    }

    /// Everything again: after the mount went away, and in every point that was frozen.
    fn end(mut self) {
        let result = self.files.iter().try_for_each(Exercised::check);
        self.expect(result);
        let now: Vec<_> = (self.files.drain(..))
            .filter(Exercised::is_named)
            .map(|file| (file.path().to_owned(), file.model().to_vec()))
            .collect();
        self.stage.remount();
        self.expect(self.check_mounted("after a remount", &now));
        self.expect(self.check_points());
        for point in std::mem::take(&mut self.points).into_iter().rev() {
            self.stage.reset(point.frozen);
            let what = format!("after a reset to point {}", point.frozen);
            self.expect(self.check_mounted(&what, &point.contents));
        }
        self.stage.reset(0);
    }

    fn check_mounted(&self, when: &str, contents: &[(String, Vec<u8>)]) -> Result<(), Difference> {
        contents.iter().try_for_each(|(path, content)| {
            let found = fs::read(self.stage.path(path));
            let found = found.map_err(|error| format!("{path} {when}: {error}"))?;
            compare(&format!("{path} {when}"), &found, content)
        })
    }

    fn expect(&self, result: Result<(), Difference>) {
        if let Err(difference) = result {
            let mut told = String::new();
            for line in &self.log[self.log.len().saturating_sub(TOLD)..] {
                let _ = writeln!(told, "{line}");
            }
            panic!("seed {}: {difference}\n{told}", self.seed);
        }
    }
}

/// Does anything but freezing.
fn apply(files: &mut [Exercised], operation: Operation, n: usize) -> Result<(), Difference> {
    match operation {
        Operation::Freeze { .. } => Ok(()),
        Operation::Copy {
            from,
            from_offset,
            to,
            to_offset,
            len,
        } => {
            let source = files[from].duplicate();
            let bytes = source.model_range(from_offset, len).to_vec();
            files[to].copy_from(&source, from_offset, to_offset, &bytes)
        }
        Operation::File { file, action } => files[file].act(&action, n),
    }
}

/// The content of `path` as a stack without a mount says it, if there is such a file.
fn find(reader: &mut StackReader, path: &str) -> Option<Vec<u8>> {
    let attr = match reader.resolve(path.as_bytes(), b"/", true) {
        Err(ResolveError::NotFound) => return None,
        attr => attr.unwrap(),
    };
    let mut bytes = vec![0; attr.size as usize];
    match reader.content(attr.ino).unwrap() {
        Content::Hole => {}
        Content::File { .. } => panic!("a reader has no writable layer"),
        Content::Packed { file, offset, len } => {
            let len = bytes.len().min(len as usize);
            std::os::unix::fs::FileExt::read_exact_at(file, &mut bytes[..len], offset).unwrap();
        }
    }
    Some(bytes)
}

/// Where `found` differs from what is `expected`, if it does.
fn compare(what: &str, found: &[u8], expected: &[u8]) -> Result<(), Difference> {
    if found == expected {
        return Ok(());
    }
    if found.len() != expected.len() {
        return Err(format!(
            "{what} has {} bytes and not {}",
            found.len(),
            expected.len()
        ));
    }
    let differs = |i: &usize| found[*i] != expected[*i];
    let first = (0..found.len()).find(differs).unwrap();
    let last = (0..found.len()).rfind(differs).unwrap();
    Err(format!(
        "{what} differs from byte {first:#x} to {last:#x}: {:#04x} and not {:#04x}",
        found[first], expected[first]
    ))
}

/// Another way to a file that may have no name.
fn by_handle(file: &fs::File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}
