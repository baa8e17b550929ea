//! What the server answers to requests, good and bad, byte by byte.

mod common;

use common::Server;

const MIB: usize = 1 << 20;

#[tokio::test]
async fn every_bad_request_gets_a_status_and_an_error() {
    let server = Server::start().await;
    let cases = [
        ("GET", "/", "", 404, "route_not_found"),
        ("GET", "/v1/workspaces/", "", 404, "route_not_found"),
        ("GET", "/v2/workspaces", "", 404, "route_not_found"),
        ("GET", "/v1/workspaces/a/b", "", 404, "route_not_found"),
        ("DELETE", "/v1/workspaces", "", 405, "method_not_allowed"),
        ("PUT", "/v1/health", "{}", 405, "method_not_allowed"),
        ("BREW", "/v1/health", "", 405, "method_not_allowed"),
        ("POST", "/metrics", "", 405, "method_not_allowed"),
        ("POST", "/v1/workspaces", "", 400, "invalid_json"),
        ("POST", "/v1/workspaces", "{", 400, "invalid_json"),
        ("POST", "/v1/workspaces", "[]", 400, "invalid_json"),
        (
            "POST",
            "/v1/workspaces",
            r#"{"environment":1}"#,
            400,
            "invalid_json",
        ),
        (
            "POST",
            "/v1/workspaces",
            r#"{"environment":"a","x":1}"#,
            400,
            "invalid_json",
        ),
        (
            "POST",
            "/v1/workspaces",
            r#"{"environment":"a","vcpu_count":-1}"#,
            400,
            "invalid_json",
        ),
        (
            "POST",
            "/v1/workspaces?a=b",
            r#"{"environment":"a"}"#,
            400,
            "invalid_query",
        ),
        ("GET", "/v1/workspaces?a=b", "", 400, "invalid_query"),
        (
            "GET",
            "/v1/workspaces/w/files/content",
            "",
            400,
            "invalid_query",
        ),
        (
            "GET",
            "/v1/workspaces/w/files?recursive=maybe",
            "",
            400,
            "invalid_query",
        ),
        (
            "GET",
            "/v1/workspaces/w/files?path=a&path=b",
            "",
            400,
            "invalid_query",
        ),
        (
            "GET",
            "/v1/workspaces/w/files/content?path=a&max_bytes=-1",
            "",
            400,
            "invalid_query",
        ),
        (
            "GET",
            "/v1/workspaces/w/files/content?path=a&encoding=rot13",
            "",
            400,
            "invalid_query",
        ),
        (
            "GET",
            "/v1/workspaces/w/exec/first",
            "",
            400,
            "invalid_path_parameter",
        ),
        (
            "GET",
            "/v1/workspaces/w/exec/-1",
            "",
            400,
            "invalid_path_parameter",
        ),
        (
            "GET",
            "/v1/workspaces/%ff",
            "",
            400,
            "invalid_path_parameter",
        ),
        ("GET", "/v1/workspaces/none", "", 404, "workspace_not_found"),
        (
            "GET",
            "/v1/workspaces/..%2F..%2Fetc",
            "",
            404,
            "workspace_not_found",
        ),
        (
            "PATCH",
            "/v1/workspaces/none",
            r#"{"clear_name":true}"#,
            404,
            "workspace_not_found",
        ),
        (
            "DELETE",
            "/v1/workspaces/none",
            "",
            404,
            "workspace_not_found",
        ),
    ];
    for (method, target, body, status, code) in cases {
        let answer = server.send(method, target, body).await;

        assert_eq!(
            (answer.status, answer.code().as_str()),
            (status, code),
            "{method} {target} {body}"
        );
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert!(
            answer
                .header("pyro-operation-id")
                .is_some_and(|id| id.starts_with("op-"))
        );
    }
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones() {
    let server = Server::start().await;

    let answer = server.send("DELETE", "/v1/workspaces", "").await;

    let allowed: Vec<_> = answer
        .header("allow")
        .expect("a header")
        .split(',')
        .collect();
    assert!(
        allowed.contains(&"GET") && allowed.contains(&"POST"),
        "{allowed:?}"
    );
}

#[tokio::test]
async fn no_body_is_an_empty_request() {
    let server = Server::start().await;

    let answer = server.send("POST", "/v1/workspaces/none/reset", "").await;

    assert_eq!(answer.code(), "workspace_not_found");
}

#[tokio::test]
async fn bodies_are_taken_up_to_their_limit_and_no_further() {
    let server = Server::start().await;
    // Spaces after a request are still that request.
    let padded = |request: &str, length: usize| {
        let mut body = request.to_string();
        body.extend(std::iter::repeat_n(' ', length - request.len()));
        body
    };
    let create = r#"{"environment":"a","vcpu_count":0}"#;
    let patch = r#"{"patch":""}"#;
    let write = r#"{"path":"a","content":""}"#;
    let cases = [
        ("POST", "/v1/workspaces", create, MIB),
        ("POST", "/v1/workspaces/none/patch", patch, 32 * MIB),
        ("PUT", "/v1/workspaces/none/files/content", write, 32 * MIB),
    ];
    for (method, target, request, limit) in cases {
        let fits = server.send(method, target, &padded(request, limit)).await;
        assert_ne!(fits.code(), "body_too_large", "{target}");

        let too_large = server
            .send(method, target, &padded(request, limit + 1))
            .await;
        assert_eq!(
            (too_large.status, too_large.code().as_str()),
            (413, "body_too_large")
        );

        // One that does not say how long it is.
        let mut chunked = format!(
            "{method} {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        for _ in 0..=limit / (64 << 10) {
            chunked.push_str("10000\r\n");
            chunked.extend(std::iter::repeat_n(' ', 64 << 10));
            chunked.push_str("\r\n");
        }
        let too_large = server.raw(chunked).await;
        assert_eq!(
            (too_large.status, too_large.code().as_str()),
            (413, "body_too_large")
        );
    }
}

#[tokio::test]
async fn a_deep_document_is_refused() {
    let server = Server::start().await;

    let answer = server
        .send("POST", "/v1/workspaces", &"[".repeat(100_000))
        .await;

    assert_eq!(answer.code(), "invalid_json");
}

#[tokio::test]
async fn ids_of_operations_are_never_the_same() {
    let server = Server::start().await;
    let mut ids = std::collections::BTreeSet::new();

    for _ in 0..10 {
        let answer = server.send("GET", "/v1/health", "").await;
        assert!(
            ids.insert(
                answer
                    .header("pyro-operation-id")
                    .expect("an id")
                    .to_string()
            )
        );
    }
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_reported() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let record = folder.path().join("workspaces/ws-aaaaaaaaaaaa");
    std::fs::create_dir_all(&record).expect("mkdir");
    std::fs::write(record.join("record.json"), "{").expect("written");
    let server = Server::on(folder, pyro_server::Limits::default()).await;

    let list = server.send("GET", "/v1/workspaces", "").await;
    let get = server
        .send("GET", "/v1/workspaces/ws-aaaaaaaaaaaa", "")
        .await;

    assert_eq!(list.status, 200);
    assert_eq!(
        list.json()["unreadable"][0]["workspace_id"],
        "ws-aaaaaaaaaaaa"
    );
    assert_eq!(
        (get.status, get.code().as_str()),
        (500, "record_unreadable")
    );
    assert!(record.join("record.json").exists());
}

#[tokio::test]
async fn metrics_count_requests_by_route_and_never_by_name() {
    let server = Server::start().await;
    server.send("GET", "/v1/workspaces/secret-name", "").await;
    server.send("GET", "/nothing/here", "").await;
    server
        .send("GET", "/v1/workspaces/a/files?path=secret-path", "")
        .await;

    let answer = server.send("GET", "/metrics", "").await;

    let text = String::from_utf8(answer.body).expect("text");
    for line in [
        r#"pyro_http_requests_total{method="GET",route="/v1/workspaces/{w}",status="404"} 1"#,
        r#"pyro_http_requests_total{method="GET",route="unmatched",status="404"} 1"#,
        r#"pyro_http_request_duration_seconds_count{method="GET",route="/v1/workspaces/{w}"} 1"#,
        r#"pyro_workspaces{state="running"} 0"#,
        "pyro_machines_running 0",
        "pyro_execs_total 0",
        "pyro_http_requests_in_flight 1",
    ] {
        assert!(text.contains(line), "no {line} in\n{text}");
    }
    assert!(!text.contains("secret") && !text.contains("nothing"));
}
