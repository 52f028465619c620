/* gpu.h: what the files of gpu/ share: a device's stream, scratch and checks. Kernels are launched with launch.h.
**
** All work of a device goes, in order, through one stream; so scratch and tensors may be given back as soon as what uses them
** is launched. No call here waits for the device unless it says so, and a kernel must not make one wait. */
#ifndef PENUMBRA_GPU_H
#define PENUMBRA_GPU_H
#include <cuda_runtime.h>
#include "backend.h"
#ifdef __cplusplus
extern "C" {
#endif

typedef struct pn_gpu {
  int index, processors, arch; /* arch: 90 for sm_90 */
  size_t shared_bytes;         /* a block may have */
  cudaStream_t stream;
} pn_gpu;

/* The device a tensor is on, made current for this thread; NULL with pn_error set. */
pn_gpu *pn_gpu_of(const pn_tensor *t);
pn_gpu *pn_gpu_at(int index);
PN_CHECKED int pn_gpu_wait(pn_gpu *gpu);

/* 0, or -1 with "CUDA: cannot DOING: reason". */
PN_CHECKED int pn_gpu_check(cudaError_t code, const char *doing);
/* For calls that need not work: did it? The next call does not see its error. */
static inline bool pn_gpu_try(cudaError_t code) {
  if (code != cudaSuccess) (void)cudaGetLastError();
  return code == cudaSuccess;
}
PN_CHECKED int pn_gpu_launched(const char *kernel); /* after each launch */

/* Memory for the time of a kernel, in the order of the stream, counted as live; NULL with pn_error set. */
void *pn_gpu_scratch(pn_gpu *gpu, size_t bytes);
void pn_gpu_scratch_free(pn_gpu *gpu, void *p); /* NULL is fine */
/* Numbers from the host for the kernels that follow; copied before it returns. */
PN_CHECKED int pn_gpu_upload(pn_gpu *gpu, void *to, const void *from, size_t bytes);

/* Waits, and heeds complaints. */
PN_CHECKED int pn_gpu_download(pn_gpu *gpu, void *to, const void *from, size_t bytes);

/* What only a kernel can find out (a target that is neither 0 nor 1): it counts in a word that the host sees without waiting, and
** the next call that waits for the device fails with `text`, which has one %lld for the count. `text` must be a constant. The word
** stays valid; kernels add with pn_report (launch.h). NULL with pn_error set. */
unsigned long long *pn_gpu_complaint(pn_gpu *gpu, const char *op, const char *text);

#ifdef __cplusplus
}
#endif
#endif
