use std::collections::HashMap;
use std::io;

use super::*;

/// The host's routing as a test wants it.
#[derive(Default)]
struct Fixed(HashMap<IpAddr, RouteKind>);

impl Routing for Fixed {
    fn kind(&mut self, address: IpAddr) -> io::Result<RouteKind> {
        Ok(self
            .0
            .get(&address)
            .copied()
            .unwrap_or(RouteKind::Elsewhere))
    }
}

fn check(address: &str) -> Result<(), Refusal> {
    Egress::new(Vec::new(), Fixed::default()).check(address.parse().unwrap())
}

#[test]
fn each_special_range_is_refused_from_its_first_address_to_its_last() {
    use Refusal::*;
    let ranges = [
        ("0.0.0.0", "0.255.255.255", Unspecified),
        ("127.0.0.0", "127.255.255.255", Loopback),
        ("10.0.0.0", "10.255.255.255", Private),
        ("172.16.0.0", "172.31.255.255", Private),
        ("192.168.0.0", "192.168.255.255", Private),
        ("100.64.0.0", "100.127.255.255", CarrierNat),
        ("169.254.0.0", "169.254.255.255", LinkLocal),
        ("169.254.169.254", "169.254.170.2", LinkLocal),
        ("192.0.0.0", "192.0.0.255", Reserved),
        ("192.88.99.0", "192.88.99.255", Reserved),
        ("198.18.0.0", "198.19.255.255", Benchmarking),
        ("224.0.0.0", "239.255.255.255", Multicast),
        ("240.0.0.0", "255.255.255.254", Reserved),
        ("255.255.255.255", "255.255.255.255", Broadcast),
        ("168.63.129.16", "168.63.129.16", Metadata),
        ("100.100.100.200", "100.100.100.200", Metadata),
        ("::", "::", Unspecified),
        ("::1", "::1", Loopback),
        ("fe80::", "febf:ffff::1", LinkLocal),
        ("fc00::", "fdff:ffff::1", Private),
        ("fec0::", "feff:ffff::1", Private),
        ("fd00:ec2::254", "fd00:ec2::254", Metadata),
        ("ff00::", "ffff::1", Multicast),
        ("2001::", "2001:0:ffff::1", Reserved),
        ("2001:2::", "2001:2:0:ffff::", Benchmarking),
        ("64:ff9b:1::", "64:ff9b:1:ffff::", Reserved),
        ("100::", "100::1", Reserved),
        ("4000::", "fbff::1", Reserved),
    ];
    for (first, last, refusal) in ranges {
        assert_eq!(check(first), Err(refusal), "{first}");
        assert_eq!(check(last), Err(refusal), "{last}");
    }
}

#[test]
fn the_neighbours_of_special_ranges_and_documentation_ranges_are_reached() {
    for address in [
        "1.0.0.0",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "168.63.129.15",
        "169.253.255.255",
        "169.255.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.0",
        "192.0.2.1",
        "192.88.98.255",
        "192.88.100.0",
        "192.167.255.255",
        "192.169.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "198.51.100.1",
        "203.0.113.80",
        "223.255.255.255",
        "2001:200::1",
        "2001:db8::1",
        "2a00::1",
    ] {
        assert_eq!(check(address), Ok(()), "{address}");
    }
}

#[test]
fn ipv4_inside_ipv6_is_judged_as_what_it_leads_to() {
    for (inner, refusal) in [
        ("127.0.0.1", Refusal::Loopback),
        ("10.0.0.1", Refusal::Private),
        ("169.254.169.254", Refusal::LinkLocal),
        ("224.0.0.1", Refusal::Multicast),
    ] {
        let [a, b, c, d] = inner.parse::<Ipv4Addr>().unwrap().octets();
        for outer in [
            format!("::ffff:{inner}"),
            format!("::{inner}"),
            format!("64:ff9b::{inner}"),
            format!("2002:{a:02x}{b:02x}:{c:02x}{d:02x}::1"),
        ] {
            assert_eq!(check(&outer), Err(refusal), "{outer}");
        }
    }
    for public in ["::ffff:192.0.2.1", "64:ff9b::192.0.2.1", "2002:c000:201::"] {
        assert_eq!(check(public), Ok(()), "{public}");
    }
}

#[test]
fn an_operator_may_allow_private_ranges_and_never_loopback_or_the_host() {
    let allow = ["10.1.0.0/16", "127.0.0.0/8", "224.0.0.0/4", "0.0.0.0/0"];
    let host: IpAddr = "10.1.0.9".parse().unwrap();
    let routing = Fixed(HashMap::from([(host, RouteKind::Host)]));
    let allow = allow.iter().map(|range| range.parse().unwrap()).collect();
    let mut egress = Egress::new(allow, routing);
    let mut check = |address: &str| egress.check(address.parse().unwrap());

    assert_eq!(check("10.1.2.3"), Ok(()));
    assert_eq!(check("::ffff:10.1.2.3"), Ok(()));
    assert_eq!(check("10.1.0.9"), Err(Refusal::Host));
    assert_eq!(check("127.0.0.1"), Err(Refusal::Loopback));
    assert_eq!(check("224.0.0.1"), Err(Refusal::Multicast));
    assert_eq!(check("255.255.255.255"), Err(Refusal::Broadcast));
    assert_eq!(check("0.0.0.0"), Err(Refusal::Unspecified));
}

#[test]
fn a_range_opens_only_what_its_first_address_is() {
    let allowing = |ranges: &[&str], address: &str| {
        let allow = ranges.iter().map(|range| range.parse().unwrap()).collect();
        Egress::new(allow, Fixed(HashMap::new())).check(address.parse().unwrap())
    };
    for everything in ["0.0.0.0/0", "8.0.0.0/5", "128.0.0.0/1", "100.0.0.0/8"] {
        for address in ["10.0.0.1", "169.254.169.254", "168.63.129.16", "100.64.0.1"] {
            assert!(allowing(&[everything], address).is_err(), "{everything}");
        }
    }
    let carriers = ["100.64.0.0/10"];
    assert_eq!(allowing(&carriers, "100.64.0.1"), Ok(()));
    let metadata = "100.100.100.200";
    assert_eq!(allowing(&carriers, metadata), Err(Refusal::Metadata));
    assert_eq!(allowing(&[metadata], metadata), Ok(()));
    assert_eq!(allowing(&["169.254.169.254/32"], "169.254.169.254"), Ok(()));
}

#[test]
fn public_addresses_of_the_host_and_its_networks_broadcasts_are_refused() {
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    let routing = Fixed(HashMap::from([
        (address("192.0.2.1"), RouteKind::Host),
        (address("192.0.2.255"), RouteKind::Broadcast),
    ]));
    let mut egress = Egress::new(Vec::new(), routing);
    assert_eq!(egress.check(address("192.0.2.1")), Err(Refusal::Host));
    assert_eq!(
        egress.check(address("::ffff:192.0.2.1")),
        Err(Refusal::Host)
    );
    assert_eq!(
        egress.check(address("192.0.2.255")),
        Err(Refusal::Broadcast)
    );
    assert_eq!(egress.check(address("192.0.2.2")), Ok(()));
}

#[test]
fn what_the_host_cannot_tell_is_refused() {
    struct Broken;
    impl Routing for Broken {
        fn kind(&mut self, _: IpAddr) -> io::Result<RouteKind> {
            Err(io::ErrorKind::Other.into())
        }
    }
    let mut egress = Egress::new(Vec::new(), Broken);
    let address = "192.0.2.1".parse().unwrap();
    assert_eq!(egress.check(address), Err(Refusal::Unknown));
}
