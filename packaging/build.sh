#!/usr/bin/env bash
# Builds the packages into target/packages: .deb, .rpm and the list of what is inside (SBOM).
# Needs: cargo install cargo-deb cargo-generate-rpm cargo-cyclonedx
set -euo pipefail
cd "$(dirname "$0")/.."
out=target/packages
mkdir -p "$out"

cargo build --release -p in_trendmicro -p trendmicroctl
cargo deb --no-build --output "$out/"
cargo generate-rpm --output "$out/"
# Of the plugin and of trendmicroctl, each with everything that is compiled into it.
cargo cyclonedx --format json --override-filename sbom
mv sbom.json "$out/libin_trendmicro.cdx.json"
mv ctl/sbom.json "$out/trendmicroctl.cdx.json"
find tests -name sbom.json -delete
ls -l "$out"
