#!/bin/bash
# scripts/gpu_bundle.sh: a folder, build/gpu-bundle, and its build/gpu-bundle.tar.gz, that hold all that `make gpu-check` needs on a
# machine with a card and nothing else: no network, compiler, LuaJIT or library besides the C library, the driver, cuDNN and cuBLAS (of
# a toolkit, or inside Python's packages). ARCHS="90" names the compute capabilities there is machine code for; the newest is there as
# PTX too. Both stay under 64 MiB: the weights, a sequence and the clip for activations come along where they are at hand and fit.
set -euo pipefail
cd "$(dirname "$0")/.."
archs=${ARCHS:-90}
out=build/gpu-bundle
limit=$((64 * 1024 * 1024))
shared=${SHARED:-../shared}
jobs=${JOBS:-$(nproc)}

command -v nvcc >/dev/null || [ -x /usr/local/cuda/bin/nvcc ] || { echo "make gpu-bundle needs nvcc, of the CUDA toolkit" >&2; exit 1; }

# ---- built to run anywhere: libraries beside the program, no OpenBLAS
configure() { # DIRECTORY FLAGS...
  local directory=$1
  shift
  cmake -S . -B "$directory" -DCMAKE_BUILD_TYPE=Release -DCMAKE_TARGET_MESSAGES=OFF -DPENUMBRA_BLAS=plain -DPENUMBRA_CUDA=ON \
    -DPENUMBRA_CUDA_ARCHS="${archs// /;}" -DCMAKE_BUILD_RPATH_USE_ORIGIN=ON '-DCMAKE_BUILD_RPATH=$ORIGIN/lib;$ORIGIN/../build/lib' \
    -DCMAKE_SHARED_LINKER_FLAGS=-Wl,--disable-new-dtags -DCMAKE_EXE_LINKER_FLAGS=-Wl,--disable-new-dtags "$@" >/dev/null
  cmake --build "$directory" -j"$jobs" -- --no-print-directory --quiet
}
configure build-bundle
configure build-bundle-f64 -DPENUMBRA_F64=ON

rm -rf "$out" "$out.tar.gz"
mkdir -p "$out/build/lib/lua" "$out/build-f64" "$out/core" "$out/gpu-check-data"
libraries="libpenumbra.so libpenumbra_cuda.so libpenumbra_emulated.so"
for file in penumbra libpenumbra_worker.so $libraries; do install -s "build-bundle/$file" "$out/build/$file"; done
for file in $libraries; do install -s "build-bundle-f64/$file" "$out/build-f64/$file"; done

