/* resize3d: x (N,C,T,H,W) sampled at another size along T, H, W; nearest or trilinear. Beyond the border the border's value holds.
**
** The result's element j stands at position u in x, per axis with n_in and n_out elements:
**   half_pixel  u = (j + 1/2) n_in / n_out - 1/2     (PyTorch align_corners=False; nearest-exact)
**   corners     u = j (n_in - 1) / (n_out - 1)       (PyTorch align_corners=True)
**   asymmetric  u = j n_in / n_out                   (TensorFlow 1; with nearest, PyTorch's "nearest")
**   grid        u = (j - centre) / stride            (by x's grid: the result stands on the input's own pixels, METHOD 4)
** nearest takes element floor(u + 1/2), or floor(u) with asymmetric. The size is `size`, or `scale` times that of x.
** Backward is the exact adjoint: each element of dx gathers, in order, from those it was given to. */
#include <string.h>
#include "kernels/pixels.h"
#include "kernels/sample.h"
#include "kernels/taps.h"

enum { NEAREST, TRILINEAR };
enum { HALF_PIXEL, CORNERS, ASYMMETRIC, GRID };

pn_sampling pn_sampling_of(const pn_call *call, int d, int64_t n_out) {
  const pn_tensor *x = call->x[0];
  const int64_t align = pn_arg_int(call, "align");
  pn_sampling s = {
    .n_in = x->shape[2 + d], .n_out = n_out, .nearest = pn_arg_int(call, "mode") == NEAREST, .down = align == ASYMMETRIC
  };
  double n_in = (double)s.n_in, n = (double)n_out;
  switch (align) {
  case HALF_PIXEL: s.a = n_in / n, s.b = 0.5 * n_in / n - 0.5; break;
  case CORNERS: s.a = n_out > 1 ? (n_in - 1) / (n - 1) : 0; break;
  case ASYMMETRIC: s.a = n_in / n; break;
  default: s.a = 1 / x->grid_stride[d], s.b = -x->grid_centre[d] / x->grid_stride[d]; break;
  }
  return s;
}

static int shape(pn_call *call) {
  if (pn_need_dims(call, 0, 5) || pn_need_real(call, 0)) return -1;
  const pn_tensor *x = call->x[0];
  const pn_value *size = pn_call_arg(call, "size"), *scale = pn_call_arg(call, "scale");
  bool by_grid = pn_arg_int(call, "align") == GRID;
  if (by_grid && !x->has_grid) return pn_fail_shapes(call, "align=grid needs an x that carries its grid");
  pn_out *out = &call->out[0];
  pn_out_like(out, x);
  out->layout = PN_CHANNELS_LAST;
  for (int d = 0; d < 3; d++) {
    out->shape[2 + d] = size->i[d] ? size->i[d] : x->shape[2 + d] * scale->i[d];
    if (x->shape[2 + d] == 0 && out->shape[2 + d]) return pn_fail_shapes(call, "the %c axis is empty", "thw"[d]);
    if (by_grid && !(x->grid_stride[d] > 0))
      return pn_fail_shapes(call, "the grid's stride along %c is %g, expected a positive one", "thw"[d], x -> grid_stride[d]);
    pn_sampling map = pn_sampling_of(call, d, out->shape[2 + d]);
    out->grid_centre[d] = by_grid ? 0 : out->grid_centre[d] + map.b * out->grid_stride[d];
    out->grid_stride[d] = by_grid ? 1 : map.a > 0 ? out->grid_stride[d] * map.a : out->grid_stride[d];
  }
  return 0;
}

/* One axis in tables: pn_sample_at of each j, pn_sample_users of each i. */
typedef struct samples {
  int64_t n_in, n_out, *low, *first, *last;
  double *w;
  int32_t *place; /* low and w once more, as rows of single numbers are read */
  real *share;
} samples;

