/* cpu.c: which kernels this CPU may run, and who we are. */
#include <stdlib.h>
#include <string.h>
#include "cpu.h"

static int chosen = -1;
static const char *const names[] = { "plain", "avx2", "avx512" };

static int best(void) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl"))
    return PN_CPU_AVX512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return PN_CPU_AVX2;
#endif
  return PN_CPU_PLAIN;
}

int pn_set_cpu_variant(const char *name) {
  if (!name) return pn_fail("set_cpu_variant: name is NULL");
  for (int i = 0; i < (int)PN_LENGTH(names); i++)
    if (!strcmp(names[i], name)) {
      if (i > best()) return pn_fail("this CPU cannot run the %s kernels (the best it has is %s)", name, names[best()]);
      chosen = i;
      return 0;
    }
  return pn_fail("no CPU variant \"%s\" (plain, avx2, avx512)", name);
}

int pn_cpu(void) {
  if (chosen < 0) {
    const char *name = getenv("PENUMBRA_CPU");
    if (!name || !*name || pn_set_cpu_variant(name)) chosen = best();
  }
  return chosen;
}

const char *pn_cpu_variant(void) { return names[pn_cpu()]; }
const char *pn_version(void) { return PN_VERSION; }

const char *pn_build_info(void) {
  static char text[256];
  snprintf(text, sizeof text, "penumbra %s, real %s, %s kernels, %d threads, compiled by " __VERSION__, PN_VERSION,
           pn_dtype_name(PN_REAL_DTYPE), pn_cpu_variant(), pn_threads());
  return text;
}
