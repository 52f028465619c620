/* emulated.h: what specs may ask of, and do to, libpenumbra_emulated.so. spec/gpu/emulation.lua reads this file.
**
** Calls go by the names of the libraries' functions (cudaMalloc, cudnnBackendExecute, cublasLtMatmul ...); a kernel's launch is
** cudaLaunchKernel, and what runs on a stream is "task". Settings, each an environment variable too (PENUMBRA_EMULATED_MEMORY, ...):
**   DEVICES     2; the second has more processors
**   MEMORY      bytes a device, 2 GiB
**   QUEUE       tasks that a stream holds back, 4096
**   ORDER       of blocks and of threads: 0 as counted, 1 backwards, 2 mixed
**   ENGINES     a mask of cuDNN's engines, all
**   STICKY      1: what a task that fails leaves stays: every later call fails, but for those that choose a device
**   REFUSES     a mask of those that say only when they run that they cannot, none
**   CUDNN       its version, 91900
**   ALGORITHMS  a mask of cuBLASLt's, all
** PENUMBRA_EMULATED_FAIL=call:nth fails that call. */
#ifndef PENUMBRA_EMULATED_H
#define PENUMBRA_EMULATED_H
#include <stddef.h>
#ifdef __cplusplus
extern "C" {
#endif
#define PN_EMULATED_API __attribute__((visibility("default")))

PN_EMULATED_API void pn_emulated_fail(const char *call, int nth); /* the nth from now fails, once; "*": of any call; 0: none */
PN_EMULATED_API int pn_emulated_pending(void);                    /* calls until it does; 0: none is to come */
PN_EMULATED_API void pn_emulated_set(const char *setting, long long value);
PN_EMULATED_API long long pn_emulated_calls(const char *call);             /* since pn_emulated_forget; "*": of all */
PN_EMULATED_API size_t pn_emulated_list_calls(char *buffer, size_t bytes); /* lines "call count"; how long all would be */
PN_EMULATED_API void pn_emulated_forget(void);                             /* the counts */
PN_EMULATED_API long long pn_emulated_alive(const char *kind);             /* cudaStream, cudaEvent, cudaGraph, cudaGraphExec,
                                                                                     cudnnHandle, cudnnBackendDescriptor, cublasLtHandle, ...;
                                                                                     bytes of cudaMalloc and cudaHostAlloc by those names */
PN_EMULATED_API long long pn_emulated_waiting(void);                       /* tasks that have not run */
PN_EMULATED_API const char *pn_emulated_complaint(void);                   /* of the last task that failed */
/* Launches a kernel that does wrong: "beyond" (writes behind p's bytes), "beyond shared", "leaving" (some threads leave while others
** wait), "meeting" (waits without a team), "racing" (every thread writes its number into the first byte), "too many threads", "no blocks", "too much shared". 0, or -1 with pn_error set. */
PN_EMULATED_API int pn_emulated_misbehave(const char *how, void *p, size_t bytes);
/* Where kernels find element i (in the order of the axes) of these sizes and strides: element by element; in sums. */
PN_EMULATED_API long long pn_emulated_loop_at(int n_dims, const long long *size, const long long *stride, long long i);
PN_EMULATED_API long long pn_emulated_axes_at(int n, const long long *size, const long long *stride, long long i);

#ifdef __cplusplus
}
#endif
#endif
