/* launch.h: how a kernel is written and launched, for nvcc and for the emulation on the CPU (emulated/), which runs the same text.
**
**   PN_KERNEL void scale(float *y, float a, int64_t n) { PN_EACH(i, n) y[i] *= a; }
**   return PN_LAUNCH(gpu, scale, pn_gpu_blocks(gpu, n, 256), 256, y, a, n);
**
** PN_LAUNCH is for kernels whose threads do not meet; those with barriers are launched with PN_LAUNCH_TEAM, which also takes the
** bytes of shared memory (PN_SHARED_MEMORY names it). Both are int expressions: 0, or -1 with pn_error set. A kernel that is a template
** goes through a pointer first: `auto run = scale<float>;`. No warp intrinsics but through pn_warp_*; no atomic on floating numbers:
** sums are taken in an order fixed by the shapes. Arguments go by value and may be structs of up to 4 KiB. */
#ifndef PENUMBRA_GPU_LAUNCH_H
#define PENUMBRA_GPU_LAUNCH_H
#include "gpu.h"

#ifdef PN_EMULATED
#include "emulated/launch.h"
#else
#define PN_KERNEL __global__ static
#define PN_UNROLL _Pragma("unroll") /* before a loop whose arrays belong in registers */
#define PN_DEVICE __device__ static inline
#define PN_SHARED_MEMORY(type, name)                                                                                               \
  extern __shared__ __align__(16) unsigned char pn_shared_bytes[];                                                                 \
  type *name = (type *)(void *)pn_shared_bytes
#define PN_LAUNCH(gpu, kernel, blocks, threads, ...)                                                                               \
  (kernel<<<dim3((unsigned)(blocks)), dim3((unsigned)(threads)), 0, (gpu)->stream>>>(__VA_ARGS__), pn_gpu_launched(#kernel))
#define PN_LAUNCH_TEAM(gpu, kernel, blocks, threads, bytes, ...)                                                                   \
  (kernel<<<dim3((unsigned)(blocks)), dim3((unsigned)(threads)), (bytes), (gpu)->stream>>>(__VA_ARGS__), pn_gpu_launched(#kernel))
#define PN_BARRIER() __syncthreads()
#define pn_block ((int64_t)blockIdx.x)
#define pn_blocks ((int64_t)gridDim.x)
#define pn_thread ((int)threadIdx.x)
#define pn_threads ((int)blockDim.x)
/* By one thread of one block. The kernels of a device run one after the other, so it needs no atomic, which not every host grants. */
PN_DEVICE void pn_report(unsigned long long *word, unsigned long long n) {
  volatile unsigned long long *at = word;
  *at = *at + n;
  __threadfence_system();
}
#define PN_TICKETS(name, n) static __device__ unsigned name[n] /* for pn_last_block; they begin and end as zeros */
/* Is this the last of `among` blocks that come here? Then it sees what the others wrote before. All threads of each block must come. */
PN_DEVICE bool pn_last_block(unsigned *ticket, unsigned among) {
  __shared__ bool last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last = atomicInc(ticket, among - 1) == among - 1;
  __syncthreads();
  __threadfence();
  return last;
}
PN_DEVICE uint64_t pn_nanoseconds(void) { /* since whenever; some devices count in steps of a thousand */
  uint64_t now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  return now;
}
#endif

/* A function of the CPU's headers that kernels call too is marked PN_SHARED there (core/shared.h). */

/* Every index 0..n-1, whatever the number of threads. */
#define PN_EACH(i, n) for (int64_t i = pn_block * pn_threads + pn_thread; i < (n); i += pn_blocks * pn_threads)

/* Blocks for n elements of work: enough to fill the device, no more. At least 1. */
static inline int64_t pn_gpu_blocks(const pn_gpu *gpu, int64_t n, int64_t threads) {
  int64_t want = pn_ceil_div(n, threads), most = (int64_t)gpu->processors * 16;
  return pn_max64(1, pn_min64(want, most));
}

/* extern "C" table entry of an operation: at the end of gpu/ops/NAME.cu. */
#define PN_CUDA_KERNEL(name, forward, backward)                                                                                    \
  extern "C" {                                                                                                                     \
  extern const pn_kernel pn_cuda_##name;                                                                                           \
  const pn_kernel pn_cuda_##name = { forward, backward };                                                                          \
  }

/* The sum of `value` over the threads of a block, a power of two of them, in a tree whose shape never varies; all threads get it.
** room: pn_threads elements of shared memory. */
template <typename T> PN_DEVICE T pn_block_sum(T *room, T value) {
  room[pn_thread] = value;
  PN_BARRIER();
  for (int half = pn_threads / 2; half > 0; half /= 2) {
    if (pn_thread < half) room[pn_thread] += room[pn_thread + half];
    PN_BARRIER();
  }
  T sum = room[0];
  PN_BARRIER();
  return sum;
}
#endif
