//! The datagrams.
//!
//! ```text
//! magic 4 | version 1 | kind 1 | sender's id | receiver's id | sender's session 16 | receiver's session 16 | number 8 | body | tag 32
//! ```
//!
//! Numbers are big-endian; an id is its length in one byte and its bytes. The receiver's session is 0 while the sender knows none.
//! The tag is of all before it. Versions share magic, version and their places, and nothing else.

use std::net::Ipv4Addr;

use super::{
    key::{Key, TAG},
    word::{BUCKETS, Holder, Vip, Word},
};

/// Longest datagram, in bytes: with IPv4 and UDP headers it fits every underlay that VXLAN is possible on.
pub const LONGEST: usize = 1200;

/// Most words in a datagram: an acknowledgement has a bit for each.
pub(super) const MOST_WORDS: usize = 32;

/// Most datagrams that one acknowledgement is about: as many as fit beside the longest ids.
pub(super) const MOST_ACKS: usize = 80;

const MAGIC: [u8; 4] = *b"VIPN";
const VERSION: u8 = 1;

/// Longest id, in bytes, as the state has them.
const LONGEST_ID: usize = 64;

/// Bits of a word's flags.
const CLAIMED: u8 = 1;
const HELD: u8 = 1 << 1;
const NOW: u8 = 1 << 2;

/// A random number that nobody else has drawn.
pub type Nonce = [u8; 16];

/// Stands for no number.
pub(super) const NO_NONCE: Nonce = [0; 16];

/// Why a datagram was not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It comes from an address that is no other host's VTEP.
    Unlisted,
    /// It is no datagram of this protocol, or one that no vipd sends.
    Malformed,
    /// It is of a version that this vipd does not know.
    Version,
    /// Whoever made it does not have the key, or it was changed on the way.
    Auth,
    /// It is not from the host whose VTEP it comes from, or not for this one.
    Identity,
    /// It belongs to another session: from before a restart, or a replay of that time.
    Session,
    /// It came before.
    Replay,
}

/// A word on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct News {
    pub(super) vip: Vip,
    pub(super) word: Word,
    /// Number of the claim that is the reason to tell: the later it was made in the sender's session, the higher. 0: there is none, the
    /// sender tells what it remembers.
    pub(super) claim: u64,
}

/// What a datagram says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// "I live, do you?": a challenge to be returned ([`NO_NONCE`]: nothing is asked), and the other's challenge (or none).
    Hello { challenge: Nonce, echo: Nonce },
    /// Who owns what: at most [`MOST_WORDS`].
    News(Vec<News>),
    /// Datagrams by number, with a bit for each word in them that need not be told again: at most [`MOST_ACKS`].
    Ack(Vec<(u64, u32)>),
    /// For each bucket the sum of the words' prints.
    Digest(Box<[u64; BUCKETS]>),
    /// "Tell me everything": from a host whose tables are new.
    Sync,
    /// "That was everything."
    Synced,
    /// About an owner that may have left without a word.
    Call(Call),
}

/// What hosts say about an owner that may have left without a word. It is said once: who wants to know says it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// "A member here uses a VIP that a guest of yours owns: is it still there?"
    InUse(Ownership),
    /// "The owner that you asked about does not answer."
    Silent(Ownership),
}

/// The time of one owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ownership {
    /// What it owns.
    pub vip: Vip,
    /// Since when.
    pub epoch: u64,
}

impl Body {
    const fn kind(&self) -> u8 {
        match self {
            Self::Hello { .. } => 1,
            Self::News(_) => 2,
            Self::Ack(_) => 3,
            Self::Digest(_) => 4,
            Self::Sync => 5,
            Self::Synced => 6,
            Self::Call(Call::InUse(_)) => 7,
            Self::Call(Call::Silent(_)) => 8,
        }
    }
}

/// A datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// Host that sent it.
    pub(super) sender: String,
    /// Host that it is for.
    pub(super) receiver: String,
    /// Session of the sender.
    pub(super) session: Nonce,
    /// Session of the receiver, as the sender knows it.
    pub(super) other_session: Nonce,
    /// Rises with each datagram of a session.
    pub(super) number: u64,
    pub(super) body: Body,
}

fn put_id(bytes: &mut Vec<u8>, id: &str) {
    let id = id.as_bytes().get(..LONGEST_ID.min(id.len())).unwrap_or_default();
    bytes.push(u8::try_from(id.len()).unwrap_or_default());
    bytes.extend_from_slice(id);
}

fn put_vip(bytes: &mut Vec<u8>, vip: Vip) {
    bytes.extend_from_slice(&vip.vni.to_be_bytes());
    bytes.extend_from_slice(&vip.address.octets());
}

