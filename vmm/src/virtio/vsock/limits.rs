//! Every limit of the device in one place.

use std::time::Duration;

/// Most connections at once, those still draining to a slow host reader included.
pub(super) const MAX_CONNECTIONS: usize = 256;
/// Most clients of the listener whose `CONNECT` line has not come yet; further ones wait in the
/// listener's backlog.
pub(super) const MAX_HANDSHAKES: usize = 64;
/// Bytes of a connection that are held for a slow host reader: the `buf_alloc` that the guest is
/// told (virtio 1.2 §5.10.6.3).
pub(super) const BUF_ALLOC: u32 = 256 * 1024;
/// Bytes passed on after which the guest is told of its new credit without asking.
pub(super) const CREDIT_UPDATE_THRESHOLD: u32 = BUF_ALLOC / 4;
/// Largest payload of a packet in either direction.
pub(super) const MAX_PAYLOAD: u32 = 64 * 1024;
/// Longest `CONNECT <port>\n` line, its end included.
pub(super) const MAX_CONNECT_LINE: usize = 32;
/// Resets owed to packets that belong to no connection. A guest that provokes more without
/// taking them gets no further ones.
pub(super) const MAX_PENDING_RESETS: usize = 256;
/// Packets taken from the guest before the other sources are looked at again.
pub(super) const TX_BUDGET: usize = 64;
/// Packets given to the guest before the other sources are looked at again. Connections take
/// turns packet by packet within it.
pub(super) const RX_BUDGET: usize = 128;
/// Clients accepted in one go.
pub(super) const ACCEPT_BUDGET: usize = 16;

/// How long a client of the listener may take for its `CONNECT` line.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the guest may take to answer a connection request.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the guest may take to answer a full shutdown before it is reset; the time that
/// Linux gives its own peers.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(8);
/// How long the end of a VM waits for host programs to read what the guest sent last.
pub(super) const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// When a listener whose accept(2) failed is tried again.
pub(super) const ACCEPT_RETRY: Duration = Duration::from_secs(1);
/// First port given to connections that come from the host.
pub(super) const FIRST_HOST_PORT: u32 = 1 << 30;

const _: () = assert!(CREDIT_UPDATE_THRESHOLD < BUF_ALLOC && MAX_PAYLOAD <= BUF_ALLOC);
