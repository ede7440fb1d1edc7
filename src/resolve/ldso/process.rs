//! The process that an object is loaded into: which loader, which ABI, and what follows from them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use elf::abi;

use super::elf::Abi;
use super::loader::{CACHE, Loader, OpenError, Opened};
use super::loader_file::LoaderFile;
use super::system::{self, Family};
use crate::base::sync::lock;
use crate::base::{ErrorContext, HostPath};
use crate::resolve::lookup_error::{LookupError, found};
use crate::{Error, Result};

/// musl's search path where `/etc/ld-musl-*.path` does not exist.
const MUSL_PATH: &[u8] = b"/lib:/usr/local/lib:/usr/lib";

/// The largest file that is read as a loader, in bytes; glibc's has a quarter of a megabyte.
const LARGEST_LOADER: u64 = 8 << 20;

/// The state that all objects of one process share.
pub(super) struct ProcessImage {
    pub family: Family,
    pub abi: Abi,
    /// The loader; `None`: a shared object, which names none, and no usual loader exists.
    pub interpreter: Option<HostPath>,
    /// The objects that the loader starts and preloads in turn, if it is not a loader by itself.
    pub starts: Vec<HostPath>,
    /// glibc: the compiled-in directories; musl: those of its `.path` file.
    pub default_directories: Vec<Vec<u8>>,
    /// The value of `$LIB`.
    pub lib: String,
    /// The glibc-hwcaps subdirectories to search, best first.
    pub hwcaps: Vec<&'static str>,
    /// The loader's configuration files that exist.
    pub configuration: Vec<HostPath>,
}

impl ProcessImage {
    /// The process that runs `opened`, or would load it.
    pub(super) fn new(loader: &Loader<'_>, opened: &Opened) -> Result<Self> {
        let cannot = format_args!("cannot tell which dynamic loader {} has", opened.path);
        let interpreter = match &opened.object.interpreter {
            Some(text) => Some(written(loader, text, &opened.path)?),
            None => usual_interpreter(loader, opened).context(cannot)?,
        };
        let file = match &interpreter {
            Some(path) => loader_file(loader, path).context(cannot)?,
            None => Arc::default(),
        };
        let image = match family_of(interpreter.as_ref(), &file) {
            Family::Glibc => Self::glibc(loader, opened.object.abi, interpreter, &file),
            Family::Musl => Self::musl(loader, opened.object.abi, interpreter, &file),
        };
        image.context(cannot)
    }

    fn glibc(
        loader: &Loader<'_>,
        abi: Abi,
        interpreter: Option<HostPath>,
        file: &LoaderFile,
    ) -> Result<Self, LookupError> {
        let directories = match &file.directories {
            Some(compiled) => compiled.clone(),
            None => system::usual_directories(abi),
        };
        let mut configuration = Vec::from_iter(existing(loader, CACHE)?);
        configuration.extend(loader.state.conf.files.iter().cloned());
        Ok(Self {
            family: Family::Glibc,
            abi,
            interpreter,
            starts: vec![],
            lib: system::lib_token(&directories).to_owned(),
            default_directories: directories.into_iter().map(String::into_bytes).collect(),
            hwcaps: system::hwcaps(abi),
            configuration,
        })
    }

    fn musl(
        loader: &Loader<'_>,
        abi: Abi,
        interpreter: Option<HostPath>,
        file: &LoaderFile,
    ) -> Result<Self, LookupError> {
        let mut configuration = vec![];
        let mut directories = MUSL_PATH.to_vec();
        let named = file.starts.first().or(interpreter.as_ref());
        if let Some(named) = named
            && let Some(path_file) = musl_path_file(named, file.architecture.as_deref())
            && let Some(text) = found(loader.host.read(&path_file))?
        {
            configuration.push(path_file);
            directories = text;
        }
        Ok(Self {
            family: Family::Musl,
            abi,
            interpreter,
            starts: file.starts.clone(),
            default_directories: directories
                .split(|byte| matches!(byte, b':' | b'\n'))
                .filter(|directory| !directory.is_empty())
                .map(<[u8]>::to_vec)
                .collect(),
            lib: String::new(),
            hwcaps: Vec::new(),
            configuration,
        })
    }
}

