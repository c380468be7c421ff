#!/usr/bin/env bash
# Builds the first-party components from their sources.
#
#   plugins/build.sh [NAME...]   build all, or those named, and replace the committed components
#   plugins/build.sh --check     build all, and hold the result against the committed components
#
# The check is byte by byte under the pinned toolchain (toolchain.txt). Under another one it is by behaviour: the plugins'
# own tests (core/host/tests/plugins.rs) are run on what was built. Where no WebAssembly compiler can be had, the tests are
# run on the committed components, and nothing is said about their sources. The last line says which of the three it was.
#
# The compiler is Debian's (rustc-web etc.) where apt has it: unpacked, not installed, since it conflicts with rustup; the
# standard library is built from its source. Otherwise it is rustup's, if it has the target wasm32-unknown-unknown.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
# Toolchain, copied sources and target folder. The place is the same on every machine: cargo hashes the paths of packages,
# the standard library's too, into the names of symbols, and so into their order.
cache=/tmp/pipeline-guests
target=wasm32-unknown-unknown
check=false
if [ "${1:-}" = --check ]; then check=true; shift; fi
# A plugin is a crate that makes a library for WebAssembly.
components=$(cd "$here" && grep -l cdylib -- */Cargo.toml | xargs -n 1 dirname)
for name in "$@"; do
  if $check || ! grep -qx -- "$name" <<< "$components"; then
    echo "usage: plugins/build.sh [NAME...] | plugins/build.sh --check; the names are" $components >&2
    exit 2
  fi
done
components=${*:-$components}

say() { echo "plugins: $*" >&2; }

# shellcheck disable=SC2086 # lists of packages are split on purpose
debian_toolchain() {
  local prefix=$cache/debian packages library
  if [ ! -e "$prefix/complete" ]; then
    say "unpacking Debian's WebAssembly compiler (about 140 MB) into $prefix"
    rm -rf "$prefix" && mkdir -p "$prefix/packages" || return 1
    # An index that is out of date names packages that are no longer there, and hides those that are.
    apt-get update -qq > "$prefix/log" 2>&1 || { cat "$prefix/log" >&2; return 1; }
    # The names of its library and of LLVM have versions in them.
    library=$(apt-cache depends libstd-rust-web-dev | grep -oE 'libstd-rust-web-[0-9.]+' | head -n 1) || return 1
    packages="rustc-web $library libstd-rust-web-dev $(apt-cache depends "$library" | grep -oE 'libllvm[0-9]+' | head -n 1) rust-web-src"
    (cd "$prefix/packages" && apt-get download -qq $packages > "$prefix/log" 2>&1) || { cat "$prefix/log" >&2; return 1; }
    for package in "$prefix"/packages/*.deb; do dpkg -x "$package" "$prefix" || return 1; done
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

mkdir -p -m 700 "$cache"
if [ ! -O "$cache" ] || [ -L "$cache" ]; then say "$cache is not ours: remove it"; exit 2; fi
# One build at a time: the place is the same for all.
exec 9> "$cache/lock"
flock 9

test_plugins() { # of the folder
  PIPELINE_PLUGINS=$1 cargo test --quiet --release --manifest-path "$root/Cargo.toml" -p host --test plugins >&2
}

no_compiler() {
  say "no WebAssembly compiler: $1"
  $check || exit 2
  test_plugins "$here"
  say "checked by behaviour, the committed components only: the plugins' own tests pass; their sources were not built"
  exit 0
}

# rustup's own compiler has the linker that both need.
sysroot=$(rustc --print sysroot)
tools=$sysroot/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin
linker=$tools/rust-lld
[ -x "$linker" ] || no_compiler "there is no rust-lld in rustc's sysroot"
build_std=()
if debian_toolchain; then
  toolchain="Debian"
elif [ -d "$sysroot/lib/rustlib/$target" ]; then
  toolchain="rustup"
  source_remap="--remap-path-prefix=$sysroot=/rust"
else
  no_compiler "apt has none, and rustup's lacks the target $target"
fi
export PATH=$tools:$tools/gcc-ld:$PATH

# The encoder runs on this machine, with this machine's compiler.
env -u RUSTC -u RUSTC_BOOTSTRAP -u LD_LIBRARY_PATH \
  cargo build --quiet --release --locked --manifest-path "$here/Cargo.toml" -p encode --target-dir "$cache/target"

version="$("${RUSTC:-rustc}" -vV | sed -n 's/^release: //p;s/^commit-hash: //p' | paste -sd' ')"
version="$version, $(LD_LIBRARY_PATH='' "$linker" -flavor wasm --version), $toolchain"

# What is left of paths in the result is mapped.
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
  "$cache/target/release/encode" "$cache/target/$target/release/${name//-/_}.wasm" "$built/$name/$name.wasm"
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
test_plugins "$built"
say "checked by behaviour under another toolchain: the plugins' own tests pass"
