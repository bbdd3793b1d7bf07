//! DHCP's client half: what is asked, what an answer means, and the IPv4 and UDP around it, since the interface has
//! no address yet. `dhcproto` knows the message itself.

use std::io;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use dhcproto::v4::{DhcpOption, Flags, Message, MessageType, OptionCode};
use dhcproto::{Decodable, Decoder, Encodable, Encoder};

use crate::sys::entropy;
use crate::sys::net::{Link, PacketSocket};

const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;
const HEADERS: usize = 28;
/// How long each of the requests of one attempt is waited for.
const WAITS: [Duration; 3] = [Duration::from_secs(2), Duration::from_secs(3), Duration::from_secs(5)];

/// What a server gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Our address.
    pub addr: Ipv4Addr,
    /// Its network's mask.
    pub mask: Ipv4Addr,
    /// Where everything else goes.
    pub gateway: Option<Ipv4Addr>,
    /// Name servers.
    pub name_servers: Vec<Ipv4Addr>,
    /// Largest packet, where the server names one.
    pub mtu: Option<u16>,
    /// The server that gave it.
    pub server: Ipv4Addr,
    /// How long it holds.
    pub lifetime: Duration,
}

/// What one side of the exchange asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask<'a> {
    Discover,
    Request(&'a Lease),
    Renew(&'a Lease),
}

fn message(link: &Link, xid: u32, ask: Ask<'_>) -> Message {
    let mut message = Message::new_with_id(
        xid,
        if let Ask::Renew(lease) = ask { lease.addr } else { Ipv4Addr::UNSPECIFIED },
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::UNSPECIFIED,
        &link.mac,
    );
    message.set_flags(Flags::default().set_broadcast());
    let options = message.opts_mut();
    options.insert(DhcpOption::MessageType(match ask {
        Ask::Discover => MessageType::Discover,
        Ask::Request(_) | Ask::Renew(_) => MessageType::Request,
    }));
    if let Ask::Request(lease) = ask {
        options.insert(DhcpOption::RequestedIpAddress(lease.addr));
        options.insert(DhcpOption::ServerIdentifier(lease.server));
    }
    let identifier = [&[1][..], &link.mac].concat();
    options.insert(DhcpOption::ClientIdentifier(identifier));
    options.insert(DhcpOption::ClassIdentifier(b"bedplate-agent".to_vec()));
    options.insert(DhcpOption::MaxMessageSize(1400));
    options.insert(DhcpOption::ParameterRequestList(vec![
        OptionCode::SubnetMask,
        OptionCode::Router,
        OptionCode::DomainNameServer,
        OptionCode::InterfaceMtu,
        OptionCode::AddressLeaseTime,
    ]));
    message
}

/// The answer's kind and what it offers, when it answers this exchange.
fn answer(payload: &[u8], link: &Link, xid: u32) -> Option<(MessageType, Lease)> {
    let message = Message::decode(&mut Decoder::new(payload)).ok()?;
    if message.xid() != xid || message.chaddr() != link.mac {
        return None;
    }
    let options = message.opts();
    let kind = options.msg_type()?;
    let server = match options.get(OptionCode::ServerIdentifier) {
        Some(DhcpOption::ServerIdentifier(server)) => *server,
        _ => message.siaddr(),
    };
    let mask = match options.get(OptionCode::SubnetMask) {
        Some(DhcpOption::SubnetMask(mask)) => *mask,
        _ => Ipv4Addr::new(255, 255, 255, 0),
    };
    let gateway = match options.get(OptionCode::Router) {
        Some(DhcpOption::Router(routers)) => routers.first().copied(),
        _ => None,
    };
    let name_servers = match options.get(OptionCode::DomainNameServer) {
        Some(DhcpOption::DomainNameServer(servers)) => servers.clone(),
        _ => Vec::new(),
    };
    let mtu = match options.get(OptionCode::InterfaceMtu) {
        Some(DhcpOption::InterfaceMtu(mtu)) if *mtu >= 576 => Some(*mtu),
        _ => None,
    };
    let seconds = match options.get(OptionCode::AddressLeaseTime) {
        Some(DhcpOption::AddressLeaseTime(seconds)) => *seconds,
        _ => 3600,
    };
    let lifetime = Duration::from_secs(u64::from(seconds));
    Some((kind, Lease { addr: message.yiaddr(), mask, gateway, name_servers, mtu, server, lifetime }))
}

/// The ones' complement sum of IPv4 headers.
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |b| u32::from(*b))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !(((folded & 0xffff) + (folded >> 16)) as u16)
}

