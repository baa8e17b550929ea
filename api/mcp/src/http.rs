//! Serving hosts over streamable HTTP on this machine.
//!
//! Whoever can call a tool can do on this host what its user can, as far as files go. So it listens on loopback
//! only; every request has to show a token, and comes neither from a web page of another origin nor
//! by another name of this machine, which is how a page would reach us by DNS rebinding.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::header::{
    AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, ORIGIN, WWW_AUTHENTICATE,
};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::{TokioIo, TokioTimer};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::{Error, Server};

/// Where it is served.
pub const PATH: &str = "/mcp";
/// Most bytes of a request: a file of 16 MiB in base64, and room.
const MAX_BODY: usize = 32 << 20;

type Service = StreamableHttpService<Server, LocalSessionManager>;
type Answer = Response<BoxBody<Bytes, Infallible>>;

/// What a client has to show.
#[derive(Clone)]
pub struct Token(Arc<str>);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never the token.
        f.write_str("Token")
    }
}

impl Token {
    /// A token that nobody can guess.
    ///
    /// # Errors
    /// When the kernel gives no random bytes.
    pub fn random() -> std::io::Result<Self> {
        let mut bytes = [0; 32];
        getrandom(&mut bytes, GetRandomFlags::empty())?;
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self(text.into()))
    }

    /// A token that somebody chose.
    ///
    /// # Errors
    /// When it is so short that it can be guessed, or no header can carry it.
    pub fn chosen(text: &str) -> Result<Self, Error> {
        if text.len() < 16 || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::new(
                "invalid_request",
                "the token is shorter than 16 characters, or has blanks",
                "choose a long random one, or unset PYRO_MCP_TOKEN to have one made",
            ));
        }
        Ok(Self(text.into()))
    }

    /// The token itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a header shows it. Takes as long whatever differs.
    fn is_shown(&self, header: Option<&HeaderValue>) -> bool {
        let shown = header.map(HeaderValue::as_bytes).and_then(|header| {
            let (scheme, token) = header.split_at_checked(7)?;
            scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
        });
        let Some(shown) = shown else {
            return false;
        };
        let expected = self.0.as_bytes();
        let differs = shown
            .iter()
            .zip(expected)
            .fold(0, |differs, (a, b)| differs | (a ^ b));
        shown.len() == expected.len() && differs == 0
    }
}

/// Listens on an address of this machine alone.
///
/// # Errors
/// When the address is not a loopback address, or is taken.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    if !address.ip().is_loopback() {
        return Err(Error::new(
            "invalid_request",
            format!("{address} is not an address of this machine alone"),
            "pass 127.0.0.1:PORT, and reach it from elsewhere through an SSH tunnel",
        ));
    }
    TcpListener::bind(address).await.map_err(|error| {
        Error::new(
            "address_unavailable",
            format!("cannot listen on {address}: {error}"),
            "pass another port, or port 0 for a free one",
        )
    })
}

/// Serves until `stop`, and stops what then still goes on.
pub async fn serve(
    server: Server,
    listener: TcpListener,
    token: Token,
    stop: impl Future<Output = ()>,
) {
    let ending = CancellationToken::new();
    let service = service(&server, &ending);
    let connections = TaskTracker::new();
    tokio::pin!(stop);
    loop {
        let stream = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                // Out of descriptors, or the client has gone: others may come.
                Err(_) => {
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let (service, token, ending) = (service.clone(), token.clone(), ending.clone());
        connections.spawn(async move {
            tokio::select! {
                () = ending.cancelled() => {}
                () = connection(stream, service, token) => {}
            }
        });
    }
    ending.cancel();
    connections.close();
    connections.wait().await;
    server.end().await;
}

fn service(server: &Server, ending: &CancellationToken) -> Service {
    let server = server.clone();
    let config = StreamableHttpServerConfig::default()
        .with_cancellation_token(ending.child_token())
        .with_max_request_body_bytes(MAX_BODY)
        // Both were checked before.
        .disable_allowed_hosts();
    StreamableHttpService::new(
        move || Ok(server.clone()),
        LocalSessionManager::default().into(),
        config,
    )
}

async fn connection(stream: TcpStream, service: Service, token: Token) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let (service, token) = (service.clone(), token.clone());
        async move {
            Ok::<Answer, Infallible>(match refusal(&token, request.uri(), request.headers()) {
                Some(refused) => refused,
                None => service.handle(request).await,
            })
        }
    });
    // A client that goes away is no news.
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), answer)
        .await;
}

