//! The definition of the command line: the contract's flags and defaults, and help that works.

use std::collections::BTreeMap;

use clap::CommandFactory;

use super::*;

fn walk(command: &clap::Command, path: &str, check: &mut impl FnMut(&clap::Command, &str)) {
    let path = format!("{path} {}", command.get_name());
    check(command, &path);
    for sub in command.get_subcommands() {
        walk(sub, &path, check);
    }
}

/// The words of an example as a shell would make them: single quotes, no redirection.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (index, part) in line.split('\'').enumerate() {
        if index % 2 == 1 {
            words.push(part.to_string());
        } else {
            words.extend(part.split_whitespace().map(str::to_string));
        }
    }
    let end = words.iter().position(|word| word == ">");
    words.truncate(end.unwrap_or(words.len()));
    words
}

fn parse(line: &str) -> Command {
    Cli::try_parse_from(words(line))
        .unwrap_or_else(|error| panic!("{line}: {error}"))
        .command
}

#[test]
fn the_definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_page_has_an_example_of_itself() {
    walk(&Cli::command(), "", &mut |command, path| {
        let help = command
            .get_after_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        assert!(help.contains("Examples:"), "{path}");
        assert!(help.contains(path.trim()), "{path}");
    });
}

#[test]
fn every_example_parses() {
    walk(&Cli::command(), "", &mut |command, path| {
        let help = command
            .get_after_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        for line in help.lines().filter_map(|line| line.strip_prefix("  ")) {
            // The command ends where its explanation starts, and the guest's part is free text.
            let line = line.split("   ").next().unwrap_or_default();
            let line = line.split_once("| ").map_or(line, |(_, command)| command);
            if line.starts_with("pyro ") {
                let words = words(line);
                Cli::try_parse_from(&words).unwrap_or_else(|e| panic!("{path}: {line}: {e}"));
            }
        }
    });
}

