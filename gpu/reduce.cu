/* reduce.cu: see reduce.h.
**
** Teams of threads (team.h) go along the summands; where the fastest axis of memory is kept, not reduced, in columns. A thread fetches
** packs of V elements, 8 of them before it adds the first. */
#include "reduce.h"
#include "loop.h"
#include "team.h"

enum { BLOCKS = 1024, RUN = 8 };

/* How work is cut: the blocks' teams over the results, and each result's summands in `parts` of `stride`. */
typedef struct layout {
  pn_team team;
  int64_t parts, stride;
} layout;

static layout lay_out(const pn_sum_axes *axes, bool columns, int64_t per_kept, int64_t per_reduced) {
  layout l = { pn_team_for(axes->kept_count, axes->reduced_count, columns, per_kept, per_reduced), 1, 0 };
  const int64_t step = l.team.along * per_reduced, most = pn_max64(1, BLOCKS / l.team.groups);
  l.parts = pn_max64(1, pn_min64(pn_ceil_div(axes->reduced_count, step * RUN), most));
  l.stride = pn_max64(1, pn_ceil_div(pn_ceil_div(axes->reduced_count, l.parts), step)) * step;
  l.parts = pn_max64(1, pn_ceil_div(axes->reduced_count, l.stride));
  return l;
}

static int64_t blocks_of(const layout *l) { return pn_min64(l->team.groups * l->parts, INT32_MAX); }

/* ---- sums -------------------------------------------------------------------------------------------------------------------------- */

typedef struct sum_job {
  layout lay;
  pn_sum_axes axes;
  const void *from, *with; /* with: NULL for plain sums */
  void *to;
  int from_dtype, with_dtype, to_dtype;
  int64_t with_step; /* 0: one element of `with` stands for a whole pack */
  bool fresh;
  double factor;
  double *partial; /* [parts][kept]; NULL when there is one part */
} sum_job;

PN_DEVICE void put_sum(const sum_job *j, int64_t kept, double sum) {
  const int64_t to = pn_axes_at(j->axes.kept, j->axes.n_kept, kept).to;
  const real value = (real)(j->factor * sum);
  pn_put(j->to, to, j->to_dtype, j->fresh ? value : pn_get(j->to, to, j->to_dtype) + value);
}

/* N packs from summand r on, `step` summands apart: added to sum[W]. W is V where a pack holds several results, else 1. */
template <int V, int W, int N, bool PRODUCTS>
PN_DEVICE void add_packs(const sum_job *j, const pn_axis *kept, int64_t r, int64_t step, double *sum) {
  pn_raw<V> raw[N], other[PRODUCTS ? N : 1];
  real added[W], x[V];
  for (int w = 0; w < W; w++) added[w] = 0;
  PN_UNROLL
  for (int i = 0; i < N; i++) {
    const pn_axis at = pn_axes_at(j->axes.reduced, j->axes.n_reduced, r + i * step);
    pn_fetch<V>(&raw[i], j->from, kept->from + at.from, j->from_dtype, 1);
    if constexpr (PRODUCTS) pn_fetch<V>(&other[i], j->with, kept->with + at.with, j->with_dtype, j->with_step);
  }
  PN_UNROLL
  for (int i = 0; i < N; i++) {
    pn_unpack<V>(x, &raw[i], j->from_dtype, 1);
    if constexpr (PRODUCTS) {
      real y[V];
      pn_unpack<V>(y, &other[i], j->with_dtype, j->with_step);
      for (int v = 0; v < V; v++) x[v] *= y[v];
    }
    for (int v = 0; v < V; v++) added[W == 1 ? 0 : v] += x[v];
  }
  for (int w = 0; w < W; w++) sum[w] += (double)added[w];
}

template <int V, int W, bool PRODUCTS> PN_KERNEL void sum_parts(sum_job j) {
  PN_SHARED_MEMORY(double, room);
  const int per = V / W; /* summands in a pack */
  const int64_t step = (int64_t)j.lay.team.along * per;
  for (int64_t unit = pn_block; unit < j.lay.team.groups * j.lay.parts; unit += pn_blocks) {
    const int64_t group = unit / j.lay.parts, part = unit % j.lay.parts;
    const int64_t first = (group * j.lay.team.across + pn_team_across(&j.lay.team)) * W;
    const int64_t end = pn_min64((part + 1) * j.lay.stride, j.axes.reduced_count);
    double sum[W];
    for (int w = 0; w < W; w++) sum[w] = 0;
    if (first < j.axes.kept_count) {
      const pn_axis kept = pn_axes_at(j.axes.kept, j.axes.n_kept, first);
      int64_t r = part * j.lay.stride + pn_team_along(&j.lay.team) * per;
      for (; r + (RUN - 1) * step + per <= end; r += RUN * step) add_packs<V, W, RUN, PRODUCTS>(&j, &kept, r, step, sum);
      for (; r + per <= end; r += step) add_packs<V, W, 1, PRODUCTS>(&j, &kept, r, step, sum);
      if constexpr (per > 1)
        for (; r < end; r++) add_packs<1, 1, 1, PRODUCTS>(&j, &kept, r, 1, sum); /* the pack that ends in the middle */
    }
    pn_team_join<pn_added, W>(&j.lay.team, room, sum);
    if (pn_team_along(&j.lay.team) != 0 || first >= j.axes.kept_count) continue;
    PN_UNROLL
    for (int w = 0; w < W; w++) {
      if (j.partial) j.partial[part * j.axes.kept_count + first + w] = sum[w];
      else put_sum(&j, first + w, sum[w]);
    }
  }
}

