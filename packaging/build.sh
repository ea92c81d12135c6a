#!/usr/bin/env bash
# Builds the packages into target/packages: .deb, .rpm and the list of what is inside.
# Needs: cargo install cargo-deb cargo-generate-rpm
set -euo pipefail
cd "$(dirname "$0")/.."
out=target/packages
mkdir -p "$out"

cargo build --release -p in_trendmicro -p trendmicroctl
cargo deb --no-build --output "$out/"
cargo generate-rpm --output "$out/"
# Every crate that is compiled into them, with version and licence.
for package in in_trendmicro trendmicroctl; do
    cargo tree --package "$package" --edges normal --prefix none --format '{p} {l}' |
        sed 's/ (\*)$//; s| ([^)]*/[^)]*)||' | sort -u > "$out/$package.crates.txt"
done
ls -l "$out"
