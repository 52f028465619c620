/* faulty.cpp: kernels that do what none should, so that specs can see them found out. */
#include <string.h>
#include "emulated/emulated.h"
#include "../launch.h"

PN_KERNEL void beyond(unsigned char *p, int64_t bytes) {
  if (pn_thread == 0) p[bytes] = 0;
}

PN_KERNEL void beyond_shared(int n) {
  PN_SHARED_MEMORY(unsigned char, room);
  room[pn_thread] = 1;
  PN_BARRIER();
  if (pn_thread == 0) room[n] = 0;
}

PN_KERNEL void leaving(unsigned char *p) {
  if (pn_thread % 2) PN_BARRIER();
  p[0] = 0;
}

PN_KERNEL void meeting(unsigned char *p) {
  PN_BARRIER();
  p[0] = 0;
}

PN_KERNEL void racing(unsigned char *p) { p[0] = (unsigned char)(10 * pn_block + pn_thread); }

int pn_emulated_misbehave(const char *how, void *p, size_t bytes) {
  pn_gpu *gpu = pn_gpu_at(0);
  unsigned char *at = (unsigned char *)p;
  if (!gpu) return -1;
  if (!strcmp(how, "beyond")) return PN_LAUNCH(gpu, beyond, 1, 2, at, (int64_t)bytes);
  if (!strcmp(how, "beyond shared")) return PN_LAUNCH_TEAM(gpu, beyond_shared, 1, 8, 8, 8);
  if (!strcmp(how, "leaving")) return PN_LAUNCH_TEAM(gpu, leaving, 2, 4, 0, at);
  if (!strcmp(how, "meeting")) return PN_LAUNCH(gpu, meeting, 1, 2, at);
  if (!strcmp(how, "racing")) return PN_LAUNCH(gpu, racing, 3, 4, at);
  if (!strcmp(how, "too many threads")) return PN_LAUNCH(gpu, meeting, 1, 1025, at);
  if (!strcmp(how, "no blocks")) return PN_LAUNCH(gpu, meeting, 0, 1, at);
  if (!strcmp(how, "too much shared")) return PN_LAUNCH_TEAM(gpu, meeting, 1, 1, (48 << 10) + 1, at);
  return pn_fail("no such kernel: %s", how);
}
