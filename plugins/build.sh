#!/usr/bin/env bash
# Builds the first-party components from their sources.
#
#   plugins/build.sh           build, and replace the committed components
#   plugins/build.sh --check   build, and hold the result against the committed components
#
# The check is byte by byte under the pinned toolchain. Under another one it is by behaviour: the plugins' own tests are run
# on what was built. Its last line says which of the two it was.
#
# The compiler is rustup's if it has the target wasm32-unknown-unknown. Otherwise Debian's packages rustc-web etc. are
# unpacked (not installed: they conflict with rustup) below the cache folder, and the standard library is built from their
# source. Toolchain and target folder are kept there between runs.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
cache=${PIPELINE_GUESTS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pipeline-guests}
components="arithmetic number"
target=wasm32-unknown-unknown
check=false
case "${1:-}" in
  "") ;;
  --check) check=true ;;
  *) echo "usage: plugins/build.sh [--check]" >&2; exit 2 ;;
esac

say() { echo "plugins: $*" >&2; }

debian_toolchain() {
  local prefix=$cache/debian packages="rustc-web libstd-rust-web-1.96 libstd-rust-web-dev libllvm22 rust-web-src"
  if [ ! -e "$prefix/complete" ]; then
    say "unpacking Debian's WebAssembly compiler (about 140 MB) into $prefix"
    rm -rf "$prefix" && mkdir -p "$prefix/packages"
    if [ "$(apt-cache policy libllvm22 | grep -c Candidate)" = 0 ]; then apt-get update -qq; fi
    # shellcheck disable=SC2086
    (cd "$prefix/packages" && apt-get download -qq $packages 2> log) || { cat "$prefix/packages/log" >&2; return 1; }
    for package in "$prefix"/packages/*.deb; do dpkg -x "$package" "$prefix"; done
    rm -rf "$prefix/packages"
    touch "$prefix/complete"
  fi
  export LD_LIBRARY_PATH=$prefix/usr/lib/x86_64-linux-gnu
  export RUSTC=$prefix/usr/bin/rustc
  source_remap="--remap-path-prefix=$prefix=/rust"
  # The standard library is built from source, which only bootstrap compilers may.
  export RUSTC_BOOTSTRAP=1
  # Without features: no symbols are left that a backtrace could name.
  build_std=(-Zbuild-std=std,panic_abort -Zbuild-std-features=)
}

# rustup's own compiler has the linker that both need.
sysroot=$(rustc --print sysroot)
tools=$sysroot/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin
linker=$tools/rust-lld
[ -x "$linker" ] || { say "there is no rust-lld in $tools: a rustup toolchain is needed"; exit 2; }
export PATH=$tools:$tools/gcc-ld:$PATH
build_std=()
source_remap="--remap-path-prefix=$sysroot=/rust"

# The encoder runs on this machine, with this machine's compiler.
cargo build --quiet --release --locked --manifest-path "$here/Cargo.toml" -p encode --target-dir "$cache/target"

if [ -d "$sysroot/lib/rustlib/$target" ]; then
  toolchain="rustup"
else
  debian_toolchain
  toolchain="Debian"
fi
version="$("${RUSTC:-rustc}" -vV | sed -n 's/^release: //p;s/^commit-hash: //p' | paste -sd' ')"
version="$version, $(LD_LIBRARY_PATH='' "$linker" -flavor wasm --version), $toolchain"

# Paths are the one thing in a build that differs by machine: packages are built at a fixed place, and what is left of
# paths is mapped.
place=$cache/source
rm -rf "$place" && mkdir -p "$place"
cp -r "$here" "$place/plugins" && cp -r "$root/sdk" "$place/sdk"
(cd "$place/plugins" && cargo fetch --quiet --locked)
cargo_home=${CARGO_HOME:-$HOME/.cargo}
flags=("-Ctarget-cpu=generic" "--remap-path-prefix=$place=/pipeline" "$source_remap" "--remap-path-prefix=$cargo_home=/cargo")
# The folder of a registry is named after its address, which is another where a mirror is used.
for registry in "$cargo_home"/registry/src/*/; do flags+=("--remap-path-prefix=${registry%/}=/crates"); done
export CARGO_ENCODED_RUSTFLAGS
CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f'; echo "${flags[*]}")
packages=$(printf ' -p %s' $components)
# shellcheck disable=SC2086
(cd "$place/plugins" && cargo build --quiet --release --locked "${build_std[@]}" --target $target $packages --target-dir "$cache/target")
unset CARGO_ENCODED_RUSTFLAGS RUSTC RUSTC_BOOTSTRAP LD_LIBRARY_PATH

built=$cache/built
rm -rf "$built" && mkdir -p "$built"
for name in $components; do
  mkdir "$built/$name"
  "$cache/target/release/encode" "$cache/target/$target/release/$name.wasm" "$built/$name/$name.wasm"
done

if ! $check; then
  for name in $components; do cp "$built/$name/$name.wasm" "$here/$name/$name.wasm"; done
  echo "$version" > "$here/toolchain.txt"
  say "built with $version"
  exit 0
fi

if [ "$version" = "$(cat "$here/toolchain.txt")" ]; then
  status=0
  for name in $components; do
    cmp "$built/$name/$name.wasm" "$here/$name/$name.wasm" >&2 || { say "$name.wasm is not what its source gives"; status=1; }
  done
  [ $status = 0 ] && say "checked byte by byte under the pinned toolchain: equal"
  exit $status
fi
say "this is not the pinned toolchain: $version, and not $(cat "$here/toolchain.txt")"
PIPELINE_PLUGINS=$built cargo test --quiet --release --manifest-path "$root/Cargo.toml" -p host --test plugins >&2
say "checked by behaviour under another toolchain: the plugins' own tests pass"
