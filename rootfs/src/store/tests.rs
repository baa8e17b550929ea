//! Stacks over a store: what is shared, what is kept, what goes.

use std::collections::HashSet;
use std::path::Path;

use super::{LayerId, LayerStore, Point, StackSpec, StoreError};
use crate::testing::{again, at, dir_fd, layer, list, new, read, sample, scratch, write};
use crate::tree::{Ino, PackedFiles, Tree};

fn open(store: &LayerStore, packed: &PackedFiles, stack: &StackSpec) -> Tree {
    Tree::open(store.stack(vec![again(packed)], stack).unwrap()).unwrap()
}

fn put(tree: &mut Tree, name: &str) {
    let ino = tree.create_file(new(Ino::ROOT, name)).unwrap().ino;
    write(tree, ino, 0, name.as_bytes());
}

fn names(dir: &Path) -> usize {
    std::fs::read_dir(dir).unwrap().count()
}

#[test]
fn branches_share_what_is_frozen_and_nothing_else() {
    let (packed, dir) = (layer(sample), scratch());
    let store = LayerStore::new(dir_fd(dir.path()));
    let first = StackSpec::over(Point::packed(), store.create().unwrap().keep());
    let mut tree = open(&store, &packed, &first);
    put(&mut tree, "shared");
    let next = store.create().unwrap();
    let first = first.frozen_under(next.id());
    tree.freeze(next.dir().unwrap()).unwrap();
    next.keep();
    let point = first.beneath().clone();
    let second = StackSpec::over(point.clone(), store.create().unwrap().keep());
    let mut branch = open(&store, &packed, &second);
    put(&mut tree, "one");
    put(&mut branch, "two");
    for (tree, own) in [(&mut tree, "one"), (&mut branch, "two")] {
        let mut expected = vec!["dev", "etc", "lib", own, "shared", "usr"];
        expected.sort_unstable();
        assert_eq!(list(tree, Ino::ROOT), expected);
        let shared = at(tree, "shared");
        assert_eq!(read(tree, shared), b"shared");
    }
    // A reset of the first: its top goes, what is frozen stays.
    drop(tree);
    let first = StackSpec::over(point.clone(), store.create().unwrap().keep());
    let tree = open(&store, &packed, &first);
    assert_eq!(
        list(&tree, Ino::ROOT),
        ["dev", "etc", "lib", "shared", "usr"]
    );
    assert!(point.is_beneath(&first.whole()) && !first.whole().is_beneath(&point));
}

#[test]
fn a_layer_opens_only_over_what_it_was_frozen_over() {
    let (packed, dir) = (layer(sample), scratch());
    let store = LayerStore::new(dir_fd(dir.path()));
    let make = |name: &str| {
        let stack = StackSpec::over(Point::packed(), store.create().unwrap().keep());
        put(&mut open(&store, &packed, &stack), name);
        stack.frozen_under(store.create().unwrap().keep())
    };
    let (a, b) = (make("a"), make("b"));
    put(&mut open(&store, &packed, &a), "above-a");
    put(&mut open(&store, &packed, &b), "above-b");
    let mixed = StackSpec::over(a.beneath().clone(), b.top());
    let opened = Tree::open(store.stack(vec![again(&packed)], &mixed).unwrap());
    assert!(matches!(opened, Err(crate::tree::OpenError::OtherStack)));
    // What is frozen beneath an open stack is not written, nor the other way round.
    let _tree = open(&store, &packed, &a);
    let under = StackSpec::over(Point::packed(), a.beneath().layers()[0]);
    let opened = Tree::open(store.stack(vec![again(&packed)], &under).unwrap());
    assert!(matches!(opened, Err(crate::tree::OpenError::InUse)));
}

#[test]
fn only_what_nobody_refers_to_is_collected() {
    let (packed, dir) = (layer(sample), scratch());
    let store = LayerStore::new(dir_fd(dir.path()));
    let stack = StackSpec::over(Point::packed(), store.create().unwrap().keep());
    let tree = {
        let mut tree = open(&store, &packed, &stack);
        put(&mut tree, "content");
        tree.sync().unwrap();
        tree
    };
    let pending = store.create().unwrap();
    std::fs::create_dir(dir.path().join("not-ours")).unwrap();
    let none = HashSet::new();
    let collected = store.collect(&none).unwrap();
    assert_eq!(collected.in_use, [stack.top()]);
    assert_eq!(collected.foreign, ["not-ours"]);
    assert!(collected.removed.is_empty());
    drop(tree);
    let wanted: HashSet<LayerId> = stack.whole().layers().iter().copied().collect();
    assert!(store.collect(&wanted).unwrap().removed.is_empty());
    assert_eq!(store.collect(&none).unwrap().removed, [stack.top()]);
    assert!(matches!(
        store.layer(stack.top()),
        Err(StoreError::Missing(id)) if id == stack.top()
    ));
    drop(pending);
    assert_eq!(names(dir.path()), 1, "what was not kept is gone");
}

#[test]
fn a_stack_is_written_down_and_read_back_and_hostile_names_are_refused() {
    let id: LayerId = "0123456789abcdef0123456789abcdef".parse().unwrap();
    let stack = StackSpec::over(Point::packed(), id).frozen_under(id);
    let text = serde_json::to_string(&stack).unwrap();
    assert_eq!(text, format!(r#"{{"frozen":["{id}"],"writable":"{id}"}}"#));
    assert_eq!(serde_json::from_str::<StackSpec>(&text).unwrap(), stack);
    for bad in [
        "",
        "..",
        "../../../../../../../../../../x/",
        "0123456789ABCDEF0123456789ABCDEF",
    ] {
        assert!(bad.parse::<LayerId>().is_err());
        let text = format!(r#"{{"frozen":[],"writable":"{bad}"}}"#);
        assert!(serde_json::from_str::<StackSpec>(&text).is_err());
    }
}
