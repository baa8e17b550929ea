//! Names: links, renames, directories, listings.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::stage::{MOTD, Stage, drop_caches};

fn names(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

pub(crate) fn hard_links_are_one_file(stage: &mut Stage) {
    let (su, sudo) = (stage.path("bin/su"), stage.path("bin/sudo"));
    assert_eq!(su.metadata().unwrap().ino(), sudo.metadata().unwrap().ino());
    assert_eq!(su.metadata().unwrap().nlink(), 2);
    fs::write(&sudo, "changed").unwrap();
    assert_eq!(fs::read(&su).unwrap(), b"changed");
    let third = stage.path("tmp/third");
    fs::hard_link(&su, &third).unwrap();
    assert_eq!(third.metadata().unwrap().nlink(), 3);
    fs::remove_file(&su).unwrap();
    fs::remove_file(&sudo).unwrap();
    assert_eq!(third.metadata().unwrap().nlink(), 1);
    drop_caches(&stage.root());
    assert_eq!(fs::read(&third).unwrap(), b"changed");
    assert_eq!(third.metadata().unwrap().nlink(), 1);
}

pub(crate) fn lower_directories_move(stage: &mut Stage) {
    let (from, to) = (stage.path("usr/lib/pkg1"), stage.path("tmp/moved"));
    let ino = from.metadata().unwrap().ino();
    fs::rename(&from, &to).unwrap();
    assert_eq!(to.metadata().unwrap().ino(), ino);
    assert_eq!(
        fs::read(to.join("sub/mod7.txt")).unwrap(),
        b"usr/lib/pkg1/sub/mod7.txt"
    );
    assert!(!from.exists());
    fs::create_dir(&from).unwrap();
    assert!(names(&from).is_empty(), "the old content shows through");
    fs::write(to.join("sub/new"), "new").unwrap();
    fs::remove_file(to.join("sub/mod0.txt")).unwrap();
    drop_caches(&stage.root());
    assert_eq!(names(&to.join("sub")).len(), 20);
    assert!(names(&from).is_empty());
    // A directory cannot go into itself, and `..` leads to the new parent.
    let inside = to.join("sub/inside");
    assert_eq!(
        fs::rename(&to, &inside).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    let parent = to.join("..").metadata().unwrap().ino();
    assert_eq!(parent, stage.path("tmp").metadata().unwrap().ino());
}

pub(crate) fn renames_replace_exchange_and_refuse(stage: &mut Stage) {
    let path = |name: &str| stage.path(name);
    let rename = |from: &str, to: &str, flags| renameat_with(CWD, path(from), CWD, path(to), flags);
    let motd = path("etc/motd").metadata().unwrap().ino();
    assert_eq!(
        rename("etc/motd", "big", RenameFlags::NOREPLACE),
        Err(Errno::EXIST)
    );
    rename("etc/motd", "usr/lib", RenameFlags::EXCHANGE).unwrap();
    assert_eq!(fs::read(path("usr/lib")).unwrap(), MOTD);
    assert_eq!(names(&path("etc/motd")).len(), 5);
    rename("etc/motd", "usr/lib", RenameFlags::EXCHANGE).unwrap();
    assert_eq!(
        rename("etc/motd", "usr/lib", RenameFlags::empty()),
        Err(Errno::ISDIR)
    );
    assert_eq!(
        rename("usr/lib", "etc/motd", RenameFlags::empty()),
        Err(Errno::NOTDIR)
    );
    assert_eq!(
        rename("usr/lib/pkg0", "usr/lib/pkg1", RenameFlags::empty()),
        Err(Errno::NOTEMPTY)
    );
    rename("etc/motd", "big", RenameFlags::empty()).unwrap();
    assert_eq!(path("big").metadata().unwrap().ino(), motd);
    fs::create_dir(path("tmp/empty")).unwrap();
    rename("usr/lib/pkg0", "tmp/empty", RenameFlags::empty()).unwrap();
    assert_eq!(names(&path("tmp/empty/sub")).len(), 20);
    assert_eq!(
        fs::remove_dir(path("tmp/empty")).unwrap_err().kind(),
        ErrorKind::DirectoryNotEmpty
    );
}

pub(crate) fn a_missing_name_can_be_made(stage: &mut Stage) {
    let path = stage.path("etc/later");
    for _ in 0..3 {
        assert!(!path.exists());
        fs::write(&path, "now").unwrap();
        assert!(path.exists());
        fs::remove_file(&path).unwrap();
    }
    assert_eq!(
        fs::remove_file(&path).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    let hidden = stage.path("etc/motd");
    fs::remove_file(&hidden).unwrap();
    drop_caches(&stage.root());
    assert!(!hidden.exists());
    assert!(names(&stage.path("etc")).is_empty());
}

pub(crate) fn deep_trees_go_deep(stage: &mut Stage) {
    let mut path = stage.path("tmp");
    let depth = 150;
    for level in 0..depth {
        path.push(format!("level{level}"));
        fs::create_dir(&path).unwrap();
    }
    fs::write(path.join("bottom"), "deep").unwrap();
    drop_caches(&stage.root());
    assert_eq!(fs::read(path.join("bottom")).unwrap(), b"deep");
    fs::rename(stage.path("tmp/level0/level1"), stage.path("tmp/short")).unwrap();
    fs::remove_dir_all(stage.path("tmp/short")).unwrap();
    fs::remove_dir(stage.path("tmp/level0")).unwrap();
}

pub(crate) fn names_are_bytes(stage: &mut Stage) {
    let long = vec![b'x'; 255];
    let odd: [&[u8]; 5] = [b"\xff\xfe", b"with space", b"\n", b"...", &long];
    let dir = stage.path("tmp");
    for name in odd {
        fs::write(dir.join(OsStr::from_bytes(name)), name).unwrap();
    }
    drop_caches(&stage.root());
    let listed: BTreeSet<Vec<u8>> = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().as_bytes().to_vec())
        .collect();
    assert_eq!(listed, odd.iter().map(|name| name.to_vec()).collect());
    for name in odd {
        assert_eq!(fs::read(dir.join(OsStr::from_bytes(name))).unwrap(), name);
    }
    let error = fs::write(dir.join("y".repeat(256)), "").unwrap_err();
    assert_eq!(
        error.raw_os_error(),
        Some(Errno::NAMETOOLONG.raw_os_error())
    );
}

pub(crate) fn large_directories_list_every_name_once(stage: &mut Stage) {
    let dir = stage.path("tmp/large");
    fs::create_dir(&dir).unwrap();
    let expected: BTreeSet<String> = (0..3000).map(|i| format!("file-{i}")).collect();
    for name in &expected {
        fs::File::create(dir.join(name)).unwrap();
    }
    for _ in 0..2 {
        let listed: Vec<_> = fs::read_dir(&dir)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(listed.len(), expected.len());
        assert_eq!(names(&dir), expected);
        drop_caches(&stage.root());
    }
}

/// POSIX: entries that are there all the time are listed once; those added or removed meanwhile
/// may or may not be.
pub(crate) fn a_listing_survives_changes_made_meanwhile(stage: &mut Stage) {
    let dir = stage.path("tmp/busy");
    fs::create_dir(&dir).unwrap();
    for i in 0..1000 {
        fs::File::create(dir.join(format!("stays-{i}"))).unwrap();
        fs::File::create(dir.join(format!("goes-{i}"))).unwrap();
    }
    drop_caches(&stage.root());
    let mut seen = Vec::new();
    for (i, entry) in fs::read_dir(&dir).unwrap().enumerate() {
        seen.push(entry.unwrap().file_name().into_string().unwrap());
        if i < 1000 {
            let _ = fs::remove_file(dir.join(format!("goes-{}", 999 - i)));
            fs::File::create(dir.join(format!("comes-{i}"))).unwrap();
        }
    }
    let stays: Vec<_> = seen
        .iter()
        .filter(|name| name.starts_with("stays-"))
        .collect();
    assert_eq!(stays.len(), 1000);
    let all = seen.len();
    assert_eq!(
        seen.into_iter().collect::<BTreeSet<_>>().len(),
        all,
        "a name is listed twice"
    );
    // `rm -r` in a fashion: removing while listing reaches everything.
    for entry in fs::read_dir(&dir).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    fs::remove_dir(&dir).unwrap();
}

pub(crate) fn many_threads_make_and_remove(stage: &mut Stage) {
    let dir = stage.path("tmp");
    thread::scope(|scope| {
        for thread in 0..4 {
            let dir = &dir;
            scope.spawn(move || {
                for round in 0..100 {
                    let own = dir.join(format!("{thread}-{round}"));
                    fs::write(&own, format!("{thread} {round}")).unwrap();
                    let shared = dir.join("shared");
                    fs::rename(&own, &shared).unwrap();
                    let _ = fs::hard_link(&shared, &own);
                    let _ = fs::read(&shared);
                    let _ = fs::read_dir(dir).unwrap().count();
                    let _ = fs::remove_file(&own);
                }
            });
        }
    });
    assert_eq!(names(&dir), BTreeSet::from(["shared".to_owned()]));
    assert_eq!(dir.join("shared").metadata().unwrap().nlink(), 1);
}
