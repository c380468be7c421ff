#!/usr/bin/env bash
# Builds the JavaScript runtime by componentize-qjs from npm; needs `npm` and `cc`.
#
#   plugins/runtimes/javascript/build.sh           build, and replace plugins/runtimes/javascript.wasm
#   plugins/runtimes/javascript/build.sh --check   build, and hold the result against the committed one, byte by byte
#
# COMPONENTIZE_QJS names a program that is there already.
set -euo pipefail

version=0.4.5
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT

if [ -z "${COMPONENTIZE_QJS:-}" ]; then
  npm install --silent --no-fund --no-audit --prefix "$place/npm" "componentize-qjs@$version"
  COMPONENTIZE_QJS=$place/npm/node_modules/.bin/componentize-qjs
fi
# The engine is started in the build and its memory is kept, with what it read from the clock and drew at random. Both stand
# still here, so that the same source gives the same bytes.
cat > "$place/still.c" <<'C'
#include <string.h>
#include <sys/types.h>
#include <time.h>
int clock_gettime(clockid_t id, struct timespec *now) {
  (void)id;
  now->tv_sec = 1000000000;
  now->tv_nsec = 0;
  return 0;
}
ssize_t getrandom(void *to, size_t length, unsigned flags) {
  (void)flags;
  memset(to, 1, length);
  return (ssize_t)length;
}
C
cc -shared -fPIC -o "$place/still.so" "$place/still.c"

cp -r "$here" "$place/javascript"
cp -r "$root/sdk/wit/0.1.0" "$place/javascript/wit/deps/plugin"
(cd "$place/javascript" && LD_PRELOAD=$place/still.so \
  "$COMPONENTIZE_QJS" --wit wit --world javascript --js runtime.js --sync --output "$place/javascript.wasm" > "$place/log") \
  || { cat "$place/log" >&2; exit 1; }

if [ "${1:-}" = --check ]; then
  cmp "$place/javascript.wasm" "$here/../javascript.wasm" >&2 \
    || { echo "javascript.wasm is not what its source gives" >&2; exit 1; }
  echo "javascript.wasm: checked byte by byte: equal" >&2
else
  cp "$place/javascript.wasm" "$here/../javascript.wasm"
fi
