/* batch_norm.cu: see core/ops/batch_norm.c; the formulas of a channel are core/kernels/norm_rules.h.
**
** A block of threads has a part of the pixels and up to 256 packs of channels (16 bytes each where memory allows). Each thread stays with
** its channels and goes down the rows of the part; the parts are cut by the shape alone. Frozen mode reads x once; backward reads x
** (for relu) and dy once, writes dx, and sums for beta on the way. Where the batch's statistics count there is a pass before: each thread
** has mean and spread of its rows (Welford), then threads, then parts are joined in double in their order. What is worked out for a
** channel (the line, the totals, the stored statistics) is so, where there are few parts, by the block that is done last, else by a small
** kernel in between, and nothing of it is seen by the host. Sums have the order of the parts, whichever block was last. */
#include "kernels/norm_rules.h"
#include "pack.h"
#include "pixels.h"
#include "tensor.h"

enum { MOST_THREADS = 256, LEAST_ROWS = 16, LEAST_ALONE = 4, MOST_ROWS = 64, PARTS = 1024 }; /* rows of a thread */
enum { COLUMNS = 32, LANES = 8 }; /* of the small kernels: channels, and threads for each */
/* The last block of a tile, of up to WIDE channels, joins up to FOLDED parts, a thread a channel; of more parts, many blocks are faster. */
enum { FOLDED = 32, WIDE = 256, TICKETS = 64 };
PN_TICKETS(tickets, TICKETS); /* of tiles; the kernels of a device follow one another */

/* ---- parts -------------------------------------------------------------------------------------------------------------------- */

typedef struct cut {
  int64_t count, rows, parts;               /* pixels; of a part; parts */
  int c, pack, tile, tiles, lanes, threads; /* channels; of a pack; packs of a tile; tiles; rows at a time */
  bool folds;                               /* the last block of a tile does what is left to do */
} cut;

/* Where nothing is added up, the parts cost nothing, and more threads hide how long memory takes. */
static cut cut_of(int64_t count, int64_t c, int64_t pack, bool sums) {
  cut k;
  const int64_t least = sums ? LEAST_ROWS : LEAST_ALONE;
  const int64_t packs = c / pack;
  k.count = count;
  k.c = (int)c;
  k.pack = (int)pack;
  k.tiles = (int)pn_ceil_div(packs, sums ? WIDE / pack : (int64_t)MOST_THREADS);
  k.tile = (int)pn_ceil_div(packs, k.tiles);
  k.lanes = (int)pn_max64(1, MOST_THREADS / k.tile);
  k.threads = (k.lanes * k.tile + 31) / 32 * 32;
  k.rows = k.lanes * pn_max64(least, pn_min64(MOST_ROWS, pn_ceil_div(count, (int64_t)k.lanes * PARTS)));
  k.parts = pn_ceil_div(count, k.rows);
  k.folds = sums && k.parts >= 1 && k.parts <= FOLDED && k.tiles <= TICKETS;
  return k;
}

/* What a thread of a block does: rows begin + lane, + lanes ... of channels c .. c + pack; works is false where it has none. */
typedef struct duty {
  int64_t begin, end, part;
  int lane, column, c; /* column: the first of its channels in the tile */
  bool works;
} duty;

PN_DEVICE duty duty_of(const cut *k) {
  duty d;
  const int64_t tile = pn_block % k->tiles;
  d.part = pn_block / k->tiles;
  d.lane = pn_thread / k->tile;
  d.column = pn_thread % k->tile * k->pack;
  d.c = (int)tile * k->tile * k->pack + d.column;
  d.works = d.lane < k->lanes && d.c < k->c;
  d.begin = d.part * k->rows;
  d.end = d.begin + k->rows < k->count ? d.begin + k->rows : k->count;
  return d;
}

/* Channels of this block's tile, one a thread in turns: c of the tensor, column of the tile. */
#define EACH_COLUMN(k, column, channel)                                                                                            \
  for (int column = pn_thread, channel = (int)(pn_block % (k).tiles) * (k).tile * (k).pack + column;                               \
       column < (k).tile * (k).pack && channel < (k).c; column += pn_threads, channel += pn_threads)

/* ---- y ------------------------------------------------------------------------------------------------------------------------ */

