use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;

use super::*;
use crate::testing::{at, list, read};

fn import(stage: &mut Stage, path: &Path) -> Result<ImportSummary, ImportError> {
    import_path(
        &mut stage.tree,
        stage.dest,
        path,
        IgnoredFiles::LeaveBehind,
        ImportLimits::default(),
    )
}

#[test]
fn a_directory_comes_in_with_modes_links_times_and_holes() {
    let seed = scratch();
    let path = |name: &str| seed.path().join(name);
    fs::create_dir_all(path("src/deep")).unwrap();
    fs::write(path("src/run.sh"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(path("src/run.sh"), PermissionsExt::from_mode(0o6751)).unwrap();
    fs::set_permissions(path("src/deep"), PermissionsExt::from_mode(0o1700)).unwrap();
    symlink("src/run.sh", path("run")).unwrap();
    fs::hard_link(path("src/run.sh"), path("other")).unwrap();
    fs::write(path("big"), vec![5; 600_000]).unwrap();
    fs::File::create(path("hole"))
        .unwrap()
        .set_len(1 << 20)
        .unwrap();
    let mut stage = stage();
    let summary = import(&mut stage, seed.path()).unwrap();
    assert_eq!(
        (
            summary.files,
            summary.directories,
            summary.symlinks,
            summary.hard_links
        ),
        (3, 2, 1, 1)
    );
    assert_eq!(summary.skipped_count, 0);
    let run = at(&stage.tree, "workspace/src/run.sh");
    let attr = stage.tree.attr(run).unwrap();
    assert_eq!(
        (attr.mode, attr.uid, attr.gid, attr.nlink),
        (0o751, 0, 0, 2)
    );
    assert_eq!(
        attr.mtime.secs,
        fs::metadata(path("other")).unwrap().mtime()
    );
    assert_eq!(at(&stage.tree, "workspace/other"), run);
    assert_eq!(
        stage
            .tree
            .readlink(at(&stage.tree, "workspace/run"))
            .unwrap(),
        b"src/run.sh"
    );
    let deep = stage
        .tree
        .attr(at(&stage.tree, "workspace/src/deep"))
        .unwrap();
    assert_eq!(deep.mode, 0o1700);
    let src = stage.tree.attr(at(&stage.tree, "workspace/src")).unwrap();
    let on_host = fs::metadata(path("src")).unwrap();
    assert_eq!(
        (src.mtime.secs, i64::from(src.mtime.nanos)),
        (on_host.mtime(), on_host.mtime_nsec())
    );
    let big = at(&stage.tree, "workspace/big");
    assert_eq!(read(&mut stage.tree, big), vec![5; 600_000]);
    let hole = stage.tree.attr(at(&stage.tree, "workspace/hole")).unwrap();
    assert_eq!((hole.size, hole.blocks), (1 << 20, 0));
}

#[test]
fn special_files_are_skipped_and_named() {
    let seed = scratch();
    rustix::fs::mkfifoat(rustix::fs::CWD, seed.path().join("pipe"), Mode::RWXU).unwrap();
    let _socket = UnixListener::bind(seed.path().join("socket")).unwrap();
    fs::write(seed.path().join("file"), "x").unwrap();
    let mut stage = stage();
    let summary = import(&mut stage, seed.path()).unwrap();
    let skipped: Vec<_> = summary.skipped.iter().map(|it| it.path.as_str()).collect();
    assert_eq!(
        (skipped, summary.skipped_count),
        (vec!["pipe", "socket"], 2)
    );
    assert_eq!(list(&stage.tree, stage.dest), ["file"]);
}

#[test]
fn what_may_not_be_read_is_skipped_and_named() {
    let seed = scratch();
    fs::write(seed.path().join("secret"), "x").unwrap();
    fs::write(seed.path().join("open"), "x").unwrap();
    fs::create_dir(seed.path().join("closed")).unwrap();
    for name in ["secret", "closed"] {
        fs::set_permissions(seed.path().join(name), PermissionsExt::from_mode(0o0)).unwrap();
    }
    // A thread of its own, which gives up what lets root read everything.
    let import = || {
        use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
        let mut sets = capabilities(None).unwrap();
        sets.effective &= !(CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH);
        set_capabilities(None, sets).unwrap();
        let mut stage = stage();
        let summary = import(&mut stage, seed.path()).unwrap();
        (summary, list(&stage.tree, stage.dest))
    };
    let (summary, listed) = std::thread::scope(|scope| scope.spawn(import).join().unwrap());
    let skipped = summary.skipped.iter();
    let skipped: Vec<_> = skipped.map(|it| (it.path.as_str(), it.reason)).collect();
    let reason = "it may not be read";
    assert_eq!(skipped, [("closed", reason), ("secret", reason)]);
    assert_eq!(listed, ["open"]);
}

#[test]
fn links_that_leave_the_seed_are_refused_by_name() {
    for (name, target) in [
        ("abs", "/etc/passwd"),
        ("up", "../x"),
        ("sub/up", "../../x"),
    ] {
        let seed = scratch();
        fs::create_dir(seed.path().join("sub")).unwrap();
        symlink(target, seed.path().join(name)).unwrap();
        let (member, reason) = refused(import(&mut stage(), seed.path()));
        assert_eq!(
            (member.as_str(), reason),
            (name, "it links to a place outside the seed")
        );
    }
}

#[test]
fn limits_and_depth_end_an_import() {
    let seed = scratch();
    let deep = seed.path().join("d/".repeat(300));
    fs::create_dir_all(&deep).unwrap();
    let (_, reason) = refused(import(&mut stage(), seed.path()));
    assert_eq!(reason, "directories lie in each other too deeply");
    let limits = ImportLimits {
        bytes: 10,
        entries: 5,
    };
    let error = |path: &Path| {
        let mut stage = stage();
        import_directory(
            &mut stage.tree,
            stage.dest,
            path,
            IgnoredFiles::Take,
            limits,
        )
        .unwrap_err()
    };
    assert!(matches!(
        error(seed.path()),
        ImportError::TooLarge { limit: 5, .. }
    ));
    let seed = scratch();
    fs::write(seed.path().join("f"), "more than ten bytes").unwrap();
    assert!(matches!(
        error(seed.path()),
        ImportError::TooLarge {
            limit: 10,
            unit: "bytes",
            ..
        }
    ));
}

#[test]
fn an_archive_is_known_by_what_is_in_it_and_other_files_are_refused() {
    let dir = scratch();
    let file = dir.path().join("seed.tgz");
    let mut builder = tar::Builder::new(flate2::write::GzEncoder::new(
        fs::File::create(&file).unwrap(),
        flate2::Compression::fast(),
    ));
    let mut header = tar::Header::new_gnu();
    header.set_size(2);
    header.set_mode(0o600);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    builder.append_data(&mut header, "f", &b"hi"[..]).unwrap();
    builder.into_inner().unwrap().finish().unwrap();
    let mut stage = stage();
    assert_eq!(import(&mut stage, &file).unwrap().files, 1);
    let error = import(&mut stage, Path::new("/dev/null")).unwrap_err();
    assert!(matches!(error, ImportError::Kind { .. }), "{error:?}");
    let error = import(&mut stage, &dir.path().join("nothing")).unwrap_err();
    assert!(matches!(error, ImportError::Seed { .. }), "{error:?}");
}

#[test]
fn a_link_put_in_place_of_a_file_or_directory_meanwhile_is_never_followed() {
    use std::sync::atomic::{AtomicBool, Ordering};

    let outside = scratch();
    fs::write(outside.path().join("secret"), "outside").unwrap();
    let seed = scratch();
    fs::create_dir(seed.path().join("dir")).unwrap();
    fs::write(seed.path().join("dir/secret"), "inside").unwrap();
    symlink(outside.path(), seed.path().join(".swap")).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (a, b) = (seed.path().join("dir"), seed.path().join(".swap"));
            while !done.load(Ordering::Relaxed) {
                let _ = rustix::fs::renameat_with(
                    rustix::fs::CWD,
                    &a,
                    rustix::fs::CWD,
                    &b,
                    rustix::fs::RenameFlags::EXCHANGE,
                );
            }
        });
        let mut stage = stage();
        for _ in 0..100 {
            // Whether it is refused for the link depends on the moment.
            let _ = import(&mut stage, seed.path());
            for dir in ["dir", ".swap"] {
                let Ok(attr) = stage.tree.lookup(stage.dest, crate::testing::name(dir)) else {
                    continue;
                };
                if let Ok(file) = stage.tree.lookup(attr.ino, crate::testing::name("secret")) {
                    assert_eq!(read(&mut stage.tree, file.ino), b"inside");
                }
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}
