/* winograd.c: convolution, and its adjoint in x, by minimal filtering (winograd.h): tiles, products and threads.
**
** Filters are transformed once, V[block of channels][point][k][channel]. Then each unit of work takes some tiles: their inputs
** become U[point][tile][k]; for each block of output channels Z = U V, and Z goes back through the output transform into y.
** U and Z stay in the L2 cache; every sum over k is whole, in order.
** Where the tiles are few and the filters many, the loops change places: U of all tiles is made once, and a unit of work is a
** block of output channels, whose V comes and goes in its own cache. The sums are the same. */
#include <string.h>
#include "winograd_tiles.h"

#ifndef PN_F64_BUILD /* that build computes by the definition */

enum { U_BYTES = 1400 << 10, MOST_TILES = 48 };

typedef struct forward_job {
  pn_scheme s;
  pn_tiling tiles;
  pn_pixels y, x;
  const float *w;
  pn_epilogue end;
  bool add;
  int64_t low[3];
  const pn_product_kernels *products;
  pn_channels blocks[PN_MOST_CHANNEL_BLOCKS];
  int n_blocks, nv;                  /* nv: vectors of the widest pn_channels */
  float *u, *v, *zeros;              /* one of u and v */
  int64_t k_padded;                  /* x.c padded to vectors */
  int64_t n_tiles, u_point, z_point; /* tiles a unit; floats of a point of U and of Z */
} forward_job;

/* V of k = begin..end-1 of one block, from filters whose taps are x.c x y.c matrices. */
static void transform_filters(const forward_job *j, const pn_channels *b, float *to, int64_t begin, int64_t end) {
  const pn_scheme *s = &j->s;
  int taps = s->r[0] * s->r[1] * s->r[2];
  int64_t width = (int64_t)b->nv * s->lines->vl;
  const float *from[PN_MOST_TILE_TAPS];
  for (int64_t k = begin; k < end; k++) {
    for (int t = 0; t < taps; t++) from[t] = j->w + (t * j->x.c + k) * j->y.c;
    pn_ends e = { .from = from,
                  .at = b->first,
                  .n = pn_min64(width, j->y.c - b->first),
                  .vectors = b->nv,
                  .dst = to + k * width,
                  .dst_step = j->x.c * width + PN_APART };
    pn_transform(s, PN_FILTER_IN, s->r, s->n, true, &e);
  }
}

static void all_filters(void *context, int64_t begin, int64_t end) { /* units: k */
  const forward_job *j = context;
  for (int b = 0; b < j->n_blocks; b++) transform_filters(j, &j->blocks[b], j->v + j->blocks[b].v, begin, end);
}

static void transform_inputs(const forward_job *j, int64_t first, int64_t count, float *u) {
  const pn_scheme *s = &j->s;
  int64_t step = (int64_t)PN_WINOGRAD_VECTORS * s->lines->vl;
  float *from[PN_WINOGRAD_MOST];
  for (int64_t m = 0; m < count; m++) {
    pn_look_at(&j->tiles, first + m, s->m, j->low, s->n, j->x, j->zeros, from);
    for (int64_t c = 0; c < j->k_padded; c += step) {
      pn_ends e = { .from = (const float *const *)from,
                    .at = c,
                    .n = pn_min64(step, j->x.c - c),
                    .vectors = pn_min64(step, j->k_padded - c) / s->lines->vl,
                    .dst = u + m * j->k_padded + c,
                    .dst_step = j->u_point };
      pn_transform(s, PN_INPUT, s->n, s->n, true, &e);
    }
  }
}

static void multiply(const forward_job *j, const pn_channels *b, int64_t count, const float *u, const float *w, float *z) {
  int mr = j->products->mr[b->nv];
  int64_t width = (int64_t)b->nv * j->s.lines->vl;
  const void *rows[PN_MOST_MR];
  float *out[PN_MOST_MR];
  for (int p = 0; p < j->s.points; p++)
    for (int64_t m = 0; m < count; m += mr) {
      for (int i = 0; i < mr; i++) { /* rows beyond count: the last one again */
        int64_t row = pn_min64(m + i, count - 1);
        rows[i] = u + p * j->u_point + row * j->k_padded;
        out[i] = z + p * j->z_point + (m + i) * width;
      }
      j->products->tile[b->nv](out, rows, 1, j->x.c, w + p * (j->x.c * width + PN_APART), NULL, width, false, false);
    }
}

static void transform_outputs(const forward_job *j, const pn_channels *b, int64_t first, int64_t count, const float *z) {
  const pn_scheme *s = &j->s;
  int64_t width = (int64_t)b->nv * s->lines->vl, none[3] = { 0, 0, 0 };
  float *to[64];
  for (int64_t m = 0; m < count; m++) {
    pn_look_at(&j->tiles, first + m, s->m, none, s->m, j->y, NULL, to);
    pn_ends e = { .src = z + m * width,
                  .src_step = j->z_point,
                  .to = to,
                  .at = b->first,
                  .n = pn_min64(width, j->y.c - b->first),
                  .vectors = b->nv,
                  .bias = j->end.bias ? j->end.bias + b->first : NULL,
                  .relu = j->end.relu,
                  .add = j->add };
    pn_transform(s, PN_OUTPUT, s->n, s->m, false, &e);
  }
}

