/* pool.c: windows and poolings. See pool.h.
**
** Forward walks the output, backward the input: each pixel of dx gathers from the windows that cover it, in the order of the
** windows. So each element has one writer and one order of summation, whatever the number of threads. */
#include "kernels/pool.h"
#include <string.h>
#include "kernels/pixels.h"
#include "kernels/taps.h"

pn_window pn_window_of(const pn_call *call) {
  pn_window w;
  const int64_t *kernel = pn_call_arg(call, "kernel")->i, *stride = pn_call_arg(call, "stride")->i;
  int64_t low[3], high[3];
  pn_resolve_pad(pn_call_arg(call, "pad"), call->x[0]->shape + 2, kernel, stride, NULL, low, high);
  for (int d = 0; d < 3; d++) pn_window_set(&w, d, kernel[d], stride[d], low[d]);
  return w;
}

int pn_window_shape(pn_call *call) {
  if (pn_need_dims(call, 0, 5) || pn_need_real(call, 0)) return -1;
  const pn_tensor *x = call->x[0];
  const pn_value *kernel = pn_call_arg(call, "kernel"), *stride = pn_call_arg(call, "stride");
  int64_t low[3], high[3];
  pn_resolve_pad(pn_call_arg(call, "pad"), x->shape + 2, kernel->i, stride->i, NULL, low, high);
  pn_out *out = &call->out[0];
  pn_out_like(out, x);
  out->layout = PN_CHANNELS_LAST;
  for (int d = 0; d < 3; d++) {
    int64_t k = kernel->i[d], s = stride->i[d], n = x->shape[2 + d];
    if (low[d] >= k || high[d] >= k) {
      return pn_fail_shapes(call, "pad %lld,%lld along %c must be smaller than kernel %lld, or a window holds no element",
                            (long long)low[d], (long long)high[d], "thw"[d], (long long)k);
    }
    if (n == 0) return pn_fail_shapes(call, "x has nothing along %c", "thw"[d]); /* pads on both sides could still fill a window */
    if (n + low[d] + high[d] < k) {
      return pn_fail_shapes(call, "kernel %lld is larger than the padded %c axis of %lld", (long long)k, "thw"[d],
                            (long long)(n + low[d] + high[d]));
    }
    out->shape[2 + d] = (n + low[d] + high[d] - k) / s + 1;
    out->grid_centre[d] += out->grid_stride[d] * ((double)(k - 1) / 2 - (double)low[d]);
    out->grid_stride[d] *= (double)s;
  }
  return 0;
}

typedef struct tap_list {
  int64_t n, k, n_w; /* valid for spans along w with this k and n_w */
  int64_t *offset, *index_offset;
  real *weight;
  uint8_t *number;
} tap_list;

enum { LISTS = 4 }; /* kept at a time: one a phase of the stride */

static int lists_new(tap_list *lists, int n_lists, const pn_window *w) {
  int64_t n = w->kernel[0] * w->kernel[1] * w->kernel[2];
  for (int i = 0; i < n_lists; i++) {
    char *block = pn_alloc((size_t)n * (2 * sizeof(int64_t) + sizeof(real) + 1));
    if (!block) {
      while (i--) pn_free(lists[i].offset);
      return -1;
    }
    lists[i] = (tap_list){ .n_w = -1, .offset = (int64_t *)(void *)block };
    lists[i].index_offset = lists[i].offset + n;
    lists[i].weight = (real *)(void *)(lists[i].index_offset + n);
    lists[i].number = (uint8_t *)(lists[i].weight + n);
  }
  return 0;
}

static void lists_free(tap_list *lists, int n_lists) {
  for (int i = 0; i < n_lists; i++) pn_free(lists[i].offset);
}

