//! Streamable HTTP: who is let in, and that what is let in works.

mod common;

use common::Fake;
use pyro_mcp::http::{self, Token};
use pyro_mcp::{Daemon, Profile, Server};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

const TOKEN: &str = "0123456789abcdef0123";

struct World {
    address: std::net::SocketAddr,
    stop: oneshot::Sender<()>,
    served: tokio::task::JoinHandle<()>,
    _fake: Fake,
}

async fn world() -> World {
    let fake = Fake::new(|_, _| Some(json!({"count": 0, "workspaces": [], "unreadable": []})));
    let server = Server::new(Daemon::At(fake.client()), Profile::WorkspaceCore, "/host");
    let listener = http::listen("127.0.0.1:0".parse().expect("an address"))
        .await
        .expect("free");
    let address = listener.local_addr().expect("bound");
    let (stop, stopped) = oneshot::channel();
    let token = Token::chosen(TOKEN).expect("long");
    let served = tokio::spawn(http::serve(server, listener, token, async {
        stopped.await.ok();
    }));
    World {
        address,
        stop,
        served,
        _fake: fake,
    }
}

/// Sends a request and gives its status, head and body.
async fn post(
    world: &World,
    path: &str,
    headers: &[(&str, &str)],
    body: &Value,
) -> (u16, String, String) {
    let body = body.to_string();
    let mut text = format!(
        "POST {path} HTTP/1.1\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nContent-Length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    let mut stream = TcpStream::connect(world.address).await.expect("connected");
    stream
        .write_all(format!("{text}\r\n{body}").as_bytes())
        .await
        .expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .expect("a status");
    (status, head.to_string(), body.to_string())
}

fn initialize() -> Value {
    json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "0"}}})
}

/// The JSON-RPC answer in an event stream or a JSON body, chunked or not.
fn answer(body: &str) -> Value {
    let start = body
        .find("{\"jsonrpc\"")
        .unwrap_or_else(|| panic!("{body}"));
    let mut stream = serde_json::Deserializer::from_str(&body[start..]).into_iter();
    stream.next().expect("a document").expect("JSON")
}

#[tokio::test]
async fn only_who_shows_the_token_from_this_machine_is_let_in() {
    let world = world().await;
    let host = world.address.to_string();
    let bearer = format!("Bearer {TOKEN}");
    let own = ("Host", host.as_str());
    let shown = ("Authorization", bearer.as_str());
    for (headers, status) in [
        (vec![own], 401),
        (
            vec![own, ("Authorization", "Bearer 0123456789abcdef0124")],
            401,
        ),
        (
            vec![own, ("Authorization", "Basic 0123456789abcdef0123")],
            401,
        ),
        (vec![("Host", "evil.example"), shown], 403),
        (vec![("Host", "localhost.evil.example:80"), shown], 403),
        (vec![own, shown, ("Origin", "https://evil.example")], 403),
        (vec![own, shown, ("Origin", "null")], 403),
        (
            vec![own, shown, ("Origin", "http://localhost.evil.example")],
            403,
        ),
        (vec![own, shown, ("Origin", "http://localhost:3000")], 200),
        (vec![own, shown], 200),
    ] {
        let (found, head, body) = post(&world, "/mcp", &headers, &initialize()).await;
        assert_eq!(found, status, "{headers:?}: {head} {body}");
        if status == 401 {
            assert!(
                head.to_ascii_lowercase()
                    .contains("www-authenticate: bearer"),
                "{head}"
            );
        }
        if status != 200 {
            assert!(!body.contains("pyro\""), "{body}");
        }
    }
    let (status, ..) = post(&world, "/", &[own, shown], &initialize()).await;
    assert_eq!(status, 404);
    world.stop.send(()).expect("served");
    world.served.await.expect("ended");
}

#[tokio::test]
async fn a_session_lists_and_calls_tools() {
    let world = world().await;
    let host = world.address.to_string();
    let bearer = format!("Bearer {TOKEN}");
    let mut headers = vec![("Host", host.as_str()), ("Authorization", bearer.as_str())];
    let (_, head, body) = post(&world, "/mcp", &headers, &initialize()).await;
    assert_eq!(answer(&body)["result"]["serverInfo"]["name"], "pyro");
    let session = head
        .lines()
        .find_map(|line| {
            line.to_ascii_lowercase()
                .strip_prefix("mcp-session-id: ")
                .map(str::to_string)
        })
        .expect("a session");
    headers.push(("Mcp-Session-Id", &session));
    headers.push(("MCP-Protocol-Version", "2025-06-18"));
    let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    assert_eq!(post(&world, "/mcp", &headers, &ready).await.0, 202);
    let call = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "workspace_list", "arguments": {}}});

    let (status, _, body) = post(&world, "/mcp", &headers, &call).await;

    assert_eq!(status, 200);
    assert_eq!(answer(&body)["result"]["structuredContent"]["count"], 0);
    world.stop.send(()).expect("served");
    world.served.await.expect("ended");
}
