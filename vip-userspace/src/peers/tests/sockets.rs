//! Hosts that tell each other by their sockets.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use super::{
    KEY, name, vip, word,
    world::{Random, Words},
};
use crate::peers::{Exchange, Key, PeerSocket, PeerState, Refusal, Word};

/// A host on the machine's loopback interface, with its socket.
struct Station {
    exchange: Exchange,
    words: Words,
    socket: PeerSocket,
}

impl Station {
    fn address(host: usize) -> Ipv4Addr {
        Ipv4Addr::new(127, 0, 0, 100 + u8::try_from(host).expect("few hosts"))
    }

    /// Three of them, on one port that is free on all of their addresses.
    fn three() -> Vec<Self> {
        let sockets = || {
            let free = std::net::UdpSocket::bind((Self::address(0), 0)).expect("a free port");
            let port = free.local_addr().expect("an address").port();
            drop(free);
            (0..3).map(|host| PeerSocket::bind(Self::address(host), port)).collect::<Result<Vec<_>, _>>()
        };
        // Somebody else may take the port on one of them.
        let sockets = (0..20).find_map(|_| sockets().ok()).expect("a port that is free on three addresses");
        let station = |(host, socket)| {
            let mut random = Random(host as u64);
            let key = Key::of(KEY).expect("a key");
            let mut exchange = Exchange::new(name(host).into(), key, false, Box::new(move || random.nonce()));
            let others = (0..3).filter(|other| *other != host);
            exchange
                .set_peers(others.map(|other| (name(other).into(), Self::address(other))), Instant::now());
            let by_vip = (0..40).map(|number| (vip(number), Word::default())).collect();
            Self { exchange, words: Words { by_vip, ..Words::default() }, socket }
        };
        sockets.into_iter().enumerate().map(station).collect()
    }

    fn send(&mut self) {
        for (to, datagram) in self.exchange.take_outgoing() {
            self.socket.send(to, &datagram).expect("loopback takes it");
        }
    }

    /// Does what is due and takes what has come.
    fn turn(&mut self) {
        let now = Instant::now();
        if self.exchange.next().is_some_and(|due| due <= now) {
            self.exchange.tick(&mut self.words, now);
        }
        while let Some((from, datagram)) = self.socket.receive().expect("a socket") {
            self.exchange.receive(from, datagram, &mut self.words, now).expect("an honest datagram");
        }
        self.send();
    }
}

async fn until(stations: &mut [Station], done: impl Fn(&[Station]) -> bool) {
    let begun = Instant::now();
    while !done(stations) {
        assert!(begun.elapsed() < Duration::from_secs(30), "they do not agree");
        stations.iter_mut().for_each(Station::turn);
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn hosts_with_sockets_agree() {
    let mut stations = Station::three();
    let all_up = |stations: &[Station]| {
        let reports = stations.iter().flat_map(|station| station.exchange.report(Instant::now()));
        reports.into_iter().all(|report| report.state == PeerState::Up)
    };
    until(&mut stations, all_up).await;
    for number in 0..40 {
        let host = number as usize % 3;
        let Station { exchange, words, .. } = &mut stations[host];
        words.by_vip.insert(vip(number), word(1, true, host, "p"));
        exchange.changed(&[vip(number)], words, Instant::now());
    }
    stations.iter_mut().for_each(Station::send);
    until(&mut stations, |stations| {
        stations.iter().all(|station| {
            (0..40)
                .all(|number| station.words.by_vip[&vip(number)] == word(1, true, number as usize % 3, "p"))
                && station.exchange.report(Instant::now()).iter().all(|report| report.unacked == 0)
        })
    })
    .await;
    assert!(stations.iter().all(|station| station.exchange.unlisted() == 0));
}

#[tokio::test]
async fn a_socket_wakes_its_host_and_takes_no_longer_datagram_for_a_good_one() {
    let mut stations = Station::three();
    let to = stations[1].socket.local_address().expect("an address");
    let stranger = std::net::UdpSocket::bind((Ipv4Addr::new(127, 0, 0, 99), 0)).expect("a socket");
    stranger.send_to(&[0; 3000], to).expect("sent");
    stations[1].socket.readable().await.expect("readable");
    let (from, datagram) = stations[1].socket.receive().expect("a socket").expect("a datagram");
    assert_eq!((from, datagram.len()), (Ipv4Addr::new(127, 0, 0, 99), crate::peers::LONGEST + 1));
    assert!(stations[1].socket.receive().expect("a socket").is_none());
    let taken = stations[1].exchange.receive(from, &[0; 1201], &mut Words::default(), Instant::now());
    assert_eq!(taken, Err(Refusal::Unlisted));
}
