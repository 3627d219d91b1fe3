//! Attaching programs to interfaces.
//!
//! A program is held to its interface by a pinned link, so it stays when this process ends, and a newer program takes its
//! place inside the link: each packet meets either the old or the new one. Whatever step a process dies at, the kernel
//! takes back what is not pinned yet, and the next start continues from there.

use std::{collections::BTreeSet, path::Path};

use aya::{
    programs::{
        LinkOrder, ProgramError, TcAttachType,
        links::{FdLink, LinkError, PinnedLink},
        loaded_programs,
        tc::{SchedClassifierLink, TcAttachOptions, TcError},
        xdp::{self, XdpError, XdpLink},
    },
    util::KernelVersion,
};

use super::{
    Dataplane, KernelError, XdpMode, clsact, netlink,
    pin_dir::{detach_link, failed},
    programs::{self, BULK_TX, DEVMAP_XMIT, EXCEPTION, LOSSES, PORT, REDIRECT_ERRORS, UPLINK, UPLINK_TC},
    syscall::{self, LinkState},
};

/// Tracepoints at which the kernel tells of packets that were lost after the verdict of XDP, with the programs that count them.
const LOSS_TRACEPOINTS: [(&str, &str); 5] = [
    (REDIRECT_ERRORS, "xdp_redirect_err"),
    (REDIRECT_ERRORS, "xdp_redirect_map_err"),
    (DEVMAP_XMIT, "xdp_devmap_xmit"),
    (BULK_TX, "xdp_bulk_tx"),
    (EXCEPTION, "xdp_exception"),
];

/// What attaching did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// Nothing of ours was there.
    New,
    /// It took the place of the program of an earlier start, without a gap.
    Replaced,
    /// It took that place, but the interface had none for a moment: the kernel cannot change the mode otherwise.
    ModeChanged,
}

/// Where TC programs attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcHook {
    /// tcx, Linux 6.6 and later: by link, before everybody else.
    Tcx,
    /// The clsact qdisc: by filter. The qdisc stays when the filter goes, because others may have come to use it.
    Clsact,
}

impl TcHook {
    /// What the running kernel has.
    pub fn of_kernel() -> Self {
        match KernelVersion::current() {
            Ok(version) if version < KernelVersion::new(6, 6, 0) => Self::Clsact,
            _ => Self::Tcx,
        }
    }
}

/// Whether losses after the verdict are counted by tracepoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LossTracing {
    /// They are.
    Attached,
    /// The kernel refused, for the reason told: they have to be read from interface statistics.
    Refused(String),
}

impl Dataplane {
    /// Attaches the uplink's XDP program in the mode asked for, or replaces the one of an earlier start. Verified afterwards.
    /// Links to other uplinks of an earlier start are removed then.
    ///
    /// Fill the tables first: the program is at work when this returns.
    pub fn attach_uplink(
        &mut self,
        ifindex: u32,
        interface: &str,
        mode: XdpMode,
    ) -> Result<Attached, KernelError> {
        let pin = self.pins.link(UPLINK, ifindex);
        let present = netlink::xdp(ifindex, interface)?;
        let link = live_link(&pin, ifindex)?;
        let attached = match (link, present) {
            (None, Some(present)) => return Err(foreign_xdp(interface, present.program)),
            (Some(link), Some(present)) if link.program != present.program => {
                return Err(foreign_xdp(interface, present.program));
            }
            (Some(_), Some(present)) if present.mode == Some(mode) => {
                self.replace_xdp(&pin, ifindex, interface)?;
                Attached::Replaced
            }
            (Some(_), present) => {
                detach_link(&pin)?;
                if let Err(error) = self.create_xdp(&pin, ifindex, interface, mode) {
                    // The mode asked for does not work: better the old one than none, and the error all the same.
                    if let Some(old) = present.and_then(|present| present.mode) {
                        self.create_xdp(&pin, ifindex, interface, old)?;
                    }
                    return Err(error);
                }
                Attached::ModeChanged
            }
            (None, None) => {
                self.create_xdp(&pin, ifindex, interface, mode)?;
                Attached::New
            }
        };
        self.verify_xdp(&pin, ifindex, interface, mode)?;
        self.detach_elsewhere(UPLINK, &[ifindex].into())?;
        Ok(attached)
    }

