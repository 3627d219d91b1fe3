//! What aya does not do: tell which interface a pinned link holds on to, detach it at once; make and read arrays of maps,
//! write many entries at once; give the verifier's statistics.

use std::{
    ffi::{CStr, CString},
    io, mem,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use aya_obj::generated::{
    BPF_F_MMAPABLE, bpf_attr, bpf_cmd, bpf_insn, bpf_link_info, bpf_link_type, bpf_map_type, bpf_prog_type,
};
use zerocopy::{Immutable, IntoBytes};

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

/// What the functions of a program are: without, the verifier knows of none which it is to look at apart.
pub(super) struct Functions<'a> {
    /// Id of the loaded type information.
    pub(super) btf: u32,
    /// Records of `struct bpf_func_info`.
    pub(super) records: &'a [u8],
    /// How many there are.
    pub(super) count: usize,
    /// Bytes of each.
    pub(super) size: usize,
}

/// BPF_BTF_GET_FD_BY_ID (Linux 4.18).
fn open_btf(id: u32) -> io::Result<OwnedFd> {
    let mut attr = zeroed_attr();
    attr.__bindgen_anon_6.__bindgen_anon_1.btf_id = id;
    let fd = bpf(bpf_cmd::BPF_BTF_GET_FD_BY_ID, &mut attr)?;
    // SAFETY: on success BPF_BTF_GET_FD_BY_ID returns a descriptor that is new and belongs to the caller.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What the verifier says in sum of a program that it accepts (BPF_PROG_LOAD). The program is not kept.
pub(super) fn verifier_statistics(
    kind: bpf_prog_type,
    instructions: &[bpf_insn],
    license: &CStr,
    flags: u32,
    functions: &Functions<'_>,
) -> io::Result<String> {
    let btf = open_btf(functions.btf)?;
    let mut log = vec![0_u8; LOG_BYTES];
    let mut attr = zeroed_attr();
    attr.__bindgen_anon_3.prog_type = kind as u32;
    attr.__bindgen_anon_3.insns = instructions.as_ptr().expose_provenance() as u64;
    attr.__bindgen_anon_3.insn_cnt = u32::try_from(instructions.len()).map_err(io::Error::other)?;
    attr.__bindgen_anon_3.license = license.as_ptr().expose_provenance() as u64;
    attr.__bindgen_anon_3.prog_flags = flags;
    attr.__bindgen_anon_3.prog_btf_fd = u32::try_from(btf.as_raw_fd()).map_err(io::Error::other)?;
    attr.__bindgen_anon_3.func_info = functions.records.as_ptr().expose_provenance() as u64;
    attr.__bindgen_anon_3.func_info_cnt = u32::try_from(functions.count).map_err(io::Error::other)?;
    attr.__bindgen_anon_3.func_info_rec_size = u32::try_from(functions.size).map_err(io::Error::other)?;
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

/// Makes an array of `entries` values of `value_size` bytes that processes can map (BPF_F_MMAPABLE, Linux 5.5).
pub(super) fn create_mappable_array(name: &str, value_size: u32, entries: u32) -> io::Result<OwnedFd> {
    create_map(name, bpf_map_type::BPF_MAP_TYPE_ARRAY, value_size, entries, BPF_F_MMAPABLE, None)
}

/// Makes an array of maps for maps like `inner`.
pub(super) fn create_array_of_maps(name: &str, inner: BorrowedFd<'_>, entries: u32) -> io::Result<OwnedFd> {
    create_map(name, bpf_map_type::BPF_MAP_TYPE_ARRAY_OF_MAPS, 4, entries, 0, Some(inner))
}

/// BPF_MAP_CREATE of a map with four-byte keys.
fn create_map(
    name: &str,
    kind: bpf_map_type,
    value_size: u32,
    entries: u32,
    flags: u32,
    inner: Option<BorrowedFd<'_>>,
) -> io::Result<OwnedFd> {
    let mut attr = zeroed_attr();
    // SAFETY: all members of the union are made of integers, and it was zeroed.
    let create = unsafe { &mut attr.__bindgen_anon_1 };
    create.map_type = kind as u32;
    create.key_size = 4;
    create.value_size = value_size;
    create.max_entries = entries;
    create.map_flags = flags;
    if let Some(inner) = inner {
        create.inner_map_fd = number(&inner)?;
    }
    // The kernel keeps 15 bytes and a zero.
    for (place, byte) in create.map_name.iter_mut().take(15).zip(name.bytes()) {
        *place = byte.cast_signed();
    }
    let fd = bpf(bpf_cmd::BPF_MAP_CREATE, &mut attr)?;
    // SAFETY: on success BPF_MAP_CREATE returns a descriptor that is new and belongs to the caller.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// BPF_OBJ_PIN of a map.
pub(super) fn pin(map: &impl AsFd, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = zeroed_attr();
    attr.__bindgen_anon_4.pathname = path.as_ptr().expose_provenance() as u64;
    attr.__bindgen_anon_4.bpf_fd = number(map)?;
    bpf(bpf_cmd::BPF_OBJ_PIN, &mut attr).map(drop)
}

/// The map at an index of an array of maps; `None` if there is none.
pub(super) fn inner_map(outer: &impl AsFd, index: u32) -> io::Result<Option<OwnedFd>> {
    let mut id = 0_u32;
    let mut attr = zeroed_attr();
    attr.__bindgen_anon_2.map_fd = number(outer)?;
    attr.__bindgen_anon_2.key = (&raw const index).expose_provenance() as u64;
    attr.__bindgen_anon_2.__bindgen_anon_1.value = (&raw mut id).expose_provenance() as u64;
    match bpf(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attr) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    }
    let mut attr = zeroed_attr();
    attr.__bindgen_anon_6.__bindgen_anon_1.map_id = id;
    let fd = bpf(bpf_cmd::BPF_MAP_GET_FD_BY_ID, &mut attr)?;
    // SAFETY: on success BPF_MAP_GET_FD_BY_ID returns a descriptor that is new and belongs to the caller.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Puts maps into an array of maps. The kernel waits until no program can see what was there before: one wait for all of them
/// (BPF_MAP_UPDATE_BATCH of arrays of maps, Linux 5.17; before, one each).
pub(super) fn set_inner_maps(outer: &impl AsFd, first: u32, inner: &[OwnedFd]) -> io::Result<()> {
    let indexes: Vec<u32> = (first..).take(inner.len()).collect();
    let descriptors = inner.iter().map(number).collect::<io::Result<Vec<u32>>>()?;
    match update_batch(outer, &indexes, &descriptors) {
        Ok(()) => Ok(()),
        Err(error) if is_unsupported(&error) => indexes
            .iter()
            .zip(&descriptors)
            .try_for_each(|(index, descriptor)| update(outer, index, descriptor)),
        Err(error) => Err(error),
    }
}

/// Whether the kernel has no batch operations for this kind of map.
pub(super) fn is_unsupported(error: &io::Error) -> bool {
    // ENOTSUPP, which has no name outside the kernel, before maps without the operation got another errno.
    const ENOTSUPP: i32 = 524;
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL | ENOTSUPP))
}

/// BPF_MAP_UPDATE_ELEM.
fn update<K: Plain, V: Plain>(map: &impl AsFd, key: &K, value: &V) -> io::Result<()> {
    let mut attr = zeroed_attr();
    attr.__bindgen_anon_2.map_fd = number(map)?;
    attr.__bindgen_anon_2.key = key.as_bytes().as_ptr().expose_provenance() as u64;
    attr.__bindgen_anon_2.__bindgen_anon_1.value = value.as_bytes().as_ptr().expose_provenance() as u64;
    bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attr).map(drop)
}