template <typename T, int V> PN_KERNEL void affine(pn_gpu_pixels y, pn_gpu_pixels x, cut k, const real *stats, bool relu) {
  const duty d = duty_of(&k);
  real scale[V], shift[V], v[V];
  if (!d.works) return;
  pn_load_reals<V>(scale, stats + PN_NORM_INV * k.c + d.c);
  pn_load_reals<V>(shift, stats + PN_NORM_SHIFT * k.c + d.c);
  for (int64_t r = d.begin + d.lane; r < d.end; r += k.lanes) {
    pn_load<T, V>(v, (const T *)x.data + pn_gpu_pixel_at(&x, r) + d.c);
    for (int i = 0; i < V; i++) {
      v[i] = v[i] * scale[i] + shift[i];
      v[i] = relu && v[i] < 0 ? 0 : v[i];
    }
    pn_store<T, V>((T *)y.data + pn_gpu_pixel_at(&y, r) + d.c, v);
  }
}

/* ---- statistics --------------------------------------------------------------------------------------------------------------- */

typedef struct stored {
  const real *beta;
  real *mean, *var;
  int64_t beta_step, mean_step, var_step;
} stored;

typedef struct spread {
  double n, mean, m2;
} spread;

PN_DEVICE double rows_of_part(const cut *k, int64_t b) { return (double)(b < k->parts - 1 ? k->rows : k->count - b * k->rows); }

/* Parts begin .. end-1 of channel c, in their order: first their mean, then the distances from it. A division at each, as to join them
** one by one takes, would have the loads wait for one another. */
PN_DEVICE spread join_parts(const double *partial, const cut *k, int64_t c, int64_t begin, int64_t end) {
  spread all = { 0, 0, 0 };
  for (int64_t b = begin; b < end; b++) {
    const double n = rows_of_part(k, b);
    all.n += n;
    all.mean += n * partial[b * 2 * k->c + c];
  }
  if (all.n == 0) return all;
  all.mean /= all.n;
  for (int64_t b = begin; b < end; b++) {
    const double distance = partial[b * 2 * k->c + c] - all.mean;
    all.m2 += partial[(b * 2 + 1) * k->c + c] + rows_of_part(k, b) * distance * distance;
  }
  return all;
}

/* Writes stats of channel c. */
PN_DEVICE void settle_channel(real *stats, const spread *all, const cut *k, int64_t c, const stored *s, const pn_norm_rule *rule) {
  real *inv = stats + PN_NORM_INV * k->c + c, *m = stats + PN_NORM_MEAN * k->c + c;
  pn_norm_settle(rule, all->mean, all->m2 / (double)k->count, s->mean + c * s->mean_step, s->var + c * s->var_step, inv, m,
                 stats + PN_NORM_CENTRE * k->c + c);
  stats[PN_NORM_SHIFT * k->c + c] = pn_norm_shift(s->beta[c * s->beta_step], *m, *inv);
}

/* partial: [part][2][c], mean and sum of squared distances from it. */
template <typename T, int V>
PN_KERNEL void moments(double *partial, pn_gpu_pixels x, cut k, real *stats, stored s, pn_norm_rule rule) {
  PN_SHARED_MEMORY(real, room); /* [lane][2][channel of the tile] */
  const duty d = duty_of(&k);
  const int width = k.tile * V;
  if (d.works) {
    real mean[V] = {}, m2[V] = {}, v[V], n = 0;
    for (int64_t r = d.begin + d.lane; r < d.end; r += k.lanes) {
      pn_load<T, V>(v, (const T *)x.data + pn_gpu_pixel_at(&x, r) + d.c);
      n += 1;
      const real share = 1 / n;
      for (int i = 0; i < V; i++) {
        const real delta = v[i] - mean[i];
        mean[i] += delta * share;
        m2[i] += delta * (v[i] - mean[i]);
      }
    }
    for (int i = 0; i < V; i++) {
      room[d.lane * 2 * width + d.column + i] = mean[i];
      room[(d.lane * 2 + 1) * width + d.column + i] = m2[i];
    }
  }
  PN_BARRIER();
  EACH_COLUMN(k, column, channel) {
    double mean = 0, m2 = 0, before = 0;
    for (int lane = 0; lane < k.lanes; lane++) {
      const int64_t n = (d.end - d.begin - lane + k.lanes - 1) / k.lanes;
      if (n <= 0) break;
      const real *of = room + lane * 2 * width + column;
      pn_norm_join(&mean, &m2, before, (double)n, (double)of[0], (double)of[width]);
      before += (double)n;
    }
    partial[(d.part * 2) * k.c + channel] = mean;
    partial[(d.part * 2 + 1) * k.c + channel] = m2;
  }
  if (!k.folds || !pn_last_block(&tickets[pn_block % k.tiles], (unsigned)k.parts)) return;
  EACH_COLUMN(k, column, channel) {
    const spread all = join_parts(partial, &k, channel, 0, k.parts);
    settle_channel(stats, &all, &k, channel, &s, &rule);
  }
}

