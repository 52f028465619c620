/* winograd.c: tiles, products and threads around the line transforms of winograd.h.
**
**   forward, data   filters are transformed once, V[block of channels][point][k][channel]. Then each unit of work takes some
**                   tiles: their inputs become U[point][tile][k]; for each block of output channels Z = U V, and Z goes back
**                   through the output transform into y. U and Z stay in the L2 cache; every sum over k is whole, in order.
**   weights         tiles go by in chunks: x becomes U, dy becomes D, and S[point][k][channel] += U' D; in the end S -> dw.
** Where the tiles are few and the filters many, the loops change places: U of all tiles is made once, and a unit of work is a
** block of output channels, whose V (or D and S) come and go in its own cache. The sums are the same.
** Only f32: the f64 build computes by the definition. */
#include <stdio.h>
#include <string.h>
#include "convolve_bf16.h"
#include "winograd.h"
#include "product.h"

static enum { AUTO, OFF, FORCED } mode;
static pn_winograd_tile forced;

#ifndef PN_F64_BUILD

enum {
  U_BYTES = 1400 << 10,
  MOST_TILES = 48,
  CHUNK_BYTES = 28 << 20,
  FEW_BYTES = 8 << 20,
  MOST_CHUNK = 128,
  APART = 16,
  MOST_TAPS = 64
};

static const pn_winograd_kernels *lines(void) {
  return pn_cpu() >= PN_CPU_AVX512 ? &pn_winograd_avx512 : pn_cpu() >= PN_CPU_AVX2 ? &pn_winograd_avx2 : NULL;
}
static const pn_product_kernels *products(void) {
  return pn_cpu() >= PN_CPU_AVX512 ? &pn_product_avx512 : pn_cpu() >= PN_CPU_AVX2 ? &pn_product_avx2 : NULL;
}

/* ---- the scheme: what F(m,3) does along each axis ---------------------------------------------------------------------------- */

typedef struct scheme {
  const pn_winograd_kernels *lines;
  int kind[3];          /* PN_F23, ..., or -1: nothing to do along this axis */
  int m[3], n[3], r[3]; /* outputs, inputs and taps of a tile */
  int points;           /* of the transformed tile */
} scheme;

static scheme scheme_of(pn_winograd_tile tile) {
  scheme s = { .lines = lines(), .points = 1 };
  for (int d = 0; d < 3; d++) {
    s.kind[d] = tile.m[d] == 4 ? PN_F43 : tile.m[d] == 3 ? PN_F34 : tile.m[d] == 2 ? PN_F23 : -1;
    s.m[d] = tile.m[d] ? tile.m[d] : 1;
    s.r[d] = tile.m[d] == 3 ? 4 : tile.m[d] ? 3 : 1;
    s.n[d] = s.m[d] + s.r[d] - 1;
    s.points *= s.n[d];
  }
  return s;
}

typedef struct ends { /* where a transform of a whole tile reads and writes; see pn_winograd_pass */
  const float *src, *const *from;
  float *dst, *const *to;
  int64_t src_step, dst_step, at, n, vectors;
  const float *bias;
  bool add, relu;
} ends;

/* One transform along all three axes, from `before` elements an axis to `after`; last axis first, or first axis first. */
static void transform(const scheme *s, int which, const int *before, const int *after, bool last_first, const ends *e) {
  float room[2][PN_WINOGRAD_MOST * PN_WINOGRAD_VECTORS * PN_MOST_VL] __attribute__((aligned(64)));
  int axes[3], n_axes = 0, size[3] = { before[0], before[1], before[2] };
  int64_t width = e->vectors * s->lines->vl;
  for (int i = 0; i < 3; i++) {
    int d = last_first ? 2 - i : i;
    if (s->kind[d] >= 0) axes[n_axes++] = d;
  }
  for (int i = 0; i < n_axes; i++) {
    int d = axes[i];
    pn_winograd_pass p = { .src = room[i % 2],
                           .src_step = width,
                           .dst = room[(i + 1) % 2],
                           .dst_step = width,
                           .at = e->at,
                           .n = e->n,
                           .vectors = e->vectors,
                           .outer = d == 0   ? 1
                                    : d == 1 ? size[0]
                                             : size[0] * size[1],
                           .inner = d == 2   ? 1
                                    : d == 1 ? size[2]
                                             : size[1] * size[2] };
    if (i == 0) p.src = e->src, p.from = e->from, p.src_step = e->src_step;
    if (i == n_axes - 1) p.dst = e->dst, p.to = e->to, p.dst_step = e->dst_step, p.bias = e->bias, p.add = e->add, p.relu = e->relu;
    s->lines->pass[s->kind[d]][which](&p);
    size[d] = after[d];
  }
}