/* Offsets from the first neighbour, in the order t, h, w. */
static void list_build(tap_list *list, const pn_window *w, pn_span t, pn_span h, pn_span x, const pn_pixels *of, int64_t c_index,
                       int64_t w_index, int64_t h_index) {
  int64_t n = 0;
  for (int64_t it = 0; it < t.n; it++) {
    for (int64_t ih = 0; ih < h.n; ih++) {
      for (int64_t iw = 0; iw < x.n; iw++, n++) {
        list->offset[n] = it * of->st + ih * of->sh + iw * of->sw;
        list->index_offset[n] = ((it * h_index + ih) * w_index + iw) * c_index;
        list->number[n] = (uint8_t)pn_window_place(w, t.k + it * t.dk, h.k + ih * h.dk, x.k + iw * x.dk);
      }
    }
  }
  list->n = n;
  list->k = x.k;
  list->n_w = x.n;
}

typedef struct job {
  const pn_window *w;
  pn_pixels in, out; /* x and y, or dx and dy */
  uint8_t *index;
  bool add, count_pad;
} job;

/* A row of what is written, and what of the other side it has to do with: its spans along t and h, and where they begin. */
typedef struct line {
  int64_t n; /* of the batch */
  pn_span t, h;
  real *into;
  const real *from;
} line;

static line line_between(const pn_pixels *to, const pn_pixels *from, int64_t row, const pn_window *w,
                         pn_span (*span)(const pn_window *w, int d, int64_t i, int64_t n)) {
  const int64_t n = row / to->h / to->t, t = row / to->h % to->t, h = row % to->h;
  line l = { .n = n, .t = span(w, 0, t, from->t), .h = span(w, 1, h, from->h) };
  l.into = to->data + n * to->sn + t * to->st + h * to->sh;
  l.from = from->data + n * from->sn + l.t.at * from->st + l.h.at * from->sh;
  return l;
}

/* Of y, with the x that its windows see; of dx, with the dy of the windows that see it. */
static line line_of_y(const job *j, int64_t row) { return line_between(&j->out, &j->in, row, j->w, pn_span_seen); }
static line line_of_dx(const job *j, int64_t row) { return line_between(&j->in, &j->out, row, j->w, pn_span_seeing); }

/* Without winners the largest of a window may be found in two steps: down t and h for whole rows, then along w. */
static bool in_two_steps(const job *j) {
  const int64_t *k = j->w->kernel, plane = k[0] * k[1];
  return !j->index && j->in.sw == j->in.c && plane * j->w->stride[2] + k[2] < plane * k[2];
}

static int max_rows_in_two_steps(void *context, int64_t begin, int64_t end) {
  const job *j = context;
  const pn_pixels *x = &j->in, *y = &j->out;
  const pn_tap_kernels *kernels = pn_taps();
  tap_list lists[2];
  real *down = pn_alloc((size_t)(x->w * x->c) * sizeof(real));
  if (!down || lists_new(lists, 2, j->w)) {
    pn_free(down);
    return -1;
  }
  for (int64_t i = 0; i < j->w->kernel[2]; i++) lists[1].offset[i] = i * x->c;
  for (int64_t row = begin; row < end; row++) {
    const line l = line_of_y(j, row);
    list_build(&lists[0], j->w, l.t, l.h, (pn_span){ 0, 1, 0, 1 }, x, 0, 0, 0);
    kernels->largest(down, NULL, l.from, lists[0].offset, lists[0].number, lists[0].n, x->w * x->c);
    for (int64_t wo = 0; wo < y->w; wo++) {
      pn_span s = pn_span_seen(j->w, 2, wo, x->w);
      kernels->largest(l.into + wo * y->sw, NULL, down + s.at * x->c, lists[1].offset, lists[0].number, s.n, x->c);
    }
  }
  lists_free(lists, 2);
  pn_free(down);
  return 0;
}

