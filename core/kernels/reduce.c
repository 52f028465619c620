/* reduce.c: sums over axes, and what the reducing operations share. See reduce.h for the order of summation. */
#include "kernels/reduce.h"
#include <string.h>
#include "kernels/elementwise.h"

enum { BLOCK = 32768, INNER = 1024, LANES = 8 };

typedef struct sum_job {
  const real *from;
  real *to;
  double factor, *partial; /* partial: [n_outer][n_blocks][n_inner]; NULL when one block is all */
  bool fresh;
  pn_sum_axes axes; /* of the kept ones, those without `inner` */
  pn_axis inner;    /* the kept axis that is fastest in memory, or size 1 */
  int64_t chunk;    /* of the inner axis that one task covers */
  int64_t n_chunks, n_outer, rows, n_blocks;
} sum_job;

int pn_axes_merged(pn_axis *a, int n) {
  int last = 0;
  for (int i = 1; i < n; i++) {
    pn_axis *b = &a[last];
    if (b->from == a[i].from * a[i].size && b->with == a[i].with * a[i].size && b->to == a[i].to * a[i].size) {
      *b = (pn_axis){ b->size * a[i].size, a[i].from, a[i].with, a[i].to };
    } else {
      a[++last] = a[i];
    }
  }
  return n ? last + 1 : 0;
}

static int by_stride(pn_axis *a, int n) { /* slowest first */
  for (int i = 1; i < n; i++) {
    for (int j = i; j > 0 && a[j - 1].from < a[j].from; j--) {
      pn_axis t = a[j];
      a[j] = a[j - 1];
      a[j - 1] = t;
    }
  }
  return pn_axes_merged(a, n);
}

void pn_sum_axes_of(pn_sum_axes *out, const pn_tensor *to, const pn_tensor *from, const pn_tensor *with) {
  *out = (pn_sum_axes){ .kept_count = 1, .reduced_count = 1 };
  const int lead = from->n_dims - to->n_dims, lead_with = with ? from->n_dims - with->n_dims : 0;
  for (int d = 0; d < from->n_dims; d++) {
    if (from->shape[d] == 1) continue;
    bool keep = d >= lead && to->shape[d - lead] != 1, spread = !with || d < lead_with || with->shape[d - lead_with] == 1;
    pn_axis a = { from->shape[d], from->stride[d], spread ? 0 : with->stride[d - lead_with], keep ? to->stride[d - lead] : 0 };
    if (keep) {
      out->kept[out->n_kept++] = a;
      out->kept_count *= a.size;
    } else {
      out->reduced[out->n_reduced++] = a;
      out->reduced_count *= a.size;
    }
  }
  out->n_kept = by_stride(out->kept, out->n_kept);
  out->n_reduced = by_stride(out->reduced, out->n_reduced);
}

static double sum_run(const real *x, int64_t n, int64_t stride) {
  double lane[LANES] = { 0 };
  int64_t i = 0;
  if (stride == 1) {
    for (; i + LANES <= n; i += LANES) {
      for (int k = 0; k < LANES; k++) lane[k] += (double)x[i + k];
    }
  }
  for (; i < n; i++) lane[0] += (double)x[i * stride];
  for (int half = LANES / 2; half; half /= 2) {
    for (int k = 0; k < half; k++) lane[k] += lane[k + half];
  }
  return lane[0];
}

static void put(const sum_job *j, int64_t outer_to, int64_t first, int64_t n, const double *sum) {
  real *to = j->to + outer_to + first * j->inner.to;
  for (int64_t i = 0; i < n; i++) {
    real value = (real)(j->factor * sum[i]);
    to[i * j->inner.to] = j->fresh ? value : to[i * j->inner.to] + value;
  }
}

static void sum_tasks(void *context, int64_t begin, int64_t end) {
  const sum_job *j = context;
  const pn_sum_axes *axes = &j->axes;
  const pn_axis fast = axes->n_reduced ? axes->reduced[axes->n_reduced - 1] : (pn_axis){ 1, 0, 0, 0 };
  for (int64_t task = begin; task < end; task++) {
    int64_t block = task % j->n_blocks, chunk = task / j->n_blocks % j->n_chunks, outer = task / j->n_blocks / j->n_chunks;
    int64_t first = chunk * j->chunk, n = pn_min64(j->chunk, j->inner.size - first);
    const pn_axis kept = pn_axes_at(axes->kept, axes->n_kept, outer);
    double sum[INNER];
    memset(sum, 0, (size_t)n * sizeof *sum);
    int64_t r = block * j->rows, r_end = pn_min64(r + j->rows, axes->reduced_count);
    while (r < r_end) {
      int64_t run = pn_min64(fast.size - r % fast.size, r_end - r);
      const real *x = j->from + kept.from + pn_axes_at(axes->reduced, axes->n_reduced, r).from + first * j->inner.from;
      if (n == 1) {
        sum[0] += sum_run(x, run, fast.from);
      } else if (j->inner.from == 1) {
        for (int64_t i = 0; i < run; i++) {
          for (int64_t c = 0; c < n; c++) sum[c] += (double)x[i * fast.from + c];
        }
      } else {
        for (int64_t i = 0; i < run; i++) {
          for (int64_t c = 0; c < n; c++) sum[c] += (double)x[i * fast.from + c * j->inner.from];
        }
      }
      r += run;
    }
    if (j->partial) {
      memcpy(j->partial + (outer * j->n_blocks + block) * j->inner.size + first, sum, (size_t)n * sizeof *sum);
    } else {
      put(j, kept.to, first, n, sum);
    }
  }
}