    /// Detaches the uplink's XDP program of an earlier start, wherever it is. Without one: nothing happens.
    ///
    /// Attach the TC program before: it handles what XDP does no longer.
    pub fn detach_xdp(&mut self) -> Result<(), KernelError> {
        self.detach_elsewhere(UPLINK, &BTreeSet::new())
    }

    /// Attaches the uplink's TC program to the uplink or to a VLAN interface on it, or replaces the one of an earlier start.
    pub fn attach_uplink_tc(&mut self, ifindex: u32, interface: &str) -> Result<Attached, KernelError> {
        self.attach_tc(UPLINK_TC, ifindex, interface)
    }

    /// Detaches the uplink's TC program, of an earlier start too, from all interfaces but these (ifindex).
    pub fn detach_uplink_tc_elsewhere(&mut self, keep: &BTreeSet<u32>) -> Result<(), KernelError> {
        self.detach_elsewhere(UPLINK_TC, keep)
    }

    /// Attaches the port program to a port's interface, or replaces the one of an earlier start.
    pub fn attach_port(&mut self, ifindex: u32, interface: &str) -> Result<Attached, KernelError> {
        self.attach_tc(PORT, ifindex, interface)
    }

    /// Detaches the port program from an interface, whether that still exists or not. Without one: nothing happens.
    pub fn detach_port(&mut self, ifindex: u32) -> Result<(), KernelError> {
        clsact::detach(&self.pins, PORT, ifindex)?;
        detach_link(&self.pins.link(PORT, ifindex))
    }

    /// Interfaces (ifindex) that the port program is attached to, in this or an earlier start. Pins of interfaces that are
    /// gone are removed on the way.
    pub fn attached_ports(&self) -> Result<Vec<u32>, KernelError> {
        self.attached(PORT)
    }

    /// Whether the program that [`Self::attach_uplink_tc`] attached in this start is still on an interface.
    pub fn uplink_tc_is_attached(&self, ifindex: u32) -> Result<bool, KernelError> {
        Ok(self.attached(UPLINK_TC)?.contains(&ifindex))
    }

    /// Whether the program that [`Self::attach_uplink`] attached in this start is still on the uplink.
    /// [`KernelError::InterfaceGone`] if that went.
    pub fn xdp_is_attached(&mut self, ifindex: u32, interface: &str) -> Result<bool, KernelError> {
        let ours = programs::xdp(&mut self.ebpf)?.info().map_err(programs::failed("inspect", UPLINK))?.id();
        let present = netlink::xdp(ifindex, interface)?;
        Ok(present.is_some_and(|present| present.program == ours))
    }

    fn attached(&self, program: &'static str) -> Result<Vec<u32>, KernelError> {
        let mut interfaces = clsact::attached(&self.pins, program)?;
        for pin in self.pins.links()? {
            if pin.program == program && live_link(&pin.path, pin.ifindex)?.is_some() {
                interfaces.push(pin.ifindex);
            }
        }
        Ok(interfaces)
    }

    /// Counts packets that are lost after the verdict, while this process lives. The kernel may refuse tracing.
    pub fn attach_loss_tracing(&mut self) -> Result<LossTracing, KernelError> {
        for name in LOSSES {
            match programs::load(&mut self.ebpf, name) {
                Err(KernelError::Program { source, .. })
                    if matches!(*source, ProgramError::AlreadyLoaded) => {}
                Err(error @ KernelError::Program { .. }) => {
                    return Ok(LossTracing::Refused(error.with_causes()));
                }
                result => result?,
            }
        }
        for (number, (name, tracepoint)) in LOSS_TRACEPOINTS.into_iter().enumerate() {
            let program = programs::raw_tracepoint(&mut self.ebpf, name)?;
            match program.attach(tracepoint).map_err(programs::failed("attach", name)) {
                Ok(_) => {}
                // Not every kernel has all of them.
                Err(error) if number > 0 => tracing::debug!("no tracepoint {tracepoint}: {error}"),
                Err(error) => return Ok(LossTracing::Refused(error.with_causes())),
            }
        }
        Ok(LossTracing::Attached)
    }

