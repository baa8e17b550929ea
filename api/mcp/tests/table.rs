//! The table of tools: names, profiles, size, and `docs/mcp-tools.md` made from it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use pyro_mcp::{Profile, tools};
use serde_json::Value;

/// The contract's names, in its order.
const NAMES: &str = "vm_run vm_list_environments vm_create vm_start vm_exec vm_stop vm_delete vm_status \
    vm_network_info vm_reap_expired workspace_create workspace_list workspace_update workspace_status \
    workspace_start workspace_stop workspace_delete workspace_sync_push workspace_exec workspace_logs \
    workspace_export workspace_diff workspace_file_list workspace_file_read workspace_file_write \
    workspace_patch_apply workspace_reset workspace_disk_export workspace_disk_list workspace_disk_read \
    snapshot_create snapshot_list snapshot_delete service_start service_list service_status service_logs \
    service_stop shell_open shell_read shell_write shell_signal shell_close";
const CORE: &str = "vm_run workspace_create workspace_list workspace_update workspace_status workspace_delete \
    workspace_sync_push workspace_exec workspace_logs workspace_export workspace_diff workspace_file_list \
    workspace_file_read workspace_file_write workspace_patch_apply workspace_reset";

fn names(profile: Profile) -> Vec<&'static str> {
    tools::of(profile).map(|tool| tool.name).collect()
}

/// A profile's tools as they cross the wire.
fn listed(profile: Profile) -> Value {
    let listed: Vec<_> = tools::of(profile)
        .map(|tool| tool.listed(profile))
        .collect();
    serde_json::to_value(listed).expect("plain data")
}

#[test]
fn the_tools_are_the_contracts_in_its_order() {
    let all: Vec<_> = NAMES.split_whitespace().collect();
    assert_eq!(names(Profile::WorkspaceFull), all);
    let core: Vec<_> = CORE.split_whitespace().collect();
    assert_eq!(names(Profile::WorkspaceCore), core);
    assert_eq!(names(Profile::VmRun), ["vm_run"]);
}

#[test]
fn narrow_profiles_do_not_even_mention_what_they_lack() {
    for profile in [Profile::VmRun, Profile::WorkspaceCore] {
        let text = listed(profile).to_string().to_lowercase();
        for word in [
            "secret",
            "network",
            "snapshot",
            "service",
            "shell",
            "disk_",
            "publish",
            "egress",
            "x-pyro",
            "$ref",
            "$defs",
            "\"title\":\"run\"",
        ] {
            assert!(!text.contains(word), "{profile} mentions {word}: {text}");
        }
    }
}

/// Some 3,000 tokens: JSON has about four bytes to one.
const CORE_BYTES: usize = 12_000;

#[test]
fn the_whole_core_is_small_enough_to_load_without_a_thought() {
    for profile in Profile::ALL {
        let sizes: Vec<_> = listed(profile)
            .as_array()
            .expect("a list")
            .iter()
            .map(|tool| (tool["name"].to_string(), tool.to_string().len()))
            .collect();
        let all: usize = sizes.iter().map(|(_, size)| size).sum();
        println!("{profile}: {all} bytes {sizes:?}");
    }
    assert!(listed(Profile::WorkspaceCore).to_string().len() < CORE_BYTES);
}

#[test]
fn every_tool_is_told_completely() {
    for profile in Profile::ALL {
        for tool in listed(profile).as_array().expect("a list") {
            let name = &tool["name"];
            assert!(
                tool["title"].as_str().is_some_and(|title| title.len() > 5),
                "{name}"
            );
            assert!(
                tool["description"]
                    .as_str()
                    .is_some_and(|text| text.ends_with('.')),
                "{name}"
            );
            for hint in [
                "readOnlyHint",
                "destructiveHint",
                "idempotentHint",
                "openWorldHint",
            ] {
                assert!(tool["annotations"][hint].is_boolean(), "{name} {hint}");
            }
            let input = &tool["inputSchema"];
            assert_eq!(input["type"], "object", "{name}");
            assert_eq!(input["additionalProperties"], false, "{name}");
            jsonschema::draft202012::meta::validate(input).expect("a schema");
            let output = &tool["outputSchema"];
            assert_eq!(output["type"], "object", "{name}");
            assert!(
                output["properties"]
                    .as_object()
                    .is_some_and(|all| !all.is_empty()),
                "{name}"
            );
            jsonschema::draft202012::meta::validate(output).expect("a schema");
        }
    }
}

#[test]
fn a_wider_profile_has_all_that_a_narrower_one_has() {
    for (narrow, wide) in [
        (Profile::VmRun, Profile::WorkspaceCore),
        (Profile::WorkspaceCore, Profile::WorkspaceFull),
    ] {
        for tool in tools::of(narrow) {
            let members = |schema: serde_json::Map<String, Value>| -> BTreeSet<String> {
                let properties = schema["properties"].as_object().expect("properties");
                properties.keys().cloned().collect()
            };
            assert!(
                members(tool.input(narrow)).is_subset(&members(tool.input(wide))),
                "{}",
                tool.name
            );
            assert!(
                members(tool.output(narrow)).is_subset(&members(tool.output(wide))),
                "{}",
                tool.name
            );
        }
    }
}

