//! What the verifier tells of a program only while it looks at it: the stack that its functions use.
//!
//! aya keeps the log of refused programs only. So accepted ones are shown to the verifier once more, and dropped.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    os::fd::{AsFd as _, AsRawFd as _},
};

use aya::{
    maps::{MapFd, MapInfo},
    programs::ProgramInfo,
};
use aya_obj::{Object, ProgramSection, generated::BPF_F_XDP_HAS_FRAGS};

use super::syscall;

/// Bytes of stack that each program uses, all its functions together; the kernel's limit for a chain of calls is 512.
///
/// `loaded` describes the object's programs that are in the kernel. Their tables are lent for the look.
pub(super) fn stack_bytes(
    object: &[u8],
    loaded: &BTreeMap<&'static str, ProgramInfo>,
) -> io::Result<HashMap<&'static str, u32>> {
    let mut object = Object::parse(object).map_err(io::Error::other)?;
    // Of the others no table is known, and they would not link.
    let others: Vec<_> =
        object.programs.keys().filter(|name| !loaded.contains_key(name.as_str())).cloned().collect();
    for name in others {
        if let Some(program) = object.programs.remove(&name) {
            object.functions.remove(&program.function_key());
        }
    }
    let tables = tables(loaded.values())?;
    let maps = object.maps.clone();
    let lent = tables.iter().filter_map(|(name, table)| {
        let (name, map) = maps.get_key_value(name)?;
        Some((name.as_str(), table.as_fd().as_raw_fd(), map))
    });
    let sections = object.functions.keys().map(|(section, _)| *section).collect();
    object.relocate_maps(lent, &sections).map_err(io::Error::other)?;
    object.relocate_calls(&sections).map_err(io::Error::other)?;
    loaded.iter().map(|(&name, info)| Ok((name, of_program(&object, name, info)?))).collect()
}

fn of_program(object: &Object, name: &str, info: &ProgramInfo) -> io::Result<u32> {
    let lacks = || io::Error::new(io::ErrorKind::NotFound, format!("the object lacks {name}"));
    let program = object.programs.get(name).ok_or_else(lacks)?;
    let function = object.functions.get(&program.function_key()).ok_or_else(lacks)?;
    // A device map takes programs of one kind only: with this flag or without.
    let flags = match program.section {
        ProgramSection::Xdp { frags: true, .. } => BPF_F_XDP_HAS_FRAGS,
        _ => 0,
    };
    let functions = syscall::Functions {
        btf: info.btf_id().ok_or_else(lacks)?,
        records: &function.func_info.func_info_bytes(),
        count: function.func_info.func_info.len(),
        size: function.func_info_rec_size,
    };
    let log = syscall::verifier_statistics(
        info.program_type(),
        &function.instructions,
        &program.license,
        flags,
        &functions,
    )?;
    stack_in(&log).ok_or_else(|| io::Error::other(format!("the verifier tells no stack of {name}: {log}")))
}

/// The tables that programs use, by name.
fn tables<'a>(programs: impl Iterator<Item = &'a ProgramInfo>) -> io::Result<HashMap<String, MapFd>> {
    let mut tables = HashMap::new();
    for program in programs {
        for id in program.map_ids().map_err(io::Error::other)?.unwrap_or_default() {
            let table = MapInfo::from_id(id).map_err(io::Error::other)?;
            let name = String::from_utf8_lossy(table.name()).into_owned();
            tables.insert(name, table.fd().map_err(io::Error::other)?);
        }
    }
    Ok(tables)
}

/// The sum in a line "stack depth 208+96", which has a number for each function.
fn stack_in(log: &str) -> Option<u32> {
    let depths = log.lines().find_map(|line| line.strip_prefix("stack depth "))?;
    // Some kernels go on after the numbers.
    let depths = depths.split_whitespace().next()?;
    depths.split('+').map(|depth| depth.parse::<u32>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stack_of_all_functions_is_added_up() {
        let log = "verification time 5 usec\nstack depth 208+96\nprocessed 12 insns (limit 1000000)\n";
        assert_eq!(stack_in(log), Some(304));
        assert_eq!(stack_in("stack depth 8 max 8\n"), Some(8));
        assert_eq!(stack_in("processed 12 insns\n"), None);
        assert_eq!(stack_in("stack depth deep\n"), None);
    }
}
