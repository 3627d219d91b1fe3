//! A kernel's modules and what they depend on.
//!
//! A package that is only unpacked has no `modules.dep`: dependencies are read from the modules themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// What the labs need of a kernel that may be a module, in the order of loading. `crc32c_generic` first: modules ask for
/// it by another name than its own.
const WANTED: [&str; 35] = [
    "crc32c_generic",
    "virtio_pci",
    "virtio_net",
    "veth",
    "tun",
    "bridge",
    "vxlan",
    "dummy",
    "8021q",
    "bonding",
    "macvlan",
    "sch_ingress",
    "cls_bpf",
    "act_bpf",
    "act_mirred",
    "cls_matchall",
    "sch_netem",
    "sch_fq",
    "sch_tbf",
    "nf_tables",
    "nft_ct",
    "nft_nat",
    "nft_masq",
    "nft_chain_nat",
    "nft_redir",
    "nft_fwd_netdev",
    "nft_meta_bridge",
    "nft_compat",
    "xt_tcpudp",
    "ip_vs",
    "ip_vs_rr",
    "ip_vs_wrr",
    "ip_vs_sh",
    "pktgen",
    "sctp",
];

/// A module that is loaded from a file.
pub(crate) struct Module {
    /// Its name, with underscores.
    pub(crate) name: String,
    /// Its bytes, not compressed.
    pub(crate) content: Vec<u8>,
}

/// The modules of one kernel, by name.
pub(crate) struct Modules {
    files: BTreeMap<String, PathBuf>,
    built_in: BTreeSet<String>,
}

impl Modules {
    /// Reads what a folder `lib/modules/RELEASE` holds.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let list = folder.join("modules.builtin");
        let built_in =
            fs::read_to_string(&list).with_context(|| format!("cannot read {}", list.display()))?;
        let mut files = BTreeMap::new();
        collect(&folder.join("kernel"), &mut files)?;
        Ok(Self { files, built_in: built_in.lines().filter_map(|path| name_of(Path::new(path))).collect() })
    }

    /// The modules that the labs want, each behind those it depends on, and the names of those that this kernel does not have.
    pub(crate) fn wanted(&self) -> Result<(Vec<Module>, Vec<&'static str>)> {
        let mut chosen = Vec::new();
        let mut lacking = Vec::new();
        for name in WANTED {
            if self.files.contains_key(name) {
                self.add(name, &mut chosen)?;
            } else if !self.built_in.contains(name) {
                lacking.push(name);
            }
        }
        Ok((chosen, lacking))
    }

    fn add(&self, name: &str, chosen: &mut Vec<Module>) -> Result<()> {
        if self.built_in.contains(name) || chosen.iter().any(|module| module.name == name) {
            return Ok(());
        }
        let path = self.files.get(name).with_context(|| format!("the kernel has no module {name}"))?;
        let content = content(path)?;
        for dependency in dependencies(&content) {
            self.add(&dependency, chosen).with_context(|| format!("{name} depends on {dependency}"))?;
        }
        chosen.push(Module { name: name.to_owned(), content });
        Ok(())
    }
}

fn collect(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if let Some(name) = name_of(&path) {
            files.insert(name, path);
        }
    }
    Ok(())
}

/// `nf_tables` of `…/nf_tables.ko`, `sch_ingress` of `…/sch-ingress.ko.xz`: to the kernel both marks are one.
fn name_of(path: &Path) -> Option<String> {
    let (name, _) = path.file_name()?.to_str()?.split_once(".ko")?;
    Some(name.replace('-', "_"))
}

/// A module's bytes; the first file system of a kernel is no place for a decompressor.
fn content(path: &Path) -> Result<Vec<u8>> {
    if path.extension().is_none_or(|extension| extension != "xz") {
        return fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    }
    let mut command = Command::new("xz");
    let output = command.args(["--decompress", "--stdout"]).arg(path).output().context("cannot run xz")?;
    ensure!(output.status.success(), "xz cannot decompress {}", path.display());
    Ok(output.stdout)
}

/// The names in `depends=` of a module's section `.modinfo`, a list of strings that end with a zero byte.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let names = module.get(at + KEY.len()..).unwrap_or_default();
    let names = names.split(|&byte| byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(names);
    names.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_stand_between_zero_bytes() {
        let module = b"\x7fELF\0license=GPL\0depends=nf_defrag-ipv4,libcrc32c\0retpoline=Y\0";
        assert_eq!(dependencies(module), ["nf_defrag_ipv4", "libcrc32c"]);
        assert_eq!(dependencies(b"\0depends=\0name=veth\0"), Vec::<String>::new());
        assert_eq!(dependencies(b"no module"), Vec::<String>::new());
    }

    #[test]
    fn modules_come_behind_what_they_depend_on_and_the_missing_are_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let kernel = folder.path().join("kernel/net");
        fs::create_dir_all(&kernel).expect("a folder");
        fs::write(folder.path().join("modules.builtin"), "kernel/drivers/virtio/virtio_pci.ko\n")
            .expect("a list");
        fs::write(kernel.join("bridge.ko"), b"\0depends=stp,llc\0").expect("a module");
        fs::write(kernel.join("stp.ko"), b"\0depends=llc\0").expect("a module");
        fs::write(kernel.join("llc.ko"), b"\0depends=\0").expect("a module");
        let (chosen, lacking) = Modules::read(folder.path()).expect("a kernel").wanted().expect("a choice");
        let names: Vec<_> = chosen.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(names, ["llc", "stp", "bridge"]);
        assert!(
            lacking.contains(&"veth") && !lacking.contains(&"virtio_pci") && !lacking.contains(&"bridge")
        );
    }
}
