//! Which addresses a request may go to.
//!
//! Anyone who can ask for an image can name a registry, and any registry can name a redirect or a token service:
//! without a rule, each of them could make the node ask its neighbours or itself. Owns the rule; opens no
//! connection. Invariant: whatever is not known to be a public address counts as something else.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What kind of address something stands at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Reachable from anywhere in the internet.
    Public,
    /// In a network of one's own (RFC 1918, RFC 4193), or behind a carrier's translation (RFC 6598).
    Private,
    /// This machine.
    Loopback,
    /// For a purpose of its own: link-local, multicast, unspecified, documentation, and all that is reserved.
    Special,
}

impl Standing {
    /// What this address is, by IANA's special-purpose address registries.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::of_v4(address),
            IpAddr::V6(address) => Self::of_v6(address),
        }
    }

    fn of_v4(address: Ipv4Addr) -> Self {
        match address.octets() {
            [127, ..] => Self::Loopback,
            [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => Self::Private,
            // This network, link-local, multicast and reserved.
            [0, ..] | [169, 254, ..] | [224..=255, ..] => Self::Special,
            // Protocol assignments, documentation, 6to4 relays, benchmarks.
            [192, 0, 0 | 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Self::Special,
            [192, 88, 99, _] | [198, 18 | 19, ..] => Self::Special,
            _ => Self::Public,
        }
    }

    fn of_v6(address: Ipv6Addr) -> Self {
        if address.is_loopback() {
            return Self::Loopback;
        }
        if let Some(mapped) = address.to_ipv4_mapped() {
            // A second spelling of an IPv4 address, which nobody needs to reach a public one.
            return match Self::of_v4(mapped) {
                Self::Public => Self::Special,
                other @ (Self::Private | Self::Loopback | Self::Special) => other,
            };
        }
        match address.segments() {
            // NAT64 (RFC 6052): how a network without IPv4 reaches it.
            [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
                let [a, b] = high.to_be_bytes();
                let [c, d] = low.to_be_bytes();
                Self::of_v4(Ipv4Addr::new(a, b, c, d))
            }
            [0xfc00..=0xfdff, ..] => Self::Private,
            // Protocol assignments (Teredo among them), documentation, 6to4.
            [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x2002, ..] | [0x3fff, 0..=0xfff, ..] => {
                Self::Special
            }
            // The only block from which global unicast addresses are given out.
            [0x2000..=0x3fff, ..] => Self::Public,
            _ => Self::Special,
        }
    }

    /// How far someone who stands there may lead us.
    pub(super) fn leads(self) -> Reach {
        match self {
            Self::Public => Reach::Public,
            Self::Private | Self::Special => Reach::Private,
            Self::Loopback => Reach::Anywhere,
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Public => "a public address",
            Self::Private => "a private address",
            Self::Loopback => "a loopback address",
            Self::Special => "a special-purpose address",
        })
    }
}

/// How far a request may go; each reach includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Reach {
    /// Public addresses alone: what a stranger may lead to.
    Public,
    /// Private addresses too.
    Private,
    /// Every address: what the configuration may name.
    Anywhere,
}

impl Reach {
    /// Whether an address of this kind is within reach.
    pub(super) fn includes(self, standing: Standing) -> bool {
        match standing {
            Standing::Public => true,
            Standing::Private => self >= Self::Private,
            Standing::Loopback | Standing::Special => self == Self::Anywhere,
        }
    }

    /// What is left of this reach where someone standing there says where to go next.
    pub(super) fn led_by(self, standing: Standing) -> Self {
        self.min(standing.leads())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_public_only_where_it_is_known_to_be() {
        use Standing::{Loopback, Private, Public, Special};
        for (address, standing) in [
            ("1.1.1.1", Public),
            ("172.15.0.1", Public),
            ("172.32.0.1", Public),
            ("100.63.0.1", Public),
            ("100.128.0.1", Public),
            ("223.255.255.1", Public),
            ("127.0.0.1", Loopback),
            ("127.255.0.9", Loopback),
            ("10.0.0.1", Private),
            ("172.16.0.1", Private),
            ("172.31.255.255", Private),
            ("192.168.1.1", Private),
            ("100.64.0.1", Private),
            ("0.0.0.0", Special),
            ("0.1.2.3", Special),
            ("169.254.169.254", Special),
            ("192.0.0.170", Special),
            ("192.0.2.1", Special),
            ("198.18.0.1", Special),
            ("198.51.100.1", Special),
            ("203.0.113.1", Special),
            ("224.0.0.1", Special),
            ("240.0.0.1", Special),
            ("255.255.255.255", Special),
            ("2606:4700::1111", Public),
            ("2a00::1", Public),
            ("::1", Loopback),
            ("::", Special),
            ("::7f00:1", Special),
            ("::ffff:127.0.0.1", Loopback),
            ("::ffff:10.0.0.1", Private),
            ("::ffff:1.1.1.1", Special),
            ("64:ff9b::101:101", Public),
            ("64:ff9b::7f00:1", Loopback),
            ("64:ff9b::a9fe:a9fe", Special),
            ("64:ff9b:1::1", Special),
            ("fd00::1", Private),
            ("fc00::1", Private),
            ("fe80::1", Special),
            ("fec0::1", Special),
            ("ff02::1", Special),
            ("2001::1", Special),
            ("2001:db8::1", Special),
            ("2002:7f00:1::", Special),
            ("3fff::1", Special),
            ("100::1", Special),
        ] {
            assert_eq!(Standing::of(address.parse().unwrap()), standing, "{address}");
        }
    }

    #[test]
    fn one_may_lead_only_where_one_stands() {
        use Standing::{Loopback, Private, Public, Special};
        for (leader, within) in [
            (Public, &[Public] as &[Standing]),
            (Private, &[Public, Private]),
            (Special, &[Public, Private]),
            (Loopback, &[Public, Private, Loopback, Special]),
        ] {
            for target in [Public, Private, Loopback, Special] {
                let led = Reach::Anywhere.led_by(leader).includes(target);
                assert_eq!(led, within.contains(&target), "from {leader} to {target}");
                assert_eq!(Reach::Public.led_by(leader).includes(target), target == Public);
            }
        }
    }
}