/// Why a request is not for us.
fn refusal(token: &Token, uri: &Uri, headers: &HeaderMap) -> Option<Answer> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok());
    if hosts.next().is_some() || !host.is_some_and(is_this_machine) {
        return Some(refused(
            StatusCode::FORBIDDEN,
            "the Host header names another machine",
        ));
    }
    for origin in headers.get_all(ORIGIN) {
        let page = origin.to_str().ok().and_then(|origin| {
            let rest = origin.strip_prefix("http://");
            rest.or_else(|| origin.strip_prefix("https://"))
        });
        if !page.is_some_and(is_this_machine) {
            return Some(refused(
                StatusCode::FORBIDDEN,
                "requests of this Origin are refused",
            ));
        }
    }
    if !token.is_shown(headers.get(AUTHORIZATION)) {
        let mut answer = refused(
            StatusCode::UNAUTHORIZED,
            "send the token that `pyro mcp serve` printed as `Authorization: Bearer TOKEN`",
        );
        let scheme = HeaderValue::from_static("Bearer");
        answer.headers_mut().insert(WWW_AUTHENTICATE, scheme);
        return Some(answer);
    }
    if uri.path() != PATH {
        return Some(refused(StatusCode::NOT_FOUND, "MCP is at /mcp"));
    }
    None
}

/// Whether an authority is a name of this machine that no name server decides on.
fn is_this_machine(authority: &str) -> bool {
    let (name, port) = match authority.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((name, port)) => (name, port),
            None => return false,
        },
        None => match authority.find(':') {
            Some(at) => authority.split_at(at),
            None => (authority, ""),
        },
    };
    let port_is_one = port.is_empty()
        || port
            .strip_prefix(':')
            .is_some_and(|port| port.parse::<u16>().is_ok());
    let is_loopback = name.eq_ignore_ascii_case("localhost")
        || name
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback());
    port_is_one && is_loopback
}

fn refused(status: StatusCode, why: &'static str) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from_static(why.as_bytes())).boxed());
    *answer.status_mut() = status;
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, text);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_nobody_else_decides_on_are_this_machine() {
        for name in [
            "localhost",
            "localhost:8080",
            "127.0.0.1:1",
            "127.9.9.9",
            "[::1]:80",
            "LOCALHOST",
        ] {
            assert!(is_this_machine(name), "{name}");
        }
        for name in [
            "",
            "example.org",
            "localhost.example.org",
            "127.0.0.1.example.org",
            "localhost@example.org",
            "10.0.0.1",
            "[::1",
            "localhost:x",
            "localhost:80:80",
            "0.0.0.0",
            "[::]",
            "localhost/../x",
            "localhost:-1",
        ] {
            assert!(!is_this_machine(name), "{name}");
        }
    }

    #[test]
    fn a_token_has_to_be_shown_exactly() {
        let token = Token::chosen("0123456789abcdef").unwrap();
        let shown = |text: &'static str| token.is_shown(Some(&HeaderValue::from_static(text)));
        assert!(shown("Bearer 0123456789abcdef"));
        assert!(shown("bearer 0123456789abcdef"));
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdefg",
            "Bearer 0123456789abcdeg",
            "Basic 0123456789abcdef",
            "0123456789abcdef",
        ] {
            assert!(!shown(wrong), "{wrong}");
        }
        assert!(!token.is_shown(None));
        assert!(Token::chosen("short").is_err());
        assert!(Token::chosen("0123456789abcdef with blanks").is_err());
        assert_eq!(format!("{token:?}"), "Token");
        assert_ne!(
            Token::random().unwrap().as_str(),
            Token::random().unwrap().as_str()
        );
    }

    #[tokio::test]
    async fn other_machines_cannot_be_listened_to() {
        for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
            let error = listen(address.parse().unwrap()).await.unwrap_err();
            assert_eq!(error.0.code, "invalid_request", "{address}");
        }
        assert!(listen("127.0.0.1:0".parse().unwrap()).await.is_ok());
    }
}