static int forward_units(void *context, int64_t begin, int64_t end) {
  const forward_job *j = context;
  float *u = pn_alloc(sizeof(float) * (size_t)(j->s.points * (j->u_point + j->z_point)));
  if (!u) return -1;
  float *z = u + j->s.points * j->u_point;
  for (int64_t unit = begin; unit < end; unit++) {
    int64_t first = unit * j->n_tiles, count = pn_min64(j->n_tiles, j->tiles.total - first);
    transform_inputs(j, first, count, u);
    for (int b = 0; b < j->n_blocks; b++) {
      multiply(j, &j->blocks[b], count, u, j->v + j->blocks[b].v, z);
      transform_outputs(j, &j->blocks[b], first, count, z);
    }
  }
  pn_free(u);
  return 0;
}

static void all_inputs(void *context, int64_t begin, int64_t end) { /* units: tiles */
  const forward_job *j = context;
  transform_inputs(j, begin, end - begin, j->u + begin * j->k_padded);
}

static int forward_blocks(void *context, int64_t begin, int64_t end) { /* units: blocks, of all tiles */
  const forward_job *j = context;
  int64_t v_point = j->x.c * j->nv * j->s.lines->vl + PN_APART;
  float *v = pn_alloc(sizeof(float) * (size_t)(j->s.points * (v_point + j->z_point)));
  if (!v) return -1;
  for (int64_t b = begin; b < end; b++) {
    transform_filters(j, &j->blocks[b], v, 0, j->x.c);
    multiply(j, &j->blocks[b], j->tiles.total, j->u, v, v + j->s.points * v_point);
    transform_outputs(j, &j->blocks[b], 0, j->tiles.total, v + j->s.points * v_point);
  }
  pn_free(v);
  return 0;
}

typedef struct turn_job {
  const float *w;
  float *to;
  int64_t taps, rows, columns;
} turn_job;

static void turn(void *context, int64_t begin, int64_t end) { /* w[taps-1-tap][k][n] -> to[tap][n][k]; units: tap x n */
  const turn_job *j = context;
  for (int64_t unit = begin; unit < end; unit++) {
    int64_t tap = unit / j->columns, n = unit % j->columns;
    const float *from = j->w + (j->taps - 1 - tap) * j->rows * j->columns + n;
    float *to = j->to + unit * j->rows;
    for (int64_t k = 0; k < j->rows; k++) to[k] = from[k * j->columns];
  }
}

int pn_winograd_convolve(pn_pixels y, pn_pixels x, const float *w, pn_epilogue end, bool add, bool transposed, const pn_geometry *g,
                         pn_winograd_tile tile) {
  forward_job j = { .s = pn_scheme_of(tile), .y = y, .x = x, .w = w, .end = end, .add = add, .products = pn_winograd_products() };
  const pn_scheme *s = &j.s;
  int64_t vl = s->lines->vl, taps = s->r[0] * s->r[1] * s->r[2];
  j.tiles = pn_tiles_of(s, y);
  if (!j.tiles.total) return 0;
  for (int d = 0; d < 3; d++) j.low[d] = transposed ? g->kernel[d] - 1 - g->low[d] : g->low[d];
  j.k_padded = pn_ceil_div(x.c, vl) * vl;
  bool few = pn_few_tiles(s, &j.tiles, j.k_padded);
  int64_t v_floats, channels = pn_cut_blocks(y.c, vl, j.products->most_nv, j.blocks, &j.n_blocks, &j.nv);
  v_floats = few ? 0 : s->points * (channels * x.c + j.n_blocks * PN_APART);
  for (int b = 0; b < j.n_blocks; b++) j.blocks[b].v = s->points * (j.blocks[b].first * x.c + b * PN_APART);
  int64_t units = 1;
  if (!few) {
    int64_t fit = pn_max64(12, U_BYTES / (int64_t)sizeof(float) / (s->points * j.k_padded) / 12 * 12);
    units = pn_ceil_div(j.tiles.total, pn_min64(fit, MOST_TILES));
    if (units < 4 * pn_threads()) units = pn_min64(pn_ceil_div(units, pn_threads()) * pn_threads(), j.tiles.total);
  }
  j.n_tiles = pn_ceil_div(j.tiles.total, units);
  units = pn_ceil_div(j.tiles.total, j.n_tiles);
  j.u_point = j.n_tiles * j.k_padded + PN_APART;
  j.z_point = pn_ceil_div(j.n_tiles, 24) * 24 * j.nv * vl + PN_APART; /* whole tiles of any height */
  int64_t u_floats = few ? s->points * j.u_point : 0, turned = transposed ? taps * x.c * y.c : 0;
  float *memory = pn_alloc(sizeof(float) * (size_t)(v_floats + u_floats + j.k_padded + turned));
  if (!memory) return -1;
  j.u = j.v = memory;
  j.zeros = memory + v_floats + u_floats;
  memset(j.zeros, 0, sizeof(float) * (size_t)j.k_padded);
  if (transposed) {
    turn_job t = { w, j.zeros + j.k_padded, taps, y.c, x.c };
    pn_parallel(taps * x.c, 64, turn, &t);
    j.w = t.to;
  }
  int rc;
  if (few) {
    pn_parallel(j.tiles.total, 1, all_inputs, &j);
    rc = pn_parallel_try(j.n_blocks, 1, forward_blocks, &j);
  } else {
    pn_parallel(x.c, 1, all_filters, &j);
    rc = pn_parallel_try(units, 1, forward_units, &j);
  }
  pn_free(memory);
  return rc;
}

#endif
