/* linger.h: keeping a device busy while the host prepares what is to be timed. */
#ifndef PENUMBRA_GPU_LINGER_H
#define PENUMBRA_GPU_LINGER_H
#include "gpu.h"
#ifdef __cplusplus
extern "C" {
#endif
/* Nothing that is launched after this begins before so long has passed; meanwhile it queues. */
PN_CHECKED int pn_gpu_linger(pn_gpu *gpu, double seconds);
#ifdef __cplusplus
}
#endif
#endif
