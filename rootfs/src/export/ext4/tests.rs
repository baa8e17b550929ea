//! Images against e2fsprogs: what `e2fsck` calls clean and `debugfs` reads back.

use std::process::Command;

use super::*;
use crate::testing::{layer, meta, name, new, open, sample, scratch, write};
use crate::tree::{FileType, Ino, SetAttr, Timestamp, Tree, XattrMode};

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .output()
        .expect("e2fsprogs are needed for this test");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "{program} {args:?}: {text}");
    text
}

struct Image {
    dir: tempfile::TempDir,
    summary: Ext4Summary,
}

impl Image {
    fn of(tree: &mut Tree, size: Option<u64>) -> Self {
        let dir = scratch();
        let path = dir.path().join("disk");
        let options = Ext4Options { size };
        let summary = export_ext4(tree, &path, Existing::Refuse, options).unwrap();
        let image = Self { dir, summary };
        run("e2fsck", &["-fn", &image.path()]);
        image
    }

    fn path(&self) -> String {
        self.dir.path().join("disk").display().to_string()
    }

    fn debugfs(&self, request: &str) -> String {
        run("debugfs", &["-R", request, &self.path()])
    }

    fn content(&self, path: &str) -> Vec<u8> {
        let out = self.dir.path().join("content");
        self.debugfs(&format!("dump \"{path}\" {}", out.display()));
        std::fs::read(out).unwrap()
    }
}

fn file(tree: &mut Tree, parent: Ino, name: &str, bytes: &[u8]) -> Ino {
    let ino = tree.create_file(new(parent, name)).unwrap().ino;
    write(tree, ino, 0, bytes);
    ino
}

#[test]
fn everything_of_a_tree_is_in_its_image() {
    let dir = scratch();
    let mut tree = open(&layer(sample), dir.path());
    let root = tree.mkdir(new(Ino::ROOT, "work")).unwrap().ino;
    let owned = file(&mut tree, root, "owned", b"content");
    tree.link(owned, Ino::ROOT, name("second")).unwrap();
    let change = SetAttr {
        mode: Some(0o4751),
        uid: Some(70_000),
        gid: Some(100_000),
        mtime: Some(Timestamp {
            secs: 5_000_000_000,
            nanos: 7,
        }),
        ..SetAttr::default()
    };
    tree.set_attr(owned, &change).unwrap();
    tree.mknod(new(root, "disk"), FileType::BlockDevice, 0x12_3103)
        .unwrap();
    tree.mknod(new(root, "pipe"), FileType::Fifo, 0).unwrap();
    tree.mknod(new(root, "socket"), FileType::Socket, 0)
        .unwrap();
    tree.symlink(new(root, "short"), b"/etc/passwd").unwrap();
    tree.symlink(new(root, "long"), &[b'l'; 300]).unwrap();
    tree.symlink(new(root, "edge"), &[b'e'; 60]).unwrap();
    tree.symlink(new(root, "inline"), &[b'i'; 59]).unwrap();
    for (key, value) in [
        ("user.a", &b"1"[..]),
        ("user.empty", b""),
        ("security.x", &[3; 999]),
        ("trusted.t", b"abc"),
    ] {
        tree.set_xattr(owned, key.as_bytes(), value, XattrMode::Any)
            .unwrap();
    }
    let acl: Vec<u8> = [
        2_u32,
        0x0006_0001,
        u32::MAX,
        0x0004_0002,
        1234,
        0x0004_0004,
        u32::MAX,
        0x0006_0010,
        u32::MAX,
        0x0004_0020,
        u32::MAX,
    ]
    .iter()
    .flat_map(|it| it.to_le_bytes())
    .collect();
    tree.set_xattr(owned, b"system.posix_acl_access", &acl, XattrMode::Any)
        .unwrap();
    tree.set_xattr(root, b"user.large", &[1; 5000], XattrMode::Any)
        .unwrap();
    let image = Image::of(&mut tree, None);
    assert_eq!(image.summary.skipped_count, 1, "the large attribute");
    assert_eq!(image.summary.skipped[0].path, "work");
    let stat = image.debugfs("stat /work/owned");
    for want in [
        "Mode:  04751",
        "User: 70000",
        "Group: 100000",
        "Links: 2",
        "Size: 7",
        "user.a",
        "security.x",
        "posix_acl_access",
        "mtime: 0x2a05f200:0000001d",
    ] {
        assert!(stat.contains(want), "{want} is not in {stat}");
    }
    let stat = image.debugfs("stat /work/disk");
    assert!(stat.contains("561:259"), "{stat}");
    assert!(image.debugfs("stat /dev/null").contains("01:03"));
    assert!(image.debugfs("stat /work/pipe").contains("Type: FIFO"));
    assert!(image.debugfs("stat /work/socket").contains("Type: socket"));
    for (name, target) in [
        ("short", "/etc/passwd".to_owned()),
        ("inline", "i".repeat(59)),
    ] {
        assert!(
            image
                .debugfs(&format!("stat /work/{name}"))
                .contains(&format!("\"{target}\"")),
            "{name}"
        );
    }
    assert_eq!(image.content("/work/owned"), b"content");
    assert_eq!(image.content("/second"), b"content");
    assert_eq!(image.content("/usr/lib/big"), [b'b'; 10_000]);
    assert_eq!(image.content("/work/long"), [b'l'; 300]);
    assert_eq!(
        image
            .debugfs("ls -p /lost+found")
            .lines()
            .filter(|line| line.starts_with('/'))
            .count(),
        2
    );
}