static int max_rows(void *context, int64_t begin, int64_t end) {
  if (in_two_steps(context)) return max_rows_in_two_steps(context, begin, end);
  const job *j = context;
  const pn_pixels *x = &j->in, *y = &j->out;
  const pn_tap_kernels *kernels = pn_taps();
  tap_list list;
  if (lists_new(&list, 1, j->w)) return -1;
  for (int64_t row = begin; row < end; row++) {
    const line l = line_of_y(j, row);
    uint8_t *winners = j->index ? j->index + row * y->w * y->c : NULL;
    list.n_w = -1;
    for (int64_t wo = 0; wo < y->w; wo++) {
      pn_span s = pn_span_seen(j->w, 2, wo, x->w);
      if (s.k != list.k || s.n != list.n_w) list_build(&list, j->w, l.t, l.h, s, x, 0, 0, 0);
      kernels->largest(l.into + wo * y->sw, winners ? winners + wo * y->c : NULL, l.from + s.at * x->sw, list.offset, list.number,
                       list.n, x->c);
    }
  }
  lists_free(&list, 1);
  return 0;
}

static int max_back_rows(void *context, int64_t begin, int64_t end) {
  const job *j = context;
  const pn_pixels *dx = &j->in, *dy = &j->out;
  const pn_tap_kernels *kernels = pn_taps();
  tap_list lists[LISTS];
  if (lists_new(lists, LISTS, j->w)) return -1;
  for (int64_t row = begin; row < end; row++) {
    const line l = line_of_dx(j, row);
    const uint8_t *winners = j->index + (((l.n * dy->t + l.t.at) * dy->h + l.h.at) * dy->w) * dy->c;
    for (int i = 0; i < LISTS; i++) lists[i].n_w = -1;
    for (int64_t wi = 0; wi < dx->w; wi++) {
      pn_span s = pn_span_seeing(j->w, 2, wi, dy->w);
      tap_list *list = &lists[(wi + j->w->low[2]) % j->w->stride[2] % LISTS];
      if (s.k != list->k || s.n != list->n_w) list_build(list, j->w, l.t, l.h, s, dy, dy->c, dy->w, dy->h);
      if (list->n) {
        kernels->routed(l.into + wi * dx->sw, j->add, l.from + s.at * dy->sw, list->offset, winners + s.at * dy->c,
                        list->index_offset, list->number, list->n, dx->c);
      } else if (!j->add) {
        memset(l.into + wi * dx->sw, 0, (size_t)dx->c * sizeof(real));
      }
    }
  }
  lists_free(lists, LISTS);
  return 0;
}

static int avg_rows(void *context, int64_t begin, int64_t end) {
  const job *j = context;
  const pn_pixels *x = &j->in, *y = &j->out;
  const pn_tap_kernels *kernels = pn_taps();
  tap_list list;
  if (lists_new(&list, 1, j->w)) return -1;
  for (int64_t row = begin; row < end; row++) {
    const line l = line_of_y(j, row);
    list.n_w = -1;
    for (int64_t wo = 0; wo < y->w; wo++) {
      pn_span s = pn_span_seen(j->w, 2, wo, x->w);
      if (s.k != list.k || s.n != list.n_w) {
        list_build(&list, j->w, l.t, l.h, s, x, 0, 0, 0);
        for (int64_t i = 0; i < list.n; i++) list.weight[i] = pn_window_share(j->w, j->count_pad, l.t.n, l.h.n, s.n);
      }
      kernels->weighted(l.into + wo * y->sw, false, l.from + s.at * x->sw, list.offset, list.weight, list.n, x->c);
    }
  }
  lists_free(&list, 1);
  return 0;
}

static int avg_back_rows(void *context, int64_t begin, int64_t end) {
  const job *j = context;
  const pn_pixels *dx = &j->in, *dy = &j->out;
  const pn_tap_kernels *kernels = pn_taps();
  tap_list list;
  if (lists_new(&list, 1, j->w)) return -1;
  for (int64_t row = begin; row < end; row++) {
    const line l = line_of_dx(j, row);
    for (int64_t wi = 0; wi < dx->w; wi++) {
      pn_span s = pn_span_seeing(j->w, 2, wi, dy->w);
      list_build(&list, j->w, l.t, l.h, s, dy, 0, 0, 0);
      for (int64_t i = 0; i < list.n; i++) { /* each window has its own share to give */
        int64_t iw = i % s.n, ih = i / s.n % l.h.n, it = i / s.n / l.h.n;
        list.weight[i] = pn_window_share(j->w, j->count_pad, pn_span_seen(j->w, 0, l.t.at + it, dx->t).n,
                                         pn_span_seen(j->w, 1, l.h.at + ih, dx->h).n, pn_span_seen(j->w, 2, s.at + iw, dx->w).n);
      }
      if (list.n) {
        kernels->weighted(l.into + wi * dx->sw, j->add, l.from + s.at * dy->sw, list.offset, list.weight, list.n, dx->c);
      } else if (!j->add) {
        memset(l.into + wi * dx->sw, 0, (size_t)dx->c * sizeof(real));
      }
    }
  }
  lists_free(&list, 1);
  return 0;
}

