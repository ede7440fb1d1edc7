//! Dynamic string tokens: `$ORIGIN`, `$LIB`, `$PLATFORM`, with and without braces. Pure.

/// The values of the tokens for one object.
#[derive(Clone, Copy)]
pub(super) struct Tokens<'a> {
    /// The directory of the object.
    pub origin: &'a [u8],
    /// `lib/x86_64-linux-gnu`.
    pub lib: &'a [u8],
    /// `x86_64`.
    pub platform: &'a [u8],
}

/// Whether `$ORIGIN` is in `text`.
pub(super) fn has_origin(text: &[u8]) -> bool {
    let parts = [&b"$ORIGIN"[..], b"${ORIGIN}"];
    parts
        .iter()
        .any(|part| text.windows(part.len()).any(|found| found == *part))
}

/// Replaces the tokens in `text`. A dollar sign that does not begin a token stays, as in `is_dst`
/// of glibc's `elf/dl-load.c`: without braces a token ends where no letter, digit or `_` follows.
pub(super) fn expand(text: &[u8], tokens: Tokens<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let found = if *first == b'$' {
            token(after, tokens)
        } else {
            None
        };
        let (value, behind) = found.unwrap_or((std::slice::from_ref(first), after));
        out.extend_from_slice(value);
        rest = behind;
    }
    out
}

/// musl knows only `$ORIGIN`, and drops a whole search path that has any other dollar sign.
pub(super) fn expand_musl(text: &[u8], origin: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        if *first == b'$' {
            rest = after
                .strip_prefix(b"ORIGIN")
                .or_else(|| after.strip_prefix(b"{ORIGIN}"))?;
            out.extend_from_slice(origin);
        } else {
            out.push(*first);
            rest = after;
        }
    }
    Some(out)
}

fn token<'a>(after: &'a [u8], tokens: Tokens<'a>) -> Option<(&'a [u8], &'a [u8])> {
    let values = [
        (&b"ORIGIN"[..], tokens.origin),
        (b"LIB", tokens.lib),
        (b"PLATFORM", tokens.platform),
    ];
    let (after, curly) = match after.strip_prefix(b"{") {
        Some(inner) => (inner, true),
        None => (after, false),
    };
    values.into_iter().find_map(|(name, value)| {
        let behind = after.strip_prefix(name)?;
        if curly {
            return Some((value, behind.strip_prefix(b"}")?));
        }
        let goes_on = behind
            .first()
            .is_some_and(|next| next.is_ascii_alphanumeric() || *next == b'_');
        (!goes_on).then_some((value, behind))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_replaced_with_and_without_braces() {
        let tokens = Tokens {
            origin: b"/opt/bin",
            lib: b"lib64",
            platform: b"x86_64",
        };
        for (text, expected) in [
            ("$ORIGIN/../$LIB", "/opt/bin/../lib64"),
            ("${ORIGIN}x/${LIB}/$PLATFORM", "/opt/binx/lib64/x86_64"),
            ("$ORIGINS/$LIB_/${ORIGIN", "$ORIGINS/$LIB_/${ORIGIN"),
            ("/a/$/$$LIB/$OTHER", "/a/$/$lib64/$OTHER"),
        ] {
            assert_eq!(
                expand(text.as_bytes(), tokens),
                expected.as_bytes(),
                "{text}"
            );
        }
    }

    #[test]
    fn musl_drops_a_path_with_a_token_it_does_not_know() {
        assert_eq!(
            expand_musl(b"${ORIGIN}/a:$ORIGIN", b"/o").as_deref(),
            Some(&b"/o/a:/o"[..])
        );
        assert_eq!(expand_musl(b"$ORIGIN/$LIB", b"/o"), None);
    }
}
