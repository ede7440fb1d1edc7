//! Events of the mount table: `fanotify(7)` on a mount namespace.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use super::result::{checked, new_descriptor};

// linux/fanotify.h, Linux 6.14.
const FAN_REPORT_MNT: libc::c_uint = 0x4000;
const FAN_MARK_MNTNS: libc::c_uint = 0x110;
const FAN_MNT_ATTACH: u64 = 0x0100_0000;
const FAN_MNT_DETACH: u64 = 0x0200_0000;
const FAN_EVENT_INFO_TYPE_MNT: u8 = 7;

/// One change of the mount table, with the mount's unique mount ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountEvent {
    /// It was attached.
    Attached(u64),
    /// It was detached.
    Detached(u64),
    /// Events were lost, because the queue was full.
    Overflow,
}

/// Opens a descriptor that reports each mount attached and detached in the mount namespace of this
/// process: `fanotify_init(2)` with `FAN_REPORT_MNT`, `fanotify_mark(2)` with `FAN_MARK_MNTNS`
/// (Linux 6.14).
///
/// Errors: EINVAL on an older kernel; EPERM without `CAP_SYS_ADMIN`; EMFILE.
pub fn watch_mounts() -> io::Result<OwnedFd> {
    let flags = FAN_REPORT_MNT | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK;
    // SAFETY: there are no pointers. The flags for the descriptors of events do not matter, because
    // these events have none. It returns a new descriptor.
    let group = unsafe { new_descriptor(libc::fanotify_init(flags, 0)) }?;

    let namespace = File::open("/proc/self/ns/mnt")?;
    let mask = FAN_MNT_ATTACH | FAN_MNT_DETACH;
    // SAFETY: with a null path the mark is for the descriptor itself, which is open across the
    // call.
    checked(unsafe {
        libc::fanotify_mark(
            group.as_raw_fd(),
            libc::FAN_MARK_ADD | FAN_MARK_MNTNS,
            mask,
            namespace.as_raw_fd(),
            std::ptr::null(),
        )
    })?;
    Ok(group)
}

/// Reads the pending events of a descriptor of [`watch_mounts`], in their order: `read(2)`,
/// `fanotify(7)`.
pub fn read_mount_events(group: impl AsFd) -> io::Result<Vec<MountEvent>> {
    let mut events = vec![];
    let mut buffer = vec![0u8; 16 * 1024];
    loop {
        match nix::unistd::read(&group, &mut buffer) {
            Ok(0) | Err(nix::Error::EAGAIN) => return Ok(events),
            Ok(length) => parse(&buffer[..length], &mut events),
            Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Parses each `struct fanotify_event_metadata` with the `struct fanotify_event_info_mnt` that
/// follows it.
fn parse(mut bytes: &[u8], events: &mut Vec<MountEvent>) {
    const METADATA: usize = 24;
    while let Some(length) = number::<4>(bytes, 0).map(|field| u32::from_ne_bytes(field) as usize) {
        let Some(event) = bytes.get(..length).filter(|event| event.len() >= METADATA) else {
            return;
        };

        let mask = number(event, 8).map_or(0, u64::from_ne_bytes);
        if mask & libc::FAN_Q_OVERFLOW != 0 {
            events.push(MountEvent::Overflow);
        }

        let info_start = usize::from(number(event, 6).map_or(0, u16::from_ne_bytes));
        let info = &event[info_start.min(length)..];
        if let (Some(&FAN_EVENT_INFO_TYPE_MNT), Some(id)) = (info.first(), number(info, 8)) {
            let id = u64::from_ne_bytes(id);
            // A moved mount is reported as both: first as detached from the old place.
            let detached = (mask & FAN_MNT_DETACH != 0).then_some(MountEvent::Detached(id));
            let attached = (mask & FAN_MNT_ATTACH != 0).then_some(MountEvent::Attached(id));
            events.extend(detached.into_iter().chain(attached));
        }
        bytes = &bytes[length..];
    }
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(mask: u64, id: Option<u64>) -> Vec<u8> {
        let length: u32 = if id.is_some() { 40 } else { 24 };
        let head = [&length.to_ne_bytes()[..], &[3, 0], &24u16.to_ne_bytes()].concat();
        let info = id.map(|id| {
            [
                &[7, 0][..],
                &16u16.to_ne_bytes(),
                &[0; 4],
                &id.to_ne_bytes(),
            ]
            .concat()
        });
        [
            head,
            mask.to_ne_bytes().to_vec(),
            (-1i32).to_ne_bytes().to_vec(),
            vec![0; 4],
            info.unwrap_or_default(),
        ]
        .concat()
    }

    #[test]
    fn events_are_read_as_the_kernel_writes_them() {
        let bytes = [
            event(FAN_MNT_ATTACH, Some(0x8018_f60f)),
            event(FAN_MNT_DETACH | FAN_MNT_ATTACH, Some(2)),
            event(libc::FAN_Q_OVERFLOW, None),
        ];
        let mut events = vec![];
        parse(&bytes.concat(), &mut events);
        let moved = [MountEvent::Detached(2), MountEvent::Attached(2)];
        assert_eq!(
            events,
            [
                &[MountEvent::Attached(0x8018_f60f)][..],
                &moved,
                &[MountEvent::Overflow]
            ]
            .concat()
        );
    }

    #[test]
    fn what_is_cut_off_is_no_event() {
        let whole = event(FAN_MNT_ATTACH, Some(1));
        for length in 0..whole.len() {
            let mut events = vec![];
            parse(&whole[..length], &mut events);
            assert_eq!(events, [], "{length}");
        }
    }
}
