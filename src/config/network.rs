//! Networks of addresses, as `allow` lists them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// An address, or all addresses that share its first bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Why a text is not a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// No IP address before the slash.
    #[error("it does not begin with an IP address")]
    Address,
    /// The number behind the slash.
    #[error("behind the slash stands a number from 0 to {0}")]
    Prefix(u8),
    /// Bits behind the prefix.
    #[error("the address has bits set behind the first {0}")]
    Bits(u8),
}

impl Network {
    /// Whether `address` is in it. An IPv4 address that is written as one of IPv6 counts as what it is.
    pub fn contains(&self, address: IpAddr) -> bool {
        let shift = |bits: u8| u32::from(bits.saturating_sub(self.prefix));
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (own.to_bits() ^ other.to_bits())
                    .checked_shr(shift(32))
                    .unwrap_or(0)
                    == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                (own.to_bits() ^ other.to_bits())
                    .checked_shr(shift(128))
                    .unwrap_or(0)
                    == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Address)?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let digits = |text: &&str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let prefix = match prefix {
            None => bits,
            Some(prefix) => Some(prefix)
                .filter(digits)
                .and_then(|prefix| prefix.parse().ok())
                .filter(|prefix| *prefix <= bits)
                .ok_or(NetworkError::Prefix(bits))?,
        };
        let behind = match address {
            IpAddr::V4(address) => address.to_bits().checked_shl(u32::from(prefix)).unwrap_or(0) != 0,
            IpAddr::V6(address) => address.to_bits().checked_shl(u32::from(prefix)).unwrap_or(0) != 0,
        };
        if behind {
            // somebody meant something else than what would be allowed
            return Err(NetworkError::Bits(prefix));
        }
        Ok(Self { address, prefix })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = if self.address.is_ipv4() { 32 } else { 128 };
        if self.prefix == bits {
            write!(f, "{}", self.address)
        } else {
            write!(f, "{}/{}", self.address, self.prefix)
        }
    }
}

/// A list of networks, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Networks(pub(super) Vec<Network>);

impl Networks {
    /// Whether `address` is in one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_in_a_network_or_not() {
        for (network, address, inside) in [
            ("10.0.0.0/8", "10.255.1.2", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.4", false),
            ("10.1.2.3/32", "10.1.2.2", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "2001:db8::1", true),
            ("::/0", "10.0.0.1", false),
            ("::1", "::1", true),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("10.0.0.0/8", "::ffff:10.1.1.1", true),
            ("192.168.4.0/22", "192.168.7.255", true),
            ("192.168.4.0/22", "192.168.8.0", false),
        ] {
            let parsed: Network = network.parse().unwrap();
            assert_eq!(
                parsed.contains(address.parse().unwrap()),
                inside,
                "{network} {address}"
            );
        }
    }

    #[test]
    fn what_is_no_network_is_told() {
        for (text, error) in [
            ("", NetworkError::Address),
            ("localhost", NetworkError::Address),
            ("10.0.0", NetworkError::Address),
            ("/8", NetworkError::Address),
            ("10.0.0.0/33", NetworkError::Prefix(32)),
            ("10.0.0.0/", NetworkError::Prefix(32)),
            ("10.0.0.0/+8", NetworkError::Prefix(32)),
            ("10.0.0.0/255.0.0.0", NetworkError::Prefix(32)),
            ("::/129", NetworkError::Prefix(128)),
            ("10.0.0.1/8", NetworkError::Bits(8)),
            ("::1/64", NetworkError::Bits(64)),
            ("10.0.0.1/0", NetworkError::Bits(0)),
        ] {
            assert_eq!(text.parse::<Network>(), Err(error), "{text}");
        }
        for text in ["10.0.0.0/8", "::1", "2001:db8::/32", "0.0.0.0/0"] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), text);
        }
    }
}