/// Bytes of a word on its way.
fn put_news(bytes: &mut Vec<u8>, News { vip, word, claim }: &News) {
    put_vip(bytes, *vip);
    bytes.extend_from_slice(&word.epoch.to_be_bytes());
    let bit = |set, flag| if set { flag } else { 0 };
    bytes.push(bit(word.claimed, CLAIMED) | bit(word.holder.is_some(), HELD) | bit(*claim != 0, NOW));
    if *claim != 0 {
        bytes.extend_from_slice(&claim.to_be_bytes());
    }
    if let Some(Holder { port, host, vrid }) = &word.holder {
        bytes.push(*vrid);
        put_id(bytes, port);
        put_id(bytes, host);
    }
}

/// Length of a word on its way, in bytes.
pub(super) fn length_of(News { vip: _, word, claim }: &News) -> usize {
    let claim = if *claim == 0 { 0 } else { 8 };
    let holder = word.holder.as_ref().map_or(0, |holder| 1 + 2 + holder.port.len() + holder.host.len());
    4 + 4 + 8 + 1 + claim + holder
}

/// Bytes that the words of a datagram between two hosts may have together.
pub(super) fn room_for_words(sender: &str, receiver: &str) -> usize {
    LONGEST - (4 + 1 + 1 + 2 + sender.len() + receiver.len() + 16 + 16 + 8 + TAG)
}

impl Message {
    /// The datagram.
    pub(super) fn encode(&self, key: &Key) -> Vec<u8> {
        let Self { sender, receiver, session, other_session, number, body } = self;
        let mut bytes = Vec::with_capacity(LONGEST);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[VERSION, body.kind()]);
        put_id(&mut bytes, sender);
        put_id(&mut bytes, receiver);
        bytes.extend_from_slice(session);
        bytes.extend_from_slice(other_session);
        bytes.extend_from_slice(&number.to_be_bytes());
        match body {
            Body::Hello { challenge, echo } => {
                bytes.extend_from_slice(challenge);
                bytes.extend_from_slice(echo);
            }
            Body::News(news) => news.iter().for_each(|news| put_news(&mut bytes, news)),
            Body::Ack(acks) => {
                for (number, words) in acks {
                    bytes.extend_from_slice(&number.to_be_bytes());
                    bytes.extend_from_slice(&words.to_be_bytes());
                }
            }
            Body::Digest(sums) => sums.iter().for_each(|sum| bytes.extend_from_slice(&sum.to_be_bytes())),
            Body::Sync | Body::Synced => {}
            Body::Call(Call::InUse(Ownership { vip, epoch }) | Call::Silent(Ownership { vip, epoch })) => {
                put_vip(&mut bytes, *vip);
                bytes.extend_from_slice(&epoch.to_be_bytes());
            }
        }
        let tag = key.tag(&bytes);
        bytes.extend_from_slice(&tag);
        bytes
    }

    /// Reads a datagram that the key authenticates. Panics on none, and no length in it is believed before it was checked.
    pub(super) fn decode(datagram: &[u8], key: &Key) -> Result<Self, Refusal> {
        let mut head = Reader(datagram);
        if head.array() != Some(MAGIC) {
            return Err(Refusal::Malformed);
        }
        if head.byte().ok_or(Refusal::Malformed)? != VERSION {
            return Err(Refusal::Version);
        }
        if datagram.len() > LONGEST {
            return Err(Refusal::Malformed);
        }
        let (signed, tag) = datagram.split_last_chunk::<TAG>().ok_or(Refusal::Malformed)?;
        if !key.verifies(signed, tag) {
            return Err(Refusal::Auth);
        }
        let mut reader = Reader(signed);
        reader.message().filter(|_| reader.0.is_empty()).ok_or(Refusal::Malformed)
    }
}

