use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::STORIES;
use super::expect::Expectation;
use super::page::Page;
use super::step::Variables;

fn recipes() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes")
}

#[test]
fn every_recipe_is_a_story_with_a_page_and_a_fixture() {
    let known: BTreeSet<String> = STORIES.iter().map(|story| story.name.into()).collect();
    let folders: BTreeSet<String> = std::fs::read_dir(recipes())
        .expect("recipes")
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(folders, known);
    for story in STORIES {
        let folder = recipes().join(story.name);
        let page = Page::read(&folder).expect("a page");
        assert!(folder.join("fixture").is_dir(), "{}", story.name);
        // A step that expects nothing proves nothing.
        for step in &page.steps {
            let expects = step.fails.is_some() || !step.expect.is_empty() || !step.host.is_empty();
            assert!(expects, "{}: {}", story.name, step.title);
        }
        let last = page.steps.last().expect("steps");
        assert_eq!(last.tool, "workspace_delete", "{}", story.name);
    }
}

#[test]
fn every_variable_of_a_page_is_set_before_it_is_used() {
    for story in STORIES {
        let page = Page::read(&recipes().join(story.name)).expect("a page");
        let mut variables = Variables::default();
        for name in ["environment", "fixture", "out"] {
            variables.set(name, "x");
        }
        for (name, text) in &page.texts {
            variables.set(name, text);
        }
        for step in &page.steps {
            let arguments = step.arguments.clone().into();
            variables
                .fill_all(&arguments)
                .unwrap_or_else(|error| panic!("{}: {error}", story.name));
            for name in step.save.keys() {
                variables.set(name, "x");
            }
        }
    }
}

#[test]
fn a_page_is_its_title_named_texts_and_steps() {
    let page = Page::parse(
        "# T\n\n```sh\nls\n```\n\n## One `x`\n\n```python a.py\nprint()\n```\n\n\
         ```json step\n{\"tool\": \"t\", \"expect\": {\"/a\": 1}}\n```\n",
    )
    .expect("a page");
    assert_eq!(page.title, "T");
    assert_eq!(page.texts, [("a.py".to_string(), "print()\n".to_string())]);
    assert_eq!((page.steps.len(), &*page.steps[0].title), (1, "One x"));
    for bad in [
        "no title",
        "# T\n",
        "# T\n```json step\n{}\n```\n",
        "# T\n```json step\n{\"tool\": \"t\", \"expects\": {}}\n```\n",
        "# T\n```a n\n```\n```a n\n```\n```json step\n{\"tool\": \"t\"}\n```\n",
    ] {
        assert!(Page::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn expectations_hold_and_do_not() {
    let mut variables = Variables::default();
    variables.set("who", "me");
    let holds = |expected: serde_json::Value, found: serde_json::Value| {
        Expectation::from(expected)
            .hold(Some(&found), &variables)
            .is_ok()
    };
    assert!(holds(json!(1), json!(1)) && !holds(json!(1), json!("1")));
    assert!(holds(json!("${who}"), json!("me")));
    assert!(holds(json!({"contains": ["a", "b"]}), json!("ab")));
    assert!(!holds(json!({"contains": ["a", "c"]}), json!("ab")));
    assert!(holds(json!({"lacks": "c"}), json!("ab")));
    assert!(!holds(json!({"lacks": ["c", "a"]}), json!("ab")));
    assert!(!holds(json!({"lacks": "c"}), json!(null)));
    assert!(holds(json!({"count": 1}), json!(["x"])) && !holds(json!({"count": 2}), json!(["x"])));
    assert!(
        holds(json!({"absent": true}), json!(null)) && !holds(json!({"absent": true}), json!(0))
    );
    assert!(holds(json!({"k": "${who}"}), json!({"k": "me"})));
    assert!(!holds(json!("${nobody}"), json!("")));
    assert!(Expectation::Absent.hold(None, &variables).is_ok());
}