int pn_sum_into(pn_tensor *to, const pn_tensor *from, double factor, bool fresh) {
  sum_job j = {
    .from = pn_real_of(from), .to = pn_real_of(to), .factor = factor, .fresh = fresh, .inner = {1, 0, 0, 0}
  };
  pn_sum_axes *axes = &j.axes;
  pn_sum_axes_of(axes, to, from, NULL);
  if (axes->kept_count == 0) return 0;
  int last = axes->n_kept - 1;
  if (last >= 0 && (axes->reduced_count <= 1 || axes->kept[last].from < axes->reduced[axes->n_reduced - 1].from))
    j.inner = axes->kept[axes->n_kept = last];
  j.n_outer = axes->kept_count / j.inner.size;
  j.chunk = pn_min64(j.inner.size, INNER);
  j.n_chunks = pn_ceil_div(j.inner.size, j.chunk);
  j.rows = BLOCK / j.chunk;
  j.n_blocks = pn_max64(1, pn_ceil_div(axes->reduced_count, j.rows));
  if (j.n_blocks > 1) {
    j.partial = pn_alloc((size_t)(j.n_outer * j.n_blocks * j.inner.size) * sizeof(double));
    if (!j.partial) return -1;
  }
  int64_t task_size = pn_max64(1, pn_min64(j.rows, axes->reduced_count) * j.chunk);
  pn_parallel(j.n_outer * j.n_chunks * j.n_blocks, pn_max64(1, 16384 / task_size), sum_tasks, &j);
  if (!j.partial) return 0;
  for (int64_t outer = 0; outer < j.n_outer; outer++) {
    double *sum = j.partial + outer * j.n_blocks * j.inner.size;
    for (int64_t block = 1; block < j.n_blocks; block++) {
      for (int64_t c = 0; c < j.inner.size; c++) sum[c] += sum[block * j.inner.size + c];
    }
    put(&j, pn_axes_at(axes->kept, axes->n_kept, outer).to, 0, j.inner.size, sum);
  }
  pn_free(j.partial);
  return 0;
}

int pn_reduce_axes(const pn_call *call, bool *reduced) {
  const pn_value *axes = pn_call_arg(call, "axes");
  int n = call->x[0]->n_dims;
  for (int d = 0; d < n; d++) reduced[d] = axes->n == 0;
  for (int i = 0; i < axes->n; i++) {
    if (axes->i[i] >= n) return pn_fail_shapes(call, "there is no axis %lld", (long long)axes->i[i] + 1);
    if (reduced[axes->i[i]]) return pn_fail_shapes(call, "axis %lld is named twice", (long long)axes->i[i] + 1);
    reduced[axes->i[i]] = true;
  }
  return 0;
}

int pn_reduce_shape(pn_call *call, pn_dtype dtype) {
  bool reduced[PN_MAX_DIMS];
  if (pn_need_real(call, 0) || pn_reduce_axes(call, reduced)) return -1;
  const pn_tensor *x = call->x[0];
  bool keep = pn_arg_int(call, "keep") != 0;
  int n = 0;
  int64_t shape[PN_MAX_DIMS];
  for (int d = 0; d < x->n_dims; d++) {
    if (!reduced[d]) {
      shape[n++] = x->shape[d];
    } else if (keep) {
      shape[n++] = 1;
    }
  }
  pn_out_dims(&call->out[0], dtype, n, shape);
  return 0;
}

int pn_reduce_keep(pn_tensor **out, const pn_call *call, pn_tensor *y) {
  bool reduced[PN_MAX_DIMS];
  if (pn_reduce_axes(call, reduced)) return -1;
  const pn_tensor *x = call->x[0];
  bool keep = pn_arg_int(call, "keep") != 0;
  int64_t shape[PN_MAX_DIMS], stride[PN_MAX_DIMS];
  for (int d = 0, from = 0; d < x->n_dims; d++) {
    shape[d] = reduced[d] ? 1 : y->shape[from];
    stride[d] = reduced[d] ? 0 : y->stride[from];
    from += keep || !reduced[d];
  }
  return pn_tensor_on(out, y->storage, y->dtype, x->n_dims, shape, stride, y->offset);
}

static void spread_run(void *context, int64_t n, char *const *at, const int64_t *stride) {
  const pn_unary *k = context;
  real *to = (real *)(void *)at[0];
  const real *dy = (const real *)(const void *)at[1];
  for (int64_t i = 0; i < n; i++) {
    real value = k->a * dy[i * stride[1]];
    to[i * stride[0]] = k->fresh ? value : to[i * stride[0]] + value;
  }
}

