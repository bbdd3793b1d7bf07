//! From cables to an address that reaches the appliance: every interface is tried, and the first that gets through
//! is used. Switches take half a minute to forward after a link comes up, so this goes on until it succeeds.

use std::net::{Ipv4Addr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use super::console;
use super::dhcp::{self, Lease};
use super::modules::Loader;
use crate::sys::net::{self, Link};

const RESOLV_CONF: &str = "/etc/resolv.conf";
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long a round waits for the first cable to show.
const CARRIER_LIMIT: Duration = Duration::from_secs(8);

/// The interface in use, with its lease.
#[derive(Clone, Debug)]
pub struct Network {
    /// The interface.
    pub link: Link,
    /// What it was given.
    pub lease: Lease,
}

/// Goes round the interfaces until one of them reaches `authority` (`host:port`).
pub fn connect(authority: &str, loader: &mut Loader) -> Network {
    bring_up_loopback();
    let mut round = 1u32;
    loop {
        let links = ready_links(loader, round);
        for (link, lease) in leases(&links) {
            match try_lease(&link, &lease, authority) {
                Ok(()) => {
                    let (name, addr) = (&link.name, lease.addr);
                    console::say("network", format!("{name} has {addr} and reaches the appliance at {authority}"));
                    let network = Network { link, lease };
                    keep(network.clone());
                    return network;
                }
                Err(error) => {
                    let (name, addr) = (&link.name, lease.addr);
                    console::say("network", format!("{name} has {addr} but does not reach {authority}: {error}"));
                    // The next interface must not be shadowed by this one's routes.
                    drop(net::set_address(&link.name, Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED));
                }
            }
        }
        round += 1;
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn bring_up_loopback() {
    // Without it only name look-ups through a local server would fail; there is none here.
    drop(net::bring_up("lo"));
}

/// The interfaces with a cable, after bringing all of them up.
fn ready_links(loader: &mut Loader, round: u32) -> Vec<Link> {
    let began = Instant::now();
    loop {
        loader.pass();
        let links = net::links().unwrap_or_default();
        for link in &links {
            if let Err(error) = net::bring_up(&link.name) {
                console::say("network", format!("cannot bring {} up: {error}", link.name));
            }
        }
        let ready: Vec<Link> = links.iter().filter(|link| link.has_carrier()).cloned().collect();
        if !ready.is_empty() || began.elapsed() > CARRIER_LIMIT {
            if round == 1 || round.is_multiple_of(6) || ready.is_empty() {
                describe(&links);
            }
            return ready;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn describe(links: &[Link]) {
    if links.is_empty() {
        console::say("network", "no network interface found: is its driver in the boot image?");
    }
    for link in links {
        let cable = if link.has_carrier() { "link" } else { "no link" };
        console::say("network", format!("{} {} {cable}", link.name, link.mac_text()));
    }
}

/// Asks on all interfaces at once; leases come in the order in which servers answer.
fn leases(links: &[Link]) -> impl Iterator<Item = (Link, Lease)> {
    let (sender, receiver) = std::sync::mpsc::channel();
    for link in links.iter().cloned() {
        let sender = sender.clone();
        std::thread::spawn(move || match dhcp::obtain(&link) {
            Ok(Some(lease)) => drop(sender.send((link, lease))),
            Ok(None) => console::say("network", format!("{}: no answer from a DHCP server", link.name)),
            Err(error) => console::say("network", format!("{}: DHCP failed: {error}", link.name)),
        });
    }
    drop(sender);
    receiver.into_iter()
}

/// Sets the interface up as the lease says, and connects.
fn try_lease(link: &Link, lease: &Lease, authority: &str) -> std::io::Result<()> {
    net::set_address(&link.name, lease.addr, lease.mask)?;
    if let Some(mtu) = lease.mtu {
        // A refused size leaves the driver's own, which works too.
        drop(net::set_mtu(&link.name, mtu));
    }
    if let Some(gateway) = lease.gateway {
        net::add_default_route(&link.name, gateway)?;
    }
    let servers: String = lease.name_servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    drop(std::fs::create_dir_all("/etc"));
    drop(std::fs::write(RESOLV_CONF, servers));
    let mut last = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
    for addr in authority.to_socket_addrs()? {
        match TcpStream::connect_timeout(&addr, CONNECT_LIMIT) {
            Ok(_) => return Ok(()),
            Err(error) => last = error,
        }
    }
    // A restarting appliance refuses: the machine is there, and that is what this trial asks.
    if last.kind() == std::io::ErrorKind::ConnectionRefused { Ok(()) } else { Err(last) }
}

/// Renews the lease at half its life for as long as the agent runs: an installation may outlast a short lease.
fn keep(network: Network) {
    std::thread::spawn(move || {
        let Network { link, mut lease } = network;
        loop {
            std::thread::sleep((lease.lifetime / 2).max(Duration::from_secs(10)));
            match dhcp::renew(&link, &lease) {
                Ok(Some(renewed)) => lease = renewed,
                Ok(None) => console::say("network", format!("{}: the lease was not renewed", link.name)),
                Err(error) => console::say("network", format!("{}: cannot renew the lease: {error}", link.name)),
            }
        }
    });
}
