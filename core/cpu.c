/* cpu.c: which kernels this CPU may run. */
#include <stdlib.h>
#include <string.h>
#include "cpu.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

static atomic_int chosen = -1;
static atomic_bool emulated_amx;
static const char *const names[PN_N_CPU_VARIANTS] = { "plain", "avx2", "avx512", "avx512_bf16", "amx" };

#if defined(__x86_64__) && defined(__linux__)
/* Tiles of bf16, and the kernel's leave to use them: their 8 KiB of state are given to a process that asks. */
static bool has_amx(void) {
  enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18, AMX_BF16 = 1 << 22, AMX_TILE = 1 << 24 };
  unsigned a, b, c, d;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & (AMX_BF16 | AMX_TILE)) != (AMX_BF16 | AMX_TILE)) return false;
  return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}
#elif defined(__x86_64__)
static bool has_amx(void) { return false; }
#endif

static int look(void) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                __builtin_cpu_supports("avx512vl");
  if (avx512 && __builtin_cpu_supports("avx512bf16")) return has_amx() ? PN_CPU_AMX : PN_CPU_AVX512_BF16;
  if (avx512) return PN_CPU_AVX512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return PN_CPU_AVX2;
#endif
  return PN_CPU_PLAIN;
}

int pn_best_cpu(void) {
  static atomic_int found = -1;
  if (found < 0) found = look();
  return found;
}

int pn_set_cpu_variant(const char *name) {
  if (!name) return pn_fail("set_cpu_variant: name is NULL");
  for (int i = 0; i < (int)PN_LENGTH(names); i++)
    if (!strcmp(names[i], name)) {
      if (i > pn_best_cpu())
        return pn_fail("this CPU cannot run the %s kernels (the best it has is %s)", name, names[pn_best_cpu()]);
      chosen = i;
      return 0;
    }
  return pn_fail("no CPU variant \"%s\" (plain, avx2, avx512, avx512_bf16, amx)", name);
}

int pn_cpu(void) {
  if (chosen < 0) {
    const char *name = getenv("PENUMBRA_CPU");
    if (!name || !*name || pn_set_cpu_variant(name)) chosen = pn_best_cpu();
  }
  return chosen;
}

const char *pn_cpu_variant(void) { return names[pn_cpu()]; }

void pn_debug_emulate_amx(bool on) { emulated_amx = on; }
bool pn_emulated_amx(void) { return emulated_amx; }
