//! Refuses system calls to a process and all that it starts: `seccomp(2)`.

use std::io;
use std::mem::offset_of;

use libc::{seccomp_data, sock_filter};

use super::result::checked;

/// The ways in which a program of this machine may call `ioctl(2)`: the `AUDIT_ARCH_*` of
/// linux/audit.h and the number there.
#[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
const IOCTL: &[(u32, u32)] = {
    const X86_64: u32 = 0xc000_003e;
    const X32: u32 = 0x4000_0000;
    // Kernels before Linux 5.4 accept each number of x86-64 for x32 too, and the reverse.
    &[
        (X86_64, 16),
        (X86_64, 514),
        (X86_64, X32 + 16),
        (X86_64, X32 + 514),
        (0x4000_0003, 54),
    ]
};
#[cfg(any(target_arch = "aarch64", target_arch = "arm"))]
const IOCTL: &[(u32, u32)] = &[(0xc000_00b7, 29), (0x4000_0028, 54)];
#[cfg(not(any(
    target_arch = "x86_64",
    target_arch = "x86",
    target_arch = "aarch64",
    target_arch = "arm"
)))]
const IOCTL: &[(u32, u32)] = &[];

/// The offset of the second argument, of which the kernel uses the lower half as the request.
const REQUEST: usize = offset_of!(seccomp_data, args)
    + size_of::<u64>()
    + if cfg!(target_endian = "big") { 4 } else { 0 };

/// Keeps this thread, and all that it starts from now on, from putting text into a terminal as if
/// it had been typed there: ioctl(2) with `TIOCSTI` or `TIOCLINUX` fails with EPERM. `seccomp(2)`
/// (Linux 4.17).
///
/// Errors: EACCES without `CAP_SYS_ADMIN`; ENOSYS if the kernel has no filters, or if the numbers
/// of the machine are not known.
pub fn forbid_typing() -> io::Result<()> {
    if IOCTL.is_empty() {
        return Err(io::Error::from_raw_os_error(libc::ENOSYS));
    }
    let mut program = program();
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // Without this flag a filter disables some speculation of the processor on kernels before Linux
    // 5.16.
    let flags = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    // SAFETY: `program` points to as many instructions as it claims, which live across the call;
    // the kernel copies them.
    checked(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    })
    .map(drop)
}

fn program() -> Vec<sock_filter> {
    let refused = IOCTL
        .iter()
        .flat_map(|(arch, number)| refused(*arch, *number));
    refused.chain([ret(libc::SECCOMP_RET_ALLOW)]).collect()
}

/// Returns EPERM for this ioctl(2) of this architecture, and continues behind it for anything else.
fn refused(arch: u32, number: u32) -> [sock_filter; 8] {
    [
        load(offset_of!(seccomp_data, arch)),
        jump(arch, 0, 6),
        load(offset_of!(seccomp_data, nr)),
        jump(number, 0, 4),
        load(REQUEST),
        jump(libc::TIOCSTI as u32, 1, 0),
        jump(libc::TIOCLINUX as u32, 0, 1),
        ret(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
    ]
}

/// Loads the word at this offset of a `struct seccomp_data`.
fn load(offset: usize) -> sock_filter {
    sock_filter {
        code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16,
        jt: 0,
        jf: 0,
        k: offset as u32,
    }
}

/// Skips `same` instructions if the loaded word is `value`, else `other`.
fn jump(value: u32, same: u8, other: u8) -> sock_filter {
    sock_filter {
        code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
        jt: same,
        jf: other,
        k: value,
    }
}

fn ret(action: u32) -> sock_filter {
    sock_filter {
        code: (libc::BPF_RET | libc::BPF_K) as u16,
        jt: 0,
        jf: 0,
        k: action,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program for a call, as the kernel would.
    fn run(arch: u32, number: u32, request: u64) -> u32 {
        let program = program();
        let args = [0, request, 0, 0, 0, 0].map(u64::to_ne_bytes).concat();
        let data = [
            &number.to_ne_bytes()[..],
            &arch.to_ne_bytes(),
            &[0; 8],
            &args,
        ]
        .concat();
        let (mut at, mut word) = (0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            match u32::from(code) {
                0x20 => word = u32::from_ne_bytes(data[k as usize..][..4].try_into().unwrap()),
                0x15 => at += usize::from(if word == k { jt } else { jf }),
                0x06 => return k,
                code => panic!("{code:#x} is not an instruction of this program"),
            }
        }
    }

    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    #[test]
    fn typing_is_refused_by_each_way_and_nothing_else() {
        const X32: u32 = 0x4000_0000;
        let (native, compat) = if cfg!(target_arch = "x86_64") {
            (0xc000_003e, 0x4000_0003)
        } else {
            (0xc000_00b7, 0x4000_0028)
        };
        let own = u32::try_from(libc::SYS_ioctl).unwrap();
        let (typing, console, size) = (0x5412, 0x541c, 0x5413); // TIOCSTI, TIOCLINUX, TIOCGWINSZ
        let mut refused = vec![(native, own), (compat, 54)];
        if cfg!(target_arch = "x86_64") {
            refused.extend([(native, 514), (native, X32 + 514), (native, X32 + own)]);
        }
        for (arch, number) in refused {
            for request in [typing, console, typing | 1 << 32, console | u64::MAX << 32] {
                assert_eq!(
                    run(arch, number, request),
                    0x0005_0001,
                    "{arch:#x} {number:#x} {request:#x}"
                );
            }
            for request in [size, 0, u64::from(u32::MAX), typing << 32] {
                assert_eq!(
                    run(arch, number, request),
                    0x7fff_0000,
                    "{arch:#x} {number:#x} {request:#x}"
                );
            }
        }
        // The same numbers are other calls elsewhere, with other arguments.
        for (arch, number) in [
            (native, 54),
            (compat, own),
            (native, 0),
            (compat, 0),
            (0xc000_0015, 54),
        ] {
            assert_eq!(
                run(arch, number, typing),
                0x7fff_0000,
                "{arch:#x} {number:#x}"
            );
        }
    }
}
