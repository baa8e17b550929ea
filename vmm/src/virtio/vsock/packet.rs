//! Vsock packets as owned values (virtio 1.2 §5.10.6).
//!
//! A header is copied out of guest memory once, as 44 bytes, and everything is decided on that
//! copy: what the guest writes into its buffer afterwards changes nothing.

/// Bytes of a packet header (virtio 1.2 §5.10.6, `struct virtio_vsock_hdr`).
pub(super) const HEADER_LEN: usize = 44;

/// `VIRTIO_VSOCK_TYPE_STREAM` (virtio 1.2 §5.10.6.2), the only socket type this device has.
pub(super) const TYPE_STREAM: u16 = 1;

/// A context id: the address of a guest or of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cid(pub u64);

impl Cid {
    /// The host (virtio 1.2 §5.10.4).
    pub const HOST: Cid = Cid(2);
    /// The lowest id a guest may have; those below are reserved (virtio 1.2 §5.10.4).
    pub const MIN_GUEST: Cid = Cid(3);
    /// Reserved: "any" (virtio 1.2 §5.10.4).
    pub const ANY: Cid = Cid(0xffff_ffff);
}

/// A vsock port number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port(pub u32);

/// What tells one connection of this device from the others: the ids are always host and guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ConnKey {
    pub(super) host: Port,
    pub(super) guest: Port,
}

/// Operations (virtio 1.2 §5.10.6, `enum virtio_vsock_op`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    /// `VIRTIO_VSOCK_OP_REQUEST`
    Request,
    /// `VIRTIO_VSOCK_OP_RESPONSE`
    Response,
    /// `VIRTIO_VSOCK_OP_RST`
    Rst,
    /// `VIRTIO_VSOCK_OP_SHUTDOWN`
    Shutdown,
    /// `VIRTIO_VSOCK_OP_RW`
    Rw,
    /// `VIRTIO_VSOCK_OP_CREDIT_UPDATE`
    CreditUpdate,
    /// `VIRTIO_VSOCK_OP_CREDIT_REQUEST`
    CreditRequest,
    /// Anything else.
    Unknown(u16),
}

impl From<u16> for Op {
    fn from(value: u16) -> Op {
        match value {
            1 => Op::Request,
            2 => Op::Response,
            3 => Op::Rst,
            4 => Op::Shutdown,
            5 => Op::Rw,
            6 => Op::CreditUpdate,
            7 => Op::CreditRequest,
            other => Op::Unknown(other),
        }
    }
}

impl From<Op> for u16 {
    fn from(op: Op) -> u16 {
        match op {
            Op::Request => 1,
            Op::Response => 2,
            Op::Rst => 3,
            Op::Shutdown => 4,
            Op::Rw => 5,
            Op::CreditUpdate => 6,
            Op::CreditRequest => 7,
            Op::Unknown(other) => other,
        }
    }
}

/// The directions a side has given up, the `flags` of [`Op::Shutdown`] (virtio 1.2 §5.10.6.6).
/// They only ever accumulate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Shutdown {
    /// `VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE`: the sender of the packet will receive no more data.
    pub(super) receive: bool,
    /// `VIRTIO_VSOCK_SHUTDOWN_F_SEND`: the sender of the packet will send no more data.
    pub(super) send: bool,
}

impl Shutdown {
    const RECEIVE_BIT: u32 = 1;
    const SEND_BIT: u32 = 2;

    /// Reads the flags; bits that the specification does not define are ignored.
    pub(super) fn from_flags(flags: u32) -> Shutdown {
        Shutdown {
            receive: flags & Self::RECEIVE_BIT != 0,
            send: flags & Self::SEND_BIT != 0,
        }
    }

    pub(super) fn flags(self) -> u32 {
        (if self.receive { Self::RECEIVE_BIT } else { 0 })
            | (if self.send { Self::SEND_BIT } else { 0 })
    }

    /// Neither direction is left.
    pub(super) fn both(self) -> bool {
        self.receive && self.send
    }

    pub(super) fn merge(&mut self, other: Shutdown) {
        self.receive |= other.receive;
        self.send |= other.send;
    }
}