/* One thread a channel writes stats; without partial (frozen mode) there is nothing to join. */
PN_KERNEL void settle(real *stats, const double *partial, cut k, stored s, pn_norm_rule rule) {
  PN_SHARED_MEMORY(spread, room); /* [lane][column] */
  const int column = pn_thread % COLUMNS, lane = pn_thread / COLUMNS;
  const int64_t c = pn_block * COLUMNS + column, share = (k.parts + LANES - 1) / LANES;
  spread all = { 0, 0, 0 };
  if (partial && c < k.c) all = join_parts(partial, &k, c, lane * share, pn_min64(k.parts, (lane + 1) * share));
  room[pn_thread] = all;
  PN_BARRIER();
  if (lane || c >= k.c) return;
  for (int l = 1; l < LANES; l++) {
    const spread more = room[l * COLUMNS + column];
    if (more.n == 0) break;
    pn_norm_join(&all.mean, &all.m2, all.n, more.n, more.mean, more.m2);
    all.n += more.n;
  }
  settle_channel(stats, &all, &k, c, &s, &rule);
}

/* ---- gradients ------------------------------------------------------------------------------------------------------------------ */

/* What becomes of the totals of each channel: the gradient of beta, and what goes through the statistics. Either may be NULL. */
typedef struct goal {
  real *dbeta, *slopes; /* slopes: [2][c], slope and level */
  int64_t step;
  bool fresh;
  double alpha;
} goal;

typedef struct back {
  pn_gpu_pixels x, dy, dx;
  cut k;
  const real *stats, *slopes; /* slopes: as in goal; NULL: there is nothing behind the statistics, or not yet */
  goal to;
  double *partial; /* [part][2][c], sums of g and of g (x - centre); NULL: none are wanted */
  bool relu, add, want_dx, through;
} back;

PN_DEVICE void settle_totals(const goal *to, const real *stats, const cut *k, int64_t c, double s1, double s2) {
  if (to->dbeta) to->dbeta[c * to->step] = (real)(s1 + (to->fresh ? 0 : (double)to->dbeta[c * to->step]));
  if (to->slopes)
    pn_norm_through(to->alpha, (double)k->count, stats[PN_NORM_INV * k->c + c], stats[PN_NORM_MEAN * k->c + c],
                    stats[PN_NORM_CENTRE * k->c + c], s1, s2, to->slopes + c, to->slopes + k->c + c);
}

/* Adds parts begin .. end-1 of channel c to its totals, in their order. */
PN_DEVICE void add_parts(const double *partial, const cut *k, int64_t c, int64_t begin, int64_t end, bool both, double *s1,
                         double *s2) {
  for (int64_t b = begin; b < end; b++) {
    *s1 += partial[b * 2 * k->c + c];
    if (both) *s2 += partial[(b * 2 + 1) * k->c + c];
  }
}