static int samples_new(samples *s, const pn_call *call, int d, int64_t n_out) {
  const pn_sampling sampling = pn_sampling_of(call, d, n_out);
  s->n_in = sampling.n_in;
  s->n_out = n_out;
  s->low = pn_alloc((size_t)(2 * n_out + 2 * s->n_in) * sizeof(int64_t) + (size_t)n_out * (sizeof(int32_t) + sizeof(real)));
  if (!s->low) return -1;
  s->w = (double *)(void *)(s->low + n_out);
  s->first = s->low + 2 * n_out;
  s->last = s->first + s->n_in;
  s->share = (real *)(void *)(s->last + s->n_in);
  s->place = (int32_t *)(void *)(s->share + n_out);
  for (int64_t i = 0; i < s->n_in; i++) pn_sample_users(&sampling, i, &s->first[i], &s->last[i]);
  for (int64_t j = 0; j < n_out; j++) {
    const pn_sample p = pn_sample_at(&sampling, j);
    s->low[j] = p.low;
    s->w[j] = p.w;
    s->place[j] = (int32_t)p.low;
    s->share[j] = (real)p.w;
  }
  return 0;
}

static double share(const samples *s, int64_t j, int64_t i) { return pn_sample_share((pn_sample){ s->low[j], s->w[j] }, i); }

typedef struct job {
  pn_pixels x, y; /* x or dx; y or dy */
  samples t, h, w;
  bool add;
} job;

/* row = the weighted sum of n rows of p, which begin at offset[]: w pixels of c channels, adjacent in row. */
static void sum_rows(real *row, const pn_pixels *p, const int64_t *offset, const real *weight, int64_t n) {
  const pn_tap_kernels *kernels = pn_taps();
  if (p->sw == p->c) {
    kernels->weighted(row, false, p->data, offset, weight, n, p->w * p->c);
  } else {
    for (int64_t i = 0; i < p->w; i++) kernels->weighted(row + i * p->c, false, p->data + i * p->sw, offset, weight, n, p->c);
  }
}

/* Along t and h first, then along w: a row of the result is two taps a pixel from the sum of at most four rows of x. */
static int forward_rows(void *context, int64_t begin, int64_t end) {
  const job *j = context;
  const pn_pixels *x = &j->x, *y = &j->y;
  const pn_tap_kernels *kernels = pn_taps();
  const int64_t c = x->c;
  real *sum = pn_alloc((size_t)((x->w + 1) * c) * sizeof(real)); /* one pixel more: `between` reads it where x is one wide */
  if (!sum) return -1;
  memset(sum + x->w * c, 0, (size_t)c * sizeof(real));
  for (int64_t row = begin; row < end; row++) {
    int64_t ho = row % y->h, to = row / y->h % y->t, n = row / y->h / y->t, n_rows = 0, offset[4];
    real weight[4];
    for (int64_t a = 0; a < 2; a++) {
      for (int64_t b = 0; b < 2; b++) {
        double wt = a ? j->t.w[to] : 1 - j->t.w[to], wh = b ? j->h.w[ho] : 1 - j->h.w[ho];
        if (wt * wh == 0) continue;
        offset[n_rows] = n * x->sn + (j->t.low[to] + a) * x->st + (j->h.low[ho] + b) * x->sh;
        weight[n_rows++] = (real)(wt * wh);
      }
    }
    sum_rows(sum, x, offset, weight, n_rows);
    real *into = y->data + n * y->sn + to * y->st + ho * y->sh;
    if (c == 1 && y->sw == 1) {
      kernels->between(into, sum, j->w.place, j->w.share, y->w);
      continue;
    }
    for (int64_t wo = 0; wo < y->w; wo++) {
      int64_t tap[2] = { 0, c }, first = j->w.w[wo] == 1, last = j->w.w[wo] != 0;
      const real share_of[2] = { (real)(1 - j->w.w[wo]), (real)j->w.w[wo] };
      kernels->weighted(into + wo * y->sw, false, sum + j->w.low[wo] * c, tap + first, share_of + first, last - first + 1, c);
    }
  }
  pn_free(sum);
  return 0;
}

