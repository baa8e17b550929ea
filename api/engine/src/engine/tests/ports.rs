//! Published ports, with a network that a test plays.

use std::collections::BTreeMap;
use std::sync::Mutex;

use pyro_client::types::*;
use pyro_net::control::{ErrorCode, Published, Reply, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use super::*;

/// Ports by the host's. The host's port 1111 is taken.
type Ports = Arc<Mutex<BTreeMap<u16, u16>>>;

/// Answers what a workspace's network is asked.
fn play(world: &World, id: &str) -> Ports {
    let ports = Ports::default();
    let listener = UnixListener::bind(world.vm_folder(id).join("net.sock")).expect("bound");
    let published = Arc::clone(&ports);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            while let Ok(length) = stream.read_u32_le().await {
                let mut bytes = vec![0; length as usize];
                stream.read_exact(&mut bytes).await.expect("a request");
                let request = serde_json::from_slice(&bytes).expect("a request");
                let reply = serde_json::to_vec(&answer(&published, request)).expect("plain data");
                let length = u32::try_from(reply.len()).expect("short");
                stream.write_u32_le(length).await.expect("written");
                stream.write_all(&reply).await.expect("written");
            }
        }
    });
    ports
}

fn answer(ports: &Ports, request: Request) -> Reply {
    let mut ports = ports.lock().expect("not poisoned");
    let taken = || Reply::Error {
        code: ErrorCode::PortTaken,
        message: "taken".into(),
    };
    match request {
        Request::Publish {
            host_port,
            guest_port,
        } => {
            let host_port = host_port.unwrap_or(40_000 + u16::try_from(ports.len()).expect("few"));
            if host_port == 1111 || ports.insert(host_port, guest_port).is_some() {
                return taken();
            }
            Reply::Published(Published {
                host_port,
                guest_port,
            })
        }
        Request::Withdraw { host_port } => match ports.remove(&host_port) {
            Some(_) => Reply::Ok,
            None => Reply::Error {
                code: ErrorCode::NotPublished,
                message: "no such port".into(),
            },
        },
        Request::List => Reply::List {
            published: ports
                .iter()
                .map(|(host_port, guest_port)| Published {
                    host_port: *host_port,
                    guest_port: *guest_port,
                })
                .collect(),
        },
        Request::Stats => Reply::Stats(pyro_net::control::Stats::default()),
    }
}

async fn workspace(engine: &Arc<Engine>) -> String {
    let request = CreateWorkspace {
        name: Some("a".into()),
        network_policy: NetworkPolicy::EgressPublishedPorts,
        ..CreateWorkspace::new("debian:12")
    };
    engine.create(request).await.expect("created").workspace_id
}

fn publishing(name: &str, script: &str, ports: &[(Option<u16>, u16)]) -> StartService {
    StartService {
        publish: ports
            .iter()
            .map(|(host_port, guest_port)| PublishPort {
                host_port: *host_port,
                guest_port: *guest_port,
            })
            .collect(),
        ready_interval_ms: 10,
        ..StartService::new(name, ["/bin/sh", "-c", script])
    }
}

fn now(ports: &Ports) -> Vec<(u16, u16)> {
    let ports = ports.lock().expect("not poisoned");
    ports.iter().map(|(host, guest)| (*host, *guest)).collect()
}

#[tokio::test]
async fn ports_come_with_a_service_and_go_with_it() {
    let world = World::new();
    let engine = world.open().await;
    let id = workspace(&engine).await;
    let ports = play(&world, &id);
    let request = publishing("s", "exec sleep 1000", &[(None, 80), (Some(18080), 8080)]);

    let service = engine.service_start("a", request).await.expect("started");

    let shown: Vec<_> = service
        .published
        .iter()
        .map(|port| (port.host.as_str(), port.host_port, port.guest_port))
        .collect();
    assert_eq!(
        shown,
        [("127.0.0.1", 40_000, 80), ("127.0.0.1", 18_080, 8080)]
    );
    assert_eq!(now(&ports), [(18_080, 8080), (40_000, 80)]);
    let stopped = engine.service_stop("a", "s").await.expect("stopped");
    assert!(stopped.published.is_empty());
    assert!(now(&ports).is_empty());
}

