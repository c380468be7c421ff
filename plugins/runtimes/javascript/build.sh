#!/usr/bin/env bash
# Builds the JavaScript runtime by componentize-qjs from npm.
#
#   plugins/runtimes/javascript/build.sh           build, and replace plugins/runtimes/javascript.wasm
#   plugins/runtimes/javascript/build.sh --check   build, and run the tests of the plugin `code` on what was built
#
# Two builds differ in some hundred bytes, the state of random numbers and clocks with which the engine starts: the check is by
# behaviour. COMPONENTIZE_QJS names a program that is there already.
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
cp -r "$here" "$place/javascript"
cp -r "$root/sdk/wit/0.1.0" "$place/javascript/wit/deps/plugin"
(cd "$place/javascript" && "$COMPONENTIZE_QJS" --wit wit --world javascript --js runtime.js --sync --output "$place/javascript.wasm" > "$place/log") \
  || { cat "$place/log" >&2; exit 1; }

if [ "${1:-}" = --check ]; then
  PIPELINE_JAVASCRIPT=$place/javascript.wasm cargo test --quiet --release --workspace --manifest-path "$root/Cargo.toml" --test code javascript
  echo "javascript.wasm: checked by behaviour: what its source gives passes the tests" >&2
else
  cp "$place/javascript.wasm" "$here/../javascript.wasm"
fi