/* The same two steps the other way round: the rows of dy that use a row of x, summed; then, pixel by pixel, along w. */
static int backward_rows(void *context, int64_t begin, int64_t end) {
  const job *j = context;
  const pn_pixels *dx = &j->x, *dy = &j->y;
  const pn_tap_kernels *kernels = pn_taps();
  const int64_t c = dx->c, most = pn_max64(dy->w, dy->t * dy->h);
  int64_t *offset = pn_alloc((size_t)most * (sizeof(int64_t) + sizeof(real)) + (size_t)(dy->w * c) * sizeof(real));
  if (!offset) return -1;
  real *weight = (real *)(void *)(offset + most), *sum = weight + most;
  for (int64_t row = begin; row < end; row++) {
    int64_t hi = row % dx->h, ti = row / dx->h % dx->t, n = row / dx->h / dx->t, n_rows = 0;
    for (int64_t to = j->t.first[ti]; to <= j->t.last[ti]; to++) {
      for (int64_t ho = j->h.first[hi]; ho <= j->h.last[hi]; ho++) {
        offset[n_rows] = n * dy->sn + to * dy->st + ho * dy->sh;
        weight[n_rows++] = (real)(share(&j->t, to, ti) * share(&j->h, ho, hi));
      }
    }
    sum_rows(sum, dy, offset, weight, n_rows);
    for (int64_t wi = 0; wi < dx->w; wi++) {
      int64_t k = 0;
      for (int64_t wo = j->w.first[wi]; wo <= j->w.last[wi]; wo++, k++) {
        offset[k] = wo * c;
        weight[k] = (real)share(&j->w, wo, wi);
      }
      kernels->weighted(dx->data + n * dx->sn + ti * dx->st + hi * dx->sh + wi * dx->sw, j->add, sum, offset, weight, k, c);
    }
  }
  pn_free(offset);
  return 0;
}

static int run(pn_call *call, pn_tensor *small, pn_tensor *large, bool back, bool add) {
  job j = { .add = add };
  pn_tensor *held_x = NULL, *held_y = NULL;
  samples *axes[3] = { &j.t, &j.h, &j.w };
  int rc = pn_pixels_open(&j.x, &held_x, small) || pn_pixels_open(&j.y, &held_y, large) ? -1 : 0;
  for (int d = 0; d < 3 && !rc; d++) rc = samples_new(axes[d], call, d, large->shape[2 + d]);
  if (!rc && pn_tensor_count(large)) {
    if (back) {
      rc = pn_parallel_try(j.x.n * j.x.t * j.x.h, 1, backward_rows, &j);
    } else {
      rc = pn_parallel_try(j.y.n * j.y.t * j.y.h, pn_max64(1, 4096 / pn_max64(1, j.y.w * j.y.c)), forward_rows, &j);
    }
  }
  for (int d = 0; d < 3; d++) pn_free(axes[d]->low);
  if (held_x) pn_pixels_close(held_x, small, back && !rc);
  if (held_y) pn_pixels_close(held_y, large, !back && !rc);
  return rc;
}

static int forward(pn_call *call) { return run(call, call->x[0], call->y[0], false, false); }

static int backward(pn_call *call) {
  pn_tensor *dx;
  bool fresh;
  if (pn_call_dx(call, 0, &dx, &fresh)) return -1;
  return dx ? run(call, dx, call->dy[0], true, !fresh) : 0;
}

static const pn_arg args[] = {
  {"size",   PN_INT3, "0", 0, 1e9, .help = "the result's T,H,W; 0: from scale" },
  { "scale",     PN_INT3, "1", 1, 1e6, .help = "whole factors of T,H,W where size is 0; size = {T, H, W} takes any" },
  { "mode",     PN_CHOICE, "trilinear", .choices = "nearest|trilinear", .help = "one element, or the eight around" },
  { "align",       PN_CHOICE, "half_pixel", .choices = "half_pixel|corners|asymmetric|grid",
   .help = "where the result's elements stand in x" },
  { 0},
};
static const char *const cases[] = { "2,3,2,3,4 scale=2,2,2",
                                     "1,2,3,4,5 size=4,9,7 align=corners",
                                     "1,2,3,4,5 size=2,9,3",
                                     "1,1,2,3,4 size=3,7,2 mode=nearest",
                                     "1,2,2,3,1 size=1,6,3 align=asymmetric",
                                     "1,2,2,3,4 scale=1,3,2 mode=nearest align=asymmetric",
                                     "1,2,3,4,5 size=1,1,1 align=corners",
                                     0 };
const pn_op pn_op_resize3d = {
  .name = "resize3d",
  .help = "a clip sampled at another size",
  .inputs = "x",
  .args = args,
  .cases = cases,
  .shape = shape,
  .cpu = {forward, backward}
};