/* ---- tiles ------------------------------------------------------------------------------------------------------------------------- */

typedef struct tiling {
  int64_t count[3], total; /* tiles along t,h,w; with the batch */
} tiling;

static tiling tiles_of(const scheme *s, pn_pixels y) {
  tiling t = {
    {pn_ceil_div(y.t, s->m[0]), pn_ceil_div(y.h, s->m[1]), pn_ceil_div(y.w, s->m[2])},
    0
  };
  t.total = y.n * t.count[0] * t.count[1] * t.count[2];
  return t;
}

/* The addresses of a box of size[] pixels of p, whose first stands at tile * step - low; `outside` for those beyond p. */
static void look_at(const tiling *tiles, int64_t tile, const int *step, const int64_t *low, const int *size, pn_pixels p,
                    float *outside, float **to) {
  int64_t w0 = tile % tiles->count[2] * step[2] - low[2], h0 = tile / tiles->count[2] % tiles->count[1] * step[1] - low[1],
          t0 = tile / tiles->count[2] / tiles->count[1] % tiles->count[0] * step[0] - low[0],
          n = tile / tiles->count[2] / tiles->count[1] / tiles->count[0];
  for (int64_t t = t0; t < t0 + size[0]; t++)
    for (int64_t h = h0; h < h0 + size[1]; h++) {
      bool there = t >= 0 && t < p.t && h >= 0 && h < p.h;
      float *row = p.data + n * p.sn + t * p.st + h * p.sh;
      for (int64_t w = w0; w < w0 + size[2]; w++) *to++ = there && w >= 0 && w < p.w ? row + w * p.sw : outside;
    }
}

typedef struct block { /* of output channels */
  int nv;              /* vectors */
  int64_t first;       /* channel, in the padded row */
  int64_t v;           /* where its filters begin */
} block;

enum { MOST_BLOCKS = 256 };

/* n channels in even blocks of at most `most` vectors, and of few enough that all threads have some. Returns n padded. */
static int64_t cut_blocks(int64_t n, int64_t vl, int most, block *out, int *n_blocks, int *widest) {
  int64_t vectors = pn_ceil_div(n, vl), first = 0, blocks = pn_ceil_div(vectors, most);
  if (blocks < 4 * pn_threads()) blocks = pn_min64(vectors, pn_ceil_div(blocks, pn_threads()) * pn_threads());
  *n_blocks = (int)blocks;
  *widest = 0;
  for (int64_t b = 0; b < blocks; b++) {
    int nv = (int)(vectors / blocks + (b < vectors % blocks));
    out[b] = (block){ nv, first, 0 };
    first += nv * vl;
    if (nv > *widest) *widest = nv;
  }
  return first;
}

/* Does U of all tiles fit the caches, so that blocks of channels are the better units? */
static bool few_tiles(const scheme *s, const tiling *tiles, int64_t k) {
  return tiles->total * s->points * k * (int64_t)sizeof(float) <= FEW_BYTES;
}

/* ---- forward and data ---------------------------------------------------------------------------------------------------------------- */

typedef struct forward_job {
  scheme s;
  tiling tiles;
  pn_pixels y, x;
  const float *w;
  pn_epilogue end;
  bool add;
  int64_t low[3];
  const pn_product_kernels *products;
  block blocks[MOST_BLOCKS];
  int n_blocks, nv;                  /* nv: vectors of the widest block */
  float *u, *v, *zeros;              /* one of u and v */
  int64_t k_padded;                  /* x.c padded to vectors */
  int64_t n_tiles, u_point, z_point; /* tiles a unit; floats of a point of U and of Z */
} forward_job;