/// What of a datagram was not read yet. Each method takes from its beginning; `None`: that is not there.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    fn byte(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    fn number(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// An id has at least one byte.
    fn id(&mut self) -> Option<&str> {
        let length = usize::from(self.byte()?);
        let (id, rest) = self.0.split_at_checked(length).filter(|_| (1..=LONGEST_ID).contains(&length))?;
        self.0 = rest;
        str::from_utf8(id).ok()
    }

    /// As many as there are, but not more than `most`.
    fn all<T>(&mut self, most: usize, mut one: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let mut all = Vec::new();
        while !self.0.is_empty() {
            if all.len() == most {
                return None;
            }
            all.push(one(self)?);
        }
        Some(all)
    }

    fn message(&mut self) -> Option<Message> {
        let _magic: [u8; 4] = self.array()?;
        let _version = self.byte()?;
        let kind = self.byte()?;
        Some(Message {
            sender: self.id()?.to_owned(),
            receiver: self.id()?.to_owned(),
            session: self.array()?,
            other_session: self.array()?,
            number: self.number()?,
            body: self.body(kind)?,
        })
    }

    fn body(&mut self, kind: u8) -> Option<Body> {
        Some(match kind {
            1 => Body::Hello { challenge: self.array()?, echo: self.array()? },
            2 => Body::News(self.all(MOST_WORDS, Self::news)?),
            3 => {
                let ack = |reader: &mut Self| Some((reader.number()?, u32::from_be_bytes(reader.array()?)));
                Body::Ack(self.all(MOST_ACKS, ack)?)
            }
            4 => {
                let mut sums = Box::new([0; BUCKETS]);
                for sum in sums.iter_mut() {
                    *sum = self.number()?;
                }
                Body::Digest(sums)
            }
            5 => Body::Sync,
            6 => Body::Synced,
            7 => Body::Call(Call::InUse(self.ownership()?)),
            8 => Body::Call(Call::Silent(self.ownership()?)),
            _ => return None,
        })
    }

    fn vip(&mut self) -> Option<Vip> {
        Some(Vip { vni: u32::from_be_bytes(self.array()?), address: Ipv4Addr::from(self.array::<4>()?) })
    }

    fn epoch(&mut self) -> Option<u64> {
        self.number().filter(|epoch| *epoch <= Word::MAX_EPOCH)
    }

    fn ownership(&mut self) -> Option<Ownership> {
        Some(Ownership { vip: self.vip()?, epoch: self.epoch()? })
    }

    fn news(&mut self) -> Option<News> {
        let (vip, epoch) = (self.vip()?, self.epoch()?);
        let flags = self.byte().filter(|flags| flags & !(CLAIMED | HELD | NOW) == 0)?;
        let claim = if flags & NOW == 0 { 0 } else { self.number().filter(|claim| *claim != 0)? };
        let holder = if flags & HELD == 0 {
            None
        } else {
            let vrid = self.byte()?;
            Some(Holder { vrid, port: self.id()?.into(), host: self.id()?.into() })
        };
        Some(News { vip, word: Word { epoch, claimed: flags & CLAIMED != 0, holder }, claim })
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test that indexes out of bounds has failed")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> Key {
        Key::of(&[b'k'; 32]).expect("a key")
    }

    fn id() -> impl Strategy<Value = String> {
        "[a-zA-Z0-9][a-z0-9._:-]{0,63}"
    }

    fn word() -> impl Strategy<Value = Word> {
        let holder = (id(), id(), any::<u8>()).prop_map(|(port, host, vrid)| Holder {
            port: port.into(),
            host: host.into(),
            vrid,
        });
        (0..=Word::MAX_EPOCH, any::<bool>(), proptest::option::of(holder))
            .prop_map(|(epoch, claimed, holder)| Word { epoch, claimed, holder })
    }

    fn news() -> impl Strategy<Value = News> {
        (any::<u32>(), any::<u32>(), word(), prop_oneof![Just(0), any::<u64>()]).prop_map(
            |(vni, address, word, claim)| News { vip: Vip { vni, address: address.into() }, word, claim },
        )
    }

    fn ownership() -> impl Strategy<Value = Ownership> {
        news().prop_map(|News { vip, word, .. }| Ownership { vip, epoch: word.epoch })
    }

    fn body() -> impl Strategy<Value = Body> {
        prop_oneof![
            any::<(Nonce, Nonce)>().prop_map(|(challenge, echo)| Body::Hello { challenge, echo }),
            proptest::collection::vec(news(), 0..5).prop_map(Body::News),
            proptest::collection::vec(any::<(u64, u32)>(), 0..MOST_ACKS).prop_map(Body::Ack),
            any::<[[u64; 16]; 4]>().prop_map(|sums| {
                let mut digest = Box::new([0; BUCKETS]);
                digest.iter_mut().zip(sums.iter().flatten()).for_each(|(to, from)| *to = *from);
                Body::Digest(digest)
            }),
            Just(Body::Sync),
            Just(Body::Synced),
            ownership().prop_map(|ownership| Body::Call(Call::InUse(ownership))),
            ownership().prop_map(|ownership| Body::Call(Call::Silent(ownership))),
        ]
    }

    fn message() -> impl Strategy<Value = Message> {
        (id(), id(), any::<(Nonce, Nonce, u64)>(), body()).prop_map(
            |(sender, receiver, (session, other_session, number), body)| Message {
                sender,
                receiver,
                session,
                other_session,
                number,
                body,
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_fits(message in message()) {
            let datagram = message.encode(&key());
            prop_assert!(datagram.len() <= LONGEST);
            prop_assert_eq!(Message::decode(&datagram, &key()), Ok(message));
        }

        #[test]
        fn a_word_is_as_long_as_is_said(news in news()) {
            let mut bytes = Vec::new();
            put_news(&mut bytes, &news);
            prop_assert_eq!(bytes.len(), length_of(&news));
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1300)) {
            prop_assert!(Message::decode(&bytes, &key()).is_err());
            let mut reader = Reader(&bytes);
            let _any = reader.message();
            // Behind a good head and with a good tag the body's reader is reached.
            let mut signed = bytes;
            signed.truncate(LONGEST - TAG);
            if let Some(head) = signed.first_chunk_mut::<6>() {
                *head = [b'V', b'I', b'P', b'N', VERSION, head[5] % 10];
            }
            let tag = key().tag(&signed);
            signed.extend_from_slice(&tag);
            let _any = Message::decode(&signed, &key());
        }

        #[test]
        fn no_bit_can_be_changed(message in message(), at in any::<proptest::sample::Index>(), bit in 0..8_u32) {
            let mut datagram = message.encode(&key());
            let at = at.index(datagram.len());
            datagram[at] ^= 1 << bit;
            prop_assert!(Message::decode(&datagram, &key()).is_err());
        }

        #[test]
        fn nothing_can_be_cut_off_or_added(message in message(), less in 1_usize..64, more in 1_usize..64) {
            let datagram = message.encode(&key());
            let cut = &datagram[..datagram.len() - less];
            prop_assert!(Message::decode(cut, &key()).is_err());
            let mut longer = datagram.clone();
            longer.extend(std::iter::repeat_n(0, more));
            prop_assert!(Message::decode(&longer, &key()).is_err());
        }
    }

    #[test]
    fn the_fullest_messages_fit() {
        let long = "x".repeat(LONGEST_ID);
        let word = Word {
            epoch: 1,
            claimed: true,
            holder: Some(Holder { port: "p".into(), host: "h".into(), vrid: 0 }),
        };
        let room = room_for_words(&long, &long);
        let news = News { vip: Vip { vni: 1, address: Ipv4Addr::LOCALHOST }, word, claim: u64::MAX };
        let fitting = (room / length_of(&news)).min(MOST_WORDS);
        for body in [
            Body::News(vec![news; fitting]),
            Body::Ack(vec![(u64::MAX, u32::MAX); MOST_ACKS]),
            Body::Digest(Box::new([u64::MAX; BUCKETS])),
        ] {
            let message = Message {
                sender: long.clone(),
                receiver: long.clone(),
                session: [1; 16],
                other_session: [2; 16],
                number: u64::MAX,
                body,
            };
            let datagram = message.encode(&key());
            assert!(datagram.len() <= LONGEST, "{} bytes", datagram.len());
            assert_eq!(Message::decode(&datagram, &key()), Ok(message));
        }
    }

    #[test]
    fn each_fault_has_its_reason() {
        let message = Message {
            sender: "a".to_owned(),
            receiver: "b".to_owned(),
            session: [1; 16],
            other_session: [2; 16],
            number: 1,
            body: Body::Sync,
        };
        let good = message.encode(&key());
        let refused = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut datagram = good.clone();
            change(&mut datagram);
            Message::decode(&datagram, &key()).expect_err("a refusal")
        };
        assert_eq!(refused(&|datagram| datagram[0] = 0), Refusal::Malformed);
        assert_eq!(refused(&|datagram| datagram[4] = 2), Refusal::Version);
        assert_eq!(refused(&|datagram| datagram.truncate(5)), Refusal::Malformed);
        assert_eq!(refused(&|datagram| datagram[7] ^= 1), Refusal::Auth);
        let other = Key::of(&[b'o'; 32]).expect("a key");
        assert_eq!(Message::decode(&good, &other), Err(Refusal::Auth));
        let nobody = Message { sender: String::new(), ..message.clone() }.encode(&key());
        assert_eq!(Message::decode(&nobody, &key()), Err(Refusal::Malformed));
        let word = Word { epoch: Word::MAX_EPOCH + 1, ..Word::default() };
        let vip = Vip { vni: 1, address: Ipv4Addr::LOCALHOST };
        let late = Message { body: Body::News(vec![News { vip, word, claim: 0 }]), ..message }.encode(&key());
        assert_eq!(Message::decode(&late, &key()), Err(Refusal::Malformed));
    }
}