/// Every page's own options and arguments with their defaults, as the contract has them.
const CONTRACT: &[(&str, &str)] = &[
    ("pyro doctor", "--environment --json"),
    ("pyro env list", "--json"),
    ("pyro env pull", "ENV --json"),
    ("pyro env inspect", "ENV --json"),
    ("pyro env prune", "--json"),
    (
        "pyro run",
        "ENV --vcpu-count=1 --mem-mib=1024 --timeout-seconds=30 --ttl-seconds=600 --network=off \
         --json CMD",
    ),
    ("pyro demo", "ENV=debian:12"),
    ("pyro serve", "--on-demand"),
    ("pyro completions", "SHELL"),
    ("pyro man", "--output"),
    ("pyro mcp serve", "--profile=workspace-core --http"),
    ("pyro mcp config", "HOST --profile=workspace-core --install"),
    ("pyro mcp skill", ""),
    (
        "pyro workspace create",
        "ENV --vcpu-count=1 --mem-mib=1024 --ttl-seconds=600 --network-policy=off --seed-path \
         --name --label --secret --secret-file --id-only --json",
    ),
    ("pyro workspace list", "--json"),
    (
        "pyro workspace update",
        "WORKSPACE --name --clear-name --label --clear-label --json",
    ),
    ("pyro workspace status", "WORKSPACE --json"),
    ("pyro workspace logs", "WORKSPACE --json"),
    ("pyro workspace delete", "WORKSPACE --json"),
    ("pyro workspace stop", "WORKSPACE --json"),
    ("pyro workspace start", "WORKSPACE --json"),
    (
        "pyro workspace exec",
        "WORKSPACE --timeout-seconds=30 --cwd=/workspace --secret-env --detach --json CMD",
    ),
    (
        "pyro workspace sync push",
        "WORKSPACE SRC --dest=/workspace --json",
    ),
    (
        "pyro workspace export",
        "WORKSPACE PATH --output --force --json",
    ),
    ("pyro workspace diff", "WORKSPACE --json"),
    (
        "pyro workspace file list",
        "WORKSPACE PATH=/workspace --recursive --json",
    ),
    (
        "pyro workspace file read",
        "WORKSPACE PATH --max-bytes=65536 --offset=0 --content-only --json",
    ),
    (
        "pyro workspace file write",
        "WORKSPACE PATH --text --text-file --expect-sha256 --json",
    ),
    (
        "pyro workspace patch apply",
        "WORKSPACE --patch --patch-file --dry-run --json",
    ),
    ("pyro workspace snapshot create", "WORKSPACE NAME --json"),
    ("pyro workspace snapshot list", "WORKSPACE --json"),
    ("pyro workspace snapshot delete", "WORKSPACE NAME --json"),
    (
        "pyro workspace reset",
        "WORKSPACE --snapshot=baseline --json",
    ),
    (
        "pyro workspace service start",
        "WORKSPACE NAME --cwd=/workspace --ready-file --ready-tcp --ready-http --ready-command \
         --ready-timeout-seconds=30 --ready-interval-ms=500 --secret-env --publish --json CMD",
    ),
    ("pyro workspace service list", "WORKSPACE --json"),
    ("pyro workspace service status", "WORKSPACE NAME --json"),
    (
        "pyro workspace service logs",
        "WORKSPACE NAME --tail-lines=200 --all --json",
    ),
    ("pyro workspace service stop", "WORKSPACE NAME --json"),
    (
        "pyro workspace shell open",
        "WORKSPACE --cwd=/workspace --cols=120 --rows=30 --secret-env --id-only --json",
    ),
    ("pyro workspace shell list", "WORKSPACE --json"),
    (
        "pyro workspace shell read",
        "WORKSPACE SHELL --cursor=0 --max-chars=65536 --plain --wait-for-idle-ms=0 --json",
    ),
    (
        "pyro workspace shell write",
        "WORKSPACE SHELL --input --no-newline --json",
    ),
    (
        "pyro workspace shell signal",
        "WORKSPACE SHELL --signal=INT --json",
    ),
    ("pyro workspace shell close", "WORKSPACE SHELL --json"),
    ("pyro workspace shell attach", "WORKSPACE SHELL"),
    (
        "pyro workspace disk export",
        "WORKSPACE --output --force --json",
    ),
    (
        "pyro workspace disk list",
        "WORKSPACE PATH=/workspace --recursive --json",
    ),
    (
        "pyro workspace disk read",
        "WORKSPACE PATH --max-bytes=65536 --json",
    ),
];

#[test]
fn flags_and_defaults_are_exactly_the_contracts() {
    let mut contract: BTreeMap<&str, Vec<&str>> = CONTRACT
        .iter()
        .map(|(path, flags)| (*path, flags.split_whitespace().collect()))
        .collect();
    walk(&Cli::command(), "", &mut |command, path| {
        if command.get_subcommands().next().is_some() {
            return;
        }
        let path = path.trim();
        let has: Vec<String> = command
            .get_arguments()
            .filter(|arg| !matches!(arg.get_id().as_str(), "help" | "version"))
            .map(|arg| {
                let name = match arg.get_long() {
                    Some(long) => format!("--{long}"),
                    None => arg
                        .get_value_names()
                        .map_or(arg.get_id().to_string(), |names| names[0].to_string())
                        .to_uppercase(),
                };
                let is_flag = !arg.get_action().takes_values();
                match arg.get_default_values().first() {
                    Some(default) if !is_flag => format!("{name}={}", default.display()),
                    _ => name,
                }
            })
            .collect();
        let expected = contract.remove(path);
        assert_eq!(
            Some(has),
            expected.map(|flags| { flags.into_iter().map(str::to_string).collect() }),
            "{path}"
        );
    });
    assert!(contract.is_empty(), "missing: {contract:?}");
}

