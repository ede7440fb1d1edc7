//! The process that an object is loaded into: which loader, which ABI, and what follows from them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use elf::abi;

use super::elf::Abi;
use super::loader::{CACHE, Loader, OpenError, Opened};
use super::loader_file::LoaderFile;
use super::system::{self, Family};
use crate::base::HostPath;
use crate::base::sync::lock;
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
        let cannot = |error: &LookupError| {
            error.error(format!(
                "cannot tell which dynamic loader {} has",
                opened.path
            ))
        };
        let interpreter = match &opened.object.interpreter {
            Some(text) => Some(written(loader, text, &opened.path)?),
            None => usual_interpreter(loader, opened).map_err(|error| cannot(&error))?,
        };
        let file = match &interpreter {
            Some(path) => loader_file(loader, path).map_err(|error| cannot(&error))?,
            None => Arc::default(),
        };
        match family_of(interpreter.as_ref(), &file) {
            Family::Glibc => Self::glibc(loader, opened.object.abi, interpreter, &file),
            Family::Musl => Self::musl(loader, opened.object.abi, interpreter, &file),
        }
        .map_err(|error| cannot(&error))
    }

    fn glibc(
        loader: &Loader<'_>,
        abi: Abi,
        interpreter: Option<HostPath>,
        file: &LoaderFile,
    ) -> Result<Self, LookupError> {
        let compiled = file.directories.clone();
        let directories = compiled.unwrap_or_else(|| system::usual_directories(abi));
        let cache = existing(loader, CACHE)?;
        Ok(Self {
            family: Family::Glibc,
            abi,
            interpreter,
            starts: vec![],
            lib: system::lib_token(&directories).to_owned(),
            default_directories: directories.into_iter().map(String::into_bytes).collect(),
            hwcaps: system::hwcaps(abi),
            configuration: cache
                .into_iter()
                .chain(loader.state.conf.files.iter().cloned())
                .collect(),
        })
    }

    fn musl(
        loader: &Loader<'_>,
        abi: Abi,
        interpreter: Option<HostPath>,
        file: &LoaderFile,
    ) -> Result<Self, LookupError> {
        let named = file.starts.first().or(interpreter.as_ref());
        let architecture = file.architecture.as_deref();
        let path_file = named.and_then(|path| musl_path_file(path, architecture));
        let text = match &path_file {
            Some(path) => found(loader.host.read(path))?,
            None => None,
        };
        let directories = text
            .as_deref()
            .unwrap_or(MUSL_PATH)
            .split(|byte| matches!(byte, b':' | b'\n'));
        Ok(Self {
            family: Family::Musl,
            abi,
            interpreter,
            starts: file.starts.clone(),
            default_directories: directories
                .filter(|d| !d.is_empty())
                .map(<[u8]>::to_vec)
                .collect(),
            lib: String::new(),
            hwcaps: Vec::new(),
            configuration: path_file.filter(|_| text.is_some()).into_iter().collect(),
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
    let is_musl = |name: &[u8]| name == b"libc.so" || name.starts_with(b"libc.musl-");
    let (first, second) = if opened.object.needs.iter().any(|need| is_musl(&need.name)) {
        (musl, glibc)
    } else {
        (glibc, musl)
    };
    match existing(loader, first)? {
        Some(path) => Ok(Some(path)),
        None => existing(loader, second),
    }
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
    let bytes = found(loader.host.read_up_to(interpreter, LARGEST_LOADER))?;
    let read = bytes.map_or_else(LoaderFile::default, |bytes| LoaderFile::of(&bytes));
    Ok(lock(&loader.state.loaders)
        .entry(interpreter.clone())
        .or_insert_with(|| Arc::new(read))
        .clone())
}

/// The family of the loader `interpreter`: by what it is, or by its name, which musl fixes.
fn family_of(interpreter: Option<&HostPath>, file: &LoaderFile) -> Family {
    let name = interpreter
        .and_then(HostPath::file_name)
        .unwrap_or_default();
    file.family.unwrap_or_else(|| Family::of(name.as_bytes()))
}

/// `/lib/ld-musl-x86_64.so.1` → `/etc/ld-musl-x86_64.path`; the prefix before `/lib` stays. The
/// loader has its `architecture` in it; that in its name is the same.
fn musl_path_file(interpreter: &HostPath, architecture: Option<&str>) -> Option<HostPath> {
    let name = interpreter.file_name()?.to_str()?;
    let of_name = || name.strip_prefix("ld-musl-")?.strip_suffix(".so.1");
    let arch = architecture.or_else(of_name)?;
    interpreter
        .parent()?
        .parent()?
        .join(format!("etc/ld-musl-{arch}.path"))
        .ok()
}