/// An IPv4 packet with a UDP datagram for everyone. Its UDP checksum is left out, as IPv4 allows.
fn packet(source: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let total = u16::try_from(HEADERS + payload.len()).unwrap_or(u16::MAX);
    let mut packet = vec![0; HEADERS];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&total.to_be_bytes());
    packet[8] = 64;
    packet[9] = 17;
    packet[12..16].copy_from_slice(&source.octets());
    packet[16..20].fill(0xff);
    let sum = checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet[20..22].copy_from_slice(&CLIENT_PORT.to_be_bytes());
    packet[22..24].copy_from_slice(&SERVER_PORT.to_be_bytes());
    packet[24..26].copy_from_slice(&(total - 20).to_be_bytes());
    packet.extend_from_slice(payload);
    packet
}

/// The datagram in `packet`, when it is one for a DHCP client.
fn payload(packet: &[u8]) -> Option<&[u8]> {
    let first = *packet.first()?;
    let header = usize::from(first & 15) * 4;
    if first >> 4 != 4 || header < 20 || *packet.get(9)? != 17 {
        return None;
    }
    let udp = packet.get(header..)?;
    let port = u16::from_be_bytes([*udp.get(2)?, *udp.get(3)?]);
    let length = usize::from(u16::from_be_bytes([*udp.get(4)?, *udp.get(5)?]));
    if port != CLIENT_PORT {
        return None;
    }
    udp.get(8..length)
}

fn encode(message: &Message) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(400);
    message.encode(&mut Encoder::new(&mut bytes)).map_err(io::Error::other)?;
    // BOOTP's old minimum: some relays drop anything shorter.
    bytes.resize(bytes.len().max(300), 0);
    Ok(bytes)
}

/// Sends one request and waits for an answer of one of these kinds.
fn exchange(
    socket: &PacketSocket,
    link: &Link,
    ask: Ask<'_>,
    wait: Duration,
) -> io::Result<Option<(MessageType, Lease)>> {
    let mut xid = [0; 4];
    entropy::fill(&mut xid);
    let xid = u32::from_be_bytes(xid);
    let source = if let Ask::Renew(lease) = ask { lease.addr } else { Ipv4Addr::UNSPECIFIED };
    socket.send(&packet(source, &encode(&message(link, xid, ask))?))?;
    let deadline = Instant::now() + wait;
    let mut buffer = vec![0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let Some(length) = socket.receive(&mut buffer, left)? else { return Ok(None) };
        let Some((kind, lease)) = payload(&buffer[..length]).and_then(|bytes| answer(bytes, link, xid)) else {
            continue;
        };
        let expected = match ask {
            Ask::Discover => matches!(kind, MessageType::Offer),
            Ask::Request(_) | Ask::Renew(_) => matches!(kind, MessageType::Ack | MessageType::Nak),
        };
        if expected {
            return Ok(Some((kind, lease)));
        }
    }
}

/// One attempt at a lease, some ten seconds at most; `None` when no server answers.
pub fn obtain(link: &Link) -> io::Result<Option<Lease>> {
    let socket = PacketSocket::open(link.index)?;
    for wait in WAITS {
        let Some((_, offer)) = exchange(&socket, link, Ask::Discover, wait)? else { continue };
        if let Some((MessageType::Ack, lease)) = exchange(&socket, link, Ask::Request(&offer), wait)? {
            return Ok(Some(lease));
        }
    }
    Ok(None)
}

