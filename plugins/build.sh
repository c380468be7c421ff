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
# The compiler is that of toolchain.sh.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
. "$here/toolchain.sh"
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
chosen=${*:-$components}

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

find_toolchain || no_compiler "$missing"

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
# All of them, also where only some are wanted: what is chosen decides which features their dependencies have.
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
  for name in $chosen; do cp "$built/$name/$name.wasm" "$here/$name/$name.wasm"; done
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
