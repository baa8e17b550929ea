//! Random edits, there and back.

use proptest::prelude::*;

use super::git::{check_gits_diff, check_our_diff};
use super::*;

fn content() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        8 => "[a-d]{0,2}\n",
        1 => "[a-d]\r\n",
        1 => "[-+ @\\\\][-a]{0,3}\n",
    ];
    (prop::collection::vec(line, 0..30), "[a-d]?").prop_map(|(lines, end)| {
        let mut text = lines.concat().into_bytes();
        text.extend(end.bytes());
        text
    })
}

fn tree() -> impl Strategy<Value = Files> {
    let name = prop_oneof!["[ab]", "d/[ab ]x", "ö[ab]"];
    let mode = prop_oneof![4 => Just(FileMode::Regular), 1 => Just(FileMode::Executable), 1 => Just(FileMode::Symlink)];
    let file = (mode, content()).prop_map(|(mode, content)| match mode {
        FileMode::Symlink => (mode, format!("to-{}", content.len()).into_bytes()),
        _ => (mode, content),
    });
    prop::collection::btree_map(name.prop_map(String::into_bytes), file, 0..5)
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(25))]

    #[test]
    fn random_changes_go_both_ways(old in tree(), new in tree(), kept in any::<bool>()) {
        let mut new = new;
        if kept {
            // Some of it stays nearly as it was.
            for (path, (mode, content)) in &old {
                let mut content = content.clone();
                if *mode != FileMode::Symlink && content.len() > 4 {
                    content.remove(content.len() / 2);
                }
                new.insert(path.clone(), (*mode, content));
            }
        }
        check_our_diff(&old, &new);
        check_gits_diff(&old, &new);
    }
}

proptest! {
    #![proptest_config(config(600))]

    #[test]
    fn our_diff_takes_us_there(old in tree(), new in tree()) {
        let (patch, _) = diff(&old, &new);
        match old == new {
            true => prop_assert!(patch.is_empty()),
            false => prop_assert_eq!(apply(&old, &patch), Ok(new), "{}", text(&patch)),
        }
    }

    #[test]
    fn damaged_patches_never_panic(old in tree(), new in tree(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
        let (mut patch, _) = diff(&old, &new);
        if !patch.is_empty() {
            let at = at.index(patch.len());
            if cut {
                patch.truncate(at);
            } else {
                patch[at] = byte;
            }
            let _ = apply(&old, &patch);
        }
    }
}