#[test]
fn a_command_needs_the_two_dashes_and_keeps_its_words() {
    for line in [
        "pyro run debian:12 git",
        "pyro run debian:12 --",
        "pyro workspace exec w ls",
        "pyro workspace exec w --",
        "pyro workspace exec -- ls",
    ] {
        assert!(Cli::try_parse_from(words(line)).is_err(), "{line}");
    }
    let Command::Workspace {
        command: Workspace::Exec(exec),
    } = parse("pyro ws exec w -- a --json 'b c' -- d")
    else {
        panic!("exec")
    };
    assert!(!exec.json.json);
    assert_eq!(exec.command, ["a", "--json", "b c", "--", "d"]);
}

#[test]
fn what_contradicts_itself_is_refused() {
    for line in [
        "pyro workspace update w",
        "pyro workspace update w --json",
        "pyro workspace update w --name a --clear-name",
        "pyro workspace create debian:12 --label novalue",
        "pyro workspace create debian:12 --label =x",
        "pyro workspace create debian:12 --json --id-only",
        "pyro workspace create debian:12 --vcpu-count -1",
        "pyro workspace create debian:12 --network-policy everything",
        "pyro workspace file write w p",
        "pyro workspace file write w p --text a --text-file b",
        "pyro workspace file read w p --json --content-only",
        "pyro workspace patch apply w",
        "pyro workspace patch apply w --patch a --patch-file b",
        "pyro workspace export w p",
        "pyro workspace disk export w",
        "pyro workspace exec w --secret-env =A -- ls",
        "pyro workspace create debian:12 --secret novalue",
        "pyro workspace create debian:12 --secret-file A=",
        "pyro workspace create debian:12 --json --id-only --secret A=b",
        "pyro workspace service start w s",
        "pyro workspace service start w s --ready-file a --ready-tcp localhost:1 -- ls",
        "pyro workspace service start w s --ready-tcp localhost -- ls",
        "pyro workspace service start w s --publish 0 -- ls",
        "pyro workspace service logs w s --tail-lines 3 --all",
        "pyro workspace shell open w --cols 70000",
        "pyro workspace shell open w --json --id-only",
        "pyro workspace shell write w s",
        "pyro workspace shell signal w s --signal STOP",
        "pyro workspace shell attach w s --json",
    ] {
        assert!(Cli::try_parse_from(words(line)).is_err(), "{line}");
    }
}

#[test]
fn repeated_and_dashed_values_arrive() {
    let Command::Workspace {
        command: Workspace::Create(create),
    } = parse("pyro workspace create debian:12 --label a=1 --label b=x=y --network-policy egress")
    else {
        panic!("create")
    };
    let labels: Vec<_> = create
        .labels
        .iter()
        .map(|label| (label.key.as_str(), label.value.as_str()))
        .collect();
    assert_eq!(labels, [("a", "1"), ("b", "x=y")]);
    assert_eq!(create.network_policy, Network::Egress);

    let Command::Workspace {
        command: Workspace::File {
            command: File::Write(write),
        },
    } = parse("pyro workspace file write w p --text '--- text'")
    else {
        panic!("write")
    };
    assert_eq!(write.text.as_deref(), Some("--- text"));
    let Command::Workspace {
        command: Workspace::Patch {
            command: Patch::Apply(apply),
        },
    } = parse("pyro workspace patch apply w --patch '--- a/x'")
    else {
        panic!("apply")
    };
    assert_eq!(apply.patch.as_deref(), Some("--- a/x"));
}

