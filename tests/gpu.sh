#!/usr/bin/env bash
# All that a GPU has to show, in one call of a few minutes: every kernel against the CPU, every architecture against
# transformers' numbers in f32 and bf16, the quickstart, and speeds.
#
#   tests/gpu.sh         builds here (Rust and a CUDA 13 toolkit) and runs
#   tests/gpu.sh pack    builds here and packs the programs into .gpu/, to be carried with the project to a GPU
#   tests/gpu.sh run     runs the packed programs; the machine needs NVIDIA's driver, libcublas, libcurand, libcudart, libnvrtc
set -euo pipefail
cd "$(dirname "$0")/.."
programs=.gpu

# The program that cargo built last of a kind, from its messages.
built() { grep -o '"executable":"[^"]*'"$1"'[^"]*"' | tail -1 | cut -d '"' -f 4; }

pack() {
  rm -rf "$programs"; mkdir -p "$programs"
  local messages
  messages=$(cargo test --release --locked --no-run --message-format json --package kernels --package model \
    --features kernels/cuda,model/cuda --test device --lib)
  cp "$(built '/deps/device-' <<< "$messages")" "$programs/kernels-tests"
  cp "$(built '/deps/model-' <<< "$messages")" "$programs/model-tests"
  cargo build --release --locked --package pipeline --features cuda
  cp "$(cargo metadata --format-version 1 --no-deps | grep -o '"target_directory":"[^"]*"' | cut -d '"' -f 4)/release/pipeline" \
    "$programs/pipeline"
  strip "$programs"/*
  xz --threads 0 "$programs"/*
}

run() {
  local here=$PWD work failed=0
  work=$(mktemp -d)
  for packed in "$programs"/*.xz; do xz --decompress --stdout "$packed" > "$work/$(basename "$packed" .xz)"; done
  chmod +x "$work"/*
  # Where the toolkit's packages, or Python's, put the libraries.
  for folder in /usr/local/cuda/lib64 /opt/*/.venv/lib/python3*/site-packages/nvidia/cu13/lib; do
    if [ -d "$folder" ]; then export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder"; fi
  done
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader

  part() { echo "== $1"; local started=$SECONDS; shift; "$@" || failed=1; echo "   $((SECONDS - started)) s"; }
  part "kernels against the CPU" "$work/kernels-tests"
  part "architectures against transformers" env CARGO_MANIFEST_DIR="$here/core/model" "$work/model-tests" --nocapture device
  cp -r pipelines "$work/pipelines"
  sed -i 's/^device = "cpu"/device = "cuda"/' "$work"/pipelines/quickstart/*.toml
  quickstart() (
    cd "$work"
    ./pipeline run pipelines/quickstart.toml
    # How far learning is from sampling, over the whole run.
    grep -oh '"sampling/sampling_logp_difference/max":[^,]*' runs/quickstart/*/metrics.jsonl | cut -d : -f 2 | sort -g | tail -1 |
      sed 's/^/largest difference of a log-probability between sampling and learning: /'
  )
  part "quickstart" quickstart
  for model in dense moe; do
    for dtype in f32 bf16; do
      part "speed of $model in $dtype" "$work/pipeline" bench "tests/peer/$model.json" --device cuda --dtype "$dtype"
    done
  done
  rm -rf "$work"
  return "$failed"
}

case "${1:-all}" in
  pack) pack ;;
  run) run ;;
  all) pack && run ;;
  *) echo "usage: tests/gpu.sh [pack | run]" >&2; exit 2 ;;
esac