#[test]
fn files_with_many_holes_and_directories_with_many_names_are_whole() {
    let dir = scratch();
    let mut tree = open(
        &layer(|writer| writer.add_directory(b"", meta(0o755)).unwrap()),
        dir.path(),
    );
    // A lost+found of its own.
    let lost = tree.mkdir(new(Ino::ROOT, "lost+found")).unwrap().ino;
    for i in 0..3000 {
        tree.create_file(new(lost, &format!("{i}-{}", "n".repeat(i % 240))))
            .unwrap();
    }
    let holes = tree.create_file(new(Ino::ROOT, "holes")).unwrap().ino;
    for i in 0..1500_u64 {
        write(
            &mut tree,
            holes,
            i * 3 * 4096,
            format!("piece {i}").as_bytes(),
        );
    }
    let few = tree.create_file(new(Ino::ROOT, "few")).unwrap().ino;
    for i in 0..5_u64 {
        write(&mut tree, few, i << 32, b"far");
    }
    let image = Image::of(&mut tree, None);
    let content = image.content("/holes");
    assert_eq!(content.len(), 1499 * 3 * 4096 + 10);
    for i in [0, 1, 339, 340, 341, 1499] {
        assert!(content[i * 3 * 4096..].starts_with(format!("piece {i}").as_bytes()));
    }
    assert!(image.debugfs("stat /few").contains("Size: 17179869187"));
    let names = image.debugfs("ls -p /lost+found");
    assert_eq!(
        names.lines().filter(|line| line.starts_with('/')).count(),
        3002
    );
}

#[test]
fn contents_go_on_over_the_begin_of_a_group() {
    let dir = scratch();
    let mut tree = open(&layer(sample), dir.path());
    let big = tree.create_file(new(Ino::ROOT, "big")).unwrap().ino;
    let piece: Vec<u8> = (0..1_u32 << 20).map(|i| (i % 251) as u8 | 1).collect();
    for i in 0..140 {
        write(&mut tree, big, i << 20, &piece);
    }
    let after = file(&mut tree, Ino::ROOT, "later", b"after it");
    assert_ne!(after, big);
    let image = Image::of(&mut tree, None);
    let content = image.content("/big");
    assert_eq!(content.len(), 140 << 20);
    assert!(content.chunks(1 << 20).all(|it| it == piece));
    assert_eq!(image.content("/later"), b"after it");
    assert!(image.summary.size > 140 << 20);
}

#[test]
fn a_size_that_was_asked_for_is_kept_or_refused() {
    let dir = scratch();
    let mut tree = open(&layer(sample), dir.path());
    for size in [
        1 << 20,
        (5 << 20) + 123,
        128 << 20,
        (128 << 20) + (1 << 20),
        3 << 30,
    ] {
        let image = Image::of(&mut tree, Some(size));
        let got = image.summary.size;
        assert!(got <= size && got + (2 << 20) > size, "{got} of {size}");
        let file = std::fs::metadata(image.path()).unwrap();
        assert_eq!(file.len(), got);
        assert!(
            std::os::unix::fs::MetadataExt::blocks(&file) * 512 < 2 << 20,
            "it is sparse"
        );
    }
    let output = dir.path().join("small");
    for size in [0, 4096, 100 << 10] {
        let options = Ext4Options { size: Some(size) };
        let error = export_ext4(&mut tree, &output, Existing::Refuse, options).unwrap_err();
        assert!(matches!(error, ExportError::TooLarge { .. }), "{error:?}");
        assert!(!output.exists());
    }
}