#[test]
fn json_is_found_on_every_command_that_has_it() {
    let samples: BTreeMap<&str, &str> = BTreeMap::from([
        ("ENV", "debian:12"),
        ("WORKSPACE", "w"),
        ("PATH", "p"),
        ("SRC", "s"),
        ("NAME", "n"),
        ("SHELL", "sh-a"),
        ("CMD", "-- ls"),
    ]);
    for (path, flags) in CONTRACT {
        if !flags.contains("--json") {
            continue;
        }
        let mut line = path.to_string();
        if let Some(needed) = match *path {
            "pyro workspace update" => Some("--clear-name"),
            "pyro workspace file write" => Some("--text t"),
            "pyro workspace patch apply" => Some("--patch -"),
            "pyro workspace shell write" => Some("--input i"),
            "pyro workspace export" | "pyro workspace disk export" => Some("--output o"),
            _ => None,
        } {
            line.push_str(&format!(" {needed}"));
        }
        let (before, after): (Vec<&str>, Vec<&str>) = flags
            .split_whitespace()
            .filter_map(|flag| samples.get(flag).copied())
            .partition(|sample| !sample.starts_with("--"));
        for sample in before {
            line.push_str(&format!(" {sample}"));
        }
        let after: String = after
            .into_iter()
            .map(|sample| format!(" {sample}"))
            .collect();
        assert!(!parse(&format!("{line}{after}")).json(), "{line}{after}");
        assert!(
            parse(&format!("{line} --json{after}")).json(),
            "{line}{after}"
        );
    }
}

/// Members of requests that are no flag, and why.
const NO_FLAG: [(&str, &str, &str); 11] = [
    ("run", "pull", "the command pulls itself, with progress"),
    ("workspace_create", "pull", "likewise"),
    ("workspace_exec", "env", "`env A=B` in the guest does it"),
    ("service_start", "env", "likewise"),
    (
        "service_start",
        "readiness",
        "a flag for each kind of probe",
    ),
    ("shell_open", "env", "`export A=B` does it"),
    ("shell_write", "encoding", "attach types any bytes"),
    ("workspace_file_read", "encoding", "any file can be printed"),
    ("workspace_file_write", "encoding", "any file can be read"),
    ("workspace_disk_read", "encoding", "any file can be printed"),
    (
        "workspace_disk_read",
        "offset",
        "the contract has no flag for it",
    ),
];
/// Members whose flag is called otherwise.
const RENAMED: [(&str, &str, &str); 2] = [
    ("workspace_file_write", "content", "text"),
    ("shell_write", "newline", "no_newline"),
];

#[test]
fn every_operation_has_a_command_with_a_flag_for_every_member() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/public-contract.md");
    let page = std::fs::read_to_string(page).expect("the contract");
    let table = page
        .split("<!-- ")
        .find(|part| part.starts_with("operations: "))
        .expect("the table, which the server's test compares with the code");
    let mut seen = 0;
    for row in table.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<Vec<&str>> = row
            .split(" | ")
            .map(|cell| cell.split('`').skip(1).step_by(2).collect())
            .collect();
        let (operation, members) = (cells[0][0], &cells[3]);
        // Asked for by other commands: every one, `logs`, a Ctrl-C, and `attach`; `env list` needs
        // no daemon; and the daemon reaps by itself.
        let others = [
            "health",
            "exec_get",
            "exec_cancel",
            "shell_follow",
            "shell_resize",
            "environment_list",
            "workspace_reap",
        ];
        if others.contains(&operation) {
            continue;
        }
        let mut command = Cli::command();
        let words = operation.strip_prefix("workspace_").unwrap_or(operation);
        let group = (operation != "run").then_some("workspace");
        for word in group.into_iter().chain(words.split('_')) {
            command = command
                .find_subcommand(word)
                .unwrap_or_else(|| panic!("{operation}: no command {word}"))
                .clone();
        }
        let args: Vec<&str> = command
            .get_arguments()
            .map(|arg| arg.get_id().as_str())
            .collect();
        for member in members.iter().map(|member| member.trim_end_matches('?')) {
            let is = |(of, name, _): &(&str, &str, &str)| (*of, *name) == (operation, member);
            if NO_FLAG.iter().any(is) {
                continue;
            }
            let name = RENAMED
                .iter()
                .find(|one| is(one))
                .map_or(member, |one| one.2);
            assert!(args.contains(&name), "{operation}: no {name} in {args:?}");
        }
        assert!(args.contains(&"json"), "{operation}");
        seen += 1;
    }
    assert!(seen > 20, "{seen}");
}
