/* runtime.h: what the emulated libraries share: tasks on streams, memory, faults.
**
** A stream is a queue: work is put there and runs when something waits for it, or at the latest when the queue is long. So a host
** buffer that is used again too early, or a wait that is missing, shows. While a stream is captured its tasks go to the graph. */
#ifndef PENUMBRA_EMULATED_RUNTIME_H
#define PENUMBRA_EMULATED_RUNTIME_H
#include <cuda_runtime.h>
#include <functional>

typedef std::function<void()> pn_fake_task;
/* Work of the stream's own device, which must be the current one. what: a constant, for complaints. */
cudaError_t pn_fake_push(cudaStream_t stream, const char *what, pn_fake_task task);
/* A kernel's launch, which may be `refused`. */
cudaError_t pn_fake_start(cudaStream_t stream, const char *kernel, cudaError_t refused, pn_fake_task task);
/* Is [p, p + bytes) inside one live piece of memory of the stream's device? */
bool pn_fake_owns(cudaStream_t stream, const void *p, size_t bytes);
/* From inside a task: it fails, and with it the next call that waits. */
void pn_fake_complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

bool pn_fake_fails(const char *call); /* counts a call; true when the fault injected for it is due */
long long pn_fake_setting(const char *name, long long otherwise);
void pn_fake_alive(const char *kind, long long more); /* counts what is made and destroyed */
#endif
