# A compiler of Rust for wasm32-unknown-unknown; sourced by what needs one.
#
# It is Debian's (rustc-web etc.) where apt has it: unpacked, not installed, since it conflicts with rustup; the standard
# library is built from its source. Otherwise it is rustup's, if it has the target.

# Toolchain, copied sources and target folder. The place is the same on every machine: cargo hashes the paths of packages,
# the standard library's too, into the names of symbols, and so into their order.
cache=/tmp/pipeline-guests
target=wasm32-unknown-unknown

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

# Sets `toolchain` (whose it is), `linker`, `build_std` and `source_remap`, and exports what cargo needs to know; or sets
# `missing` and fails.
find_toolchain() {
  local sysroot tools
  mkdir -p -m 700 "$cache"
  if [ ! -O "$cache" ] || [ -L "$cache" ]; then say "$cache is not ours: remove it"; exit 2; fi
  # One build at a time: the place is the same for all.
  exec 9> "$cache/lock"
  flock 9
  # rustup's own compiler has the linker that both need.
  sysroot=$(rustc --print sysroot)
  tools=$sysroot/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin
  linker=$tools/rust-lld
  if [ ! -x "$linker" ]; then missing="there is no rust-lld in rustc's sysroot"; return 1; fi
  build_std=()
  if debian_toolchain; then
    toolchain="Debian"
  elif [ -d "$sysroot/lib/rustlib/$target" ]; then
    toolchain="rustup"
    source_remap="--remap-path-prefix=$sysroot=/rust"
  else
    missing="apt has none, and rustup's lacks the target $target"
    return 1
  fi
  export PATH=$tools:$tools/gcc-ld:$PATH
}
