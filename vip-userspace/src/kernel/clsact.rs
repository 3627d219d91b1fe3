//! TC programs on kernels without tcx (before Linux 6.6): filters at the clsact qdisc.
//!
//! A filter is no link and cannot be pinned, so it is found again by its place, which is ours alone (priority and handle),
//! and recognised by the tag of its program: that of the program that an earlier start pinned, or of our own. It is
//! replaced in place. The qdisc is made when it is missing and never removed: others may use it by then.

use std::{fs, mem};

use aya::programs::{
    Link as _, ProgramInfo, SchedClassifier, TcAttachType,
    tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact},
};

use super::{
    Attached, KernelError, PinDir,
    attach::attach_failed,
    netlink::{self, Filter},
    pin_dir::{failed, unpin},
    programs::{self, PORT, UPLINK_TC},
};

/// First of all filters.
const PRIORITY: u16 = 1;

/// "vi".
const HANDLE: TcHandle = TcHandle::new(0, 0x7669);

/// Prefix of the pin of the program that our filter runs.
const CURRENT: &str = "clsact_";

/// Prefix of the pin of the program that our filter is about to run: if we die half-way, it runs one or the other.
const NEXT: &str = "clsactnext_";

/// Attaches a program to an interface, or puts it in the place of the one of an earlier start.
pub(super) fn attach(
    classifier: &mut SchedClassifier,
    pins: &PinDir,
    program: &'static str,
    ifindex: u32,
    interface: &str,
) -> Result<Attached, KernelError> {
    let attach_failed = || attach_failed(program, ifindex, interface);
    match qdisc_add_clsact(interface) {
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => {}
        result => result.map_err(|error| attach_failed()(error.into()))?,
    }
    let own = classifier.info().map_err(programs::failed("inspect", program))?.tag();
    let present = our_place(ifindex)?;
    if let Some(filter) = present
        && filter.tag != Some(own)
        && !pinned_tags(pins, program, ifindex).any(|tag| filter.tag == Some(tag))
    {
        let (priority, handle) = (PRIORITY, HANDLE.into());
        return Err(KernelError::ForeignFilter { interface: interface.to_owned(), priority, handle });
    }

    let next = pins.link(&format!("{NEXT}{program}"), ifindex);
    unpin(&next)?;
    classifier.pin(&next).map_err(|error| failed("pin the program", &next)(std::io::Error::other(error)))?;
    let attached = if present.is_some() {
        classifier.attach_to_link(filter_link(interface).map_err(|error| attach_failed()(error.into()))?)
    } else {
        let options = NlOptions { priority: PRIORITY, handle: HANDLE, classid: None };
        classifier.attach_with_options(interface, TcAttachType::Ingress, TcAttachOptions::Netlink(options))
    };
    let link = attached.and_then(|id| classifier.take_link(id)).map_err(attach_failed())?;
    // Dropping it would remove the filter, which is to outlive this process.
    mem::forget(link);
    let current = pins.link(&format!("{CURRENT}{program}"), ifindex);
    fs::rename(&next, &current).map_err(failed("rename a pin to", &current))?;
    Ok(if present.is_some() { Attached::Replaced } else { Attached::New })
}

/// Removes our filter from an interface, if it is there, and its pins. Somebody else's in our place is left alone.
pub(super) fn detach(pins: &PinDir, program: &'static str, ifindex: u32) -> Result<(), KernelError> {
    let tags: Vec<_> = pinned_tags(pins, program, ifindex).collect();
    if tags.is_empty() {
        return Ok(());
    }
    if let Some(interface) = netlink::name(ifindex)
        && let Some(Filter { tag: Some(tag), .. }) = our_place(ifindex)?
        && tags.contains(&tag)
        && let Ok(link) = filter_link(&interface)
    {
        link.detach().map_err(programs::failed("remove the filter of", program))?;
    }
    unpin(&pins.link(&format!("{NEXT}{program}"), ifindex))?;
    unpin(&pins.link(&format!("{CURRENT}{program}"), ifindex))
}

/// Removes all our filters, of any program and interface; returns how many pins told of them.
pub(super) fn detach_all(pins: &PinDir) -> Result<usize, KernelError> {
    let mut count = 0;
    for program in [PORT, UPLINK_TC] {
        for pin in pins.links()? {
            if [CURRENT, NEXT].iter().any(|prefix| pin.program.strip_prefix(prefix) == Some(program)) {
                detach(pins, program, pin.ifindex)?;
                count += 1;
            }
        }
    }
    Ok(count)
}

/// Interfaces that still have our filter of a program. The pins of others are removed on the way.
pub(super) fn attached(pins: &PinDir, program: &'static str) -> Result<Vec<u32>, KernelError> {
    let mut found = Vec::new();
    for pin in pins.links()? {
        if pin.program.strip_prefix(CURRENT) != Some(program) {
            continue;
        }
        let present = netlink::name(pin.ifindex).is_some() && our_place(pin.ifindex)?.is_some();
        if present {
            found.push(pin.ifindex);
        } else {
            detach(pins, program, pin.ifindex)?;
        }
    }
    Ok(found)
}

/// The filter in our place.
fn our_place(ifindex: u32) -> Result<Option<Filter>, KernelError> {
    let filters = netlink::ingress_filters(ifindex)?;
    Ok(filters.into_iter().find(|filter| filter.priority == PRIORITY && filter.handle == u32::from(HANDLE)))
}

/// Tags of the programs that our filter on an interface may run.
fn pinned_tags(pins: &PinDir, program: &str, ifindex: u32) -> impl Iterator<Item = u64> {
    [CURRENT, NEXT]
        .map(|prefix| pins.link(&format!("{prefix}{program}"), ifindex))
        .into_iter()
        .filter_map(|pin| ProgramInfo::from_pin(pin).ok().map(|info| info.tag()))
}

/// Our filter as aya's link.
fn filter_link(interface: &str) -> Result<SchedClassifierLink, TcError> {
    Ok(SchedClassifierLink::attached(interface, TcAttachType::Ingress, PRIORITY, HANDLE, None)?)
}
