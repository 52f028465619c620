/* precision.c: see precision.h. All of it is of the process, like the number of threads. */
#include <string.h>
#include "backend.h"
#include "cpu.h"
#include "precision.h"

enum { ON_CPU, ON_CUDA };
static const struct {
  const char *name;
  bool on[2];
} precisions[] = {
  [PN_AS_REAL] = {"f32",   { true, true } },
  [PN_AS_TF32] = { "tf32", { false, true }},
  [PN_AS_BF16] = { "bf16", { true, true } },
  [PN_AS_FP16] = { "fp16", { false, true }},
};
static atomic_int chosen[2];

static int kind_of(int device) { return device == PN_CPU ? ON_CPU : ON_CUDA; }

/* The plain variant has bf16 as its definition, where a better CPU was told to run it; elsewhere it would only be slow. */
static bool cpu_has_bf16(void) {
  return PN_REAL_DTYPE == PN_F32 &&
         (pn_cpu() >= PN_CPU_AVX512_BF16 || pn_emulated_amx() || (pn_cpu() == PN_CPU_PLAIN && pn_best_cpu() > PN_CPU_PLAIN));
}

static int fail_unknown(const char *name, int kind) {
  char known[64] = "";
  for (size_t i = 0; i < PN_LENGTH(precisions); i++)
    if (precisions[i].on[kind])
      snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", *known ? ", " : "", precisions[i].name);
  return pn_fail("no precision \"%s\" on %s (%s)", name, kind == ON_CPU ? "the CPU" : "CUDA", known);
}

int pn_set_precision(const char *name, int device) {
  int kind = kind_of(device), found = -1;
  if (!name) return pn_fail("set_precision: name is NULL");
  for (int i = 0; i < (int)PN_LENGTH(precisions); i++)
    if (precisions[i].on[kind] && !strcmp(precisions[i].name, name)) found = i;
  if (found < 0) return fail_unknown(name, kind);
  if (found != PN_AS_REAL && PN_REAL_DTYPE != PN_F32) return pn_fail("the f64 build has no %s", name);
  if (kind == ON_CPU && found == PN_AS_BF16 && !cpu_has_bf16())
    return pn_fail("bf16 wants a CPU with AVX-512-BF16 or AMX; here are the %s kernels, so f32 stays", pn_cpu_variant());
  chosen[kind] = found;
  return 0;
}

int pn_precision_of(int device) {
  int kind = kind_of(device);
  return kind == ON_CPU && !cpu_has_bf16() ? PN_AS_REAL : chosen[kind];
}

const char *pn_precision(int device) {
  int as = pn_precision_of(device);
  return as == PN_AS_REAL ? pn_dtype_name(PN_REAL_DTYPE) : precisions[as].name;
}

bool pn_in_bf16(void) { return pn_precision_of(PN_CPU) == PN_AS_BF16; }

pn_dtype pn_product_dtype(int device) {
  int as = device == PN_CPU ? PN_AS_REAL : pn_precision_of(device);
  return as == PN_AS_BF16 ? PN_BF16 : as == PN_AS_FP16 ? PN_F16 : PN_REAL_DTYPE;
}

/* ---- minimal filtering (kernels/winograd.h) ----------------------------------------------------------------------------------- */

static pn_minimal_filtering filtering;

int pn_set_winograd(const char *how) {
  int t, h, w, end = 0;
  if (!how) return pn_fail("set_winograd: how is NULL");
  if (!strcmp(how, "auto") || !strcmp(how, "off")) {
    filtering = (pn_minimal_filtering){ .off = *how == 'o' };
    return 0;
  }
  if (sscanf(how, "%d,%d,%d%n", &t, &h, &w, &end) != 3 || how[end] || (t != 2 && t != 4) || (h != 2 && h != 4) ||
      (w != 2 && w != 4))
    return pn_fail("set_winograd: \"%s\" is none of auto, off, or the outputs of a tile along t,h,w (each 2 or 4)", how);
  filtering = (pn_minimal_filtering){
    .tile = {t, h, w}
  };
  return 0;
}

const char *pn_winograd(void) {
  static _Thread_local char text[16];
  const int *m = filtering.tile;
  if (m[0]) snprintf(text, sizeof text, "%d,%d,%d", m[0], m[1], m[2]);
  else snprintf(text, sizeof text, "%s", filtering.off ? "off" : "auto");
  return text;
}

pn_minimal_filtering pn_minimal_filtering_now(void) { return filtering; }

/* ---- engines ---------------------------------------------------------------------------------------------------------------- */

static const char *const ways[] = { "heuristic", "autotune", "plain" };
enum { HEURISTIC, AUTOTUNE, PLAIN };
static atomic_int way = HEURISTIC;
static atomic_bool by_chance;
static atomic_llong workspace_bytes = 1ll << 30;

int pn_set_engines(const char *how) {
  if (!how) return pn_fail("set_engines: how is NULL");
  for (int i = 0; i < (int)PN_LENGTH(ways); i++)
    if (!strcmp(ways[i], how)) {
      way = i;
      return 0;
    }
  return pn_fail("no way \"%s\" to pick engines (heuristic, autotune, plain)", how);
}
const char *pn_engines(void) { return ways[way]; }

void pn_set_deterministic(bool on) { by_chance = !on; }
bool pn_deterministic(void) { return !by_chance; }

int pn_set_workspace(int64_t bytes) {
  if (bytes < 0) return pn_fail("set_workspace: %lld bytes", (long long)bytes);
  workspace_bytes = bytes;
  return 0;
}
int64_t pn_workspace(void) { return workspace_bytes; }

pn_engine_policy pn_engine_policy_now(void) {
  return (pn_engine_policy){ .workspace_bytes = workspace_bytes,
                             .autotune = way == AUTOTUNE,
                             .plain = way == PLAIN,
                             .deterministic = !by_chance,
                             .exact = filtering.off };
}

int pn_picks(int device, char *buffer, size_t bytes) {
  const pn_backend *backend;
  int index;
  if (!buffer || !bytes) return pn_fail("picks: no buffer");
  *buffer = 0;
  if (device == PN_CPU) return 0;
  if (pn_backend_of(device, &backend, &index)) return -1;
  backend->picks(index, buffer, bytes);
  return 0;
}
