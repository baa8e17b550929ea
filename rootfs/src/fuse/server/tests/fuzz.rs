//! Random requests: no panic, well-formed replies, and the tree can still be walked afterwards.

use proptest::prelude::*;

use super::*;

/// Bytes that look like names often enough to get past the first checks.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        Just(b"file\0".to_vec()),
        Just(b"dir\0".to_vec()),
        Just(b"new\0".to_vec()),
        Just(b"user.x\0".to_vec()),
        Just(b"../..\0".to_vec()),
        prop::num::u64::ANY.prop_map(|n| n.to_ne_bytes().to_vec()),
        (0u64..20).prop_map(|n| n.to_ne_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..64),
    ];
    prop::collection::vec(word, 0..14).prop_map(|words| words.concat())
}

/// A message: mostly with a true length and a known opcode and node.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let opcode = prop_oneof![9 => 1u32..52, 1 => any::<u32>()];
    let node = prop_oneof![9 => 0u64..16, 1 => any::<u64>()];
    let lie = prop_oneof![9 => Just(None), 1 => any::<u32>().prop_map(Some)];
    (opcode, node, body(), lie).prop_map(|(opcode, nodeid, body, lie)| {
        let len = lie.unwrap_or((size_of::<InHeader>() + body.len()) as u32);
        let header = InHeader {
            len,
            opcode,
            nodeid,
            ..InHeader::default()
        };
        [header.as_bytes(), &body].concat()
    })
}

/// Sends messages and looks at what comes back.
fn attack(client: &mut Client, messages: &[Vec<u8>], capacity: usize) {
    for message in messages {
        if let Some(reply) = client.raw(message, capacity) {
            let (header, _) = OutHeader::read_from_prefix(&reply).unwrap();
            assert_eq!(header.len as usize, reply.len());
            assert!((-511..=0).contains(&header.error));
            assert!(header.error == 0 || reply.len() == size_of::<OutHeader>());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn random_requests_do_no_harm(
        messages in prop::collection::vec(message(), 1..60),
        capacity in prop_oneof![3 => Just(ROOMY), 1 => 0usize..300],
    ) {
        let mut client = Client::with_quota(Quota { bytes: 1 << 24, inodes: 1000 });
        attack(&mut client, &messages, capacity);
        // Some message may have been a DESTROY.
        client.init(OFFERED).unwrap();
        client.snapshot();
    }

    #[test]
    fn random_bytes_do_no_harm(
        messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..40),
    ) {
        let mut client = Client::new();
        attack(&mut client, &messages, ROOMY);
        client.init(OFFERED).unwrap();
        client.snapshot();
    }
}
