//! What only route netlink tells about attached programs.
//!
//! Requests are answered at once, from the kernel's memory, so they are made synchronously: attaching happens between two of
//! them and must not be interleaved with anything else.

use std::io;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage, LinkXdp, XdpAttached},
    tc::{TcAttribute, TcFilterBpfOption, TcHandle, TcMessage, TcOption},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::{KernelError, XdpMode};

/// The XDP program on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct XdpAttachment {
    /// Its mode; `None` for hardware offload and for programs in several modes at once.
    pub(super) mode: Option<XdpMode>,
    /// Its id; 0 if there are several.
    pub(super) program: u32,
}

/// A BPF filter at an interface's TC ingress hook (clsact).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    /// Priority.
    pub(super) priority: u16,
    /// Handle.
    pub(super) handle: u32,
    /// The program's tag as the kernel prints it, first byte highest; `None` for filters that are no BPF programs.
    pub(super) tag: Option<u64>,
}

/// The XDP program on an interface, whoever attached it.
pub(super) fn xdp(ifindex: u32, interface: &str) -> Result<Option<XdpAttachment>, KernelError> {
    let mut question = LinkMessage::default();
    question.header.index = ifindex;
    let answer = ask(RouteNetlinkMessage::GetLink(question), NLM_F_REQUEST).map_err(|source| match source
        .raw_os_error()
    {
        Some(libc::ENODEV | libc::ENXIO) => {
            KernelError::InterfaceGone { interface: interface.to_owned(), ifindex }
        }
        _ => KernelError::Netlink { what: "the XDP program", ifindex, source },
    })?;
    Ok(answer.iter().find_map(|message| match message {
        RouteNetlinkMessage::NewLink(link) if link.header.index == ifindex => attachment(link),
        _ => None,
    }))
}

fn attachment(link: &LinkMessage) -> Option<XdpAttachment> {
    let xdp = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Xdp(xdp) => Some(xdp),
        _ => None,
    })?;
    let attached = xdp.iter().find_map(|attribute| match attribute {
        LinkXdp::Attached(attached) => Some(*attached),
        _ => None,
    })?;
    let mode = match attached {
        XdpAttached::None => return None,
        XdpAttached::Driver => Some(XdpMode::Native),
        XdpAttached::SocketBuffer => Some(XdpMode::Generic),
        _ => None,
    };
    let program = xdp.iter().find_map(|attribute| match attribute {
        LinkXdp::ProgId(id) => Some(*id),
        _ => None,
    });
    Some(XdpAttachment { mode, program: program.unwrap_or(0) })
}

/// The name of an interface; `None` if it is gone.
pub(super) fn name(ifindex: u32) -> Option<String> {
    let mut question = LinkMessage::default();
    question.header.index = ifindex;
    let answer = ask(RouteNetlinkMessage::GetLink(question), NLM_F_REQUEST).ok()?;
    answer.into_iter().find_map(|message| match message {
        RouteNetlinkMessage::NewLink(link) => {
            link.attributes.into_iter().find_map(|attribute| match attribute {
                LinkAttribute::IfName(name) => Some(name),
                _ => None,
            })
        }
        _ => None,
    })
}

/// The filters at an interface's TC ingress hook.
pub(super) fn ingress_filters(ifindex: u32) -> Result<Vec<Filter>, KernelError> {
    let failed = |source| KernelError::Netlink { what: "the TC filters", ifindex, source };
    let mut question = TcMessage::default();
    question.header.index = i32::try_from(ifindex).map_err(|error| failed(io::Error::other(error)))?;
    // TC_H_CLSACT and TC_H_MIN_INGRESS of linux/pkt_sched.h: where aya attaches, too.
    question.header.parent = TcHandle { major: 0xffff, minor: 0xfff2 };
    let answer = match ask(RouteNetlinkMessage::GetTrafficFilter(question), NLM_F_REQUEST | NLM_F_DUMP) {
        Ok(answer) => answer,
        // No clsact on it: no filters.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => Vec::new(),
        Err(error) => return Err(failed(error)),
    };
    Ok(answer.iter().filter_map(filter).collect())
}

fn filter(message: &RouteNetlinkMessage) -> Option<Filter> {
    let RouteNetlinkMessage::NewTrafficFilter(message) = message else {
        return None;
    };
    let tag = message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => options.iter().find_map(|option| match option {
            TcOption::Bpf(TcFilterBpfOption::ProgTag(tag)) => Some(u64::from_be_bytes(*tag)),
            _ => None,
        }),
        _ => None,
    });
    let handle = u32::from(message.header.handle);
    // A dump begins with the filter chain itself, which has handle 0.
    let priority = u16::try_from(message.header.info >> 16).ok()?;
    (handle != 0).then_some(Filter { priority, handle, tag })
}

fn ask(question: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(question));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;

    let mut answers = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = datagram.as_slice();
        while !rest.is_empty() {
            let message =
                NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(io::Error::other)?;
            // Messages are padded to four bytes (netlink(7), NLMSG_ALIGN).
            let len = usize::try_from(message.header.length).map_err(io::Error::other)?.next_multiple_of(4);
            rest = rest.get(len..).filter(|_| len > 0).unwrap_or_default();
            match message.payload {
                NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                NetlinkPayload::Done(_) | NetlinkPayload::Error(_) => return Ok(answers),
                _ => {}
            }
        }
        if flags & NLM_F_DUMP != NLM_F_DUMP {
            return Ok(answers);
        }
    }
}