/* The parts of each sum. lay: of the parts; its own `parts` is 1. */
PN_KERNEL void join_sums(sum_job j, int64_t parts) {
  PN_SHARED_MEMORY(double, room);
  for (int64_t group = pn_block; group < j.lay.team.groups; group += pn_blocks) {
    const int64_t kept = group * j.lay.team.across + pn_team_across(&j.lay.team);
    double sum = 0;
    if (kept < j.axes.kept_count)
      for (int64_t p = pn_team_along(&j.lay.team); p < parts; p += j.lay.team.along) sum += j.partial[p * j.axes.kept_count + kept];
    pn_team_join<pn_added, 1>(&j.lay.team, room, &sum);
    if (pn_team_along(&j.lay.team) == 0 && kept < j.axes.kept_count) put_sum(&j, kept, sum);
  }
}

static int join_parts(pn_gpu *gpu, sum_job *j) {
  const int64_t parts = j->lay.parts, kept = j->axes.kept_count;
  const int across = (int)pn_min64(pn_power_of_two(kept), 8),
            along = (int)pn_min64(pn_power_of_two(parts), PN_TEAM_THREADS / across);
  j->lay = layout{
    pn_team{across, along, true, pn_ceil_div(kept, across)},
    1, 0
  };
  const int threads = across * along;
  return PN_LAUNCH_TEAM(gpu, join_sums, blocks_of(&j->lay), threads, (size_t)threads * sizeof(double), *j, parts);
}

/* May packs of `width` be fetched from an operand whose strides are `stride` in these axes? fast: the axis that a pack lies along. */
static bool fits(const pn_sum_axes *axes, const pn_axis *fast, int64_t pn_axis::*stride, const void *base, int64_t bytes,
                 int width) {
  bool good = fast->*stride == 1 && (uintptr_t)base % (uintptr_t)pn_min64(16, width * bytes) == 0;
  for (int d = 0; d < axes->n_kept; d++) good &= &axes->kept[d] == fast || axes->kept[d].*stride % width == 0;
  for (int d = 0; d < axes->n_reduced; d++) good &= &axes->reduced[d] == fast || axes->reduced[d].*stride % width == 0;
  return good;
}

static bool is_floating(const pn_tensor *t) { return t->dtype == PN_REAL_DTYPE || pn_is_short(t); }

static int width_of(sum_job *j, const pn_tensor *from, const pn_tensor *with) {
  const pn_sum_axes *a = &j->axes;
  const bool columns = j->lay.team.columns;
  if (!is_floating(from) || (with && !is_floating(with)) || (columns ? a->n_kept : a->n_reduced) == 0) return 1;
  const pn_axis *fast = columns ? &a->kept[a->n_kept - 1] : &a->reduced[a->n_reduced - 1];
  const bool ragged = !columns && a->n_reduced == 1; /* the one axis of a sum may end in the middle of a pack */
  j->with_step = with ? fast->with : 0;
  for (int width = pn_is_short(from) && (!with || pn_is_short(with)) ? 8 : 4; width >= 4; width /= 2) {
    if (fast->size % width && !ragged) continue;
    if (!fits(a, fast, &pn_axis::from, j->from, pn_dtype_bytes(from->dtype), width)) continue;
    if (!with || fast->with == 0 || fits(a, fast, &pn_axis::with, j->with, pn_dtype_bytes(with->dtype), width)) return width;
  }
  return 1;
}

template <bool PRODUCTS> static void (*kernel_of(int width, bool columns))(sum_job) {
  if (width == 1) return sum_parts<1, 1, PRODUCTS>;
  if (columns) return width == 8 ? sum_parts<8, 8, PRODUCTS> : sum_parts<4, 4, PRODUCTS>;
  return width == 8 ? sum_parts<8, 1, PRODUCTS> : sum_parts<4, 1, PRODUCTS>;
}

