//! What this process inherited, and it or the runtime of Rust changes: the actions of SIGPIPE,
//! SIGXFSZ and SIGCHLD, and which of the standard streams were closed.

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

static PIPE_WAS_DEFAULT: AtomicBool = AtomicBool::new(false);
static XFSZ_WAS_DEFAULT: AtomicBool = AtomicBool::new(false);
static CHLD_WAS_IGNORED: AtomicBool = AtomicBool::new(false);
/// One bit per closed standard stream.
static CLOSED: AtomicU8 = AtomicU8::new(0);

/// The C library calls it before `main`.
#[used]
// SAFETY: the section holds pointers to functions, and this is one. It calls only functions that
// are async-signal-safe, and so need nothing that is not set up yet.
#[unsafe(link_section = ".init_array")]
static REMEMBER: extern "C" fn() = remember;

extern "C" fn remember() {
    PIPE_WAS_DEFAULT.store(is_default(libc::SIGPIPE), Ordering::Relaxed);

    let mut closed = 0;
    for stream in 0..3 {
        // SAFETY: there are no pointers.
        if unsafe { libc::fcntl(stream, libc::F_GETFD) } < 0 {
            closed |= 1 << stream;
        }
    }
    CLOSED.store(closed, Ordering::Relaxed);
}

/// Whether the signal has its default action.
fn is_default(signal: i32) -> bool {
    action(signal) == Some(libc::SIG_DFL)
}

/// Whether this process ignores `signal`, as nohup(1) makes a program ignore SIGHUP:
/// `sigaction(2)`.
pub fn is_ignored(signal: i32) -> bool {
    action(signal) == Some(libc::SIG_IGN)
}

/// The action of the signal: `sigaction(2)`. `None`: there is no such signal.
fn action(signal: i32) -> Option<libc::sighandler_t> {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: nothing is set. `action` has room for a `struct sigaction`.
    let result = unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) };
    // SAFETY: zero is valid for a `struct sigaction`, and so is what the kernel has written.
    let action = unsafe { action.assume_init() };
    (result == 0).then_some(action.sa_sigaction)
}

/// Has a file that grows beyond `RLIMIT_FSIZE` fail with EFBIG, and not end this process by
/// SIGXFSZ in the middle of its work: `setrlimit(2)`.
pub fn survive_file_size_limit() {
    if is_default(libc::SIGXFSZ) {
        XFSZ_WAS_DEFAULT.store(true, Ordering::Relaxed);
        // SAFETY: to ignore a signal needs no function.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    }
}

/// Has the kernel keep the exit codes of this process's children, also where whoever started it
/// ignores SIGCHLD: `waitpid(2)`.
pub fn wait_for_children() {
    if is_ignored(libc::SIGCHLD) {
        CHLD_WAS_IGNORED.store(true, Ordering::Relaxed);
        // SAFETY: the default action needs no function.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    }
}

/// Gives back what was inherited, for the program that this process becomes now: `sigaction(2)`,
/// `fcntl(2)`. It is called last: a broken pipe may end this process from then on.
pub fn give_back_inherited() {
    give_back_signals();
    for stream in 0..3 {
        if CLOSED.load(Ordering::Relaxed) & (1 << stream) != 0 {
            // SAFETY: there are no pointers. The stream is /dev/null, which the runtime opened.
            unsafe { libc::fcntl(stream, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
}

/// As [`give_back_inherited`], the actions of signals alone.
pub fn give_back_signals() {
    let all = [
        (libc::SIGPIPE, &PIPE_WAS_DEFAULT, libc::SIG_DFL),
        (libc::SIGXFSZ, &XFSZ_WAS_DEFAULT, libc::SIG_DFL),
        (libc::SIGCHLD, &CHLD_WAS_IGNORED, libc::SIG_IGN),
    ];
    for (signal, is_changed, action) in all {
        if is_changed.load(Ordering::Relaxed) {
            // SAFETY: neither action needs a function.
            unsafe { libc::signal(signal, action) };
        }
    }
}
