/* emulated.h: what specs may ask of, and do to, libpenumbra_emulated.so. spec/gpu/emulation.lua reads this file.
**
** Calls go by the names of the libraries' functions (cudaMalloc, cudnnBackendExecute, cublasLtMatmul ...); a kernel's launch is
** cudaLaunchKernel, and what runs on a stream is "task". Settings: DEVICES (2), MEMORY (bytes a device, 2 GiB), QUEUE (tasks a stream
** holds back, 4096), ENGINES (a mask of cuDNN's engines, all), ALGORITHMS (of cuBLASLt's). Each is also an environment variable:
** PENUMBRA_EMULATED_MEMORY, ...; PENUMBRA_EMULATED_FAIL=call:nth fails that call. */
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
** wait), "meeting" (waits without a team), "too many threads", "no blocks", "too much shared". 0, or -1 with pn_error set. */
PN_EMULATED_API int pn_emulated_misbehave(const char *how, void *p, size_t bytes);

#ifdef __cplusplus
}
#endif
#endif
