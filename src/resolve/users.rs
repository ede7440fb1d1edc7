//! A passwd and a group with a site's users alone, no hashes: passwd(5), group(5).

use std::collections::HashMap;
use std::fmt::Write;

use nix::errno::Errno;
use nix::unistd::User;

use super::host::Host;
use super::walk::{LookupError, found};
use crate::base::HostPath;
use crate::{Error, Result, sys};

/// Where this program looks for users and groups, for messages about those that it does not find.
pub(crate) const WHERE: &str = if sys::MUSL {
    "in the host's files (built with musl, mountjail asks no name service but nscd)"
} else {
    "on this host"
};

/// The host's accounts, as `/etc/passwd` and `/etc/group` have them.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    /// By name: all fields but the password.
    users: HashMap<String, Account>,
    groups: Vec<Group>,
}

#[derive(Clone, Debug)]
struct Account {
    uid: String,
    gid: String,
    rest: String,
}

#[derive(Clone, Debug)]
struct Group {
    name: String,
    gid: String,
    members: Vec<String>,
}

impl Accounts {
    /// Those in the host's files; one that is not there has none.
    ///
    /// Errors: a file cannot be read.
    pub(super) fn read(host: &Host) -> Result<Self, LookupError> {
        let text = |path| -> Result<String, LookupError> {
            let Ok(path) = HostPath::new(path) else {
                return Ok(String::new());
            };
            let bytes = found(host.read(&path))?.unwrap_or_default();
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        Ok(Self::parse(&text("/etc/passwd")?, &text("/etc/group")?))
    }

    fn parse(passwd: &str, group: &str) -> Self {
        let mut users = HashMap::new();
        for line in passwd.lines() {
            let fields: Vec<_> = line.splitn(5, ':').collect();
            if let [name, _, uid, gid, rest] = fields[..] {
                let account = Account {
                    uid: uid.into(),
                    gid: gid.into(),
                    rest: rest.into(),
                };
                users.entry(name.to_owned()).or_insert(account);
            }
        }
        let groups =
            group
                .lines()
                .filter_map(|line| match line.split(':').collect::<Vec<_>>()[..] {
                    [name, _, gid, members] => Some(Group {
                        name: name.into(),
                        gid: gid.into(),
                        members: members
                            .split(',')
                            .filter(|name| !name.is_empty())
                            .map(Into::into)
                            .collect(),
                    }),
                    _ => None,
                });
        Self {
            users,
            groups: groups.collect(),
        }
    }

    /// Whether there is a user of that name, in the files or, on this very host, in what NSS adds
    /// to them.
    ///
    /// Errors: a name service cannot tell.
    pub(super) fn knows(&self, host: &Host, name: &str) -> Result<bool> {
        self.account(host, name).map(|account| account.is_some())
    }

    fn account(&self, host: &Host, name: &str) -> Result<Option<Account>> {
        if let Some(account) = self.users.get(name) {
            return Ok(Some(account.clone()));
        }
        let found = if host.is_real() {
            by_name_service(name)?
        } else {
            None
        };
        let Some(user) = found else { return Ok(None) };
        let rest = [
            user.gecos.to_string_lossy().into_owned(),
            user.dir.display().to_string(),
            user.shell.display().to_string(),
        ];
        // A name service can say anything, and a line must stay one of seven fields.
        let fits = rest.iter().all(|field| !field.contains([':', '\n']));
        let (uid, gid) = (user.uid.to_string(), user.gid.to_string());
        Ok(fits.then(|| Account {
            uid,
            gid,
            rest: rest.join(":"),
        }))
    }

    /// The texts of passwd and group for `names` and root.
    ///
    /// Errors: a name service cannot tell.
    pub(super) fn files(&self, host: &Host, names: &[String]) -> Result<(Vec<u8>, Vec<u8>)> {
        let mut names: Vec<&str> = names
            .iter()
            .map(String::as_str)
            .filter(|name| *name != "root")
            .collect();
        names.sort_unstable();
        names.dedup();
        names.insert(0, "root");
        let mut accounts = vec![];
        for name in &names {
            accounts.extend(self.account(host, name)?.map(|account| (*name, account)));
        }
        let (mut passwd, mut group) = (String::new(), String::new());
        for (name, Account { uid, gid, rest }) in &accounts {
            let _ = writeln!(passwd, "{name}:x:{uid}:{gid}:{rest}"); // a String takes everything
        }
        for Group { name, gid, members } in &self.groups {
            let members: Vec<_> = members
                .iter()
                .map(String::as_str)
                .filter(|member| names.contains(member))
                .collect();
            if !members.is_empty() || accounts.iter().any(|(_, account)| account.gid == *gid) {
                let _ = writeln!(group, "{name}:x:{gid}:{}", members.join(","));
            }
        }
        Ok((passwd.into_bytes(), group.into_bytes()))
    }
}

/// What NSS says of the user `name`.
fn by_name_service(name: &str) -> Result<Option<User>> {
    match User::from_name(name) {
        Ok(user) => Ok(user),
        // All of them mean that there is no such user: getpwnam(3).
        Err(Errno::ENOENT | Errno::ESRCH | Errno::EBADF | Errno::EPERM) => Ok(None),
        Err(errno) => Err(Error::failed(format!("cannot look up the user {name}"))
            .because(&std::io::Error::from(errno))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_named_users_and_their_groups_are_written_and_no_hash() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nbob:$6$hash:7:8:Bob,,,:/home/bob:/bin/sh\neve:x:9:9::/:/bin/sh\n";
        let group = "root:x:0:\nbobs:!:8:\nweb:x:33:eve,bob\neves:x:9:eve\n";
        let accounts = Accounts::parse(passwd, group);
        let host = Host::at("/nonexistent");
        let (passwd, group) = accounts.files(&host, &["bob".into()]).unwrap();
        assert_eq!(
            String::from_utf8(passwd).unwrap(),
            "root:x:0:0:root:/root:/bin/bash\nbob:x:7:8:Bob,,,:/home/bob:/bin/sh\n"
        );
        assert_eq!(
            String::from_utf8(group).unwrap(),
            "root:x:0:\nbobs:x:8:\nweb:x:33:bob\n"
        );
        assert_eq!(accounts.knows(&host, "mallory"), Ok(false));
    }
}
