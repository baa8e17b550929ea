//! Any failure at any time, and power cuts: what was said to be synced is there.

use std::collections::BTreeMap;

use pyro_rootfs::tree::{Ino, RenameMode};
use rustix::io::Errno;

use super::super::exercise::{Random, seeds};
use super::disk::{Disk, name};
use crate::stage::Stage;

/// How many operations come before a power cut.
const OPERATIONS: usize = 60;

/// How many power cuts a disk lives through.
const CUTS: usize = 8;

/// A file as it should be; the byte at every place of it follows from its identity.
#[derive(Clone, Debug)]
struct Appended {
    ino: Ino,
    len: usize,
    /// How much of it was synced.
    synced: usize,
}

/// What is known of a name.
#[derive(Clone, Debug)]
struct Named {
    /// What it names now.
    now: Option<Appended>,
    /// What it named when names were last synced, and when they were not, all since.
    maybe: Vec<Option<Ino>>,
}

impl Default for Named {
    /// Nothing of that name was ever there.
    fn default() -> Self {
        Self {
            now: None,
            maybe: vec![None],
        }
    }
}

pub(crate) fn whatever_fails_what_was_synced_is_there(stage: &mut Stage) {
    let seeds = seeds(0..6);
    let half = seeds.start.midpoint(seeds.end);
    for seed in seeds {
        if seed == half {
            // From here on they see failures when they write, and not only when they sync.
            stage.remount_with(&["--write-through"]);
        }
        let mut disk = Disk::new(stage);
        let mut random = Random::new(seed);
        let mut names: BTreeMap<String, Named> = BTreeMap::new();
        for cut in 0..CUTS {
            let mut log = Vec::new();
            for _ in 0..OPERATIONS {
                let line = step(&mut disk, &mut random, &mut names);
                log.push(line);
            }
            disk.stage.command("heal");
            disk.cut_power();
            if let Err(wrong) = check(&mut disk, &mut names) {
                panic!("seed {seed}, cut {cut}: {wrong}\n{}", log.join("\n"));
            }
        }
        disk.erase();
    }
}

/// Does something; what it was.
fn step(disk: &mut Disk<'_>, random: &mut Random, names: &mut BTreeMap<String, Named>) -> String {
    let of = format!("f{}", random.below(12));
    let entry = names.entry(of.clone()).or_default();
    match (random.below(20), entry.now.clone()) {
        (0..2, _) => {
            let kinds = [
                "write",
                "fsync",
                "fsyncdir",
                "setattr",
                "create",
                "unlink",
                "rename",
                "fallocate",
            ];
            let kind = kinds[random.below(kinds.len())];
            let errno = ["EIO", "ENOSPC"][random.below(2)];
            let command = format!("fail {kind} {errno} {}", random.below(6));
            disk.stage.command(&command);
            command
        }
        (2..5, _) => {
            disk.stage.command("heal");
            "heal".to_owned()
        }
        (5..7, _) => {
            let synced = disk.tree.sync();
            if synced.is_ok() {
                all_synced(names, None);
            }
            format!("sync: {synced:?}")
        }
        (7, _) => {
            let frozen = disk.freeze();
            if frozen.is_ok() {
                all_synced(names, None);
            }
            format!("freeze: {frozen:?}")
        }
        (8..11, Some(file)) => {
            let synced = disk.tree.fsync(file.ino, false);
            if synced.is_ok() {
                all_synced(names, Some(file.ino));
            }
            format!("fsync {of}: {synced:?}")
        }
        (11, Some(file)) => {
            let unlinked = disk.tree.unlink(Ino::ROOT, name(&of));
            if unlinked.is_ok() {
                entry.now = None;
                entry.maybe.push(None);
            }
            format!("unlink {of} {file:?}: {unlinked:?}")
        }
        (12, Some(file)) => {
            let to = format!("f{}", random.below(12));
            let (from, onto) = (name(&of), name(&to));
            let renamed = disk
                .tree
                .rename(Ino::ROOT, from, Ino::ROOT, onto, RenameMode::Replace);
            if renamed.is_ok() && to != of {
                entry.now = None;
                entry.maybe.push(None);
                let target = names.entry(to.clone()).or_default();
                target.maybe.push(Some(file.ino));
                target.now = Some(file);
            }
            format!("rename {of} to {to}: {renamed:?}")
        }
        (_, Some(mut file)) => {
            let len = 1 + random.below(9000);
            let bytes: Vec<u8> = (file.len..file.len + len)
                .map(|i| byte(file.ino, i))
                .collect();
            let written = disk.try_write(file.ino, file.len as u64, &bytes);
            if written.is_ok() {
                file.len += len;
                entry.now = Some(file);
            }
            format!("append {len} to {of}: {written:?}")
        }
        (_, None) => {
            let made = disk.try_create(&of);
            if let Ok(ino) = made {
                entry.maybe.push(Some(ino));
                entry.now = Some(Appended {
                    ino,
                    len: 0,
                    synced: 0,
                });
            }
            format!("create {of}: {made:?}")
        }
    }
}

/// Notes that all names are synced, and the content of `only`, or of all.
fn all_synced(names: &mut BTreeMap<String, Named>, only: Option<Ino>) {
    for named in names.values_mut() {
        named.maybe = vec![named.now.as_ref().map(|file| file.ino)];
        if let Some(file) = &mut named.now
            && only.is_none_or(|ino| ino == file.ino)
        {
            file.synced = file.len;
        }
    }
}

/// Whether what is there now may be; the model then goes on from there.
fn check(disk: &mut Disk<'_>, names: &mut BTreeMap<String, Named>) -> Result<(), String> {
    let synced: BTreeMap<Ino, usize> = (names.values())
        .filter_map(|named| named.now.as_ref().map(|file| (file.ino, file.synced)))
        .collect();
    for (of, named) in names.iter_mut() {
        let found = match disk.tree.lookup(Ino::ROOT, name(of)) {
            Ok(attr) => Some(attr.ino),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(format!("{of}: {errno}")),
        };
        let maybe = std::mem::take(&mut named.maybe);
        if !maybe.contains(&found) {
            return Err(format!("{of} is {found:?} and not any of {maybe:?}"));
        }
        named.maybe.push(found);
        named.now = None;
        let Some(ino) = found else { continue };
        let content = disk.read(of);
        let synced = synced.get(&ino).copied().unwrap_or(0);
        if content.len() < synced {
            return Err(format!("{of} has {} bytes of {synced}", content.len()));
        }
        for (i, &found) in content.iter().enumerate() {
            if found != byte(ino, i) && (i < synced || found != 0) {
                return Err(format!("{of} has {found:#x} at {i}, {synced} were synced"));
            }
        }
        // What is not whole goes, so that the rest of the exercise knows what to expect.
        disk.truncate(ino, synced as u64);
        named.now = Some(Appended {
            ino,
            len: synced,
            synced,
        });
    }
    let unknown = disk.names().into_iter().find(|of| !names.contains_key(of));
    unknown.map_or(Ok(()), |of| Err(format!("{of} was never made")))
}

/// The byte at `i` of a file; never zero.
fn byte(ino: Ino, i: usize) -> u8 {
    (ino.0 as usize * 37 + i / 7) as u8 | 1
}
