/* cudnn_convolve.h: 3-D convolution and its two adjoints by cuDNN, on channels-last memory.
**
** Names as in core/kernels/convolve.h: x (N,C,T,H,W) is the large side, y (N,O,T',H',W') the small one, w (O,C/groups,kt,kh,kw). A
** transposed convolution is PN_CUDNN_DATA with its result in x. In memory the channels of x and y lie together, under any strides
** of the other axes; w is dense in the order O,t,h,w,C. The three have one element type, as has the bias: cuDNN 9 has no kernels
** for mixed ones. Sums are in f32, in f64 for f64. */
#ifndef PENUMBRA_GPU_CUDNN_CONVOLVE_H
#define PENUMBRA_GPU_CUDNN_CONVOLVE_H
#include "gpu.h"
#ifdef __cplusplus
extern "C" {
#endif

enum { PN_CUDNN_FORWARD, PN_CUDNN_DATA, PN_CUDNN_WEIGHT }; /* y, x or w is the result; it is written, every element */
enum { PN_CUDNN_NONE = 1 };

/* All of it is the key under which a pick is kept, so it is all int64_t, without gaps. Triples are t,h,w; strides in elements of n,t,h,w. */
typedef struct pn_cudnn_problem {
  int64_t kind, dtype;
  int64_t bias, relu;    /* forward only: y = relu(x * w + bias); relu wants a bias */
  int64_t tf32;          /* f32 may be rounded to TF32 for the tensor cores */
  int64_t exact;         /* no minimal filtering (Winograd), no FFT */
  int64_t deterministic; /* the same bits every time */
  int64_t n, c, o, groups;
  int64_t x[3], y[3], kernel[3], stride[3], dilation[3], low[3], high[3];
  int64_t x_stride[4], y_stride[4];
  int64_t x_align, w_align, y_align; /* bytes, powers of two up to 16 */
} pn_cudnn_problem;

/* How a pick is made. */
typedef struct pn_cudnn_policy {
  int64_t workspace_bytes; /* the most that a plan may take */
  bool autotune;           /* time all there is, instead of trusting the heuristics */
} pn_cudnn_policy;

/* The largest power of two up to 16 that divides the address and the strides of what is there. */
int64_t pn_cudnn_alignment(const void *p);

/* Runs it in the order of the device's stream; bias NULL where the problem has none. 0; PN_CUDNN_NONE when cuDNN has nothing for
** it, with its reason in pn_error(); -1 when it failed. The first time a problem comes engines are tried, which may take seconds;
** later, no memory is allocated but the workspace, from the pool, and nothing waits: then it can be captured in a CUDA graph. */
PN_CHECKED int pn_cudnn_convolve(pn_gpu *gpu, const pn_cudnn_problem *problem, const pn_cudnn_policy *policy, void *x, void *w,
                                 void *y, const void *bias);

/* What was picked on a device so far, the newest first, a line each; lines that do not fit are left out. */
void pn_cudnn_picks(int index, char *buffer, size_t bytes);
/* Forgets the plans of all devices, but not the file of picks. */
PN_API void pn_cudnn_forget(void);

/* Makes a plan for a device that need not be there, given as cuDNN's JSON, and writes what was picked to `report`. problem: as
** pn_cudnn_format writes it. 0, PN_CUDNN_NONE or -1 as above. */
PN_API PN_CHECKED int pn_cudnn_check(const char *device, const char *problem, int64_t workspace_bytes, char *report, size_t bytes);
PN_API int pn_cudnn_format(const pn_cudnn_problem *problem, char *buffer, size_t bytes);

#ifdef __cplusplus
}
#endif
#endif