/// One packet's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) src_cid: Cid,
    pub(super) dst_cid: Cid,
    pub(super) src_port: Port,
    pub(super) dst_port: Port,
    /// Bytes of payload. A guest may lie: compare with what the chain holds.
    pub(super) len: u32,
    pub(super) socket_type: u16,
    pub(super) op: Op,
    pub(super) flags: u32,
    pub(super) buf_alloc: u32,
    pub(super) fwd_cnt: u32,
}

impl Header {
    pub(super) fn from_bytes(bytes: &[u8; HEADER_LEN]) -> Header {
        let mut fields = Fields { rest: bytes };
        Header {
            src_cid: Cid(fields.u64()),
            dst_cid: Cid(fields.u64()),
            src_port: Port(fields.u32()),
            dst_port: Port(fields.u32()),
            len: fields.u32(),
            socket_type: fields.u16(),
            op: Op::from(fields.u16()),
            flags: fields.u32(),
            buf_alloc: fields.u32(),
            fwd_cnt: fields.u32(),
        }
    }

    pub(super) fn to_bytes(self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[0..8].copy_from_slice(&self.src_cid.0.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.dst_cid.0.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.src_port.0.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.dst_port.0.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.len.to_le_bytes());
        bytes[28..30].copy_from_slice(&self.socket_type.to_le_bytes());
        bytes[30..32].copy_from_slice(&u16::from(self.op).to_le_bytes());
        bytes[32..36].copy_from_slice(&self.flags.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.buf_alloc.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.fwd_cnt.to_le_bytes());
        bytes
    }

    /// The reset that answers this packet: its addresses swapped, its type kept, so that the
    /// guest finds the socket it came from whatever it had put there.
    pub(super) fn reset(&self) -> Header {
        Header {
            src_cid: self.dst_cid,
            dst_cid: self.src_cid,
            src_port: self.dst_port,
            dst_port: self.src_port,
            len: 0,
            socket_type: self.socket_type,
            op: Op::Rst,
            flags: 0,
            buf_alloc: 0,
            fwd_cnt: 0,
        }
    }
}

/// Little-endian fields, front to back.
struct Fields<'a> {
    rest: &'a [u8],
}

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self
            .rest
            .split_first_chunk()
            .expect("the fields of a header are as long as the header");
        self.rest = rest;
        *field
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_lie_where_the_specification_puts_them() {
        let mut bytes = [0; HEADER_LEN];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::try_from(at).unwrap();
        }
        let header = Header::from_bytes(&bytes);
        assert_eq!(header.src_cid, Cid(0x0706_0504_0302_0100));
        assert_eq!(header.dst_cid, Cid(0x0f0e_0d0c_0b0a_0908));
        assert_eq!(header.src_port, Port(0x1312_1110));
        assert_eq!(header.dst_port, Port(0x1716_1514));
        assert_eq!(header.len, 0x1b1a_1918);
        assert_eq!(header.socket_type, 0x1d1c);
        assert_eq!(header.op, Op::Unknown(0x1f1e));
        assert_eq!(header.flags, 0x2322_2120);
        assert_eq!(header.buf_alloc, 0x2726_2524);
        assert_eq!(header.fwd_cnt, 0x2b2a_2928);
    }

    #[test]
    fn shutdown_ignores_flags_it_does_not_know() {
        assert_eq!(Shutdown::from_flags(0xffff_fffc), Shutdown::default());
        assert!(Shutdown::from_flags(0xffff_ffff).both());
        assert_eq!(Shutdown::from_flags(3).flags(), 3);
    }

    proptest! {
        #[test]
        fn every_header_survives_a_round_trip(bytes in prop::array::uniform32(any::<u8>()),
                                              tail in prop::array::uniform12(any::<u8>())) {
            let mut whole = [0; HEADER_LEN];
            whole[..32].copy_from_slice(&bytes);
            whole[32..].copy_from_slice(&tail);
            prop_assert_eq!(Header::from_bytes(&whole).to_bytes(), whole);
        }
    }
}