    fn create_xdp(
        &mut self,
        pin: &Path,
        ifindex: u32,
        interface: &str,
        mode: XdpMode,
    ) -> Result<(), KernelError> {
        let program = programs::xdp(&mut self.ebpf)?;
        let attached = program.attach_to_if_index(ifindex, mode.into());
        let id = attached.map_err(|source| match errno(&source) {
            Some(libc::EBUSY | libc::EEXIST) => match netlink::xdp(ifindex, interface) {
                Ok(Some(present)) => foreign_xdp(interface, present.program),
                _ => attach_failed(UPLINK, ifindex, interface)(source),
            },
            Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ERANGE) => {
                KernelError::XdpMode { interface: interface.to_owned(), mode, source: Box::new(source) }
            }
            _ => attach_failed(UPLINK, ifindex, interface)(source),
        })?;
        let link = program.take_link(id).map_err(attach_failed(UPLINK, ifindex, interface))?;
        // Dropping what aya attached by netlink instead of by link detaches it again.
        let link = FdLink::try_from(link)
            .map_err(|_| KernelError::NoLink { program: UPLINK, interface: interface.to_owned() })?;
        pin_link(link, pin)
    }

    fn replace_xdp(&mut self, pin: &Path, ifindex: u32, interface: &str) -> Result<(), KernelError> {
        let link = XdpLink::try_from(open_link(pin)?).map_err(link_failed(pin))?;
        let program = programs::xdp(&mut self.ebpf)?;
        let id = program.attach_to_link(link).map_err(attach_failed(UPLINK, ifindex, interface))?;
        // The pin holds the link; ours is one descriptor too many.
        program.take_link(id).map(drop).map_err(attach_failed(UPLINK, ifindex, interface))
    }

    fn verify_xdp(
        &mut self,
        pin: &Path,
        ifindex: u32,
        interface: &str,
        mode: XdpMode,
    ) -> Result<(), KernelError> {
        let ours = programs::xdp(&mut self.ebpf)?.info().map_err(programs::failed("inspect", UPLINK))?.id();
        match netlink::xdp(ifindex, interface)? {
            Some(present) if present.mode == Some(mode) && present.program == ours => Ok(()),
            _ => {
                detach_link(pin)?;
                Err(KernelError::XdpUnverified { interface: interface.to_owned(), mode })
            }
        }
    }

    fn attach_tc(
        &mut self,
        program: &'static str,
        ifindex: u32,
        interface: &str,
    ) -> Result<Attached, KernelError> {
        let classifier = programs::classifier(&mut self.ebpf, program)?;
        if self.tc_hook == TcHook::Clsact {
            return clsact::attach(classifier, &self.pins, program, ifindex, interface);
        }
        let pin = self.pins.link(program, ifindex);
        if live_link(&pin, ifindex)?.is_some() {
            let link = SchedClassifierLink::try_from(open_link(&pin)?).map_err(link_failed(&pin))?;
            match classifier.attach_to_link(link) {
                Ok(id) => {
                    classifier.take_link(id).map_err(attach_failed(program, ifindex, interface))?;
                    return Ok(Attached::Replaced);
                }
                // The interface went between the look and the replacement.
                Err(error) if errno(&error) == Some(libc::ENOLINK) => detach_link(&pin)?,
                Err(error) => return Err(attach_failed(program, ifindex, interface)(error)),
            }
        }
        let id = classifier
            .attach_with_options(
                interface,
                TcAttachType::Ingress,
                TcAttachOptions::TcxOrder(LinkOrder::first()),
            )
            .map_err(attach_failed(program, ifindex, interface))?;
        let link = classifier.take_link(id).map_err(attach_failed(program, ifindex, interface))?;
        let link = FdLink::try_from(link)
            .map_err(|_| KernelError::NoLink { program, interface: interface.to_owned() })?;
        pin_link(link, &pin)?;
        // aya attaches by name, and the name may have passed to another interface.
        if live_link(&pin, ifindex)?.is_none() {
            return Err(KernelError::InterfaceGone { interface: interface.to_owned(), ifindex });
        }
        Ok(Attached::New)
    }

    /// Detaches a program from every interface but these.
    fn detach_elsewhere(&self, program: &'static str, keep: &BTreeSet<u32>) -> Result<(), KernelError> {
        for other in clsact::attached(&self.pins, program)? {
            if !keep.contains(&other) {
                clsact::detach(&self.pins, program, other)?;
            }
        }
        for pin in self.pins.links()? {
            if pin.program == program && !keep.contains(&pin.ifindex) {
                detach_link(&pin.path)?;
            }
        }
        Ok(())
    }
}