/* V of k = begin..end-1 of one block, from filters whose taps are x.c x y.c matrices. */
static void transform_filters(const forward_job *j, const block *b, float *to, int64_t begin, int64_t end) {
  const scheme *s = &j->s;
  int taps = s->r[0] * s->r[1] * s->r[2];
  int64_t width = (int64_t)b->nv * s->lines->vl;
  const float *from[MOST_TAPS];
  for (int64_t k = begin; k < end; k++) {
    for (int t = 0; t < taps; t++) from[t] = j->w + (t * j->x.c + k) * j->y.c;
    ends e = { .from = from,
               .at = b->first,
               .n = pn_min64(width, j->y.c - b->first),
               .vectors = b->nv,
               .dst = to + k * width,
               .dst_step = j->x.c * width + APART };
    transform(s, PN_FILTER_IN, s->r, s->n, true, &e);
  }
}

static void all_filters(void *context, int64_t begin, int64_t end) { /* units: k */
  const forward_job *j = context;
  for (int b = 0; b < j->n_blocks; b++) transform_filters(j, &j->blocks[b], j->v + j->blocks[b].v, begin, end);
}

static void transform_inputs(const forward_job *j, int64_t first, int64_t count, float *u) {
  const scheme *s = &j->s;
  int64_t step = (int64_t)PN_WINOGRAD_VECTORS * s->lines->vl;
  float *from[PN_WINOGRAD_MOST];
  for (int64_t m = 0; m < count; m++) {
    look_at(&j->tiles, first + m, s->m, j->low, s->n, j->x, j->zeros, from);
    for (int64_t c = 0; c < j->k_padded; c += step) {
      ends e = { .from = (const float *const *)from,
                 .at = c,
                 .n = pn_min64(step, j->x.c - c),
                 .vectors = pn_min64(step, j->k_padded - c) / s->lines->vl,
                 .dst = u + m * j->k_padded + c,
                 .dst_step = j->u_point };
      transform(s, PN_INPUT, s->n, s->n, true, &e);
    }
  }
}

static void multiply(const forward_job *j, const block *b, int64_t count, const float *u, const float *w, float *z) {
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
      j->products->tile[b->nv](out, rows, 1, j->x.c, w + p * (j->x.c * width + APART), NULL, width, false, false);
    }
}

