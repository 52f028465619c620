/* lend.h: tells the emulation what a pool of device memory gives out, so that it can guard each piece; nothing on a real device. */
#ifndef PENUMBRA_EMULATED_LEND_H
#define PENUMBRA_EMULATED_LEND_H
#ifdef PN_EMULATED
#include <cuda_runtime.h>
#include <stdbool.h>
#ifdef __cplusplus
extern "C" {
#endif
enum { PN_MARGIN = 512 }; /* bytes behind each piece that nobody may write */
/* The piece lives from here to there. In the order of the stream it begins as NaN and ends as poison; with `aside` it begins so now,
** and not whenever the step that is being captured is done again. */
void pn_fake_lend(cudaStream_t stream, void *p, size_t bytes, bool aside);
void pn_fake_reclaim(cudaStream_t stream, void *p);
#ifdef __cplusplus
}
#endif
#else
enum { PN_MARGIN = 0 };
#define pn_fake_lend(stream, p, bytes, aside) (void)0
#define pn_fake_reclaim(stream, p) (void)0
#endif
#endif