/// Asks the server to let us keep the lease; the new one, or `None` when it does not say yes.
pub fn renew(link: &Link, lease: &Lease) -> io::Result<Option<Lease>> {
    let socket = PacketSocket::open(link.index)?;
    for wait in WAITS {
        match exchange(&socket, link, Ask::Renew(lease), wait)? {
            Some((MessageType::Ack, lease)) => return Ok(Some(lease)),
            Some(_) => return Ok(None),
            None => {}
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    //! What we send decodes to what we meant, and an answer counts only when it is ours.
    use super::*;

    fn link() -> Link {
        Link { name: "eth0".into(), index: 2, mac: [0x52, 0x54, 0, 1, 2, 3] }
    }

    fn offered() -> Message {
        let server = Ipv4Addr::new(10, 99, 0, 1);
        let mut message = message(&link(), 7, Ask::Discover);
        message.set_yiaddr(Ipv4Addr::new(10, 99, 0, 50));
        let options = message.opts_mut();
        options.insert(DhcpOption::MessageType(MessageType::Offer));
        options.insert(DhcpOption::ServerIdentifier(server));
        options.insert(DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 0, 0)));
        options.insert(DhcpOption::Router(vec![server]));
        options.insert(DhcpOption::DomainNameServer(vec![server]));
        options.insert(DhcpOption::AddressLeaseTime(120));
        message
    }

    #[test]
    fn round_trips_through_packets() {
        let bytes = encode(&message(&link(), 7, Ask::Discover)).unwrap();
        let mut sent = packet(Ipv4Addr::UNSPECIFIED, &bytes);
        assert_eq!(checksum(&sent[..20]), 0, "a header with its checksum sums to nothing");
        assert_eq!(payload(&sent), None, "it is for a server");
        sent[22..24].copy_from_slice(&CLIENT_PORT.to_be_bytes());
        let back = Message::decode(&mut Decoder::new(payload(&sent).unwrap())).unwrap();
        assert_eq!(
            (back.xid(), back.chaddr(), back.opts().msg_type()),
            (7, &link().mac[..], Some(MessageType::Discover))
        );
        assert!(back.flags().broadcast());
    }

    #[test]
    fn reads_an_offer_and_only_ours() {
        let bytes = encode(&offered()).unwrap();
        let (kind, lease) = answer(&bytes, &link(), 7).unwrap();
        assert_eq!(kind, MessageType::Offer);
        assert_eq!(lease.addr, Ipv4Addr::new(10, 99, 0, 50));
        assert_eq!(lease.mask, Ipv4Addr::new(255, 255, 0, 0));
        assert_eq!(lease.gateway, Some(lease.server));
        assert_eq!(lease.lifetime, Duration::from_secs(120));
        assert!(answer(&bytes, &link(), 8).is_none(), "another exchange");
        let other = Link { mac: [9; 6], ..link() };
        assert!(answer(&bytes, &other, 7).is_none(), "another machine");
        let request = message(&link(), 9, Ask::Request(&lease));
        assert_eq!(
            request.opts().get(OptionCode::RequestedIpAddress),
            Some(&DhcpOption::RequestedIpAddress(lease.addr))
        );
    }

    #[test]
    fn hostile_packets_are_no_answers() {
        let good = packet(Ipv4Addr::UNSPECIFIED, &encode(&offered()).unwrap());
        for cut in 0..good.len() {
            let mut bytes = good[..cut].to_vec();
            if let Some(port) = bytes.get_mut(22..24) {
                port.copy_from_slice(&CLIENT_PORT.to_be_bytes());
            }
            if let Some(found) = payload(&bytes) {
                drop(answer(found, &link(), 7));
            }
        }
    }
}