static int sum_into(pn_tensor *to, const pn_tensor *from, const pn_tensor *with, double factor, bool fresh) {
  pn_gpu *gpu = pn_gpu_of(to);
  sum_job j;
  if (!gpu) return -1;
  memset(&j, 0, sizeof j);
  j.from = pn_bytes_of(from), j.from_dtype = (int)from->dtype;
  j.to = pn_bytes_of(to), j.to_dtype = (int)to->dtype;
  if (with) j.with = pn_bytes_of(with), j.with_dtype = (int)with->dtype;
  j.fresh = fresh;
  j.factor = factor;
  pn_sum_axes *a = &j.axes;
  pn_sum_axes_of(a, to, from, with);
  if (a->kept_count == 0) return 0;
  const bool columns = a->n_kept && (a->n_reduced == 0 || a->kept[a->n_kept - 1].from < a->reduced[a->n_reduced - 1].from);
  j.lay.team.columns = columns;
  const int width = width_of(&j, from, with);
  j.lay = lay_out(a, columns, columns ? width : 1, columns ? 1 : width);
  if (j.lay.parts > 1) {
    j.partial = (double *)pn_gpu_scratch(gpu, (size_t)(j.lay.parts * a->kept_count) * sizeof(double));
    if (!j.partial) return -1;
  }
  auto sum_parts_of = with ? kernel_of<true>(width, columns) : kernel_of<false>(width, columns);
  const int threads = pn_team_threads(&j.lay.team);
  const size_t room = (size_t)(threads * (columns ? width : 1)) * sizeof(double);
  int rc = PN_LAUNCH_TEAM(gpu, sum_parts_of, blocks_of(&j.lay), threads, room, j);
  if (j.partial && !rc) rc = join_parts(gpu, &j);
  pn_gpu_scratch_free(gpu, j.partial);
  return rc;
}

struct scaled {
  enum { INPUTS = 1 };
  PN_DEVICE real of(const real *x, pn_unary k) { return k.a * x[0]; }
};

static int scale_into(pn_tensor *to, const pn_tensor *from, double factor, bool fresh) {
  pn_gpu *gpu = pn_gpu_of(to);
  pn_loop loop;
  if (!gpu) return -1;
  pn_loop_start(&loop, to->n_dims, to->shape);
  pn_loop_add(&loop, to);
  pn_loop_add(&loop, from);
  return pn_loop_map<scaled>(gpu, &loop, pn_unary{ (real)factor, 0, fresh });
}

int pn_gpu_sum_into(pn_tensor *to, const pn_tensor *from, double factor, bool fresh) {
  return pn_same_shape(to, from) ? scale_into(to, from, factor, fresh) : sum_into(to, from, NULL, factor, fresh);
}

int pn_gpu_sum_products_into(pn_tensor *to, const pn_tensor *from, const pn_tensor *with, double factor, bool fresh) {
  return sum_into(to, from, with, factor, fresh);
}

int pn_gpu_spread(pn_call *call, double factor) {
  pn_tensor *dx, *dy;
  bool fresh;
  if (pn_call_dx(call, 0, &dx, &fresh)) return -1;
  if (!dx) return 0;
  if (pn_reduce_keep(&dy, call, call->dy[0])) return -1;
  int rc = scale_into(dx, dy, factor, fresh);
  pn_tensor_release(dy);
  return rc;
}

/* ---- the largest --------------------------------------------------------------------------------------------------------------------- */

typedef struct best {
  real value;
  int64_t at; /* among the reduced; -1: none */
} best;

typedef struct pick_job {
  layout lay;
  pn_sum_axes axes;
  const void *x;
  void *value;     /* or NULL */
  int64_t *winner; /* or NULL */
  int64_t first;
  int x_dtype, value_dtype;
  best *partial; /* [parts][kept]; NULL when there is one part */
} pick_job;

struct better { /* in whatever order they meet, the first of the largest wins */
  PN_DEVICE best of(best a, best b) {
    if (a.at < 0 || b.at < 0) return a.at < 0 ? b : a;
    if (pn_is_larger(a.value, b.value)) return a;
    if (pn_is_larger(b.value, a.value)) return b;
    return a.at < b.at ? a : b;
  }
};

PN_DEVICE void put_best(const pick_job *j, int64_t kept, best found) {
  const pn_axis at = pn_axes_at(j->axes.kept, j->axes.n_kept, kept);
  if (j->value) pn_put(j->value, at.with, j->value_dtype, found.value);
  if (j->winner) j->winner[at.to] = j->first + found.at;
}