/* THROUGH: the statistics of the batch count, so centre, products and slopes are looked at; without them fewer registers do. */
template <typename T, int V, bool THROUGH> PN_KERNEL void gradient(back j) {
  PN_SHARED_MEMORY(real, room); /* [2][lane][channel of the tile] */
  const duty d = duty_of(&j.k);
  const int c = j.k.c, width = j.k.tile * V;
  const bool needs_x = j.relu || THROUGH;
  if (d.works) {
    real scale[V], shift[V], centre[V] = {}, slope[V] = {}, level[V] = {}, sum[V] = {}, product[V] = {}, x[V] = {}, g[V];
    pn_load_reals<V>(scale, j.stats + PN_NORM_INV * c + d.c);
    pn_load_reals<V>(shift, j.stats + PN_NORM_SHIFT * c + d.c);
    if (THROUGH) pn_load_reals<V>(centre, j.stats + PN_NORM_CENTRE * c + d.c);
    if (THROUGH && j.slopes) {
      pn_load_reals<V>(slope, j.slopes + d.c);
      pn_load_reals<V>(level, j.slopes + c + d.c);
    }
    for (int64_t r = d.begin + d.lane; r < d.end; r += j.k.lanes) {
      pn_load<T, V>(g, (const T *)j.dy.data + pn_gpu_pixel_at(&j.dy, r) + d.c);
      if (needs_x) pn_load<T, V>(x, (const T *)j.x.data + pn_gpu_pixel_at(&j.x, r) + d.c);
      for (int i = 0; i < V; i++) {
        if (j.relu && !(x[i] * scale[i] + shift[i] > 0)) g[i] = 0;
        sum[i] += g[i];
        if (THROUGH) product[i] += g[i] * (x[i] - centre[i]);
      }
      if (!j.want_dx) continue;
      T *to = (T *)j.dx.data + pn_gpu_pixel_at(&j.dx, r) + d.c;
      real old[V] = {};
      if (j.add) pn_load<T, V>(old, to);
      for (int i = 0; i < V; i++) old[i] += scale[i] * g[i] + (THROUGH ? slope[i] * (x[i] - centre[i]) + level[i] : 0);
      pn_store<T, V>(to, old);
    }
    for (int i = 0; i < V && j.partial; i++) {
      room[d.lane * width + d.column + i] = sum[i];
      if (THROUGH) room[(j.k.lanes + d.lane) * width + d.column + i] = product[i];
    }
  }
  if (!j.partial) return;
  PN_BARRIER();
  EACH_COLUMN(j.k, column, channel) {
    for (int which = 0; which < (THROUGH ? 2 : 1); which++) {
      double total = 0;
      for (int lane = 0; lane < j.k.lanes; lane++) total += (double)room[(which * j.k.lanes + lane) * width + column];
      j.partial[(d.part * 2 + which) * c + channel] = total;
    }
  }
  if (!j.k.folds || !pn_last_block(&tickets[pn_block % j.k.tiles], (unsigned)j.k.parts)) return;
  EACH_COLUMN(j.k, column, channel) {
    double s1 = 0, s2 = 0;
    add_parts(j.partial, &j.k, channel, 0, j.k.parts, j.to.slopes != NULL, &s1, &s2);
    settle_totals(&j.to, j.stats, &j.k, channel, s1, s2);
  }
}

PN_KERNEL void total(goal to, const double *partial, cut k, const real *stats) {
  PN_SHARED_MEMORY(double, room); /* [2][lane][column] */
  const int column = pn_thread % COLUMNS, lane = pn_thread / COLUMNS;
  const int64_t c = pn_block * COLUMNS + column, share = (k.parts + LANES - 1) / LANES;
  double s1 = 0, s2 = 0;
  if (c < k.c) add_parts(partial, &k, c, lane * share, pn_min64(k.parts, (lane + 1) * share), to.slopes != NULL, &s1, &s2);
  room[pn_thread] = s1;
  room[LANES * COLUMNS + pn_thread] = s2;
  PN_BARRIER();
  if (lane || c >= k.c) return;
  for (int l = 1; l < LANES; l++) {
    s1 += room[l * COLUMNS + column];
    s2 += room[(LANES + l) * COLUMNS + column];
  }
  settle_totals(&to, stats, &k, c, s1, s2);
}

/* ---- tensors as pixels ------------------------------------------------------------------------------------------------------------ */

/* held is t, or a copy whose channels lie together. */
static int open_pixels(pn_gpu_pixels *p, pn_tensor **held, pn_tensor *t) {
  if (pn_channels_last(held, t)) return -1;
  *p = pn_gpu_pixels_of(*held);
  return 0;
}

/* After writing: what a copy holds goes back into t. */
static int close_pixels(pn_tensor *held, pn_tensor *t, int rc) {
  if (!rc && held && held != t) rc = pn_gpu_assign(t, held, false);
  pn_tensor_release(held);
  return rc;
}

/* Can its channels be moved 16 bytes at a time? */
static bool packs(const pn_gpu_pixels *p, int64_t pack) {
  return p->c % pack == 0 && (uintptr_t)p->data % 16 == 0 && p->sw % pack == 0 && p->sh % pack == 0 && p->st % pack == 0 &&
         p->sn % pack == 0;
}

static int64_t pack_of(const pn_gpu_pixels *const *list, int n) {
  const int64_t pack = 16 / pn_dtype_bytes((pn_dtype)list[0]->dtype);
  for (int i = 0; i < n; i++)
    if (!packs(list[i], pack)) return 1;
  return pack;
}

