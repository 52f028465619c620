/* shared.h: PN_SHARED marks a small function that the CPU's loops and the GPU's kernels both call: index arithmetic and formulas. */
#ifndef PENUMBRA_SHARED_H
#define PENUMBRA_SHARED_H
#ifdef __CUDACC__
#define PN_SHARED static __host__ __device__ inline
#else
#define PN_SHARED static inline
#endif
#endif
