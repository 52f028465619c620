/* shared.h: PN_SHARED marks a small function that the CPU's loops and the GPU's kernels both call: index arithmetic and formulas. */
#ifndef PENUMBRA_SHARED_H
#define PENUMBRA_SHARED_H
#ifdef __CUDACC__
#define PN_SHARED static __host__ __device__ inline
#else
#define PN_SHARED static inline
#endif

/* a + b * c, rounded twice: kernels must not make one instruction of it where the CPU's bits are wanted. */
PN_SHARED double pn_add_product(double a, double b, double c) {
#ifdef __CUDA_ARCH__
  return __dadd_rn(a, __dmul_rn(b, c));
#else
  return a + b * c;
#endif
}
#endif
