/* product_amx.c: the micro-kernels of product_bf16.h on AMX tiles; the process has leave to use them (cpu.c). */
#include "product_bf16.h"

#if defined(__AMX_BF16__) && !defined(PN_F64_BUILD)
#include <immintrin.h>
#include "product_avx512_pairs.h"

#define TILE_ZERO(t) _tile_zero(t)
#define TILE_LOAD(t, from, bytes) _tile_loadd(t, from, bytes)
#define TILE_STORE(t, to, bytes) _tile_stored(t, to, bytes)
#define TILE_DOT(c, a, b) _tile_dpbf16ps(c, a, b)

static void begin(void) { /* palette 1, eight tiles of 16 rows x 64 bytes */
  struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
  } shape = { .palette = 1 };
  _Static_assert(sizeof shape == 64, "the memory operand of LDTILECFG");
  for (int t = 0; t < 8; t++) shape.row_bytes[t] = 64, shape.rows[t] = 16;
  _tile_loadconfig(&shape);
}

static void end(void) { _tile_release(); }

#include "product_amx_tiles.h"

const pn_bf16_kernels pn_product_amx = { AMX_TABLE, .round = round_row, .pairs = pair_rows, .transpose = transpose_pairs };
#else
const pn_bf16_kernels pn_product_amx;
#endif
