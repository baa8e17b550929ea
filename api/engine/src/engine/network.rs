//! Published ports: what is asked of the process that is a guest's network.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use pyro_client::types::{PublishPort, PublishedPort};
use pyro_net::control::{ErrorCode, MAX_MESSAGE, Reply, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::slot::Slot;
use crate::error::{Code, Error, Result};
use crate::machine::guest::{self, Guest};

/// How long it may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// How much sooner than its guest's end is known a network may end because of it.
const WITH_ITS_GUEST: Duration = Duration::from_secs(2);
/// Where ports are published.
const LOOPBACK: &str = "127.0.0.1";

/// Publishes a port.
///
/// # Errors
/// [`Code::PortUnavailable`], [`Code::NetworkUnavailable`].
pub(super) async fn publish(guest: &Guest, port: &PublishPort) -> Result<PublishedPort> {
    let request = Request::Publish {
        host_port: port.host_port,
        guest_port: port.guest_port,
    };
    let (code, message) = match ask(guest, &request).await {
        Ok(Reply::Published(published)) => {
            return Ok(PublishedPort {
                host: LOOPBACK.to_string(),
                host_port: published.host_port,
                guest_port: published.guest_port,
            });
        }
        Ok(Reply::Error { code, message }) => (code, message),
        Ok(_) => return Err(unanswered(io::Error::other("another answer"))),
        Err(error) => return Err(unanswered(error)),
    };
    let asked = port.host_port.unwrap_or_default();
    let (code, sentence, remedy) = match code {
        ErrorCode::PortTaken => (
            Code::PortUnavailable,
            format!("the port {asked} of this host is taken"),
            "choose another port, or leave it out for a free one",
        ),
        ErrorCode::PortReserved => (
            Code::PortUnavailable,
            format!("the port {asked} of this host may not be used"),
            "choose a port from 1024, or leave it out for a free one",
        ),
        ErrorCode::TooMany => (
            Code::PortUnavailable,
            "the workspace publishes as many ports as it may".to_string(),
            "stop a service that publishes some",
        ),
        _ => (
            Code::NetworkUnavailable,
            format!(
                "the port cannot be published: {}",
                crate::exec::printable(&message)
            ),
            "stop and start the workspace; when it happens again, report it",
        ),
    };
    Err(Error::new(code, sentence, remedy))
}

/// Withdraws ports. What is withdrawn already, or whose network is gone, is no error.
pub(super) async fn withdraw(guest: &Guest, ports: &[PublishedPort]) {
    for port in ports {
        let request = Request::Withdraw {
            host_port: port.host_port,
        };
        if let Err(error) = ask(guest, &request).await
            && !guest.has_ended()
        {
            tracing::warn!(port = port.host_port, %error, "cannot withdraw a port");
        }
    }
}

/// Withdraws what no service has: a daemon may have been killed between the two.
pub(super) async fn reconcile(slot: &Arc<Slot>, guest: &Guest) {
    use pyro_client::types::NetworkPolicy::EgressPublishedPorts;
    if slot.record().network_policy != EgressPublishedPorts {
        return;
    }
    let Ok(Reply::List { published }) = ask(guest, &Request::List).await else {
        return;
    };
    let kept = slot.living.services.published();
    let orphans: Vec<_> = published
        .into_iter()
        .filter(|port| !kept.contains(&port.host_port))
        .map(|port| PublishedPort {
            host: LOOPBACK.to_string(),
            host_port: port.host_port,
            guest_port: port.guest_port,
        })
        .collect();
    withdraw(guest, &orphans).await;
}

/// Watches for a network that ends before its guest does: nothing starts it again, and its ports went
/// with it. The guest goes on without; it keeps what it has done.
pub(super) fn watch(slot: &Arc<Slot>, guest: &Arc<Guest>) {
    let Some(ended) = guest::network_ended(&slot.vm_folder()) else {
        return;
    };
    let (slot, guest) = (Arc::clone(slot), Arc::clone(guest));
    tokio::spawn(async move {
        let said = ended.await;
        let with_it = tokio::time::timeout(WITH_ITS_GUEST, guest.ended()).await;
        if with_it.is_ok() {
            return;
        }
        let error = ended_before_its_guest(&slot, &said);
        if slot.network_ended(&guest, error.to_api()) {
            tracing::error!(workspace = %slot.id(), error = %error.sentence(), "the network ended");
            slot.living.services.unpublish(&slot).await;
        }
    });
}

fn ended_before_its_guest(slot: &Slot, said: &str) -> Error {
    Error::new(
        Code::NetworkUnavailable,
        "the workspace's network ended, and with it its connections and published ports",
        format!(
            "stop and start it: `pyro workspace stop {0}`, then `pyro workspace start {0}`",
            slot.id()
        ),
    )
    .with_detail(crate::exec::printable(said.trim()))
}

/// Asks one question on a connection of its own.
async fn ask(guest: &Guest, request: &Request) -> io::Result<Reply> {
    let asked = async {
        let mut stream = guest.connect_net().await?;
        let bytes = serde_json::to_vec(request)?;
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        stream.write_all(&length.to_le_bytes()).await?;
        stream.write_all(&bytes).await?;
        let length = stream.read_u32_le().await? as usize;
        if length > MAX_MESSAGE {
            return Err(io::Error::other("its answer is too long"));
        }
        let mut bytes = vec![0; length];
        stream.read_exact(&mut bytes).await?;
        Ok(serde_json::from_slice(&bytes)?)
    };
    tokio::time::timeout(ANSWER, asked)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn unanswered(error: io::Error) -> Error {
    Error::new(
        Code::NetworkUnavailable,
        "the workspace's network does not answer",
        "stop and start the workspace; when it happens again, report it",
    )
    .caused_by(error)
}