/* Where windows do not overlap, an input has one at most, and takes its share of what that has. */
static bool is_apart(const pn_window *w) {
  return w->kernel[0] == w->stride[0] && w->kernel[1] == w->stride[1] && w->kernel[2] == w->stride[2];
}

static int avg_back_apart_rows(void *context, int64_t begin, int64_t end) {
  const job *j = context;
  const pn_pixels *dx = &j->in, *dy = &j->out;
  for (int64_t row = begin; row < end; row++) {
    const line l = line_of_dx(j, row);
    int64_t next = 0;
    for (int64_t wo = 0; wo < dy->w && l.t.n && l.h.n; wo++) {
      const pn_span s = pn_span_seen(j->w, 2, wo, dx->w);
      const real *from = l.from + wo * dy->sw;
      const real share =
          pn_window_share(j->w, j->count_pad, pn_span_seen(j->w, 0, l.t.at, dx->t).n, pn_span_seen(j->w, 1, l.h.at, dx->h).n, s.n);
      for (next = s.at; next < s.at + s.n; next++) {
        real *to = l.into + next * dx->sw;
        for (int64_t c = 0; c < dx->c; c++) to[c] = (j->add ? to[c] : 0) + share * from[c];
      }
    }
    for (; next < dx->w && !j->add; next++) memset(l.into + next * dx->sw, 0, (size_t)dx->c * sizeof(real));
  }
  return 0;
}

/* Opens `in` and `out` as pixels, runs over the rows of one of them, and closes them. */
static int run(job *j, pn_tensor *in, pn_tensor *out, bool writes_in, int (*rows)(void *, int64_t, int64_t)) {
  pn_tensor *held_in, *held_out;
  if (pn_pixels_open(&j->in, &held_in, in)) return -1;
  if (pn_pixels_open(&j->out, &held_out, out)) {
    pn_tensor_release(held_in);
    return -1;
  }
  const pn_pixels *over = writes_in ? &j->in : &j->out;
  int rc = over->w && over->c ? pn_parallel_try(over->n * over->t * over->h, pn_max64(1, 8192 / (over->w * over->c)), rows, j) : 0;
  pn_pixels_close(held_in, in, writes_in);
  pn_pixels_close(held_out, out, !writes_in);
  return rc;
}

int pn_max_pool(const pn_window *w, pn_tensor *y, uint8_t *index, pn_tensor *x) {
  job j = { .w = w, .index = index };
  return run(&j, x, y, false, max_rows);
}

int pn_max_pool_back(const pn_window *w, pn_tensor *dx, bool add, pn_tensor *dy, const uint8_t *index) {
  job j = { .w = w, .index = (uint8_t *)(uintptr_t)index, .add = add };
  return run(&j, dx, dy, true, max_back_rows);
}

int pn_avg_pool(const pn_window *w, bool count_pad, pn_tensor *y, pn_tensor *x) {
  job j = { .w = w, .count_pad = count_pad };
  return run(&j, x, y, false, avg_rows);
}

int pn_avg_pool_back(const pn_window *w, bool count_pad, pn_tensor *dx, bool add, pn_tensor *dy) {
  job j = { .w = w, .count_pad = count_pad, .add = add };
  return run(&j, dx, dy, true, is_apart(w) ? avg_back_apart_rows : avg_back_rows);
}