/// A schema in a few characters.
fn kind(schema: &Value) -> String {
    if let Some(choices) = schema["anyOf"].as_array() {
        return choices.iter().map(kind).collect::<Vec<_>>().join(" or ");
    }
    match (&schema["type"], schema["enum"].as_array()) {
        (_, Some(values)) => {
            let values: Vec<_> = values.iter().filter_map(Value::as_str).collect();
            values.join(", ")
        }
        (Value::String(kind), _) => match (kind.as_str(), &schema["items"]) {
            ("array", Value::Object(items)) => {
                let items = kind_of_items(&Value::Object(items.clone()));
                format!("array of {items}")
            }
            (kind, _) => kind.to_string(),
        },
        (Value::Array(kinds), _) => {
            let kinds: Vec<_> = kinds.iter().filter_map(Value::as_str).collect();
            kinds.join(" or ")
        }
        _ => "any".into(),
    }
}

fn kind_of_items(items: &Value) -> String {
    match items["properties"].as_object() {
        Some(properties) => {
            let names: Vec<_> = properties.keys().map(String::as_str).collect();
            format!("object ({})", names.join(", "))
        }
        None => kind(items),
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn page() -> String {
    let mut text = String::new();
    for tool in tools::all() {
        let wide = Profile::WorkspaceFull;
        let input = Value::Object(tool.input(wide));
        let output = Value::Object(tool.output(wide));
        let narrow = (tool.since < wide).then(|| Value::Object(tool.input(tool.since)));
        let listed = serde_json::to_value(tool.listed(wide)).expect("plain data");
        let hints: Vec<_> = listed["annotations"]
            .as_object()
            .expect("hints")
            .iter()
            .filter(|(_, value)| **value == Value::Bool(true))
            .map(|(name, _)| name.trim_end_matches("Hint").to_string())
            .collect();
        let hints = if hints.is_empty() {
            "adds".to_string()
        } else {
            hints.join(", ")
        };
        writeln!(text, "\n### `{}`\n", tool.name).expect("a string");
        writeln!(
            text,
            "{} From `{}` on; hints: {hints}.\n",
            tool.description(wide),
            tool.since
        )
        .expect("a string");
        let arguments = input["properties"].as_object().expect("properties");
        if !arguments.is_empty() {
            writeln!(
                text,
                "| argument | type | default | what it is |\n| --- | --- | --- | --- |"
            )
            .expect("a string");
        }
        let required: Vec<_> = input["required"].as_array().into_iter().flatten().collect();
        for (name, schema) in arguments {
            let default = match (
                &schema["default"],
                required.contains(&&Value::from(name.as_str())),
            ) {
                (_, true) => "required".to_string(),
                (Value::Null, _) => "–".to_string(),
                (value, _) => format!("`{value}`"),
            };
            let mut kind = kind(schema);
            match (schema["minimum"].as_u64(), schema["maximum"].as_u64()) {
                (Some(least), Some(most)) => write!(kind, ", {least} to {most}").expect("a string"),
                (Some(least), None) if least > 0 => {
                    write!(kind, ", from {least}").expect("a string")
                }
                (None, Some(most)) => write!(kind, ", to {most}").expect("a string"),
                _ => {}
            }
            let mut told = schema["description"].as_str().unwrap_or("").to_string();
            if narrow
                .as_ref()
                .is_some_and(|narrow| narrow["properties"][name].is_null())
            {
                told.push_str(if told.is_empty() {
                    "(`workspace-full`)"
                } else {
                    " (`workspace-full`)"
                });
            }
            writeln!(
                text,
                "| `{name}` | {} | {} | {} |",
                cell(&kind),
                cell(&default),
                cell(&told)
            )
            .expect("a string");
        }
        let members = output["properties"].as_object().expect("properties");
        let members: Vec<_> = members
            .iter()
            .map(|(name, schema)| format!("`{name}` {}", kind(schema)))
            .collect();
        writeln!(text, "\nGives: {}.", members.join(", ")).expect("a string");
    }
    text
}

#[test]
fn the_page_is_made_from_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/mcp-tools.md");
    let found = std::fs::read_to_string(&path).expect("the page");
    let begin = "<!-- tools: made by `UPDATE=1 cargo test -p pyro-mcp --test table` -->";
    let end = "\n<!-- /tools -->";
    let (before, rest) = found.split_once(begin).expect("a beginning");
    let (_, after) = rest.split_once(end).expect("an end");
    let made = format!("{before}{begin}\n{}{end}{after}", page().trim_end());
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &made).expect("written");
    }
    assert!(
        found == made || std::env::var_os("UPDATE").is_some(),
        "docs/mcp-tools.md is not what the table says: see the comment in it"
    );
}
