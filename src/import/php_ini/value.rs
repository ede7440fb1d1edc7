//! Values: texts, and the constants and numbers that words stand for.

/// A text, as far as it can be known outside PHP's process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::import) struct PhpValue {
    pub text: String,
    /// A part that is not known, such as `${SITES}`: then `text` is not what PHP reads.
    pub unknown: Option<String>,
}

impl PhpValue {
    pub(in crate::import) fn new(text: String) -> Self {
        Self {
            text,
            unknown: None,
        }
    }

    pub(super) fn known(text: &str) -> Self {
        Self::new(text.to_owned())
    }

    pub(super) fn unknown(what: String) -> Self {
        Self {
            text: String::new(),
            unknown: Some(what),
        }
    }

    pub(super) fn push(&mut self, more: Self) {
        self.text.push_str(&more.text);
        self.unknown = self.unknown.take().or(more.unknown);
    }
}

/// The result of an operator on two numbers, which are read as by atoi(3).
pub(super) fn calculate(
    left: &PhpValue,
    right: &PhpValue,
    with: impl Fn(i32, i32) -> i32,
) -> PhpValue {
    let unknown = left.unknown.clone().or_else(|| right.unknown.clone());
    PhpValue {
        text: with(number(&left.text), number(&right.text)).to_string(),
        unknown,
    }
}

fn number(text: &str) -> i32 {
    let text = text.trim_start();
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let digits: String = digits.chars().take_while(char::is_ascii_digit).collect();
    #[allow(clippy::cast_possible_truncation)] // as glibc's atoi: strtol, cut to an int
    let number = (sign
        * digits
            .parse::<i64>()
            .unwrap_or(if digits.is_empty() { 0 } else { i64::MAX })) as i32;
    number
}

/// Constants of PHP that are the same on every Linux with 64 bits.
const CONSTANTS: [(&str, &str); 26] = [
    ("E_ERROR", "1"),
    ("E_WARNING", "2"),
    ("E_PARSE", "4"),
    ("E_NOTICE", "8"),
    ("E_CORE_ERROR", "16"),
    ("E_CORE_WARNING", "32"),
    ("E_COMPILE_ERROR", "64"),
    ("E_COMPILE_WARNING", "128"),
    ("E_USER_ERROR", "256"),
    ("E_USER_WARNING", "512"),
    ("E_USER_NOTICE", "1024"),
    ("E_STRICT", "2048"),
    ("E_RECOVERABLE_ERROR", "4096"),
    ("E_DEPRECATED", "8192"),
    ("E_USER_DEPRECATED", "16384"),
    ("E_ALL", "32767"),
    ("M_PI", "3.1415926535898"),
    ("PHP_OS", "Linux"),
    ("PHP_OS_FAMILY", "Linux"),
    ("PHP_SAPI", "fpm-fcgi"),
    ("PHP_SHLIB_SUFFIX", "so"),
    ("PHP_INT_MAX", "9223372036854775807"),
    ("PHP_INT_SIZE", "8"),
    ("PHP_MAXPATHLEN", "4096"),
    ("DIRECTORY_SEPARATOR", "/"),
    ("PATH_SEPARATOR", ":"),
];

/// Constants whose values depend on the build of PHP.
const OF_BUILDS: [&str; 21] = [
    "PEAR_EXTENSION_DIR",
    "PEAR_INSTALL_DIR",
    "DEFAULT_INCLUDE_PATH",
    "PHP_BINARY",
    "PHP_BINDIR",
    "PHP_CONFIG_FILE_PATH",
    "PHP_CONFIG_FILE_SCAN_DIR",
    "PHP_DATADIR",
    "PHP_DEBUG",
    "PHP_EXTENSION_DIR",
    "PHP_EXTRA_VERSION",
    "PHP_LIBDIR",
    "PHP_LOCALSTATEDIR",
    "PHP_MAJOR_VERSION",
    "PHP_MANDIR",
    "PHP_MINOR_VERSION",
    "PHP_PREFIX",
    "PHP_RELEASE_VERSION",
    "PHP_SYSCONFDIR",
    "PHP_VERSION",
    "PHP_VERSION_ID",
];

/// The value of a name that stands alone: a constant's value, or the name itself.
pub(super) fn constant(name: String) -> PhpValue {
    match name.to_ascii_lowercase().as_str() {
        "true" => return PhpValue::known("1"),
        "false" | "null" => return PhpValue::default(),
        _ => {}
    }
    match CONSTANTS.iter().find(|(known, _)| *known == name) {
        Some((_, value)) => PhpValue::known(value),
        None if OF_BUILDS.contains(&name.as_str()) => PhpValue::unknown(name),
        None => PhpValue::new(name),
    }
}
