//! Network interfaces as DHCP needs them: bring one up, send and receive raw UDP before it has an address, give it the
//! address and the route.

use std::io;
use std::mem;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

const SYS_NET: &str = "/sys/class/net";
const ETHERNET: &str = "1";

/// One Ethernet interface of real or virtual hardware.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name, as in `eth0`.
    pub name: String,
    /// The kernel's number for it.
    pub index: i32,
    /// Its hardware address.
    pub mac: [u8; 6],
}

impl Link {
    /// The hardware address as people write it.
    #[must_use]
    pub fn mac_text(&self) -> String {
        self.mac.map(|b| format!("{b:02x}")).join(":")
    }

    /// Whether the interface sees a cable with something at its other end; false while it is down.
    #[must_use]
    pub fn has_carrier(&self) -> bool {
        read(&self.name, "carrier").is_some_and(|text| text == "1")
    }
}

fn read(name: &str, attribute: &str) -> Option<String> {
    let text = std::fs::read_to_string(Path::new(SYS_NET).join(name).join(attribute)).ok()?;
    Some(text.trim().to_owned())
}

/// Every Ethernet interface that stands for a device, by name.
pub fn links() -> io::Result<Vec<Link>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(SYS_NET)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let is_device = Path::new(SYS_NET).join(&name).join("device").exists();
        if !is_device || read(&name, "type").as_deref() != Some(ETHERNET) {
            continue;
        }
        let mac = read(&name, "address").and_then(|text| {
            let mut mac = [0; 6];
            hex::decode_to_slice(text.replace(':', ""), &mut mac).ok()?;
            Some(mac)
        });
        let index = read(&name, "ifindex").and_then(|text| text.parse().ok());
        if let (Some(mac), Some(index)) = (mac, index) {
            found.push(Link { name, index, mac });
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

#[expect(unsafe_code, reason = "interface ioctls have no safe wrapper in the crates at hand")]
fn control(request: libc::Ioctl, ifreq: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: no pointers; the answer is checked before use.
    let raw = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    let socket = owned(raw)?;
    // SAFETY: every request made here takes an `ifreq`, which lives through the call.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), request, std::ptr::from_mut(ifreq)) };
    checked(done)
}

fn checked(done: i32) -> io::Result<()> {
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[expect(unsafe_code, reason = "libc hands out raw descriptors")]
fn owned(raw: i32) -> io::Result<OwnedFd> {
    checked(raw)?;
    // SAFETY: the descriptor was just made, is valid, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

#[expect(unsafe_code, reason = "a C structure of integers and a union of them")]
fn ifreq_for(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: all zeros is a valid ifreq.
    let mut ifreq: libc::ifreq = unsafe { mem::zeroed() };
    if name.len() >= ifreq.ifr_name.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the interface's name is too long"));
    }
    for (to, from) in ifreq.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    Ok(ifreq)
}

#[expect(unsafe_code, reason = "sockaddr is the kernel's union by cast")]
fn sockaddr_of(addr: Ipv4Addr) -> libc::sockaddr {
    // SAFETY: all zeros is a valid sockaddr_in.
    let mut inet: libc::sockaddr_in = unsafe { mem::zeroed() };
    inet.sin_family = libc::AF_INET as libc::sa_family_t;
    inet.sin_addr.s_addr = u32::from_ne_bytes(addr.octets());
    // SAFETY: both are 16 bytes of plain integers; the family says which one it is.
    unsafe { mem::transmute::<libc::sockaddr_in, libc::sockaddr>(inet) }
}

/// Brings the interface up; its carrier shows some seconds later.
#[expect(unsafe_code, reason = "reads the union field that the ioctl filled in")]
pub fn bring_up(name: &str) -> io::Result<()> {
    let mut ifreq = ifreq_for(name)?;
    control(libc::SIOCGIFFLAGS, &mut ifreq)?;
    // SAFETY: SIOCGIFFLAGS fills in the flags.
    let flags = unsafe { ifreq.ifr_ifru.ifru_flags };
    ifreq.ifr_ifru.ifru_flags = flags | libc::IFF_UP as libc::c_short;
    control(libc::SIOCSIFFLAGS, &mut ifreq)
}

/// Gives the interface its address and mask, in place of any it had. `0.0.0.0` takes the address away.
pub fn set_address(name: &str, addr: Ipv4Addr, mask: Ipv4Addr) -> io::Result<()> {
    let mut ifreq = ifreq_for(name)?;
    ifreq.ifr_ifru.ifru_addr = sockaddr_of(addr);
    control(libc::SIOCSIFADDR, &mut ifreq)?;
    if addr.is_unspecified() {
        return Ok(());
    }
    let mut ifreq = ifreq_for(name)?;
    ifreq.ifr_ifru.ifru_netmask = sockaddr_of(mask);
    control(libc::SIOCSIFNETMASK, &mut ifreq)
}

/// Sets the largest packet, in bytes.
pub fn set_mtu(name: &str, mtu: u16) -> io::Result<()> {
    let mut ifreq = ifreq_for(name)?;
    ifreq.ifr_ifru.ifru_mtu = i32::from(mtu);
    control(libc::SIOCSIFMTU, &mut ifreq)
}

/// Sends everything that no other route covers to `gateway`, through the interface. A route that is there already
/// stays.
#[expect(unsafe_code, reason = "route ioctls have no safe wrapper in the crates at hand")]
pub fn add_default_route(name: &str, gateway: Ipv4Addr) -> io::Result<()> {
    let device = std::ffi::CString::new(name).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: all zeros is a valid rtentry.
    let mut route: libc::rtentry = unsafe { mem::zeroed() };
    route.rt_dst = sockaddr_of(Ipv4Addr::UNSPECIFIED);
    route.rt_genmask = sockaddr_of(Ipv4Addr::UNSPECIFIED);
    route.rt_gateway = sockaddr_of(gateway);
    route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
    route.rt_dev = device.as_ptr().cast_mut();
    // SAFETY: no pointers; the answer is checked before use.
    let socket = owned(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: SIOCADDRT takes an rtentry, which lives through the call, as does the name it points to.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCADDRT, std::ptr::from_ref(&route)) };
    match checked(done) {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        other => other,
    }
}

/// A socket on one interface below IP: sends and receives whole IPv4 packets to and from everyone on the wire, before
/// the interface has an address.
pub struct PacketSocket {
    socket: OwnedFd,
    to_all: libc::sockaddr_ll,
}

impl PacketSocket {
    /// Opens it on the interface with this number. Needs root.
    #[expect(unsafe_code, reason = "packet sockets have no safe wrapper in the crates at hand")]
    pub fn open(index: i32) -> io::Result<Self> {
        let protocol = (libc::ETH_P_IP as u16).to_be();
        // SAFETY: no pointers; the answer is checked before use.
        let raw = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, i32::from(protocol)) };
        let socket = owned(raw)?;
        // SAFETY: all zeros is a valid sockaddr_ll.
        let mut to_all: libc::sockaddr_ll = unsafe { mem::zeroed() };
        to_all.sll_family = libc::AF_PACKET as u16;
        to_all.sll_protocol = protocol;
        to_all.sll_ifindex = index;
        to_all.sll_halen = 6;
        to_all.sll_addr[..6].fill(0xff);
        let size = mem::size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the address lives through the call and its size is its own.
        let done = unsafe { libc::bind(socket.as_raw_fd(), std::ptr::from_ref(&to_all).cast(), size) };
        checked(done)?;
        Ok(Self { socket, to_all })
    }

    /// Broadcasts one IPv4 packet.
    #[expect(unsafe_code, reason = "packet sockets have no safe wrapper in the crates at hand")]
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        let size = mem::size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: packet and address live through the call, each with its own length.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                0,
                std::ptr::from_ref(&self.to_all).cast(),
                size,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// The next IPv4 packet that arrives within `wait`; its length, or `None` when nothing came.
    #[expect(unsafe_code, reason = "packet sockets have no safe wrapper in the crates at hand")]
    pub fn receive(&self, packet: &mut [u8], wait: Duration) -> io::Result<Option<usize>> {
        let mut poll = libc::pollfd { fd: self.socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let milliseconds = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: one pollfd, which lives through the call.
        let ready = unsafe { libc::poll(&raw mut poll, 1, milliseconds) };
        checked(ready)?;
        if ready == 0 {
            return Ok(None);
        }
        // SAFETY: the buffer lives through the call and its length is its own.
        let got = unsafe {
            libc::recv(self.socket.as_raw_fd(), packet.as_mut_ptr().cast(), packet.len(), libc::MSG_DONTWAIT)
        };
        usize::try_from(got).map(Some).map_err(|_| io::Error::last_os_error())
    }
}