/* RUN with T the element type and V the channels of a pack. */
#define BY_PACK(dtype, pack, ...)                                                                                                  \
  PN_BY_TYPE(dtype, return pn_fail("batch_norm: %s", pn_dtype_name((pn_dtype)(dtype))), {                                          \
    if ((pack) == 1) {                                                                                                             \
      enum { V = 1 };                                                                                                              \
      __VA_ARGS__;                                                                                                                 \
    } else {                                                                                                                       \
      enum { V = pn_per_pack<T>::COUNT };                                                                                          \
      __VA_ARGS__;                                                                                                                 \
    }                                                                                                                              \
  })

static int launch_affine(pn_gpu *gpu, const pn_gpu_pixels *y, const pn_gpu_pixels *x, const real *stats, bool relu) {
  const pn_gpu_pixels *list[] = { x, y };
  const cut k = cut_of(pn_gpu_pixels_count(x), x->c, pack_of(list, 2), false);
  BY_PACK(x->dtype, k.pack, {
    auto run = affine<T, V>;
    return PN_LAUNCH(gpu, run, k.parts * k.tiles, k.threads, *y, *x, k, stats, relu);
  });
  return 0;
}

static int launch_moments(pn_gpu *gpu, double *partial, const pn_gpu_pixels *x, const cut *k, real *stats, stored s,
                          pn_norm_rule rule) {
  const size_t bytes = (size_t)(k->lanes * 2 * k->tile * k->pack) * sizeof(real);
  BY_PACK(x->dtype, k->pack, {
    auto run = moments<T, V>;
    return PN_LAUNCH_TEAM(gpu, run, k->parts * k->tiles, k->threads, bytes, partial, *x, *k, stats, s, rule);
  });
  return 0;
}

static int launch_gradient(pn_gpu *gpu, const back *j) {
  const size_t bytes = j->partial ? (size_t)(j->k.lanes * 2 * j->k.tile * j->k.pack) * sizeof(real) : 0;
  BY_PACK(j->x.dtype, j->k.pack, {
    auto run = j->through ? gradient<T, V, true> : gradient<T, V, false>;
    return PN_LAUNCH_TEAM(gpu, run, j->k.parts * j->k.tiles, j->k.threads, bytes, *j);
  });
  return 0;
}

/* ---- forward and backward ------------------------------------------------------------------------------------------------------------ */

static stored stored_of(const pn_call *call) {
  const pn_tensor *beta = call->x[1], *mean = call->x[2], *var = call->x[3];
  stored s = { pn_real_of(beta), pn_real_of(mean), pn_real_of(var), beta->stride[0], mean->stride[0], var->stride[0] };
  return s;
}

/* stats, [PN_NORM_KEPT][c], of x. */
static int statistics(pn_gpu *gpu, const pn_call *call, real *stats, const pn_gpu_pixels *x) {
  const pn_norm_rule rule = pn_norm_rule_of(call);
  const cut k = cut_of(pn_gpu_pixels_count(x), x->c, pack_of(&x, 1), true);
  double *partial = NULL;
  if (rule.mode != PN_NORM_FROZEN) {
    partial = (double *)pn_gpu_scratch(gpu, (size_t)(k.parts * 2 * k.c) * sizeof *partial);
    if (!partial) return -1;
  }
  int rc = partial ? launch_moments(gpu, partial, x, &k, stats, stored_of(call), rule) : 0;
  if (!rc && !(partial && k.folds))
    rc = PN_LAUNCH_TEAM(gpu, settle, pn_ceil_div(k.c, COLUMNS), COLUMNS * LANES, COLUMNS * LANES * sizeof(spread), stats, partial,
                        k, stored_of(call), rule);
  pn_gpu_scratch_free(gpu, partial);
  return rc;
}

static int forward_on(pn_gpu *gpu, pn_call *call, const pn_gpu_pixels *y, const pn_gpu_pixels *x) {
  const int64_t shape[] = { PN_NORM_KEPT, x->c };
  pn_tensor *kept = call->again ? call->saved[0] : NULL; /* the stored statistics have moved since */
  int rc = 0;
  if (kept) pn_tensor_retain(kept);
  else if (pn_tensor_new(&kept, PN_REAL_DTYPE, 2, shape, PN_ROWS, PN_CUDA0 + gpu->index)) return -1;
  if (kept != call->saved[0] && x->c) rc = statistics(gpu, call, pn_real_of(kept), x);
  if (!rc && pn_gpu_pixels_count(x) > 0 && x->c) rc = launch_affine(gpu, y, x, pn_real_of(kept), pn_arg_int(call, "relu") != 0);
  if (!rc && call->recording) pn_call_save(call, 0, kept);
  else pn_tensor_release(kept);
  return rc;
}

