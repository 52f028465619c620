/* product_amx_tiles.h: the micro-kernels of product_bf16.h on tiles of 16 rows x 64 bytes, written once over five operations.
** The including file defines
**   TILE_ZERO(t)  TILE_LOAD(t, from, bytes)  TILE_STORE(t, to, bytes)  TILE_DOT(c, a, b)  begin()  end()
** where bytes is the distance between rows and TILE_DOT is TDPBF16PS: c[m][n] += a[m][2i].b[i][2n] + a[m][2i+1].b[i][2n+1].
**
** Tiles 0-3 are sums (2 x 2 of 16 x 16), 4-5 two of the left side, 6-7 two of the right. */

enum { SIDE = 16, STEP = PN_BF16_STEP, ROW = 64 };

/* The 16 pixels of a tile at one distance from each other are loaded where they lie; others are copied together first. */
typedef struct pixels {
  const char *first;
  int64_t step; /* 0 where all see the padding */
  bool even;
} pixels;

static inline pixels look_at(const void *const *a) {
  intptr_t step = (intptr_t)((uintptr_t)a[1] - (uintptr_t)a[0]);
  bool even = true;
  for (int m = 2; m < SIDE; m++) even &= (intptr_t)((uintptr_t)a[m] - (uintptr_t)a[m - 1]) == step;
  return (pixels){ a[0], step, even };
}

static inline void copy_pixels(char *to, const void *const *a, int64_t at) {
  for (int m = 0; m < SIDE; m++) memcpy(to + m * ROW, (const char *)a[m] + at, ROW);
}

/* The floats from one row of results to the next, 0 where that varies. */
static inline int64_t even_rows(float *const *c) {
  intptr_t step = (intptr_t)((uintptr_t)c[1] - (uintptr_t)c[0]);
  bool even = true;
  for (int m = 2; m < 2 * SIDE; m++) even &= (intptr_t)((uintptr_t)c[m] - (uintptr_t)c[m - 1]) == step;
  return even ? step / (intptr_t)sizeof(float) : 0;
}

#define LOAD_PIXELS(t, p, rows, at)                                                                                                \
  do {                                                                                                                             \
    if ((p).even) TILE_LOAD(t, (p).first + (at), (p).step);                                                                        \
    else {                                                                                                                         \
      copy_pixels(together, rows, at);                                                                                             \
      TILE_LOAD(t, together, ROW);                                                                                                 \
    }                                                                                                                              \
  } while (0)

static inline __attribute__((always_inline)) void tile(float *const *c, const void *const *a, int64_t n_taps, int64_t k,
                                                       const pn_pair *w, const float *bias, int64_t n, bool add, bool relu,
                                                       const int nv) {
  _Alignas(64) char together[SIDE * ROW];
  _Alignas(64) float sums[2 * SIDE][2 * SIDE];
  const int64_t width = (int64_t)sizeof(pn_pair) * nv * SIDE;
  /* Sums go straight to results that lie at one distance and need nothing else; the others by way of a buffer. */
  int64_t c_row = (int64_t)sizeof(float) * even_rows(c);
  bool straight = c_row && n == nv * SIDE && !bias && !relu;
  if (straight && add) {
    TILE_LOAD(0, c[0], c_row);
    TILE_LOAD(2, c[SIDE], c_row);
    if (nv == 2) {
      TILE_LOAD(1, c[0] + SIDE, c_row);
      TILE_LOAD(3, c[SIDE] + SIDE, c_row);
    }
  } else {
    TILE_ZERO(0);
    TILE_ZERO(2);
    if (nv == 2) {
      TILE_ZERO(1);
      TILE_ZERO(3);
    }
  }
  for (int64_t tap = 0; tap < n_taps; tap++, a += 2 * SIDE) {
    pixels upper = look_at(a), lower = look_at(a + SIDE);
    for (int64_t i = 0; i < k; i += STEP, w += SIDE * SIDE * nv) {
      LOAD_PIXELS(4, upper, a, 2 * i);
      TILE_LOAD(6, w, width);
      TILE_DOT(0, 4, 6);
      LOAD_PIXELS(5, lower, a + SIDE, 2 * i);
      TILE_DOT(2, 5, 6);
      if (nv == 2) {
        TILE_LOAD(7, w + SIDE, width);
        TILE_DOT(1, 4, 7);
        TILE_DOT(3, 5, 7);
      }
    }
  }
  if (straight) {
    TILE_STORE(0, c[0], c_row);
    TILE_STORE(2, c[SIDE], c_row);
    if (nv == 2) {
      TILE_STORE(1, c[0] + SIDE, c_row);
      TILE_STORE(3, c[SIDE] + SIDE, c_row);
    }
    return;
  }
  TILE_STORE(0, &sums[0][0], (int64_t)sizeof sums[0]);
  TILE_STORE(2, &sums[SIDE][0], (int64_t)sizeof sums[0]);
  if (nv == 2) {
    TILE_STORE(1, &sums[0][SIDE], (int64_t)sizeof sums[0]);
    TILE_STORE(3, &sums[SIDE][SIDE], (int64_t)sizeof sums[0]);
  }
  for (int m = 0; m < 2 * SIDE; m++)
    for (int64_t j = 0; j < n; j++) {
      float sum = sums[m][j] + (bias ? bias[j] : 0) + (add ? c[m][j] : 0);
      c[m][j] = relu && sum < 0 ? 0 : sum;
    }
}

