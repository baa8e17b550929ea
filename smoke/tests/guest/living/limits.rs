//! Too many of anything is refused with a code, and what there is goes on.

use pyro_client::types::{OpenShell, StartService};

use crate::daemon::Daemon;

/// More than any limit.
const TOO_MANY: usize = 100;

/// Fills a workspace with services and shells.
pub(super) fn test(daemon: &Daemon, id: &str) {
    daemon.block_on(async |client| {
        let mut started = 0;
        let code = loop {
            // One that has ended counts as well: its log is there.
            let request = StartService::new(format!("s{started}"), ["true"]);
            match client.service_start(id, &request).await {
                Ok(_) => started += 1,
                Err(error) => break error.code().to_string(),
            }
            assert!(started < TOO_MANY);
        };
        assert_eq!(code, "service_not_started");
        let again = StartService::new("s0", ["sleep", "1000"]);
        client
            .service_start(id, &again)
            .await
            .expect("its name is there");

        let mut opened = 0;
        let code = loop {
            match client.shell_open(id, &OpenShell::default()).await {
                Ok(_) => opened += 1,
                Err(error) => break error.code().to_string(),
            }
            assert!(opened < TOO_MANY);
        };
        assert_eq!(code, "shell_not_opened");
    });
    assert_eq!(daemon.json(&["service", "list", id])["count"], 64);
    assert_eq!(daemon.json(&["shell", "list", id])["count"], 32);
    assert_eq!(daemon.sh(id, "echo it goes on"), "it goes on\n");
}
