//! The lines by which files of configuration include others, and name modules: pure.

use std::collections::BTreeMap;

use crate::base::HostPath;

/// The dialect of files with one of these names.
pub(super) struct Dialect {
    pub names: &'static [&'static str],
    /// The absolute paths that a text includes.
    pub included: fn(&str) -> Vec<HostPath>,
    /// The absolute paths of shared objects that a text has loaded.
    pub modules: fn(&str) -> Vec<HostPath>,
    /// Whether a file of this name is read if its directory is included.
    pub is_read: fn(&str) -> bool,
}

pub(super) const DIALECTS: [Dialect; 3] = [
    Dialect {
        names: &["openssl.cnf"],
        included: openssl,
        modules: openssl_modules,
        is_read: |name| ends_in(name, &[".cnf", ".conf"]),
    },
    Dialect {
        names: &["krb5.conf"],
        included: krb5,
        modules: |_| vec![],
        is_read: is_read_by_krb5,
    },
    Dialect {
        names: &["my.cnf", "mysql.cnf", "mariadb.cnf"],
        included: mysql,
        modules: |_| vec![],
        is_read: |name| ends_in(name, &[".cnf"]),
    },
];

fn ends_in(name: &str, endings: &[&str]) -> bool {
    let name = name.to_ascii_lowercase();
    endings.iter().any(|ending| name.ends_with(ending))
}

/// Names in an `includedir` of krb5.conf(5).
fn is_read_by_krb5(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    let is_named_so = name.strip_suffix(".conf").is_some();
    !name.starts_with('.') && (is_named_so || name.chars().all(is_plain))
}

/// `include FILE` and `includedir DIRECTORY` of krb5.conf(5), at the beginning of a line.
fn krb5(text: &str) -> Vec<HostPath> {
    values(text, &["include", "includedir"])
}

/// `!include FILE` and `!includedir DIRECTORY` in the configuration of `MySQL` and `MariaDB`.
fn mysql(text: &str) -> Vec<HostPath> {
    let lines: Vec<_> = text.lines().map(str::trim_start).collect();
    values(&lines.join("\n"), &["!include", "!includedir"])
}

/// The absolute paths after one of `words` at the beginning of a line.
fn values(text: &str, words: &[&str]) -> Vec<HostPath> {
    let mut paths = vec![];
    for line in text.lines() {
        if let Some((word, value)) = line.split_once([' ', '\t'])
            && words.contains(&word)
        {
            paths.extend(HostPath::new(value.trim()));
        }
    }
    paths
}

/// `.include` of config(5ssl). A relative path is in the `includedir` of a `.pragma` before it;
/// without that, it depends on the working directory.
fn openssl(text: &str) -> Vec<HostPath> {
    let (mut paths, mut directory) = (vec![], None);
    let mut variables = OpensslValues::default();
    for line in text.lines() {
        let line = line.trim();
        if let Some(value) = directive(line, ".pragma") {
            let pragma = value
                .split_once(':')
                .filter(|(name, _)| name.trim() == "includedir");
            let path = pragma.and_then(|(_, path)| HostPath::new(path.trim()).ok());
            directory = path.or(directory);
        } else if let Some(value) = directive(line, ".include") {
            let Some(value) = variables.expand(value) else {
                continue;
            };
            paths.extend(match &directory {
                Some(directory) if !value.starts_with('/') => directory.join(value),
                _ => HostPath::new(value),
            });
        } else {
            variables.line(line);
        }
    }
    paths
}

/// The names of values that are the paths of OpenSSL's providers and engines, and of what these
/// load.
const MODULES: [&str; 4] = [
    "module",
    "dynamic_path",
    "MODULE_PATH",
    "pkcs11-module-path",
];

/// The modules of config(5ssl). OpenSSL looks for a relative path in a directory of its own.
fn openssl_modules(text: &str) -> Vec<HostPath> {
    let mut variables = OpensslValues::default();
    for line in text.lines() {
        variables.line(line.trim());
    }
    let mut paths = vec![];
    for ((_, name), value) in &variables.values {
        if MODULES.contains(&name.as_str()) {
            paths.extend(HostPath::new(value));
        }
    }
    paths
}

/// The value of `.include VALUE` or `.include = VALUE`.
fn directive<'l>(line: &'l str, name: &str) -> Option<&'l str> {
    let rest = line.strip_prefix(name)?;
    let value = rest.trim_start();
    let value = value.strip_prefix('=').unwrap_or(value).trim();
    let is_whole = rest.starts_with(|c: char| c.is_whitespace() || c == '=');
    (is_whole && !value.is_empty()).then_some(value)
}

/// The section of OpenSSL's values that are in no other one.
const DEFAULT: &str = "default";

/// OpenSSL's values up to a line.
#[derive(Default)]
struct OpensslValues {
    section: Option<String>,
    /// By section and name.
    values: BTreeMap<(String, String), String>,
}

impl OpensslValues {
    fn section(&self) -> &str {
        self.section.as_deref().unwrap_or(DEFAULT)
    }