static void transform_outputs(const forward_job *j, const block *b, int64_t first, int64_t count, const float *z) {
  const scheme *s = &j->s;
  int64_t width = (int64_t)b->nv * s->lines->vl, none[3] = { 0, 0, 0 };
  float *to[64];
  for (int64_t m = 0; m < count; m++) {
    look_at(&j->tiles, first + m, s->m, none, s->m, j->y, NULL, to);
    ends e = { .src = z + m * width,
               .src_step = j->z_point,
               .to = to,
               .at = b->first,
               .n = pn_min64(width, j->y.c - b->first),
               .vectors = b->nv,
               .bias = j->end.bias ? j->end.bias + b->first : NULL,
               .relu = j->end.relu,
               .add = j->add };
    transform(s, PN_OUTPUT, s->n, s->m, false, &e);
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
  int64_t v_point = j->x.c * j->nv * j->s.lines->vl + APART;
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
  forward_job j = { .s = scheme_of(tile), .y = y, .x = x, .w = w, .end = end, .add = add, .products = products() };
  const scheme *s = &j.s;
  int64_t vl = s->lines->vl, taps = s->r[0] * s->r[1] * s->r[2];
  j.tiles = tiles_of(s, y);
  if (!j.tiles.total) return 0;
  for (int d = 0; d < 3; d++) j.low[d] = transposed ? g->kernel[d] - 1 - g->low[d] : g->low[d];
  j.k_padded = pn_ceil_div(x.c, vl) * vl;
  bool few = few_tiles(s, &j.tiles, j.k_padded);
  int64_t v_floats, channels = cut_blocks(y.c, vl, j.products->most_nv, j.blocks, &j.n_blocks, &j.nv);
  v_floats = few ? 0 : s->points * (channels * x.c + j.n_blocks * APART);
  for (int b = 0; b < j.n_blocks; b++) j.blocks[b].v = s->points * (j.blocks[b].first * x.c + b * APART);
  int64_t units = 1;
  if (!few) {
    int64_t fit = pn_max64(12, U_BYTES / (int64_t)sizeof(float) / (s->points * j.k_padded) / 12 * 12);
    units = pn_ceil_div(j.tiles.total, pn_min64(fit, MOST_TILES));
    if (units < 4 * pn_threads()) units = pn_min64(pn_ceil_div(units, pn_threads()) * pn_threads(), j.tiles.total);
  }
  j.n_tiles = pn_ceil_div(j.tiles.total, units);
  units = pn_ceil_div(j.tiles.total, j.n_tiles);
  j.u_point = j.n_tiles * j.k_padded + APART;
  j.z_point = pn_ceil_div(j.n_tiles, 24) * 24 * j.nv * vl + APART; /* whole tiles of any height */
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

/* ---- weights --------------------------------------------------------------------------------------------------------------------------- */

typedef struct weight_job {
  scheme s;
  tiling tiles;
  pn_pixels x, y; /* y: dy */
  int64_t low[3];
  const pn_product_kernels *products;
  block blocks[MOST_BLOCKS];
  int n_blocks, nv;
  int64_t first, count; /* the tiles of this chunk */
  int64_t n_tiles, k_rows, k_padded, n_padded, u_point, d_point, s_point;
  float *u, *d, *sums, *zeros, *dw;
} weight_job;

static void weight_inputs(void *context, int64_t begin, int64_t end) { /* units: tiles of the chunk */
  const weight_job *j = context;
  const scheme *s = &j->s;
  int64_t step = (int64_t)PN_WINOGRAD_VECTORS * s->lines->vl;
  float *from[PN_WINOGRAD_MOST];
  for (int64_t m = begin; m < end; m++) {
    look_at(&j->tiles, j->first + m, s->m, j->low, s->n, j->x, j->zeros, from);
    for (int64_t c = 0; c < j->k_padded; c += step) {
      ends e = { .from = (const float *const *)from,
                 .at = c,
                 .n = pn_min64(step, j->x.c - c),
                 .vectors = pn_min64(step, j->k_padded - c) / s->lines->vl,
                 .dst = j->u + m * j->k_padded + c,
                 .dst_step = j->u_point };
      transform(s, PN_INPUT, s->n, s->n, true, &e);
    }
  }
}

/* D[point][tile][channel] of one block, for some tiles. */
static void expand(const weight_job *j, const block *b, int64_t first, int64_t count, float *d, int64_t d_point) {
  const scheme *s = &j->s;
  int64_t none[3] = { 0, 0, 0 }, width = (int64_t)b->nv * s->lines->vl;
  float *from[64];
  for (int64_t m = 0; m < count; m++) {
    look_at(&j->tiles, first + m, s->m, none, s->m, j->y, j->zeros, from);
    ends e = { .from = (const float *const *)from,
               .at = b->first,
               .n = pn_min64(width, j->y.c - b->first),
               .vectors = b->nv,
               .dst = d + m * width,
               .dst_step = d_point };
    transform(s, PN_EXPAND, s->m, s->n, true, &e);
  }
}

/* sums[k][0..width-1] += U' D of one point, over the tiles first..first+count-1 of the chunk. */
static void add_products(const weight_job *j, const block *b, int point, int64_t first, int64_t count, const float *d, float *sums,
                         int64_t ld) {
  int mi = j->products->outer_mi;
  const void *rows[MOST_CHUNK];
  for (int64_t m = 0; m < count; m++) rows[m] = j->u + point * j->u_point + (first + m) * j->k_padded;
  for (int64_t k = 0; k < j->k_rows; k += mi) j->products->outer[b->nv](sums + k * ld, ld, rows, k, d, count, mi);
}

static void chunk_expand(void *context, int64_t begin, int64_t end) { /* units: tiles of the chunk */
  const weight_job *j = context;
  for (int b = 0; b < j->n_blocks; b++) {
    int64_t width = (int64_t)j->blocks[b].nv * j->s.lines->vl;
    expand(j, &j->blocks[b], j->first + begin, end - begin, j->d + j->blocks[b].first * j->n_tiles + begin * width, j->d_point);
  }
}

static void chunk_products(void *context, int64_t begin, int64_t end) { /* units: points */
  const weight_job *j = context;
  for (int64_t p = begin; p < end; p++)
    for (int b = 0; b < j->n_blocks; b++)
      add_products(j, &j->blocks[b], (int)p, 0, j->count, j->d + p * j->d_point + j->blocks[b].first * j->n_tiles,
                   j->sums + p * j->s_point + j->blocks[b].first, j->n_padded);
}

/* dw[k][channels of a block] += G' of its sums, for k = begin..end-1. */
static void add_weights(const weight_job *j, const block *b, const float *sums, int64_t step, int64_t ld, int64_t begin,
                        int64_t end) {
  const scheme *s = &j->s;
  int taps = s->r[0] * s->r[1] * s->r[2];
  float *to[MOST_TAPS];
  for (int64_t k = begin; k < end; k++) {
    for (int t = 0; t < taps; t++) to[t] = j->dw + (t * j->x.c + k) * j->y.c;
    ends e = { .src = sums + k * ld,
               .src_step = step,
               .to = to,
               .at = b->first,
               .n = pn_min64((int64_t)b->nv * s->lines->vl, j->y.c - b->first),
               .vectors = b->nv,
               .add = true };
    transform(s, PN_FILTER_OUT, s->n, s->r, false, &e);
  }
}

static void all_weights(void *context, int64_t begin, int64_t end) { /* units: k */
  const weight_job *j = context;
  for (int b = 0; b < j->n_blocks; b++)
    add_weights(j, &j->blocks[b], j->sums + j->blocks[b].first, j->s_point, j->n_padded, begin, end);
}

static int weight_blocks(void *context, int64_t begin, int64_t end) { /* units: blocks, of all tiles */
  const weight_job *j = context;
  int vl = j->s.lines->vl;
  int64_t widest = (int64_t)j->nv * vl, d_point = j->n_tiles * widest + APART, s_point = j->k_rows * widest + APART;
  float *d = pn_alloc(sizeof(float) * (size_t)(j->s.points * (d_point + s_point)));
  if (!d) return -1;
  float *sums = d + j->s.points * d_point;
  for (int64_t unit = begin; unit < end; unit++) {
    const block *b = &j->blocks[unit];
    int64_t width = (int64_t)b->nv * vl;
    memset(sums, 0, sizeof(float) * (size_t)(j->s.points * s_point));
    for (int64_t first = 0; first < j->tiles.total; first += j->n_tiles) {
      int64_t count = pn_min64(j->n_tiles, j->tiles.total - first);
      expand(j, b, first, count, d, d_point);
      for (int p = 0; p < j->s.points; p++) add_products(j, b, p, first, count, d + p * d_point, sums + p * s_point, width);
    }
    add_weights(j, b, sums, s_point, width, 0, j->x.c);
  }
  pn_free(d);
  return 0;
}

int pn_winograd_weight(float *dw, pn_pixels x, pn_pixels dy, const pn_geometry *g, pn_winograd_tile tile) {
  weight_job j = { .s = scheme_of(tile), .x = x, .y = dy, .products = products(), .dw = dw };
  const scheme *s = &j.s;
  int64_t vl = s->lines->vl, mi = j.products->outer_mi;
  j.tiles = tiles_of(s, dy);
  if (!j.tiles.total) return 0;
  for (int d = 0; d < 3; d++) j.low[d] = g->low[d];
  j.n_padded = cut_blocks(dy.c, vl, j.products->outer_most_nv, j.blocks, &j.n_blocks, &j.nv);
  j.k_rows = pn_ceil_div(x.c, mi) * mi;
  j.k_padded = pn_ceil_div(j.k_rows, vl) * vl;
  bool few = few_tiles(s, &j.tiles, j.k_padded);
  int64_t a_tile = (int64_t)sizeof(float) * s->points * (j.k_padded + j.n_padded);
  j.n_tiles = pn_min64(j.tiles.total, pn_min64(MOST_CHUNK, pn_max64(8, CHUNK_BYTES / a_tile)));
  j.u_point = (few ? j.tiles.total : j.n_tiles) * j.k_padded + APART;
  j.d_point = few ? 0 : j.n_tiles * j.n_padded + APART;
  j.s_point = few ? 0 : j.k_rows * j.n_padded + APART;
  int64_t most = pn_max64(j.k_padded, j.n_padded);
  float *memory = pn_alloc(sizeof(float) * (size_t)(s->points * (j.u_point + j.d_point + j.s_point) + most));
  if (!memory) return -1;
  j.sums = memory;
  j.u = j.sums + s->points * j.s_point;
  j.d = j.u + s->points * j.u_point;
  j.zeros = j.d + s->points * j.d_point;
  memset(j.zeros, 0, sizeof(float) * (size_t)most);
  int rc = 0;
  if (few) {
    pn_parallel(j.tiles.total, 1, weight_inputs, &j);
    rc = pn_parallel_try(j.n_blocks, 1, weight_blocks, &j);
  } else {
    memset(j.sums, 0, sizeof(float) * (size_t)(s->points * j.s_point));
    for (; j.first < j.tiles.total; j.first += j.n_tiles) {
      j.count = pn_min64(j.n_tiles, j.tiles.total - j.first);
      pn_parallel(j.count, 1, weight_inputs, &j);
      pn_parallel(j.count, 1, chunk_expand, &j);
      pn_parallel(s->points, 1, chunk_products, &j);
    }
    pn_parallel(x.c, 1, all_weights, &j);
  }
  pn_free(memory);
  return rc;
}

/* ---- the choice ------------------------------------------------------------------------------------------------------------------------ */

static bool fits(pn_pixels y, pn_pixels x, const pn_geometry *g) {
  if (!lines() || g->groups != 1 || g->kernel[1] != 3 || g->kernel[2] != 3 || (g->kernel[0] != 3 && g->kernel[0] != 1))
    return false;
  for (int d = 0; d < 3; d++)
    if (g->stride[d] != 1 || g->dilation[d] != 1 || g->low[d] > g->kernel[d] - 1) return false;
  return x.c >= 4 && y.c >= 4 && y.c <= MOST_BLOCKS * lines()->vl && x.c <= MOST_BLOCKS * lines()->vl;
}

/* What a convolution takes, in multiply-adds of a vector: each transformed vector counts for PASSES of them, and products with
** few k for SHORT. Fitted to the layers of I3D, 8..192 channels, 7..56 pixels wide (Zen 4): within a fifth of what was measured. */
enum { PASSES = 8 };
static const double SHORT = 1.2;

double pn_winograd_cost(pn_winograd_tile tile, pn_pixels y, pn_pixels x) {
  scheme s = scheme_of(tile);
  double tiles = (double)tiles_of(&s, y).total, vl = s.lines->vl, in = (double)pn_ceil_div(x.c, s.lines->vl),
         out = (double)pn_ceil_div(y.c, s.lines->vl);
  return s.points * (SHORT * tiles * (double)x.c * out + PASSES * (tiles * (in + out) + in * vl * out));
}

double pn_direct_cost(pn_pixels y, pn_pixels x, const pn_geometry *g) {
  double taps = (double)(g->kernel[0] * g->kernel[1] * g->kernel[2]), product = pn_takes_bf16(y, x, g) ? pn_bf16_cost() : 1;
  return product * (double)(y.n * y.t * y.h * y.w) * taps * (double)x.c * (double)pn_ceil_div(y.c, lines()->vl);
}

bool pn_winograd_off(void) { return mode == OFF || !lines(); }

pn_winograd_tile pn_winograd_choose(pn_pixels y, pn_pixels x, const pn_geometry *g) {
  pn_winograd_tile best = {
    {0, 0, 0}
  };
  if (mode == OFF || !fits(y, x, g)) return best;
  if (mode == FORCED) {
    best = forced;
    if (g->kernel[0] == 1) best.m[0] = 0;
    return best;
  }
  double least = pn_direct_cost(y, x, g);
  for (int t = 2; t <= 4; t += 2)
    for (int hw = 2; hw <= 4; hw += 2) {
      pn_winograd_tile tile = {
        {g->kernel[0] == 1 ? 0 : t, hw, hw}
      };
      double cost = pn_winograd_cost(tile, y, x);
      if (cost < least) least = cost, best = tile;
    }
  return best;
}

#endif

int pn_set_winograd(const char *how) {
  int t, h, w, end = 0;
  if (!how) return pn_fail("set_winograd: how is NULL");
  if (!strcmp(how, "auto") || !strcmp(how, "off")) {
    mode = *how == 'o' ? OFF : AUTO;
    return 0;
  }
  if (sscanf(how, "%d,%d,%d%n", &t, &h, &w, &end) != 3 || how[end] || (t != 2 && t != 4) || (h != 2 && h != 4) ||
      (w != 2 && w != 4))
    return pn_fail("set_winograd: \"%s\" is none of auto, off, or the outputs of a tile along t,h,w (each 2 or 4)", how);
  forced = (pn_winograd_tile){
    {t, h, w}
  };
  mode = FORCED;
  return 0;
}

const char *pn_winograd(void) {
  static _Thread_local char text[16];
  if (mode == FORCED) snprintf(text, sizeof text, "%d,%d,%d", forced.m[0], forced.m[1], forced.m[2]);
  else snprintf(text, sizeof text, "%s", mode == OFF ? "off" : "auto");
  return text;
}
