#!/bin/bash
# scripts/gpu_check.sh [KEY=VALUE ...]: builds the CUDA plug-in for the card at hand, in f32 and in f64, and checks everything that only a
# card can show (scripts/gpu_check.lua has the stages and keys). In a bundle nothing is built. Leaves with 3 where there is no card.
set -uo pipefail
cd "$(dirname "$0")/.."

has_card() {
  if command -v nvidia-smi >/dev/null; then nvidia-smi -L 2>/dev/null | grep -q GPU && return 0; fi
  local node
  for node in /dev/nvidia[0-9]* /dev/dxg; do [ -e "$node" ] && return 0; done
  return 1
}
if ! has_card; then
  echo "no card to check: neither nvidia-smi nor /dev/nvidia0 shows one"
  exit 3
fi
if [ -f Makefile ]; then
  arch=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d .)
  make --no-print-directory cuda cuda-f64 ARCHS="${arch:-native}" || exit 1
fi
# Where PyTorch's wheels keep cuDNN and cuBLAS, python3 knows best: it may be a wrapper in a folder far from its packages.
if [ -z "${PENUMBRA_CUDA_PATH:-}" ]; then
  found=$(python3 -c 'import glob, sys
print(":".join(d for p in sys.path if p for d in sorted(glob.glob(p + "/nvidia/*/lib"))))' 2>/dev/null)
  [ -z "$found" ] || export PENUMBRA_CUDA_PATH=$found
fi
exec build/penumbra scripts/gpu_check.lua "$@"
