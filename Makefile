# The doors of Penumbra. On a bare Debian 12 each brings what it lacks (scripts/deps.sh), then does what it says.
SHELL := /bin/bash
JOBS  ?= $(shell nproc)
P     := build/penumbra
cmake  = cmake -S . -B $(1) -DCMAKE_BUILD_TYPE=Release -DCMAKE_TARGET_MESSAGES=OFF $(2) >/dev/null && cmake --build $(1) -j$(JOBS) -- --no-print-directory --quiet
deps   = @scripts/deps.sh

ARCHS ?= 75 80 86 89 90 100 120
cuda   = -DPENUMBRA_CUDA=ON -DPENUMBRA_CUDA_ARCHS="$(subst $() ,;,$(strip $(ARCHS)))"

.PHONY: help build cuda cuda-f64 demo test check gpu-check gpu-bundle instructions bench peers docs fmt lint install clean f64 asan
help:    ; @sed -n 's/^#\. //p' Makefile
#. make build    the program, at build/penumbra
#. make cuda     build with the CUDA plug-in, where nvcc and cuDNN are; ARCHS=90: for one card alone (docs/gpu.md)
#. make demo     the whole job on a clip made on the spot: train, segment, score, look
#. make test     every spec; the last line is "N passed, N failed, N skipped"
#. make check    make test, then every spec again under the address and undefined-behaviour sanitizers, and make instructions
#. make gpu-check   what only a card can show: the plug-in built for it, checked, timed beside PyTorch; ARGS="stages=specs,bench ..."
#. make gpu-bundle  a folder with all that gpu-check needs on a machine that has nothing but a card
#. make f64      the library in double precision: PENUMBRA_LIB=build-f64/libpenumbra.so build/penumbra ... runs on it
#. make instructions  instructions of a small training step against those on record; ACCEPT=1 puts today's on record
#. make bench    what it costs: convolutions, steps, inference, memory; ARGS="full=true what=convs,step ..." (docs/speed.md)
#. make peers    PyTorch for make bench to stand beside, in $PENUMBRA_PEERS or ../peers, about 3 GB
#. make docs     docs/operations.md and docs/api
#. make fmt      C formatted in place
#. make lint     floors, luacheck, format, GCC and Clang without a warning
#. make install  into PREFIX=/usr/local (DESTDIR is heeded)
build:   ; $(deps) build && $(call cmake,build)
cuda:    ; $(deps) build && $(call cmake,build,$(cuda))
cuda-f64: ; $(deps) build && $(call cmake,build-f64,-DPENUMBRA_F64=ON $(cuda))
f64:     ; $(deps) build && $(call cmake,build-f64,-DPENUMBRA_F64=ON)
asan:    ; $(deps) build && $(call cmake,build-asan,-DPENUMBRA_ASAN=ON)
demo:    build ; @$(P) quickstart
test:    build f64 ; $(deps) test && scripts/test.sh
check:   build f64 asan ; $(deps) check && scripts/test.sh asan
gpu-check: ; @scripts/gpu_check.sh $(ARGS)
gpu-bundle: build ; $(deps) test && scripts/gpu_bundle.sh
instructions: build ; $(deps) check && $(P) scripts/instructions.lua $(if $(ACCEPT),accept)
bench:   build ; @$(P) bench/all.lua $(ARGS)
peers:   ; @scripts/peers.sh
docs:    build ; $(deps) docs && $(P) scripts/operations_doc.lua && cd docs && rm -rf api && { ldoc -q -c config.ld . 2>../build/docs.log || { tail -n 1 ../build/docs.log; false; }; } && echo docs/api/index.html
fmt:     ; $(deps) lint && find core lua gpu -name '*.[ch]' -o -name '*.cu' -o -name '*.cpp' | xargs clang-format-14 -i
lint:    build ; $(deps) lint && scripts/lint.sh
install: build ; @scripts/install.sh
clean:   ; rm -rf build build-f64 build-asan build-bundle build-bundle-f64 docs/api