#[tokio::test]
async fn a_port_that_is_taken_starts_nothing_and_leaves_no_other() {
    let world = World::new();
    let engine = world.open().await;
    let id = workspace(&engine).await;
    let ports = play(&world, &id);
    let request = publishing(
        "s",
        "touch started; exec sleep 1000",
        &[(None, 80), (Some(1111), 81)],
    );

    let error = engine.service_start("a", request).await.expect_err("taken");

    assert_eq!(error.code(), Code::PortUnavailable);
    assert!(error.message().contains("1111"), "{error}");
    assert!(now(&ports).is_empty());
    assert!(!std::path::Path::new(&world.root()).join("started").exists());
    let service = engine.service_status("a", "s").expect("kept");
    assert_eq!(service.state, ServiceState::Failed);
    assert!(service.published.is_empty());
}

#[tokio::test]
async fn ports_are_withdrawn_when_a_service_fails_or_ends() {
    let world = World::new();
    let engine = world.open().await;
    let id = workspace(&engine).await;
    let ports = play(&world, &id);
    let never = |request| StartService {
        readiness: Some(Readiness::File {
            path: "never".into(),
        }),
        ready_timeout_seconds: 1,
        ..request
    };
    for script in ["exec sleep 1000", "exit 3"] {
        let request = never(publishing("s", script, &[(None, 80)]));
        let error = engine
            .service_start("a", request)
            .await
            .expect_err("not ready");
        assert_eq!(error.code(), Code::ServiceNotReady);
        assert!(now(&ports).is_empty(), "{script}");
    }
    let request = publishing("s", "no-such-program", &[(None, 80)]);
    let request = StartService {
        command: vec!["no-such-program".into()],
        ..request
    };
    engine
        .service_start("a", request)
        .await
        .expect_err("no such program");
    assert!(now(&ports).is_empty());
}

#[test]
fn the_next_daemon_withdraws_what_no_service_has() {
    let world = World::new();
    let id = world.daemon(async |engine| {
        let id = workspace(&engine).await;
        let _ports = play(&world, &id);
        let request = publishing("s", "exec sleep 1000", &[(Some(18_080), 80)]);
        engine.service_start("a", request).await.expect("started");
        id
    });
    std::fs::remove_file(world.vm_folder(&id).join("net.sock")).expect("there");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let ports = play(&world, &id);
        ports
            .lock()
            .expect("not poisoned")
            .extend([(18_080, 80), (19_090, 90)]);
        let engine = world.open().await;
        assert_eq!(now(&ports), [(18_080, 80)]);
        engine.service_stop("a", "s").await.expect("stopped");
        assert!(now(&ports).is_empty());
    });
}

#[tokio::test]
async fn without_an_answer_of_the_network_nothing_is_started() {
    let world = World::new();
    let engine = world.open().await;
    workspace(&engine).await;

    let request = publishing("s", "exec sleep 1000", &[(None, 80)]);
    let error = engine
        .service_start("a", request)
        .await
        .expect_err("no network");

    assert_eq!(error.code(), Code::NetworkUnavailable);
}

#[test]
fn a_network_that_ends_takes_its_ports_with_it_and_the_service_stays() {
    let world = World::new();
    let id = world.daemon(async |engine| {
        let id = workspace(&engine).await;
        let _ports = play(&world, &id);
        let request = publishing("s", "exec sleep 1000", &[(Some(18_080), 80)]);
        engine.service_start("a", request).await.expect("started");
        id
    });
    std::fs::remove_file(world.vm_folder(&id).join("net.sock")).expect("there");
    let mut network = std::process::Command::new("sleep")
        .arg("1000")
        .spawn()
        .expect("started");
    let stat = std::fs::read(format!("/proc/{}/stat", network.id())).expect("it runs");
    std::fs::write(world.vm_folder(&id).join("net.stat"), stat).expect("written");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let ports = play(&world, &id);
        ports.lock().expect("not poisoned").insert(18_080, 80);
        let engine = world.open().await;
        let published = || {
            let service = engine.service_status("a", "s").expect("kept");
            (service.state, service.published.len())
        };
        assert_eq!(published(), (ServiceState::Running, 1));
        assert_eq!(engine.get("a").expect("there").network_failure, None);

        network.kill().expect("it runs");

        let began = std::time::Instant::now();
        while published().1 != 0 && began.elapsed() < PATIENCE {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        assert_eq!(published(), (ServiceState::Running, 0));
        let told = engine.get("a").expect("there").network_failure;
        assert_eq!(told.expect("a failure").code, "network_unavailable");
        engine.service_stop("a", "s").await.expect("stopped");
    });
    let _ = network.wait();
}
