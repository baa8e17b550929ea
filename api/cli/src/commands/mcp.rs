//! `pyro mcp`: the adapter, and what makes hosts start it.

use std::net::SocketAddr;

use pyro_mcp::hosts::{self, Entry, Places};
use pyro_mcp::http::{self, Token};
use pyro_mcp::{Daemon, Server, stdio};
use tokio::runtime::Runtime;

use crate::args::{Config, Mcp, ServeMcp};
use crate::interrupt::Interrupts;
use crate::output::{Failure, escape, note, print};

/// Runs a command of `pyro mcp`.
pub(crate) fn mcp(command: Mcp, runtime: &Runtime) -> Result<u8, Failure> {
    match command {
        Mcp::Serve(args) => runtime.block_on(serve(&args)),
        Mcp::Config(args) => config(&args),
        Mcp::Skill => {
            print(pyro_mcp::SKILL)?;
            Ok(0)
        }
    }
}

async fn serve(args: &ServeMcp) -> Result<u8, Failure> {
    let daemon = Daemon::OnDemand(crate::daemon::launcher()?);
    let server = Server::new(daemon, args.profile, std::env::current_dir()?);
    match args.http {
        None => serve_stdio(server).await,
        Some(address) => serve_http(server, address).await,
    }
}

async fn serve_stdio(server: Server) -> Result<u8, Failure> {
    let mut interrupts = Interrupts::install()?;
    tokio::select! {
        ended = stdio::serve(server.clone()) => ended.map_err(|error| {
            Failure::new(
                "invalid_request",
                format!("whoever started this does not speak MCP: {error}"),
                "let an MCP host start it; `pyro mcp config` says how",
            )
        })?,
        _ = interrupts.wait() => {}
    }
    server.end().await;
    Ok(0)
}

async fn serve_http(server: Server, address: SocketAddr) -> Result<u8, Failure> {
    let chosen = std::env::var("PYRO_MCP_TOKEN")
        .ok()
        .filter(|token| !token.is_empty());
    let token = match &chosen {
        Some(token) => Token::chosen(token)?,
        None => Token::random()?,
    };
    let listener = http::listen(address).await?;
    let address = listener.local_addr()?;
    note(&format!(
        "pyro: MCP at http://{address}{}; Ctrl-C ends it",
        http::PATH
    ));
    note(&match chosen {
        Some(_) => "pyro: clients send the token of PYRO_MCP_TOKEN".to_string(),
        None => format!(
            "pyro: clients send `Authorization: Bearer {}`",
            token.as_str()
        ),
    });
    let mut interrupts = Interrupts::install()?;
    http::serve(server, listener, token, async move {
        interrupts.wait().await;
    })
    .await;
    Ok(0)
}

fn config(args: &Config) -> Result<u8, Failure> {
    let entry = Entry {
        program: hosts::program(std::env::current_exe())?,
        profile: args.profile,
    };
    let places = || {
        Places::from_variables(std::env::current_dir()?, |name| std::env::var_os(name))
            .map_err(Failure::from)
    };
    if !args.install {
        print(&args.host.configure(&entry, None)?)?;
        if let Ok(places) = places() {
            let file = args.host.file(&places);
            note(&format!(
                "pyro: this belongs into {}; --install puts it there",
                escape::quoted(&file.to_string_lossy())
            ));
        }
        return Ok(0);
    }
    let (file, changed) = hosts::install(args.host, &entry, &places()?)?;
    let file = escape::quoted(&file.to_string_lossy());
    note(&match changed {
        true => format!("pyro: {file} has pyro among its servers now"),
        false => format!("pyro: {file} has it already"),
    });
    note(&format!("next: {}", args.host.next()));
    Ok(0)
}

impl From<pyro_mcp::Error> for Failure {
    fn from(error: pyro_mcp::Error) -> Self {
        error.0.into()
    }
}
