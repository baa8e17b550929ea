use std::collections::BTreeMap;
use std::io::Read;

use ::tar::Archive;

use super::*;
use crate::testing::name;

fn export(tree: &mut Tree, what: &str) -> (Vec<u8>, ExportSummary) {
    let ino = at(tree, what);
    let mut bytes = Vec::new();
    let limits = ExportLimits::default();
    let summary = export_tar(tree, ino, name("top"), &mut bytes, limits).unwrap();
    (bytes, summary)
}

#[test]
fn an_archive_has_sorted_members_of_root() {
    let (mut tree, _dir) = tree();
    let (bytes, summary) = export(&mut tree, "workspace");
    assert_eq!(skipped(&summary), SKIPPED);
    let mut members = Vec::new();
    let mut contents = BTreeMap::new();
    for entry in Archive::new(&bytes[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        assert_eq!(
            (entry.header().uid().unwrap(), entry.header().gid().unwrap()),
            (0, 0)
        );
        assert_eq!(entry.header().mode().unwrap() & 0o6000, 0);
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        contents.insert(path.clone(), content);
        let link = entry
            .link_name_bytes()
            .map(|it| String::from_utf8(it.into_owned()).unwrap());
        members.push((path, link));
    }
    let of = |path: &str| (path.to_owned(), None);
    let link = |path: &str, target: &str| (path.to_owned(), Some(target.to_owned()));
    assert_eq!(
        members,
        [
            of("top/"),
            of("top/big"),
            link("top/dangling", "not/there"),
            of("top/hole"),
            link("top/in", "sub/script"),
            of("top/other"),
            of("top/sub/"),
            link("top/sub/script", "top/other"),
            link("top/sub/up", "../big"),
        ]
    );
    assert_eq!(contents["top/hole"].len(), 1 << 20);
    assert_eq!(&contents["top/hole"][512 << 10..][..13], b"in the middle");
}

#[test]
fn the_same_tree_gives_the_same_bytes() {
    let (mut one, _dir) = tree();
    let (mut two, _dir2) = tree();
    for tree in [&mut one, &mut two] {
        // Files whose times the tests' builder did not set.
        for path in [
            "workspace/big",
            "workspace/hole",
            "workspace/in",
            "workspace/sub/up",
            "workspace/dangling",
        ] {
            let change = SetAttr {
                mtime: Some(Timestamp { secs: 7, nanos: 0 }),
                ..SetAttr::default()
            };
            let ino = at(tree, path);
            tree.set_attr(ino, &change).unwrap();
        }
    }
    assert_eq!(
        export(&mut one, "workspace").0,
        export(&mut two, "workspace").0
    );
}

#[test]
fn long_names_and_targets_survive_gnu_tar() {
    let (mut tree, _dir) = tree();
    let dir = tree.mkdir(new(Ino::ROOT, "long")).unwrap().ino;
    let mut parent = dir;
    for _ in 0..3 {
        parent = tree.mkdir(new(parent, &"d".repeat(200))).unwrap().ino;
    }
    tree.create_file(new(parent, "f")).unwrap();
    tree.symlink(new(dir, "l"), "t/".repeat(150).as_bytes())
        .unwrap();
    let (bytes, _) = export(&mut tree, "long");
    let scratch = scratch();
    let file = scratch.path().join("a.tar");
    std::fs::write(&file, bytes).unwrap();
    let output = std::process::Command::new("tar")
        .arg("-xf")
        .arg(&file)
        .arg("-C")
        .arg(scratch.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let link = std::fs::read_link(scratch.path().join("top/l")).unwrap();
    assert_eq!(link.to_str().unwrap(), "t/".repeat(150));
    let deep = scratch
        .path()
        .join("top")
        .join(format!("{}f", format!("{}/", "d".repeat(200)).repeat(3)));
    assert!(deep.exists());
}
