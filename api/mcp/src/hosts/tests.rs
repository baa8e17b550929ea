//! Every host's file, new and with something in it.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

fn entry() -> Entry {
    Entry {
        program: "/opt/pyro/bin/pyro".into(),
        profile: Profile::WorkspaceCore,
    }
}

fn places(folder: &Path) -> Places {
    let home = folder.join("home");
    let variable = |name: &str| (name == "HOME").then(|| home.clone().into());
    Places::from_variables(folder.join("project"), variable).unwrap()
}

#[test]
fn a_new_file_is_what_the_host_expects() {
    let made = |host: Host| host.configure(&entry(), None).unwrap();
    let arguments = json!(["mcp", "serve", "--profile", "workspace-core"]);
    let json = |host: Host| serde_json::from_str::<Value>(&made(host)).unwrap();

    for host in [Host::ClaudeCode, Host::Cursor] {
        let ours = json!({"type": "stdio", "command": "/opt/pyro/bin/pyro", "args": arguments});
        assert_eq!(json(host), json!({"mcpServers": {"pyro": ours}}));
    }
    assert_eq!(
        json(Host::ClaudeDesktop),
        json!({"mcpServers": {"pyro": {"command": "/opt/pyro/bin/pyro", "args": arguments}}})
    );
    assert_eq!(json(Host::VsCode)["servers"]["pyro"]["type"], "stdio");
    let command = &json(Host::OpenCode)["mcp"]["pyro"]["command"];
    assert_eq!(command[0], "/opt/pyro/bin/pyro");
    assert_eq!(command[1], "mcp");
    assert_eq!(
        made(Host::Codex),
        "[mcp_servers.pyro]\nargs = [\"mcp\", \"serve\", \"--profile\", \"workspace-core\"]\n\
         command = \"/opt/pyro/bin/pyro\"\ntool_timeout_sec = 120\n"
    );
}

#[test]
fn everything_else_in_a_json_file_stays_as_it_is() {
    let before = "{\n  // mine\n  \"zebra\": 1,\n  \"servers\": {\n    \"other\": {\"command\": \"x\"}, // theirs\n  },\n  \"alpha\": 1e3\n}\n";

    let after = Host::VsCode.configure(&entry(), Some(before)).unwrap();

    for kept in [
        "// mine",
        "\"zebra\": 1",
        "\"other\": {\"command\": \"x\"}",
        "// theirs",
        "\"alpha\": 1e3",
    ] {
        assert!(after.contains(kept), "{after}");
    }
    assert!(after.find("zebra") < after.find("alpha"), "{after}");
    assert!(after.contains("\"pyro\""), "{after}");
    assert_eq!(
        Host::VsCode.configure(&entry(), Some(&after)).unwrap(),
        after
    );
}

#[test]
fn everything_else_in_a_toml_file_stays_as_it_is() {
    let before = "# mine\nmodel = \"x\"\n\n[mcp_servers.other]\ncommand = \"y\" # theirs\n\n[mcp_servers.pyro]\ncommand = \"old\"\nstartup_timeout_sec = 7\n";

    let after = Host::Codex.configure(&entry(), Some(before)).unwrap();

    for kept in [
        "# mine\nmodel = \"x\"",
        "command = \"y\" # theirs",
        "startup_timeout_sec = 7",
    ] {
        assert!(after.contains(kept), "{after}");
    }
    assert!(!after.contains("old"), "{after}");
    assert_eq!(
        Host::Codex.configure(&entry(), Some(&after)).unwrap(),
        after
    );
}

#[test]
fn another_entry_of_ours_is_replaced() {
    let wide = Entry {
        profile: Profile::WorkspaceFull,
        ..entry()
    };
    for host in Host::ALL {
        let before = host.configure(&entry(), None).unwrap();

        let after = host.configure(&wide, Some(&before)).unwrap();

        assert!(after.contains("workspace-full"), "{after}");
        assert!(!after.contains("workspace-core"), "{after}");
        assert_eq!(after, host.configure(&wide, None).unwrap());
    }
}