static int forward(pn_call *call) {
  pn_gpu *gpu = pn_gpu_of(call->y[0]);
  pn_gpu_pixels x, y;
  pn_tensor *held_x = NULL, *held_y = NULL;
  if (!gpu) return -1;
  int rc = open_pixels(&x, &held_x, call->x[0]) || open_pixels(&y, &held_y, call->y[0]) ? -1 : 0;
  if (!rc) rc = forward_on(gpu, call, &y, &x);
  pn_tensor_release(held_x);
  return close_pixels(held_y, call->y[0], rc);
}

static int backward_on(pn_gpu *gpu, pn_call *call, back *j) {
  const pn_norm_rule rule = pn_norm_rule_of(call);
  const bool want_dx = j->want_dx, through = rule.mode != PN_NORM_FROZEN && want_dx;
  pn_tensor *dbeta;
  bool fresh;
  if (pn_call_dx(call, 1, &dbeta, &fresh)) return -1;
  const size_t n_partial = through || dbeta ? (size_t)(pn_max64(j->k.parts, 1) * 2 * j->k.c) * sizeof(double) : 0;
  const size_t n_slopes = through ? (size_t)(2 * j->k.c) * sizeof(real) : 0;
  char *room = n_partial ? (char *)pn_gpu_scratch(gpu, n_partial + n_slopes) : NULL;
  real *slopes = through ? (real *)(void *)(room + n_partial) : NULL;
  if (n_partial && !room) return -1;
  j->partial = (double *)(void *)room;
  j->through = through;
  j->want_dx = want_dx && !through; /* then one pass does both */
  j->to = goal{ dbeta ? pn_real_of(dbeta) : NULL, slopes, dbeta ? dbeta->stride[0] : 0, fresh, rule.alpha };
  const cut alone = cut_of(j->k.count, j->k.c, j->k.pack, false);
  if (!room) j->k = alone;
  int rc = j->k.parts ? launch_gradient(gpu, j) : 0;
  if (!rc && room && !j->k.folds)
    rc = PN_LAUNCH_TEAM(gpu, total, pn_ceil_div(j->k.c, COLUMNS), COLUMNS * LANES, 2 * COLUMNS * LANES * sizeof(double), j->to,
                        j->partial, j->k, j->stats);
  if (!rc && through) {
    j->partial = NULL;
    j->k = alone;
    j->slopes = slopes;
    j->want_dx = true;
    rc = launch_gradient(gpu, j);
  }
  pn_gpu_scratch_free(gpu, room);
  return rc;
}

static int backward(pn_call *call) {
  pn_gpu *gpu = pn_gpu_of(call->dy[0]);
  pn_tensor *dx, *held_x = NULL, *held_dy = NULL, *held_dx = NULL;
  bool fresh = true;
  back j = {};
  if (!gpu) return -1;
  if (pn_tensor_is_dense(call->dy[0], PN_CHANNELS_LAST) && pn_call_dx_take(call, 0)) dx = call->dy[0];
  else if (pn_call_dx(call, 0, &dx, &fresh)) return -1;
  int rc = open_pixels(&j.x, &held_x, call->x[0]) || open_pixels(&j.dy, &held_dy, call->dy[0]) ||
                   (dx && open_pixels(&j.dx, &held_dx, dx))
               ? -1
               : 0;
  if (!rc && j.x.c) {
    const pn_gpu_pixels *list[] = { &j.x, &j.dy, &j.dx };
    j.k = cut_of(pn_gpu_pixels_count(&j.x), j.x.c, pack_of(list, dx ? 3 : 2), true);
    j.stats = pn_real_of(call->saved[0]);
    j.relu = pn_arg_int(call, "relu") != 0;
    j.add = !fresh;
    j.want_dx = dx != NULL;
    rc = backward_on(gpu, call, &j);
  }
  pn_tensor_release(held_x);
  pn_tensor_release(held_dy);
  return dx ? close_pixels(held_dx, dx, rc) : rc;
}

PN_CUDA_KERNEL(batch_norm, forward, backward)