/// `PT_INTERP` as the path of an ELF file; the kernel takes nothing else.
fn written(loader: &Loader<'_>, text: &[u8], program: &HostPath) -> Result<HostPath> {
    let shown = String::from_utf8_lossy(text);
    let message = format!("cannot find the ELF interpreter {shown} of {program}");
    let path = HostPath::new(OsStr::from_bytes(text))
        .map_err(|bad| Error::failed(&message).because_of(bad))?;
    match loader.open(&path) {
        Ok(_) => Ok(path),
        Err(OpenError::Elf(reason)) => Err(Error::failed(message).because_of(reason)),
        Err(OpenError::Lookup(reason)) => Err(reason.error(message).hint(
            "install the C library that the program was built for, such as libc6:i386 or musl",
        )),
    }
}

/// The loader that a shared object's processes most likely have: musl's where the object asks for
/// musl's libc or there is no other.
fn usual_interpreter(
    loader: &Loader<'_>,
    opened: &Opened,
) -> Result<Option<HostPath>, LookupError> {
    let Some((glibc, musl)) = usual_names(opened.object.abi) else {
        return Ok(None);
    };
    let mut needs = opened.object.needs.iter();
    let (first, second) = if needs.any(|need| is_musls_libc(&need.name)) {
        (musl, glibc)
    } else {
        (glibc, musl)
    };
    match existing(loader, first)? {
        Some(path) => Ok(Some(path)),
        None => existing(loader, second),
    }
}

fn is_musls_libc(name: &[u8]) -> bool {
    name == b"libc.so" || name.starts_with(b"libc.musl-")
}

/// `path`, if something is there.
fn existing(loader: &Loader<'_>, path: &str) -> Result<Option<HostPath>, LookupError> {
    let Ok(path) = HostPath::new(path) else {
        return Ok(None);
    };
    Ok(loader.host.is_there(&path)?.then_some(path))
}

fn usual_names(abi: Abi) -> Option<(&'static str, &'static str)> {
    Some(match (abi.machine, abi.wide) {
        (abi::EM_X86_64, true) => ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-musl-x86_64.so.1"),
        (abi::EM_X86_64, false) => ("/libx32/ld-linux-x32.so.2", "/lib/ld-musl-x32.so.1"),
        (abi::EM_386, _) => ("/lib/ld-linux.so.2", "/lib/ld-musl-i386.so.1"),
        (abi::EM_AARCH64, _) => ("/lib/ld-linux-aarch64.so.1", "/lib/ld-musl-aarch64.so.1"),
        (abi::EM_ARM, _) => ("/lib/ld-linux-armhf.so.3", "/lib/ld-musl-armhf.so.1"),
        (abi::EM_RISCV, true) => (
            "/lib/ld-linux-riscv64-lp64d.so.1",
            "/lib/ld-musl-riscv64.so.1",
        ),
        (abi::EM_PPC64, true) => ("/lib64/ld64.so.2", "/lib/ld-musl-powerpc64le.so.1"),
        (abi::EM_S390, true) => ("/lib/ld64.so.1", "/lib/ld-musl-s390x.so.1"),
        _ => return None,
    })
}

/// The facts from the loader's file, read once a run.
fn loader_file(
    loader: &Loader<'_>,
    interpreter: &HostPath,
) -> Result<Arc<LoaderFile>, LookupError> {
    if let Some(known) = lock(&loader.state.loaders).get(interpreter) {
        return Ok(known.clone());
    }
    let read = match found(loader.host.read_up_to(interpreter, LARGEST_LOADER))? {
        Some(bytes) => Arc::new(LoaderFile::of(&bytes)),
        None => Arc::default(),
    };
    let mut loaders = lock(&loader.state.loaders);
    Ok(loaders.entry(interpreter.clone()).or_insert(read).clone())
}

/// The family of the loader `interpreter`: by what it is, or by its name, which musl fixes.
fn family_of(interpreter: Option<&HostPath>, file: &LoaderFile) -> Family {
    if let Some(family) = file.family {
        return family;
    }
    let name = interpreter.and_then(HostPath::file_name);
    Family::of(name.unwrap_or_default().as_bytes())
}

/// `/lib/ld-musl-x86_64.so.1` → `/etc/ld-musl-x86_64.path`; the prefix before `/lib` stays. The
/// `architecture` is that in the loader's file; its name has the same.
fn musl_path_file(interpreter: &HostPath, architecture: Option<&str>) -> Option<HostPath> {
    let architecture = architecture.or(architecture_in_name(interpreter))?;
    let prefix = interpreter.parent()?.parent()?;
    prefix.join(format!("etc/ld-musl-{architecture}.path")).ok()
}

fn architecture_in_name(interpreter: &HostPath) -> Option<&str> {
    let name = interpreter.file_name()?.to_str()?;
    name.strip_prefix("ld-musl-")?.strip_suffix(".so.1")
}