    /// Notes `[section]` and `name = value`.
    fn line(&mut self, line: &str) {
        if let Some(rest) = line.strip_prefix('[') {
            let name = rest.split(']').next().unwrap_or_default();
            self.section = Some(name.trim().to_owned());
        } else if let Some((name, value)) = line.split_once('=')
            && let Some(value) = self.expand(value.trim())
        {
            let (section, name) = match name.trim().split_once("::") {
                Some((section, name)) => (section, name),
                None => (self.section(), name.trim()),
            };
            let key = (section.to_owned(), name.to_owned());
            self.values.insert(key, value);
        }
    }

    /// A value without quotes, escapes and a comment at its end, and with the values of variables,
    /// which are none within quotes. `None`: one of them is not known.
    fn expand(&self, text: &str) -> Option<String> {
        let (mut value, mut quote) = (String::new(), None);
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            rest = &rest[c.len_utf8()..];
            match (c, quote) {
                ('\\', _) => {
                    let escaped = rest.chars().next()?;
                    value.push(escaped);
                    rest = &rest[escaped.len_utf8()..];
                }
                (_, Some(open)) if c == open => quote = None,
                ('"' | '\'', None) => quote = Some(c),
                ('#', None) => break,
                ('$', None) => {
                    let (found, after) = self.variable(rest)?;
                    value.push_str(found);
                    rest = after;
                }
                _ => value.push(c),
            }
        }
        Some(value.trim_end().to_owned())
    }

    /// The value of `NAME`, `{NAME}` or `(NAME)` at the beginning of `text`, and what is after it.
    fn variable<'t>(&self, text: &'t str) -> Option<(&str, &'t str)> {
        let is_part = |c: char| c.is_ascii_alphanumeric() || "_:".contains(c);
        let (name, after) = match text.chars().next()? {
            '{' => text[1..].split_once('}')?,
            '(' => text[1..].split_once(')')?,
            _ => text.split_at(text.find(|c| !is_part(c)).unwrap_or(text.len())),
        };
        let value =
            |section: &str, name: &str| self.values.get(&(section.to_owned(), name.to_owned()));
        let found = match name.split_once("::") {
            Some((section, name)) => value(section, name),
            None => value(self.section(), name).or_else(|| value(DEFAULT, name)),
        };
        Some((found?, after))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(paths: &[HostPath]) -> Vec<String> {
        paths.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn both_forms_of_openssls_include_are_read() {
        let text = "openssl_conf = x\n.include /etc/pki/tls/openssl.d\n\
                    .include = \"/etc/crypto-policies/o.config\" # policy\n\
                    .included /no\n.include fipsmodule.cnf\n\
                    .pragma = includedir : /etc/ssl/d\n .include fipsmodule.cnf\n";
        assert_eq!(
            shown(&openssl(text)),
            [
                "/etc/pki/tls/openssl.d",
                "/etc/crypto-policies/o.config",
                "/etc/ssl/d/fipsmodule.cnf"
            ]
        );
    }

    #[test]
    fn openssls_variables_stand_in_its_includes() {
        let text = "dir = /etc/ssl # mine\n.include $dir/a.cnf\n.include ${dir}/b.cnf\n\
                    .include $ENV::HOME/no.cnf\n.include '$dir/no.cnf'\n\
                    [x]\ndir = $default::dir/x\n.include $(dir)/c.cnf\n\
                    [y]\n.include $dir/d.cnf\n.include $x::dir/e.cnf\n";
        assert_eq!(
            shown(&openssl(text)),
            [
                "/etc/ssl/a.cnf",
                "/etc/ssl/b.cnf",
                "/etc/ssl/x/c.cnf",
                "/etc/ssl/d.cnf",
                "/etc/ssl/x/e.cnf"
            ]
        );
    }

    #[test]
    fn openssls_modules_are_those_with_a_path() {
        let text = "at = /opt/x\n[p]\nmodule = $at/p.so # own\n[e]\ndynamic_path = /opt/e.so\n\
                    # module = /no.so\n[l]\nmodule = legacy.so\nmodules = /no.so\n";
        assert_eq!(shown(&openssl_modules(text)), ["/opt/e.so", "/opt/x/p.so"]);
    }

    #[test]
    fn kerberos_includes_at_the_beginning_of_a_line() {
        let text = "# include /no\nincludedir /etc/krb5.conf.d/\n[libdefaults]\n include /no\n\
                    include\t/etc/krb5.extra\nincluded /no\n";
        assert_eq!(shown(&krb5(text)), ["/etc/krb5.conf.d", "/etc/krb5.extra"]);
        let read = [
            "a_b-1",
            "crypto-policies",
            "x.conf",
            ".x.conf",
            "x.conf~",
            "a.rpmsave",
        ];
        assert_eq!(
            read.map(is_read_by_krb5),
            [true, true, true, false, false, false]
        );
    }

    #[test]
    fn mysql_includes_by_an_exclamation_mark() {
        let text = "[client-server]\n!includedir /etc/mysql/conf.d/\n  !include /etc/my.extra\n\
                    #!include /no\n!includes /no\n";
        assert_eq!(shown(&mysql(text)), ["/etc/mysql/conf.d", "/etc/my.extra"]);
    }
}
