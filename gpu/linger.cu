/* linger.cu: see linger.h. */
#include "linger.h"
#include "launch.h"

PN_KERNEL void linger(uint64_t nanoseconds) {
  const uint64_t began = pn_nanoseconds();
  while (pn_nanoseconds() - began < nanoseconds) {}
}

int pn_gpu_linger(pn_gpu *gpu, double seconds) { return PN_LAUNCH(gpu, linger, 1, 1, (uint64_t)(seconds * 1e9)); }
