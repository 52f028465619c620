/* launch.h: grids, blocks and threads on the CPU, for the kernels of gpu/ops as they stand.
**
** PN_LAUNCH runs the threads one after the other; PN_LAUNCH_TEAM gives each a stack of its own and lets them meet at barriers. */
#ifndef PENUMBRA_EMULATED_LAUNCH_H
#define PENUMBRA_EMULATED_LAUNCH_H
#include <math.h>
#include "emulated/runtime.h"

typedef struct pn_fake_place {
  int64_t block, blocks;
  int thread, threads;
  void *shared;
} pn_fake_place;
extern pn_fake_place pn_fake_now; /* one task runs at a time */
void pn_fake_barrier(void);
cudaError_t pn_fake_launch(cudaStream_t stream, const char *kernel, int64_t blocks, int threads, size_t shared, bool team,
                           pn_fake_task body);

#define PN_KERNEL static
#define PN_UNROLL
#define PN_DEVICE static inline
#define PN_SHARED_MEMORY(type, name) type *name = (type *)pn_fake_now.shared
#define PN_LAUNCH(gpu, kernel, blocks, threads, ...)                                                                               \
  (pn_fake_call((gpu)->stream, #kernel, blocks, threads, 0, false, kernel, __VA_ARGS__), pn_gpu_launched(#kernel))
#define PN_LAUNCH_TEAM(gpu, kernel, blocks, threads, bytes, ...)                                                                   \
  (pn_fake_call((gpu)->stream, #kernel, blocks, threads, bytes, true, kernel, __VA_ARGS__), pn_gpu_launched(#kernel))
#define PN_BARRIER() pn_fake_barrier()
#define pn_nanoseconds() ((uint64_t)(pn_clock() * 1e9))
#define pn_block (pn_fake_now.block)
#define pn_blocks (pn_fake_now.blocks)
#define pn_thread (pn_fake_now.thread)
#define pn_threads (pn_fake_now.threads)
#define PN_TICKETS(name, n) static unsigned name[n]
static inline bool pn_last_block(unsigned *ticket, unsigned among) {
  static bool last; /* one block runs at a time */
  pn_fake_barrier();
  if (pn_thread == 0) {
    last = *ticket == among - 1;
    *ticket = last ? 0 : *ticket + 1;
  }
  pn_fake_barrier();
  return last;
}
static inline void pn_report(unsigned long long *word, unsigned long long n) { *word += n; }

/* The arguments are worked out and converted here, at the launch, as CUDA does. */
template <typename T> struct pn_fake_as { typedef T type; };
template <typename... P>
static inline void pn_fake_call(cudaStream_t stream, const char *name, int64_t blocks, int threads, size_t shared, bool team,
                                void (*kernel)(P...), typename pn_fake_as<P>::type... args) {
  auto call = [=] { kernel(args...); };
  static_assert(sizeof call <= 4096 + sizeof kernel, "a kernel's arguments may take 4 KiB");
  (void)pn_fake_launch(stream, name, blocks, threads, shared, team, call);
}
#endif
