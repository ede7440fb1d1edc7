//! Host names: the servers that the resolver asks, whether they answer, what `getaddrinfo(3)`
//! finds.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use simple_dns::{CLASS, Name, Packet, PacketFlag, Question, TYPE};

use super::probe::{InsideError, Probe, reason};

const CONF: &str = "/etc/resolv.conf";

/// `MAXNS` of resolv.conf(5): the C library ignores more.
const MAX_SERVERS: usize = 3;

/// How often a question is sent: a datagram may get lost.
const TRIES: u32 = 2;

/// The name servers that the resolver asks.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::doctor) struct Nameservers;

impl Probe for Nameservers {
    type Answer = Result<Vec<String>, InsideError>;

    fn run(&self) -> Self::Answer {
        Ok(nameservers(&String::from_utf8_lossy(&fs::read(CONF)?)))
    }
}

/// As resolv.conf(5) has it; without any, the C library asks this machine.
fn nameservers(text: &str) -> Vec<String> {
    let mut servers = vec![];
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() == Some("nameserver")
            && let Some(address) = words.next()
        {
            servers.push(address.to_owned());
        }
    }
    servers.truncate(MAX_SERVERS);
    if servers.is_empty() {
        servers.push(Ipv4Addr::LOCALHOST.to_string());
    }
    servers
}

/// The answer of a name server to a question about a name.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::doctor) struct Nameserver {
    pub address: String,
    pub name: String,
    pub limit: Duration,
}

impl Probe for Nameserver {
    /// The response code, such as `NoError`.
    type Answer = Result<String, InsideError>;

    fn run(&self) -> Self::Answer {
        Ok(self.ask()?)
    }
}

impl Nameserver {
    fn ask(&self) -> io::Result<String> {
        let server = (self.address.as_str(), 53).to_socket_addrs()?.next();
        let server = server.ok_or_else(|| io::Error::other("it is not an address"))?;
        let any: IpAddr = if server.is_ipv4() {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
        socket.connect(server)?; // so that a refusal is received, and no datagram of others is

        let id = u16::try_from(std::process::id() & 0xffff).unwrap_or(1);
        let query = query(id, &self.name)?;
        for _ in 0..TRIES {
            socket.send(&query)?;
            match receive(&socket, id, self.limit / TRIES) {
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
                result => return result,
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }
}

fn query(id: u16, name: &str) -> io::Result<Vec<u8>> {
    let name = Name::new(name).map_err(io::Error::other)?;
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    packet
        .questions
        .push(Question::new(name, TYPE::A.into(), CLASS::IN.into(), false));
    packet.build_bytes_vec().map_err(io::Error::other)
}

fn receive(socket: &UdpSocket, id: u16, limit: Duration) -> io::Result<String> {
    let start = Instant::now();
    let mut buffer = [0; 4096];
    loop {
        let left = limit.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        match socket.recv(&mut buffer) {
            Ok(length) => match Packet::parse(&buffer[..length]) {
                Ok(packet) if packet.id() == id && packet.has_flags(PacketFlag::RESPONSE) => {
                    return Ok(format!("{:?}", packet.rcode()));
                }
                _ => {} // a late or broken answer
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// The addresses that `getaddrinfo(3)` finds for a name, with the NSS modules of the jail.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::doctor) struct Resolve {
    pub name: String,
}

impl Probe for Resolve {
    type Answer = Result<Vec<String>, String>;

    fn run(&self) -> Self::Answer {
        let found = (self.name.as_str(), 0).to_socket_addrs();
        let found = found.map_err(reason)?;
        Ok(found.map(|address| address.ip().to_string()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_is_read_as_the_resolver_does() {
        let text = "# nameserver 9.9.9.9\nsearch a\n nameserver\nnameserver\t10.0.0.1 # x\n\
        nameserver fe80::1%eth0\n\
                    nameserverx 1\nnameserver 10.0.0.3\nnameserver 10.0.0.4\n";
        assert_eq!(nameservers(text), ["10.0.0.1", "fe80::1%eth0", "10.0.0.3"]);
        assert_eq!(nameservers("options edns0\n"), ["127.0.0.1"]);
    }

    #[test]
    fn a_question_is_a_question() {
        let bytes = query(7, "example.org").unwrap();
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!((packet.id(), packet.questions.len()), (7, 1));
        assert!(!packet.has_flags(PacketFlag::RESPONSE));
        assert!(query(7, &"x".repeat(80)).is_err());
    }
}