static inline __attribute__((always_inline)) void outer(float *g, int64_t ldg, const pn_pair *a, int64_t lda, const pn_pair *b,
                                                        int64_t ldb, int64_t n_p, const int nv) {
  const int64_t g_row = ldg * (int64_t)sizeof *g, a_row = lda * (int64_t)sizeof *a, b_row = ldb * (int64_t)sizeof *b;
  TILE_LOAD(0, g, g_row);
  TILE_LOAD(2, g + SIDE * ldg, g_row);
  if (nv == 2) {
    TILE_LOAD(1, g + SIDE, g_row);
    TILE_LOAD(3, g + SIDE * ldg + SIDE, g_row);
  }
  for (int64_t p = 0; p < n_p; p += SIDE) {
    TILE_LOAD(4, a + p, a_row);
    TILE_LOAD(6, b + p * ldb, b_row);
    TILE_DOT(0, 4, 6);
    TILE_LOAD(5, a + SIDE * lda + p, a_row);
    TILE_DOT(2, 5, 6);
    if (nv == 2) {
      TILE_LOAD(7, b + p * ldb + SIDE, b_row);
      TILE_DOT(1, 4, 7);
      TILE_DOT(3, 5, 7);
    }
  }
  TILE_STORE(0, g, g_row);
  TILE_STORE(2, g + SIDE * ldg, g_row);
  if (nv == 2) {
    TILE_STORE(1, g + SIDE, g_row);
    TILE_STORE(3, g + SIDE * ldg + SIDE, g_row);
  }
}

#define TILE(nv)                                                                                                                   \
  static void tile_##nv(float *const *c, const void *const *a, int64_t n_taps, int64_t k, const pn_pair *w, const float *bias,     \
                        int64_t n, bool add, bool relu) {                                                                          \
    tile(c, a, n_taps, k, w, bias, n, add, relu, nv);                                                                              \
  }                                                                                                                                \
  static void outer_##nv(float *g, int64_t ldg, const pn_pair *a, int64_t lda, const pn_pair *b, int64_t ldb, int64_t n_p) {       \
    outer(g, ldg, a, lda, b, ldb, n_p, nv);                                                                                        \
  }
TILE(1)
TILE(2)

#define AMX_TABLE                                                                                                                  \
  .k_step = STEP, .even = true, .most_nv = 2, .mr = { 0, 2 * SIDE, 2 * SIDE }, .tile = { NULL, tile_1, tile_2 },                   \
  .outer_mi = 2 * SIDE, .outer_most_nv = 2, .transposed = true, .outer = { NULL, outer_1, outer_2 }, .begin = begin, .end = end
