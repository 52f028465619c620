/* runtime.h: what the emulated libraries share: tasks on streams.
**
** A stream is a queue: work is put there and runs when something waits for it, or at the latest when the queue is long. So a host
** buffer that is used again too early, or a wait that is missing, shows. While a stream is captured its tasks go to the graph. */
#ifndef PENUMBRA_EMULATED_RUNTIME_H
#define PENUMBRA_EMULATED_RUNTIME_H
#include <cuda_runtime.h>
#include <functional>

typedef std::function<void()> pn_fake_task;
cudaError_t pn_fake_push(cudaStream_t stream, pn_fake_task task);
/* Is [p, p + bytes) inside one live allocation of the fake devices? */
bool pn_fake_owns(const void *p, size_t bytes);
/* True when the fault injected for this call is due (pn_emulated_fail). Every entry point asks with its own name. */
bool pn_fake_fails(const char *call);
#endif
