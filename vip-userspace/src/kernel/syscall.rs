//! What aya does not do: tell which interface a pinned link holds on to, detach it at once, and give the verifier's statistics.

use std::{
    ffi::{CStr, CString},
    io, mem,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use aya_obj::generated::{bpf_attr, bpf_cmd, bpf_insn, bpf_link_info, bpf_link_type, bpf_prog_type};

/// `BPF_LOG_STATS` of linux/bpf_verifier.h (Linux 5.2): the summary alone.
const LOG_STATISTICS: u32 = 4;

/// Room for the summary, which is three lines.
const LOG_BYTES: usize = 4096;

/// A pinned link as the kernel describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkState {
    /// The interface; 0: it is gone, and the link holds on to nothing.
    pub(super) ifindex: u32,
    /// The program's id.
    pub(super) program: u32,
}

/// Describes the XDP or tcx link that is pinned at a path; `None` if nothing is. Anything else there is an error of kind
/// `InvalidData`.
pub(super) fn pinned_link(path: &Path) -> io::Result<Option<LinkState>> {
    let link = match open_pin(path) {
        Ok(link) => link,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let info = link_info(&link)?;
    let ifindex = if info.type_ == bpf_link_type::BPF_LINK_TYPE_XDP as u32 {
        // SAFETY: the kernel says that this member of the union is the one it filled; it is made of integers.
        unsafe { info.__bindgen_anon_1.xdp }.ifindex
    } else if info.type_ == bpf_link_type::BPF_LINK_TYPE_TCX as u32 {
        // SAFETY: as above.
        unsafe { info.__bindgen_anon_1.tcx }.ifindex
    } else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the pin is no XDP or tcx link"));
    };
    Ok(Some(LinkState { ifindex, program: info.prog_id }))
}

/// Detaches the link that is pinned at a path, at once (BPF_LINK_DETACH, Linux 5.9). Removing the pin alone would do it too,
/// but some time later: the kernel frees pinned objects in the background.
pub(super) fn detach_pinned_link(path: &Path) -> io::Result<()> {
    let link = open_pin(path)?;
    let mut attr = zeroed_attr();
    attr.link_detach.link_fd = u32::try_from(link.as_raw_fd()).map_err(io::Error::other)?;
    bpf(bpf_cmd::BPF_LINK_DETACH, &mut attr)?;
    Ok(())
}

/// What the verifier says in sum of a program that it accepts (BPF_PROG_LOAD). The program is not kept.
pub(super) fn verifier_statistics(
    kind: bpf_prog_type,
    instructions: &[bpf_insn],
    license: &CStr,
) -> io::Result<String> {
    let mut log = vec![0_u8; LOG_BYTES];
    let mut attr = zeroed_attr();
    attr.__bindgen_anon_3.prog_type = kind as u32;
    attr.__bindgen_anon_3.insns = instructions.as_ptr().expose_provenance() as u64;
    attr.__bindgen_anon_3.insn_cnt = u32::try_from(instructions.len()).map_err(io::Error::other)?;
    attr.__bindgen_anon_3.license = license.as_ptr().expose_provenance() as u64;
    attr.__bindgen_anon_3.log_level = LOG_STATISTICS;
    attr.__bindgen_anon_3.log_buf = log.as_mut_ptr().expose_provenance() as u64;
    attr.__bindgen_anon_3.log_size = u32::try_from(log.len()).map_err(io::Error::other)?;
    let program = bpf(bpf_cmd::BPF_PROG_LOAD, &mut attr)?;
    // SAFETY: on success BPF_PROG_LOAD returns a descriptor that is new and belongs to the caller.
    drop(unsafe { OwnedFd::from_raw_fd(program) });
    let text = log.split(|&byte| byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(text).into_owned())
}

/// BPF_OBJ_GET (Linux 4.4).
fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = zeroed_attr();
    attr.__bindgen_anon_4.pathname = path.as_ptr().expose_provenance() as u64;
    let fd = bpf(bpf_cmd::BPF_OBJ_GET, &mut attr)?;
    // SAFETY: on success BPF_OBJ_GET returns a descriptor that is new and belongs to the caller.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// BPF_OBJ_GET_INFO_BY_FD of a link (Linux 5.8).
fn link_info(link: &OwnedFd) -> io::Result<bpf_link_info> {
    // SAFETY: the structure is made of integers, for which zero bytes are valid.
    let mut info: bpf_link_info = unsafe { mem::zeroed() };
    let mut attr = zeroed_attr();
    attr.info.bpf_fd = u32::try_from(link.as_raw_fd()).map_err(io::Error::other)?;
    attr.info.info_len = u32::try_from(size_of::<bpf_link_info>()).map_err(io::Error::other)?;
    attr.info.info = (&raw mut info).expose_provenance() as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(info)
}

fn zeroed_attr() -> bpf_attr {
    // SAFETY: the union's members are made of integers, for which zero bytes are valid. bpf(2) wants unused bytes to be 0.
    unsafe { mem::zeroed() }
}

/// bpf(2). aya has it, but keeps it to itself.
fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<RawFd> {
    // SAFETY: attr is a whole bpf_attr of the size told, and what its pointers lead to outlives the call: the callers
    // keep path, program and what is written to in variables of their own, the latter mutable and of the length told.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command as libc::c_long, &raw mut *attr, size_of::<bpf_attr>())
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    RawFd::try_from(result).map_err(io::Error::other)
}
