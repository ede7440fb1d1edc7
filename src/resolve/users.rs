//! A passwd and a group with a site's users alone, no hashes: passwd(5), group(5).

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write;
use std::io;

use nix::errno::Errno;
use nix::unistd::{Group, User};

use super::host::Host;
use super::lookup_error::{LookupError, found};
use crate::base::{ErrorContext, HostPath};
use crate::{Error, Result, sys};

/// Where this program looks for users and groups: part of messages about those not found.
pub(crate) const WHERE: &str = if sys::MUSL {
    "in the host's files (built with musl, mountjail asks no name service but nscd)"
} else {
    "on this host"
};

/// The host's accounts, as they are in `/etc/passwd` and `/etc/group`.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    /// By name: all fields but the password.
    users: HashMap<String, PasswdLine>,
    groups: Vec<GroupLine>,
}

#[derive(Clone, Debug)]
struct PasswdLine {
    uid: String,
    gid: String,
    rest: String,
}

#[derive(Clone, Debug)]
struct GroupLine {
    name: String,
    gid: String,
    members: Vec<String>,
}

/// The contents of a site's passwd and group.
pub(super) struct AccountFiles {
    pub passwd: String,
    pub group: String,
}

impl GroupLine {
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<_> = line.split(':').collect();
        let [name, _, gid, members] = fields[..] else {
            return None;
        };
        let members = members.split(',').filter(|name| !name.is_empty());
        Some(Self {
            name: name.into(),
            gid: gid.into(),
            members: members.map(Into::into).collect(),
        })
    }
}

impl Accounts {
    /// Reads the host's files; a missing one has none.
    ///
    /// Errors: a file cannot be read.
    pub(super) fn read(host: &Host) -> Result<Self, LookupError> {
        let passwd = text_of(host, "/etc/passwd")?;
        let group = text_of(host, "/etc/group")?;
        Ok(Self::parse(&passwd, &group))
    }

    fn parse(passwd: &str, group: &str) -> Self {
        let mut users = HashMap::new();
        for line in passwd.lines() {
            let fields: Vec<_> = line.splitn(5, ':').collect();
            if let [name, _, uid, gid, rest] = fields[..] {
                let account = PasswdLine {
                    uid: uid.into(),
                    gid: gid.into(),
                    rest: rest.into(),
                };
                users.entry(name.to_owned()).or_insert(account);
            }
        }
        let groups = group.lines().filter_map(GroupLine::parse).collect();
        Self { users, groups }
    }

    /// Whether there is a user of that name, in the files or, unless this is a made tree, in what
    /// NSS adds to them.
    ///
    /// Errors: a name service does not answer.
    pub(super) fn knows(&self, host: &Host, name: &str) -> Result<bool> {
        Ok(self.account(host, name)?.is_some())
    }

