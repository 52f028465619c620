/* product_amx_emulated.c: the very kernels of product_amx.c over tiles in plain C, so that any CPU can check them. For specs. */
#include "product_bf16.h"

#ifndef PN_F64_BUILD

static _Thread_local union tile_register {
  char bytes[16][64];
  float sums[16][16];
  pn_bf16 factors[16][32];
} registers[8];

static void tile_load(union tile_register *t, const void *from, int64_t bytes) {
  for (int r = 0; r < 16; r++) memcpy(t->bytes[r], (const char *)from + r * bytes, 64);
}

static void tile_store(const union tile_register *t, void *to, int64_t bytes) {
  for (int r = 0; r < 16; r++) memcpy((char *)to + r * bytes, t->bytes[r], 64);
}

static void tile_dot(union tile_register *c, const union tile_register *a, const union tile_register *b) {
  for (int m = 0; m < 16; m++)
    for (int i = 0; i < 16; i++)
      for (int n = 0; n < 16; n++) {
        c->sums[m][n] += pn_bf16_to_float(a->factors[m][2 * i]) * pn_bf16_to_float(b->factors[i][2 * n]);
        c->sums[m][n] += pn_bf16_to_float(a->factors[m][2 * i + 1]) * pn_bf16_to_float(b->factors[i][2 * n + 1]);
      }
}

#define TILE_ZERO(t) memset(&registers[t], 0, sizeof registers[t])
#define TILE_LOAD(t, from, bytes) tile_load(&registers[t], from, bytes)
#define TILE_STORE(t, to, bytes) tile_store(&registers[t], to, bytes)
#define TILE_DOT(c, a, b) tile_dot(&registers[c], &registers[a], &registers[b])

/* Sums begun before begin(), or read after end(), would be another thread's on a real CPU. */
static void begin(void) { memset(registers, 0xff, sizeof registers); }
static void end(void) { memset(registers, 0xff, sizeof registers); }

static void round_row(pn_bf16 *to, const float *from, int64_t n) {
  for (int64_t i = 0; i < n; i++) to[i] = pn_bf16_of(from[i]);
}

static void pair_rows(pn_pair *to, int64_t ld, const void *const *rows, int64_t at, int64_t n, int64_t n_p) {
  for (int64_t p = 0; p < n_p; p++) {
    const float *a = (const float *)rows[2 * p] + at, *b = (const float *)rows[2 * p + 1] + at;
    for (int64_t i = 0; i < n; i++) to[p * ld + i] = pn_bf16_of(a[i]) | (pn_pair)pn_bf16_of(b[i]) << 16;
  }
}

static void transpose_pairs(pn_pair *to, int64_t to_ld, const pn_pair *from, int64_t from_ld, int64_t rows, int64_t columns) {
  for (int64_t r = 0; r < rows; r++)
    for (int64_t c = 0; c < columns; c++) to[c * to_ld + r] = from[r * from_ld + c];
}

#include "product_amx_tiles.h"

const pn_bf16_kernels pn_product_amx_emulated = { AMX_TABLE, .round = round_row, .pairs = pair_rows, .transpose = transpose_pairs };
#else
const pn_bf16_kernels pn_product_amx_emulated;
#endif
