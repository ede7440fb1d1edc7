# The usual steps. `just` lists them; https://just.systems

# Lists these recipes.
default:
    @just --list

# What a change has to pass, before the long tests: format, lints, the pure tests.
check:
    cargo fmt --check
    cargo clippy --all-targets -- -D warnings
    cargo test --lib --test pure

# Tests of one program, such as `just test mounting '[down]'`. As root.
test name='commands' filter='':
    cargo test --test {{ name }} -- '{{ filter }}'

# Everything that CI runs. As root, on Debian.
ci:
    .ci/run

# Writes what people read anew: snapshots and the book. Read the difference.
update:
    INSTA_UPDATE=always cargo test --test commands -- '[snapshots]'
    BOOK_UPDATE=1 cargo test --test commands -- '[book]'
    git diff --stat docs tests/commands/snapshots

# The book, in target/book.
book:
    cargo run --example generate -- --book

# Licences, sources, and known holes in other people's code. Needs `cargo install cargo-deny`.
deny:
    cargo deny check

# With the oldest Rust that Cargo.toml promises; rustup fetches it.
oldest-rust version=`sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml`:
    rustup toolchain install --profile minimal {{ version }}
    cargo +{{ version }} check --locked --target-dir target/oldest

# Packages, in target/packages.
packages:
    packaging/build

# Each fuzzer for some seconds.
fuzz seconds='60':
    for target in manifest mountinfo elf ld_so_cache record; do \
        cargo +nightly fuzz run $target -- -max_total_time={{ seconds }} || exit; \
    done
