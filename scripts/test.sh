#!/bin/bash
# scripts/test.sh [asan]: every spec against the release build, two of them on one card alone, and the gradient specs against the f64
# build; with `asan`, every spec once more under the sanitizers, and the instructions of a small step against those on record. The last
# line is the sum: "N passed, N failed, N skipped".
set -uo pipefail
cd "$(dirname "$0")/.."
program=build/penumbra
log=$(mktemp)
trap 'rm -f "$log"' EXIT
passed=0 failed=0 skipped=0

# suite TITLE COMMAND...: runs it, shows it but for its last line, and adds that line to the sum.
suite() {
  echo "== $1"
  shift
  "$@" 2>&1 | tee "$log" | sed '$d'
  local line
  line=$(tail -n 1 "$log")
  if [[ $line =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed,\ ([0-9]+)\ skipped$ ]]; then
    passed=$((passed + BASH_REMATCH[1])) failed=$((failed + BASH_REMATCH[2])) skipped=$((skipped + BASH_REMATCH[3]))
  else
    echo "$line"
    failed=$((failed + 1))
  fi
}

# The CUDA plug-in, where its compiler and libraries are: for every card, and linked; specs open it.
nvcc=$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2>/dev/null)
cudnn=$(ls "$(dirname "${nvcc:-/}")"/../include/cudnn.h /usr/include/cudnn.h /usr/include/*/cudnn.h 2>/dev/null)
if [ -f gpu/CMakeLists.txt ] && [ -n "$nvcc" ] && [ -n "$cudnn" ]; then
  echo "== the CUDA plug-in, compiled for every card"
  began=$SECONDS
  if cmake -S . -B build -DPENUMBRA_CUDA_CHECK=ON >"$log" 2>&1 &&
    cmake --build build -j"${JOBS:-$(nproc)}" --target penumbra_cuda_check -- --no-print-directory --quiet >"$log" 2>&1; then
    echo "build/libpenumbra_cuda_check.so, $((SECONDS - began)) s"
    passed=$((passed + 1))
  else
    tail -n 30 "$log"
    failed=$((failed + 1))
  fi
fi
suite "release" $program --spec spec
# The emulation has two cards; what else runs on the last one must do with one.
suite "one card" env PENUMBRA_EMULATED_DEVICES=1 $program --spec spec/gpu/net_spec.lua spec/gpu/run_spec.lua
# Differences in f32 hide errors: a spec that asks which type it runs in (pn.real) has more to say in f64.
mapfile -t gradient < <(grep -lr 'pn\.real' spec --include='*_spec.lua' | sort)
if [ ${#gradient[@]} -gt 0 ]; then
  suite "f64: gradients" env PENUMBRA_LIB="$PWD/build-f64/libpenumbra.so" $program --spec "${gradient[@]}"
fi
if [ "${1:-}" = asan ]; then
  # Leaks are not hunted here: LuaJIT and busted end without freeing; the library counts its own bytes (memory specs).
  suite "asan" env PENUMBRA_LIB="$PWD/build-asan/libpenumbra.so" LD_PRELOAD="$(gcc -print-file-name=libasan.so)" \
    ASAN_OPTIONS=detect_leaks=0:abort_on_error=0 PENUMBRA_SPEC_SECONDS=3600 $program --spec spec
  suite "instructions" $program scripts/instructions.lua
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
