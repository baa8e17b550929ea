//! Clients that take their time.

mod common;

use std::time::Duration;

use common::Server;
use pyro_server::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Patience for a test; what the server waits for stays waited for, however slow this machine is.
fn hasty() -> Limits {
    let short = Duration::from_millis(100);
    Limits {
        head: short,
        body: short,
        stall: short,
        ..Limits::default()
    }
}

#[tokio::test]
async fn a_head_that_never_ends_ends_the_connection() {
    let server = Server::with(hasty()).await;
    for start in [
        "",
        "GET /v1/hea",
        "GET /v1/health HTTP/1.1\r\nHost: a\r\nX-Slow: ",
    ] {
        let mut stream = server.connect().await;
        stream.write_all(start.as_bytes()).await.expect("sent");
        let mut rest = Vec::new();

        let _ = stream.read_to_end(&mut rest).await;

        assert!(!rest.starts_with(b"HTTP/1.1 200"), "{start:?}");
    }
}

#[tokio::test]
async fn a_silent_connection_is_closed_after_its_answer() {
    let server = Server::with(hasty()).await;
    let mut stream = server.connect().await;
    let request = "GET /v1/health HTTP/1.1\r\nHost: a\r\n\r\n";
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();

    stream
        .read_to_end(&mut answer)
        .await
        .expect("closed in order");

    assert!(answer.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test]
async fn a_body_that_never_ends_is_refused() {
    let server = Server::with(hasty()).await;
    let head = "POST /v1/workspaces HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{";

    let answer = server.raw(head).await;

    assert_eq!(
        (answer.status, answer.code().as_str()),
        (408, "body_timeout")
    );
}

#[tokio::test]
async fn large_bodies_that_never_come_do_not_keep_others_out() {
    let server = Server::with(Limits {
        large_bodies: 2,
        ..hasty()
    })
    .await;
    let head =
        "POST /v1/workspaces/none/patch HTTP/1.1\r\nHost: a\r\nContent-Length: 30000000\r\n\r\n";
    let mut slow = Vec::new();
    for _ in 0..4 {
        let mut stream = server.connect().await;
        stream.write_all(head.as_bytes()).await.expect("sent");
        slow.push(stream);
    }
    let body = format!(r#"{{"patch":"{}"}}"#, "x".repeat(2 << 20));

    let answer = server
        .send("POST", "/v1/workspaces/none/patch", &body)
        .await;

    assert_eq!(answer.code(), "workspace_not_found");
}

#[tokio::test]
async fn a_client_that_takes_no_answer_is_given_up() {
    let server = Server::with(Limits {
        connections: 1,
        ..hasty()
    })
    .await;
    let mut greedy = server.connect().await;
    // More answers than a socket holds, and nobody reads them.
    let requests = "GET /v1/openapi.json HTTP/1.1\r\nHost: a\r\n\r\n".repeat(100);
    let _ = greedy.write_all(requests.as_bytes()).await;

    // The only place is free again when the first client was given up.
    let answer = server.send("GET", "/v1/health", "").await;

    assert_eq!(answer.status, 200);
    let mut taken = Vec::new();
    let _ = greedy.read_to_end(&mut taken).await;
    let answers = taken.windows(12).filter(|w| w == b"HTTP/1.1 200").count();
    assert!(answers < 100, "all {answers} were answered");
}