int pn_reduce_spread(pn_call *call, double factor) {
  pn_unary k = { .a = (real)factor };
  pn_tensor *dx, *dy;
  if (pn_call_dx(call, 0, &dx, &k.fresh)) return -1;
  if (!dx) return 0;
  if (pn_reduce_keep(&dy, call, call->dy[0])) return -1;
  pn_loop loop;
  pn_loop_start(&loop, dx->n_dims, dx->shape);
  pn_loop_add(&loop, dx);
  pn_loop_add(&loop, dy);
  pn_loop_plan(&loop);
  pn_loop_all(&loop, spread_run, &k);
  pn_tensor_release(dy);
  return 0;
}

/* ---- the largest ------------------------------------------------------------------------------------------------------- */

typedef struct pick_job {
  const real *x;
  real *value, *dx;
  const real *dy;
  int64_t *winner, first;
  pn_sum_axes axes;
} pick_job;

int pn_pick_axes(pn_sum_axes *out, const pn_call *call, const pn_tensor *x, const pn_tensor *value, const pn_tensor *winner) {
  bool reduced[PN_MAX_DIMS];
  if (pn_reduce_axes(call, reduced)) return -1;
  bool keep = pn_arg_int(call, "keep") != 0;
  *out = (pn_sum_axes){ .kept_count = 1, .reduced_count = 1 };
  for (int d = 0, to = 0; d < x->n_dims; d++) {
    if (reduced[d]) {
      out->reduced[out->n_reduced++] = (pn_axis){ x->shape[d], x->stride[d], 0, 0 };
      out->reduced_count *= x->shape[d];
    } else {
      out->kept[out->n_kept++] =
          (pn_axis){ x->shape[d], x->stride[d], value ? value->stride[to] : 0, winner ? winner->stride[to] : 0 };
      out->kept_count *= x->shape[d];
    }
    to += keep || !reduced[d];
  }
  out->n_kept = pn_axes_merged(out->kept, out->n_kept);
  out->n_reduced = pn_axes_merged(out->reduced, out->n_reduced);
  return 0;
}

static void pick_range(void *context, int64_t begin, int64_t end) {
  const pick_job *j = context;
  const pn_sum_axes *axes = &j->axes;
  for (int64_t i = begin; i < end; i++) {
    const pn_axis kept = pn_axes_at(axes->kept, axes->n_kept, i);
    const real *x = j->x + kept.from;
    int64_t best = 0;
    real largest = x[0];
    for (int64_t r = 1; r < axes->reduced_count; r++) {
      real value = x[pn_axes_at(axes->reduced, axes->n_reduced, r).from];
      if (pn_is_larger(value, largest)) {
        largest = value;
        best = r;
      }
    }
    if (j->value) j->value[kept.with] = largest;
    if (j->winner) j->winner[kept.to] = j->first + best;
  }
}

int pn_pick_check(const pn_call *call) {
  const pn_tensor *x = call->x[0];
  bool reduced[PN_MAX_DIMS];
  if (pn_reduce_axes(call, reduced)) return -1;
  for (int d = 0; d < x->n_dims; d++) {
    if (reduced[d] && x->shape[d] == 0) return pn_fail_shapes(call, "the largest of no elements (axis %d is empty)", d + 1);
  }
  return 0;
}

int pn_pick_largest(pn_call *call, pn_tensor *value, pn_tensor *winner, int64_t first) {
  pick_job j = { .x = pn_real_of(call->x[0]), .value = value ? pn_real_of(value) : NULL, .first = first };
  j.winner = winner ? (int64_t *)(void *)pn_bytes_of(winner) : NULL;
  if (pn_pick_axes(&j.axes, call, call->x[0], value, winner)) return -1;
  pn_parallel(j.axes.kept_count, pn_max64(1, 16384 / j.axes.reduced_count), pick_range, &j);
  return 0;
}

static void route_range(void *context, int64_t begin, int64_t end) {
  const pick_job *j = context;
  const pn_sum_axes *axes = &j->axes;
  for (int64_t i = begin; i < end; i++) {
    const pn_axis kept = pn_axes_at(axes->kept, axes->n_kept, i);
    j->dx[kept.from + pn_axes_at(axes->reduced, axes->n_reduced, j->winner[kept.to]).from] += j->dy[kept.with];
  }
}

int pn_pick_backward(pn_call *call, const pn_tensor *winner) {
  pn_tensor *dx;
  if (pn_call_dx(call, 0, &dx, NULL)) return -1;
  if (!dx) return 0;
  pick_job j = { .dx = pn_real_of(dx), .dy = pn_real_of(call->dy[0]), .winner = (int64_t *)(void *)pn_bytes_of(winner) };
  if (pn_pick_axes(&j.axes, call, dx, call->dy[0], winner)) return -1;
  pn_parallel(j.axes.kept_count, 4096, route_range, &j);
  return 0;
}