/// The pinned link, if it holds on to this interface. A link whose interface is gone, or that holds on to another one, is
/// of no use: its pin is removed.
fn live_link(pin: &Path, ifindex: u32) -> Result<Option<LinkState>, KernelError> {
    match syscall::pinned_link(pin).map_err(failed("inspect the link", pin))? {
        Some(link) if link.ifindex == ifindex => Ok(Some(link)),
        Some(_) => {
            detach_link(pin)?;
            Ok(None)
        }
        None => Ok(None),
    }
}

fn open_link(pin: &Path) -> Result<FdLink, KernelError> {
    PinnedLink::from_pin(pin).map(FdLink::from).map_err(link_failed(pin))
}

/// Pins a link. If that fails the link is dropped, and the program detached with it.
fn pin_link(link: FdLink, pin: &Path) -> Result<(), KernelError> {
    link.pin(pin).map(drop).map_err(|error| failed("pin the link", pin)(std::io::Error::other(error)))
}

fn link_failed(pin: &Path) -> impl FnOnce(LinkError) -> KernelError {
    move |error| failed("use the link", pin)(std::io::Error::other(error))
}

/// Makes the error of an attachment; an interface that is gone has its own.
pub(super) fn attach_failed(
    program: &'static str,
    ifindex: u32,
    interface: &str,
) -> impl FnOnce(ProgramError) -> KernelError {
    let interface = interface.to_owned();
    move |source| match errno(&source) {
        // ENOLINK: a link whose interface went.
        Some(libc::ENODEV | libc::ENXIO | libc::ENOLINK) => KernelError::InterfaceGone { interface, ifindex },
        _ => KernelError::Attach { program, interface, source: Box::new(source) },
    }
}

/// The errno with which the kernel refused, if it did.
fn errno(error: &ProgramError) -> Option<i32> {
    match error {
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        ProgramError::TcError(TcError::NetlinkError(error))
        | ProgramError::XdpError(XdpError::NetlinkError(error))
        | ProgramError::NetlinkError(error) => error.raw_os_error(),
        ProgramError::TcError(TcError::IoError(error)) | ProgramError::IOError(error) => error.raw_os_error(),
        _ => None,
    }
}

/// The error that names the XDP program on the uplink.
fn foreign_xdp(interface: &str, program: u32) -> KernelError {
    let name = loaded_programs()
        .filter_map(Result::ok)
        .find(|info| info.id() == program)
        .map(|info| String::from_utf8_lossy(info.name()).into_owned())
        .unwrap_or_default();
    KernelError::ForeignXdp { interface: interface.to_owned(), program, like_ours: name == UPLINK, name }
}

impl From<XdpMode> for xdp::XdpMode {
    fn from(mode: XdpMode) -> Self {
        match mode {
            XdpMode::Native => Self::Driver,
            XdpMode::Generic => Self::Skb,
        }
    }
}