# ---- what the program reads
cp -r lua models recipes spec scripts bench "$out/"
find "$out/lua" -name '*.c' -delete
cp core/penumbra.h "$out/core/"
mkdir -p "$out/gpu/emulated/include"
cp gpu/emulated/*.h "$out/gpu/emulated/"
cp gpu/emulated/include/*.h "$out/gpu/emulated/include/"
git describe --always --dirty --tags >"$out/COMMIT" 2>/dev/null || rm -f "$out/COMMIT"

# ---- busted, cjson and lfs with what they need
lua_path() { luajit -e "for p in package.$1:gmatch '[^;]+' do print((p:match '^(/.*)/%?'))  end" | grep -v nil | sort -u; }
for module in busted luassert say mediator cliargs pl term system; do
  for directory in $(lua_path path); do
    [ -f "$directory/$module.lua" ] && install -D -m 644 "$directory/$module.lua" "$out/lua/$module.lua"
    [ -d "$directory/$module" ] && mkdir -p "$out/lua/$module" && cp -rL "$directory/$module/." "$out/lua/$module/"
  done
done
for module in cjson lfs term system; do
  for directory in $(lua_path cpath); do
    [ -f "$directory/$module.so" ] && install -D -m 755 "$directory/$module.so" "$out/build/lib/lua/$module.so"
    [ -d "$directory/$module" ] && mkdir -p "$out/build/lib/lua/$module" && find "$directory/$module" -name '*.so' \
      -exec install -m 755 {} "$out/build/lib/lua/$module/" \;
  done
done

# ---- shared libraries, but for the C library's own
for file in "$out"/build/penumbra "$out"/build/libpenumbra.so $(find "$out/build/lib/lua" -name '*.so'); do ldd "$file"; done |
  awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | sort -u | grep -vE '/(libc|libm|libdl|librt|libpthread|ld-linux[^/]*|libpenumbra[^/]*)\.so' |
  while read -r library; do install -m 644 "$library" "$out/build/lib/$(basename "$library")"; done
# Only for machines that have none: GCC's library, with which LuaJIT unwinds and of which cuDNN may want a newer one than ours, and
# expat, which asks for a newer C library than all the rest.
mkdir "$out/build/lib/spare"
for name in libgcc_s.so.1 libexpat.so.1; do
  if [ -e "$out/build/lib/$name" ]; then mv "$out/build/lib/$name" "$out/build/lib/spare/"; fi
done
# The oldest C library that all of it runs with, but for the emulation, which is for rehearsals; and the CUDA libraries that it asks for.
wants=$(find "$out/build" "$out/build-f64" \( -name spare -o -name 'libpenumbra_emulated*' \) -prune -o -type f -print | xargs objdump -T 2>/dev/null | grep -o 'GLIBC_2\.[0-9]*' | sort -Vu | tail -n 1)
cuda=$(objdump -p "$out/build/libpenumbra_cuda.so" | awk '$1 == "NEEDED" && $2 ~ /^lib(cu|nv)/ { print $2 }' | paste -sd ' ')

# ---- data, where it is at hand; the largest last
size_of() { du -sb "$out" | cut -f 1; }
bring() { # PATH NAME: a file or folder, unless it would be too much
  [ -e "$1" ] || return 0
  if [ $(($(size_of) + $(du -sbL "$1" | cut -f 1))) -gt "$limit" ]; then
    echo "left out, for the size: $1"
    return 0
  fi
  mkdir -p "$(dirname "$out/gpu-check-data/$2")"
  cp -rL "$1" "$out/gpu-check-data/$2"
}
bring "$shared/peers/fcn_i3d_torch.py" fcn_i3d_torch.py
bring "$shared/reference/i3d/clip_16x224x224.npy" clip.npy
sequence=${SEQUENCE:-blackswan}
for folder in JPEGImages Annotations; do bring "$shared/davis2016/$folder/480p/$sequence" "davis2016/$folder/480p/$sequence"; done
if [ -d "$out/gpu-check-data/davis2016" ]; then
  mkdir -p "$out/gpu-check-data/davis2016/ImageSets/2016"
  echo "$sequence" >"$out/gpu-check-data/davis2016/ImageSets/2016/val.txt"
fi
# The weights in f16: half the size, and every side of a comparison reads the same.
if [ -x build/penumbra ] && build/penumbra scripts/short_weights.lua "${WEIGHTS:-i3d_rgb.safetensors}" build/i3d-f16.safetensors; then
  bring build/i3d-f16.safetensors i3d.safetensors
fi

cat >"$out/gpu-check.sh" <<'SH'
#!/bin/bash
cd "$(dirname "$0")"
build/penumbra --version >/dev/null 2>&1 || export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$PWD/build/lib/spare
exec scripts/gpu_check.sh "$@"
SH
chmod 755 "$out/gpu-check.sh"
tar -C build -czf "$out.tar.gz" gpu-bundle
[ "$(size_of)" -lt "$limit" ] || { echo "$out is larger than 64 MiB" >&2; exit 1; }
echo "$out: $(($(size_of) / 1048576)) MiB, $out.tar.gz: $(($(stat -c %s "$out.tar.gz") / 1048576)) MiB; there: ./gpu-check.sh"
echo "wants there: the C library ${wants/GLIBC_/glibc } or later, ${cuda:-no CUDA library}, and a driver for their CUDA"
