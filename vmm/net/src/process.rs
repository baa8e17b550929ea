//! The process `pyro-net`, from its arguments to its exit code.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::process::ExitCode;

use rustix::net::SocketType;
use rustix::net::sockopt::socket_type;

use crate::config::{Config, GENERATION};
use crate::dns::Resolvers;
use crate::inherit::{self, InheritError};
use crate::network::Network;
use crate::sandbox;

const USAGE: &str = "usage: pyro-net --config-fd N
This is the network of one workspace; `pyro` starts it.";

/// Largest configuration document.
const CONFIG_MAX: u64 = 1 << 20;
/// The exit code for a wrong command line.
const EXIT_USAGE: u8 = 2;
/// Packet sizes that a guest can have (RFC 791; Linux).
const MTU: std::ops::RangeInclusive<u16> = 576..=65520;

/// What prevents a network.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("cannot read the configuration")]
    Read(#[source] io::Error),
    #[error("the configuration is not understood")]
    Parse(#[source] serde_json::Error),
    #[error("the configuration is of generation {0}; this network speaks {GENERATION}")]
    Generation(u32),
    #[error("the configuration's addresses make no network")]
    Addresses,
    #[error("a descriptor of the configuration is not usable")]
    Inherit(#[from] InheritError),
    #[error("the frames' socket is not of type SOCK_SEQPACKET")]
    SocketType,
    #[error("the process cannot give up its privileges")]
    Sandbox(#[source] rustix::io::Errno),
    #[error("the host lets the network not go on")]
    Host(#[from] io::Error),
}

/// The process, from its arguments (without its name) to its exit code: 0 when the frames' socket
/// was closed, 1 when it failed, 2 for a wrong command line.
pub fn main(arguments: &[String]) -> ExitCode {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = match words.as_slice() {
        ["--help" | "-h"] => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        ["--config-fd", number] => number.parse().ok(),
        _ => None,
    };
    let Some(number) = number else {
        eprintln!("{USAGE}");
        return ExitCode::from(EXIT_USAGE);
    };
    match run(number) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pyro-net: {}", describe(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(config_fd: i32) -> Result<(), StartError> {
    let config = read_config(inherit::adopt(config_fd)?)?;
    check(&config)?;
    let resources = inherit::take(&config)?;
    let kind = socket_type(&resources.frames).map_err(io::Error::from)?;
    if kind != SocketType::SEQPACKET {
        return Err(StartError::SocketType);
    }
    sandbox::enter(&config.limits).map_err(StartError::Sandbox)?;
    let network = Network::new(&config, resources, Resolvers::of_host())?;
    Ok(network.run()?)
}

fn read_config(fd: OwnedFd) -> Result<Config, StartError> {
    let mut document = Vec::new();
    std::fs::File::from(fd)
        .take(CONFIG_MAX)
        .read_to_end(&mut document)
        .map_err(StartError::Read)?;
    serde_json::from_slice(&document).map_err(StartError::Parse)
}

/// Refuses what could not work.
fn check(config: &Config) -> Result<(), StartError> {
    if config.generation != GENERATION {
        return Err(StartError::Generation(config.generation));
    }
    let addresses = &config.addresses;
    let unicast = |mac: [u8; 6]| mac[0] & 1 == 0 && mac != [0; 6];
    let three = [addresses.guest, addresses.gateway, addresses.dns];
    let usable = three.iter().all(|address| {
        !address.is_unspecified() && !address.is_multicast() && !address.is_broadcast()
    });
    let distinct = addresses.guest != addresses.gateway && addresses.guest != addresses.dns;
    let macs = unicast(addresses.guest_mac) && unicast(addresses.gateway_mac);
    if usable && distinct && macs && addresses.prefix <= 32 && MTU.contains(&addresses.mtu) {
        Ok(())
    } else {
        Err(StartError::Addresses)
    }
}

/// An error with its causes, in one line.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