PN_KERNEL void pick_parts(pick_job j) {
  PN_SHARED_MEMORY(best, room);
  for (int64_t unit = pn_block; unit < j.lay.team.groups * j.lay.parts; unit += pn_blocks) {
    const int64_t part = unit % j.lay.parts, kept = unit / j.lay.parts * j.lay.team.across + pn_team_across(&j.lay.team);
    const int64_t end = pn_min64((part + 1) * j.lay.stride, j.axes.reduced_count);
    best found = { 0, -1 };
    if (kept < j.axes.kept_count) {
      const int64_t from = pn_axes_at(j.axes.kept, j.axes.n_kept, kept).from;
      for (int64_t r = part * j.lay.stride + pn_team_along(&j.lay.team); r < end; r += j.lay.team.along) {
        const int64_t at = from + pn_axes_at(j.axes.reduced, j.axes.n_reduced, r).from;
        found = better::of(found, best{ pn_get(j.x, at, j.x_dtype), r });
      }
    }
    pn_team_join<better, 1>(&j.lay.team, room, &found);
    if (pn_team_along(&j.lay.team) != 0 || kept >= j.axes.kept_count) continue;
    if (j.partial) j.partial[part * j.axes.kept_count + kept] = found;
    else put_best(&j, kept, found);
  }
}

PN_KERNEL void join_picks(pick_job j) {
  PN_EACH(kept, j.axes.kept_count) {
    best found = j.partial[kept];
    for (int64_t p = 1; p < j.lay.parts; p++) found = better::of(found, j.partial[p * j.axes.kept_count + kept]);
    put_best(&j, kept, found);
  }
}

int pn_gpu_pick_largest(pn_call *call, pn_tensor *value, pn_tensor *winner, int64_t first) {
  const pn_tensor *x = call->x[0];
  pn_gpu *gpu = pn_gpu_of(x);
  pick_job j;
  if (!gpu) return -1;
  memset(&j, 0, sizeof j);
  if (pn_pick_axes(&j.axes, call, x, value, winner)) return -1;
  if (j.axes.kept_count == 0) return 0;
  j.first = first;
  j.x = pn_bytes_of(x), j.x_dtype = (int)x->dtype;
  if (value) j.value = pn_bytes_of(value), j.value_dtype = (int)value->dtype;
  if (winner) j.winner = (int64_t *)(void *)pn_bytes_of(winner);
  int64_t near_kept = INT64_MAX, near_reduced = INT64_MAX;
  for (int d = 0; d < j.axes.n_kept; d++) near_kept = pn_min64(near_kept, j.axes.kept[d].from);
  for (int d = 0; d < j.axes.n_reduced; d++) near_reduced = pn_min64(near_reduced, j.axes.reduced[d].from);
  j.lay = lay_out(&j.axes, near_kept < near_reduced, 1, 1);
  if (j.lay.parts > 1) {
    j.partial = (best *)pn_gpu_scratch(gpu, (size_t)(j.lay.parts * j.axes.kept_count) * sizeof(best));
    if (!j.partial) return -1;
  }
  const int threads = pn_team_threads(&j.lay.team);
  int rc = PN_LAUNCH_TEAM(gpu, pick_parts, blocks_of(&j.lay), threads, (size_t)threads * sizeof(best), j);
  if (j.partial && !rc) rc = PN_LAUNCH(gpu, join_picks, pn_gpu_blocks(gpu, j.axes.kept_count, PN_TEAM_THREADS), PN_TEAM_THREADS, j);
  pn_gpu_scratch_free(gpu, j.partial);
  return rc;
}

typedef struct route_job {
  pn_sum_axes axes;
  void *dx;
  const void *dy;
  const int64_t *winner;
  int dx_dtype, dy_dtype;
} route_job;

PN_KERNEL void route_gradients(route_job j) {
  PN_EACH(kept, j.axes.kept_count) {
    const pn_axis at = pn_axes_at(j.axes.kept, j.axes.n_kept, kept);
    const int64_t to = at.from + pn_axes_at(j.axes.reduced, j.axes.n_reduced, j.winner[at.to]).from;
    pn_put(j.dx, to, j.dx_dtype, pn_get(j.dx, to, j.dx_dtype) + pn_get(j.dy, at.with, j.dy_dtype));
  }
}

int pn_gpu_pick_backward(pn_call *call, const pn_tensor *winner) {
  pn_gpu *gpu = pn_gpu_of(winner);
  const pn_tensor *dy = call->dy[0];
  pn_tensor *dx;
  route_job j;
  if (!gpu || pn_call_dx(call, 0, &dx, NULL)) return -1;
  if (!dx) return 0;
  memset(&j, 0, sizeof j);
  if (pn_pick_axes(&j.axes, call, dx, dy, winner)) return -1;
  j.dx = pn_bytes_of(dx), j.dx_dtype = (int)dx->dtype;
  j.dy = pn_bytes_of(dy), j.dy_dtype = (int)dy->dtype;
  j.winner = (const int64_t *)(const void *)pn_bytes_of(winner);
  if (!j.axes.kept_count) return 0;
  return PN_LAUNCH(gpu, route_gradients, pn_gpu_blocks(gpu, j.axes.kept_count, PN_TEAM_THREADS), PN_TEAM_THREADS, j);
}