#[test]
fn a_file_that_is_not_understood_is_left_alone() {
    for host in Host::ALL {
        for before in [
            "{\"mcpServers\": ",
            "[1, 2",
            "mcp_servers = 3",
            "[]",
            "{\"mcpServers\": 3, \"servers\": 3, \"mcp\": 3}",
        ] {
            if let Err(error) = host.configure(&entry(), Some(before)) {
                assert_eq!(error.0.code, "invalid_request");
            } else {
                // What is no object's text to one is fine for another only if it keeps all of it.
                panic!("{} took {before}", host.as_str());
            }
        }
        assert!(host.configure(&entry(), Some(" \n")).is_ok());
    }
}

#[test]
fn installing_makes_the_file_and_says_when_nothing_changed() {
    for host in Host::ALL {
        let folder = tempfile::tempdir().unwrap();
        let places = places(folder.path());

        let (file, changed) = install(host, &entry(), &places).unwrap();

        assert!(changed);
        assert!(file.starts_with(folder.path()), "{}", file.display());
        let made = fs::read_to_string(&file).unwrap();
        assert_eq!(made, host.configure(&entry(), None).unwrap());
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(
            install(host, &entry(), &places).unwrap(),
            (file.clone(), false)
        );
        let wide = Entry {
            profile: Profile::WorkspaceFull,
            ..entry()
        };
        assert!(install(host, &wide, &places).unwrap().1);
        assert_eq!(
            fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            0o640
        );
    }
}

#[test]
fn a_link_to_a_configuration_stays_one() {
    let folder = tempfile::tempdir().unwrap();
    let places = places(folder.path());
    fs::create_dir_all(&places.project).unwrap();
    let (link, real) = (
        places.project.join(".mcp.json"),
        folder.path().join("real.json"),
    );
    fs::write(&real, "{}").unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();

    install(Host::ClaudeCode, &entry(), &places).unwrap();

    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(fs::read_to_string(&real).unwrap().contains("pyro"));

    // What it leads to may be still to come.
    fs::remove_file(&real).unwrap();
    install(Host::ClaudeCode, &entry(), &places).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(fs::read_to_string(&real).unwrap().contains("pyro"));
}

#[test]
fn what_a_user_has_set_beside_our_own_keys_stays() {
    let before = "{\"mcpServers\": {\"pyro\": {\"command\": \"old\", \"env\": {\"PYRO_STATE_DIR\": \"/s\"}}}}";
    let after = Host::Cursor.configure(&entry(), Some(before)).unwrap();
    let ours = &serde_json::from_str::<Value>(&after).unwrap()["mcpServers"]["pyro"];
    assert_eq!(ours["command"], "/opt/pyro/bin/pyro");
    assert_eq!(ours["env"]["PYRO_STATE_DIR"], "/s");
}

#[test]
fn variables_say_where_things_are() {
    let variable = |name: &str| match name {
        "HOME" => Some("/home/a".into()),
        "XDG_CONFIG_HOME" => Some("/c".into()),
        "CODEX_HOME" => Some("/x".into()),
        _ => None,
    };
    let places = Places::from_variables("/p".into(), variable).unwrap();
    assert_eq!(Host::Codex.file(&places), Path::new("/x/config.toml"));
    assert_eq!(
        Host::ClaudeDesktop.file(&places),
        Path::new("/c/Claude/claude_desktop_config.json")
    );
    assert_eq!(Host::Cursor.file(&places), Path::new("/p/.cursor/mcp.json"));
    assert!(Places::from_variables("/p".into(), |_| None).is_err());
    for host in Host::ALL {
        assert_eq!(Host::find(host.as_str()), Some(host));
    }
    assert_eq!(Host::find("emacs"), None);
}