    fn account(&self, host: &Host, name: &str) -> Result<Option<Cow<'_, PasswdLine>>> {
        if let Some(account) = self.users.get(name) {
            return Ok(Some(Cow::Borrowed(account)));
        }
        if !host.is_real() {
            return Ok(None);
        }
        let Some(user) = by_name_service("user", name, User::from_name)? else {
            return Ok(None);
        };
        let rest = [
            user.gecos.to_string_lossy().into_owned(),
            user.dir.display().to_string(),
            user.shell.display().to_string(),
        ];
        // A name service can return anything, and a line must keep its seven fields.
        if rest.iter().any(|field| field.contains([':', '\n'])) {
            return Ok(None);
        }
        Ok(Some(Cow::Owned(PasswdLine {
            uid: user.uid.to_string(),
            gid: user.gid.to_string(),
            rest: rest.join(":"),
        })))
    }

    /// The IDs of the user `name` and of their group. Errors: there is no such user, or a name
    /// service does not answer.
    pub(super) fn ids(&self, host: &Host, name: &str) -> Result<(u32, u32)> {
        if let Some(account) = self.account(host, name)?
            && let Ok(uid) = account.uid.parse()
            && let Ok(gid) = account.gid.parse()
        {
            return Ok((uid, gid));
        }
        Err(nobody("user", name))
    }

    /// The ID of the group `name`. Errors: there is no such group, or a name service does not
    /// answer.
    pub(super) fn group_id(&self, host: &Host, name: &str) -> Result<u32> {
        let known = self.groups.iter().find(|group| group.name == name);
        if let Some(group) = known
            && let Ok(gid) = group.gid.parse()
        {
            return Ok(gid);
        }
        let found = if host.is_real() {
            by_name_service("group", name, Group::from_name)?
        } else {
            None
        };
        match found {
            Some(group) => Ok(group.gid.as_raw()),
            None => Err(nobody("group", name)),
        }
    }

    /// The contents of passwd and group for `names` and root.
    ///
    /// Errors: a name service does not answer.
    pub(super) fn files(&self, host: &Host, names: &[&str]) -> Result<AccountFiles> {
        let mut names = names.to_vec();
        names.retain(|name| *name != "root");
        names.sort_unstable();
        names.dedup();
        names.insert(0, "root");
        let mut accounts = vec![];
        for name in &names {
            if let Some(account) = self.account(host, name)? {
                accounts.push((*name, account));
            }
        }
        let (mut passwd, mut group) = (String::new(), String::new());
        for (name, account) in &accounts {
            let PasswdLine { uid, gid, rest } = &**account;
            let _ = writeln!(passwd, "{name}:x:{uid}:{gid}:{rest}"); // a String takes everything
        }
        for GroupLine { name, gid, members } in &self.groups {
            let members = members.iter().map(String::as_str);
            let members: Vec<_> = members.filter(|member| names.contains(member)).collect();
            if !members.is_empty() || accounts.iter().any(|(_, account)| account.gid == *gid) {
                let _ = writeln!(group, "{name}:x:{gid}:{}", members.join(","));
            }
        }
        Ok(AccountFiles { passwd, group })
    }
}

/// The text of a file of the host; a missing one is empty.
fn text_of(host: &Host, path: &str) -> Result<String, LookupError> {
    let Ok(path) = HostPath::new(path) else {
        return Ok(String::new());
    };
    let bytes = found(host.read(&path))?.unwrap_or_default();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn nobody(what: &str, name: &str) -> Error {
    Error::failed(format!("there is no {what} {name} {WHERE}"))
        .hint(format!("create the {what}, or take the line out"))
}

/// The user or group `name`, as NSS has it.
fn by_name_service<T>(
    what: &str,
    name: &str,
    look_up: fn(&str) -> nix::Result<Option<T>>,
) -> Result<Option<T>> {
    match look_up(name) {
        // Each of these means that there is no such user or group: getpwnam(3), getgrnam(3).
        Err(Errno::ENOENT | Errno::ESRCH | Errno::EBADF | Errno::EPERM) => Ok(None),
        found => found
            .map_err(io::Error::from)
            .context(format_args!("cannot look up the {what} {name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_named_users_and_their_groups_are_written_and_no_hash() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\n\
                      bob:$6$hash:7:8:Bob,,,:/home/bob:/bin/sh\neve:x:9:9::/:/bin/sh\n";
        let group = "root:x:0:\nbobs:!:8:\nweb:x:33:eve,bob\neves:x:9:eve\n";
        let accounts = Accounts::parse(passwd, group);
        let host = Host::at("/nonexistent");
        let AccountFiles { passwd, group } = accounts.files(&host, &["bob"]).unwrap();
        assert_eq!(
            passwd,
            "root:x:0:0:root:/root:/bin/bash\nbob:x:7:8:Bob,,,:/home/bob:/bin/sh\n"
        );
        assert_eq!(group, "root:x:0:\nbobs:x:8:\nweb:x:33:bob\n");
        assert_eq!(accounts.knows(&host, "mallory"), Ok(false));
    }

    #[test]
    fn a_name_service_that_fails_does_not_say_that_there_is_no_such_group() {
        let group = |look_up| by_name_service::<Group>("group", "web", look_up);
        assert_eq!(group(|_| Err(Errno::ESRCH)), Ok(None));
        let error = group(|_| Err(Errno::ETIMEDOUT)).unwrap_err();
        let text = "cannot look up the group web: Connection timed out";
        assert_eq!(error.to_string(), text);
    }
}