/// BPF_MAP_UPDATE_BATCH (Linux 5.6): all keys with their values, in their order. After an error some may have been written.
///
/// Keys and values are those of the map by size, which the caller warrants as with every map: the kernel reads as much as the
/// map's own sizes say.
pub(super) fn update_batch<K: Plain, V: Plain>(map: &impl AsFd, keys: &[K], values: &[V]) -> io::Result<()> {
    let count = u32::try_from(keys.len().min(values.len())).map_err(io::Error::other)?;
    if count == 0 {
        return Ok(());
    }
    let mut attr = zeroed_attr();
    attr.batch.keys = keys.as_bytes().as_ptr().expose_provenance() as u64;
    attr.batch.values = values.as_bytes().as_ptr().expose_provenance() as u64;
    attr.batch.count = count;
    attr.batch.map_fd = number(map)?;
    bpf(bpf_cmd::BPF_MAP_UPDATE_BATCH, &mut attr).map(drop)
}

/// What keys and values are made of: bytes without padding.
pub(super) trait Plain: IntoBytes + Immutable {}

impl<T: IntoBytes + Immutable> Plain for T {}

/// Waits until every program that runs at this moment has ended (membarrier(2), which is synchronize_rcu in the kernel). Some
/// kernels refuse (`nohz_full`): then the error says so.
pub(super) fn wait_for_programs() -> io::Result<()> {
    /// `MEMBARRIER_CMD_GLOBAL` of linux/membarrier.h.
    const GLOBAL: libc::c_int = 1;
    // SAFETY: the call takes no pointers.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A descriptor as bpf(2) takes it.
fn number(fd: &impl AsFd) -> io::Result<u32> {
    u32::try_from(fd.as_fd().as_raw_fd()).map_err(io::Error::other)
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
