/* convolution.cu: between tensors of any strides and cuDNN, or the own kernels. See convolution.h.
**
** Filters reach cuDNN in the order O,t,h,w,I: those in FILTER memory are transposed on the way, cast and scaled, tile by tile; their
** gradients come back the same way. What forward makes of a filter waits for the gradient of x, where that wants one. A convolution goes to cuDNN with its bias and relu, else, where it has no engine for that,
** without them, and else, which is said, to the kernels of plain_convolution.h. */
#include "convolution.h"
#include "cudnn_convolve.h"
#include "pack.h"
#include "pixels.h"
#include "plain_convolution.h"
#include "precision.h"

enum { THREADS = 256, TILE = 32, ROWS = THREADS / TILE };

/* ---- tensors as the engines want them ------------------------------------------------------------------------------------------ */

int pn_gpu_read_as(pn_tensor **out, pn_tensor *t, pn_dtype dtype) {
  if (t->dtype == dtype && pn_gpu_is_pixels(t)) {
    pn_tensor_retain(t);
    *out = t;
    return 0;
  }
  if (pn_tensor_new(out, dtype, 5, t->shape, PN_CHANNELS_LAST, pn_device_of(t))) return -1;
  if (!pn_tensor_copy(*out, t)) return 0;
  pn_tensor_release(*out);
  return -1;
}

/* Where to write what becomes t: t itself (retained), or room that write_back brings there. */
static int write_as(pn_tensor **out, pn_tensor *t, bool add, pn_dtype dtype) {
  if (!add && t->dtype == dtype && pn_gpu_is_pixels(t)) {
    pn_tensor_retain(t);
    *out = t;
    return 0;
  }
  return pn_tensor_new(out, dtype, 5, t->shape, PN_CHANNELS_LAST, pn_device_of(t));
}

static int write_back(pn_tensor *made, pn_tensor *t, bool add, int rc) {
  if (!rc && made != t) rc = add ? pn_add_into(t, made) : pn_tensor_copy(t, made);
  pn_tensor_release(made);
  return rc;
}

/* ---- filters --------------------------------------------------------------------------------------------------------------------- */

/* to (columns x rows) = or += the transpose of from (rows x columns), times a scale for each column. */
template <typename To, typename From>
PN_KERNEL void transpose(To *to, const From *from, const real *scale, int64_t scale_stride, int64_t rows, int64_t columns,
                         bool add) {
  PN_SHARED_MEMORY(real, tile);
  int64_t wide = pn_ceil_div(columns, TILE), row = pn_block / wide * TILE, column = pn_block % wide * TILE;
  int x = pn_thread % TILE, y = pn_thread / TILE;
  for (int i = y; i < TILE; i += ROWS)
    if (row + i < rows && column + x < columns)
      tile[i * (TILE + 1) + x] =
          pn_from(from[(row + i) * columns + column + x]) * (scale ? scale[(column + x) * scale_stride] : (real)1);
  PN_BARRIER();
  for (int i = y; i < TILE; i += ROWS)
    if (row + x < rows && column + i < columns) {
      To *at = to + (column + i) * rows + row + x;
      real v = tile[x * (TILE + 1) + i];
      pn_to(at, add ? pn_from(*at) + v : v);
    }
}

/* to = or += from, in runs of `run` that share a scale. */
template <typename To, typename From>
PN_KERNEL void scale_runs(To *to, const From *from, const real *scale, int64_t scale_stride, int64_t run, int64_t n, bool add) {
  PN_EACH(i, n) {
    real v = pn_from(from[i]) * (scale ? scale[i / run * scale_stride] : (real)1);
    pn_to(to + i, add ? pn_from(to[i]) + v : v);
  }
}

template <typename To, typename From>
static int reorder(pn_gpu *gpu, bool transposed, To *to, const From *from, const real *scale, int64_t scale_stride, int64_t rows,
                   int64_t columns, bool add) {
  int64_t n = rows * columns;
  if (!n) return 0;
  if (transposed) {
    auto run = transpose<To, From>;
    return PN_LAUNCH_TEAM(gpu, run, pn_ceil_div(rows, TILE) * pn_ceil_div(columns, TILE), THREADS, sizeof(real) * TILE * (TILE + 1),
                          to, from, scale, scale_stride, rows, columns, add);
  }
  auto run = scale_runs<To, From>;
  return PN_LAUNCH(gpu, run, pn_gpu_blocks(gpu, n, THREADS), THREADS, to, from, scale, scale_stride, columns, n, add);
}

static int64_t outputs_of(const pn_tensor *w) { return w->shape[0]; }
static int64_t rest_of(const pn_tensor *w) { return w->shape[1] * w->shape[2] * w->shape[3] * w->shape[4]; }

int pn_gpu_filter(pn_tensor **out, pn_tensor *weight, const pn_tensor *scale, pn_dtype dtype) {
  const bool ready = pn_tensor_is_dense(weight, PN_CHANNELS_LAST);
  pn_tensor *from;
  pn_gpu *gpu = pn_gpu_of(weight);
  if (!gpu) return -1;
  if (ready && !scale && dtype == weight->dtype) {
    pn_tensor_retain(weight);
    *out = weight;
    return 0;
  }
  if (pn_tensor_contiguous(&from, weight, ready ? PN_CHANNELS_LAST : PN_FILTER)) return -1;
  int rc = pn_tensor_new(out, dtype, 5, weight->shape, PN_CHANNELS_LAST, pn_device_of(weight));
  if (!rc) { /* FILTER memory is k rows of o, the other o rows of k */
    const int64_t o = outputs_of(weight), k = rest_of(weight), stride = scale ? scale->stride[0] : 0;
    const real *factor = scale ? pn_real_of(scale) : NULL;
    PN_BY_TYPE(
        dtype, rc = pn_fail("convolution: filters of %s", pn_dtype_name(dtype)),
        rc = reorder(gpu, !ready, (T *)pn_bytes_of(*out), pn_real_of(from), factor, stride, ready ? o : k, ready ? k : o, false));
    if (rc) pn_tensor_release(*out);
  }
  pn_tensor_release(from);
  return rc;
}

enum { KEPT = 1 }; /* the slot of the call */

void pn_gpu_filter_keep(pn_call *call, pn_tensor *filter) {
  if (call->recording && filter != call->x[1] && pn_call_wants(call, 0)) pn_call_save(call, KEPT, filter);
  else pn_tensor_release(filter);
}

int pn_gpu_filter_kept(pn_tensor **out, pn_call *call, pn_dtype dtype) {
  pn_tensor *kept = call->saved[KEPT];
  if (!kept || kept->dtype != dtype) return pn_gpu_filter(out, call->x[1], NULL, dtype);
  pn_tensor_retain(kept);
  *out = kept;
  return 0;
}

/* ---- engines ------------------------------------------------------------------------------------------------------------------------- */

typedef struct job {
  pn_gpu *gpu;
  int kind;
  pn_gpu_pixels x, y;
  void *w;
  const pn_tensor *bias; /* of the results; NULL for none */
  bool relu;
  const pn_gpu_geometry *g;
  pn_dtype dtype;
} job;

template <typename T> PN_KERNEL void convert_bias(T *to, const real *from, int64_t stride, int64_t n) {
  PN_EACH(i, n) pn_to(to + i, from ? from[i * stride] : (real)0);
}

template <typename T> PN_KERNEL void end(pn_gpu_pixels y, const real *bias, int64_t stride, bool relu) {
  PN_EACH(i, pn_gpu_pixels_count(&y) * y.c) {
    T *at = (T *)y.data + pn_gpu_pixel_at(&y, i / y.c) + i % y.c;
    real v = pn_from(*at) + (bias ? bias[i % y.c * stride] : (real)0);
    pn_to(at, relu && v < 0 ? (real)0 : v);
  }
}

/* Behind an engine that could not do it: + bias, then relu, on the results. */
static int finish(const job *j) {
  const pn_gpu_pixels *to = j->kind == PN_CUDNN_DATA ? &j->x : &j->y;
  const real *bias = j->bias ? pn_real_of(j->bias) : NULL;
  int64_t stride = j->bias ? j->bias->stride[0] : 0, blocks = pn_gpu_blocks(j->gpu, pn_gpu_pixels_count(to) * to->c, THREADS);
  PN_BY_TYPE(j->dtype, return pn_fail("convolution: results of %s", pn_dtype_name(j->dtype)), {
    auto run = end<T>;
    return PN_LAUNCH(j->gpu, run, blocks, THREADS, *to, bias, stride, j->relu);
  });
}

static void describe(pn_cudnn_problem *p, const job *j, const pn_engine_policy *policy) {
  const pn_gpu_pixels *x = &j->x, *y = &j->y;
  const pn_geometry *g = &j->g->g;
  memset(p, 0, sizeof *p);
  p->kind = j->kind, p->dtype = (int64_t)j->dtype;
  p->tf32 = j->dtype == PN_F32 && pn_precision_of(PN_CUDA0 + j->gpu->index) == PN_AS_TF32;
  p->exact = policy->exact, p->deterministic = policy->deterministic;
  p->n = x->n, p->c = x->c, p->o = y->c, p->groups = g->groups;
  const int64_t x_sizes[3] = { x->t, x->h, x->w }, y_sizes[3] = { y->t, y->h, y->w };
  for (int d = 0; d < 3; d++) {
    p->x[d] = x_sizes[d], p->y[d] = y_sizes[d], p->kernel[d] = g->kernel[d], p->stride[d] = g->stride[d];
    p->dilation[d] = g->dilation[d], p->low[d] = g->low[d], p->high[d] = j->g->high[d];
  }
  const int64_t x_strides[4] = { x->sn, x->st, x->sh, x->sw }, y_strides[4] = { y->sn, y->st, y->sh, y->sw };
  memcpy(p->x_stride, x_strides, sizeof x_strides);
  memcpy(p->y_stride, y_strides, sizeof y_strides);
  p->x_align = pn_cudnn_alignment(x->data), p->w_align = pn_cudnn_alignment(j->w), p->y_align = pn_cudnn_alignment(y->data);
}

/* With bias and relu in the engine: they go there in the type of the rest, and a relu with a bias of zeros where there is none. */
static int with_end(const job *j, pn_cudnn_problem p, const pn_cudnn_policy *how) {
  int64_t o = j->y.c, stride = j->bias ? j->bias->stride[0] : 0;
  const real *from = j->bias ? pn_real_of(j->bias) : NULL;
  const void *bias = from;
  void *made = NULL;
  int rc = 0;
  if (!from || j->dtype != j->bias->dtype || (o > 1 && stride != 1) || pn_cudnn_alignment(from) < 16) {
    bias = made = pn_gpu_scratch(j->gpu, (size_t)(o * pn_dtype_bytes(j->dtype)));
    if (!made) return -1;
    PN_BY_TYPE(j->dtype, rc = pn_fail("convolution: a bias of %s", pn_dtype_name(j->dtype)), {
      auto run = convert_bias<T>;
      rc = PN_LAUNCH(j->gpu, run, pn_gpu_blocks(j->gpu, o, THREADS), THREADS, (T *)made, from, stride, o);
    });
  }
  p.bias = 1, p.relu = j->relu;
  rc = rc ? rc : pn_cudnn_convolve(j->gpu, &p, how, j->x.data, j->w, j->y.data, bias);
  pn_gpu_scratch_free(j->gpu, made);
  return rc;
}

static int by_cudnn(const job *j) {
  pn_engine_policy policy = pn_engine_policy_now();
  if (policy.plain) return PN_CUDNN_NONE;
  for (int d = 0; d < 3; d++)
    if (j->g->high[d] < 0) { /* a row at the end that no window reaches, of a transposed convolution */
      (void)pn_fail("cuDNN: no engine for a padding of %lld", (long long)j->g->high[d]);
      pn_notice("%s; own kernels do it, slowly", pn_error());
      return PN_CUDNN_NONE;
    }
  pn_cudnn_policy how = { policy.workspace_bytes, policy.autotune };
  pn_cudnn_problem p;
  describe(&p, j, &policy);
  bool ends = j->bias || j->relu, hides = j->relu && pn_trapping_nan(); /* a relu in the engine may turn NaN into 0 */
  int rc = ends && !hides && j->kind == PN_CUDNN_FORWARD ? with_end(j, p, &how) : PN_CUDNN_NONE;
  if (rc == PN_CUDNN_NONE) {
    rc = pn_cudnn_convolve(j->gpu, &p, &how, j->x.data, j->w, j->y.data, NULL);
    if (!rc && ends) rc = finish(j);
  }
  if (rc == PN_CUDNN_NONE) pn_notice("%s; own kernels do it, slowly", pn_error());
  return rc;
}

template <typename T> static int by_hand(const job *j) {
  const real *bias = j->bias ? pn_real_of(j->bias) : NULL;
  int64_t stride = j->bias ? j->bias->stride[0] : 0;
  const pn_geometry *g = &j->g->g;
  if (j->kind == PN_CUDNN_WEIGHT) {
    auto run = pn_plain_weight<T>;
    int64_t n = j->y.c * g->kernel[0] * g->kernel[1] * g->kernel[2] * (j->x.c / g->groups);
    return PN_LAUNCH(j->gpu, run, pn_gpu_blocks(j->gpu, n, THREADS), THREADS, (T *)j->w, j->x, j->y, *g);
  }
  if (j->kind == PN_CUDNN_DATA) {
    auto run = pn_plain_data<T>;
    int64_t n = pn_gpu_pixels_count(&j->x) * j->x.c;
    return PN_LAUNCH(j->gpu, run, pn_gpu_blocks(j->gpu, n, THREADS), THREADS, j->x, j->y, (const T *)j->w, bias, stride, *g);
  }
  auto run = pn_plain_forward<T>;
  int64_t n = pn_gpu_pixels_count(&j->y) * j->y.c;
  return PN_LAUNCH(j->gpu, run, pn_gpu_blocks(j->gpu, n, THREADS), THREADS, j->y, j->x, (const T *)j->w, bias, stride, j->relu, *g);
}

/* The result has elements; where it is the sum of none, it is zeros and bias, which the plain kernels make. */
static int convolve(const job *j) {
  int64_t x = pn_gpu_pixels_count(&j->x) * j->x.c, y = pn_gpu_pixels_count(&j->y) * j->y.c;
  int rc = x && y ? by_cudnn(j) : PN_CUDNN_NONE;
  if (rc != PN_CUDNN_NONE) return rc;
  PN_BY_TYPE(j->dtype, return pn_fail("convolution: products of %s", pn_dtype_name(j->dtype)), return by_hand<T>(j));
}

/* ---- convolution and its adjoints ------------------------------------------------------------------------------------------------------ */

int pn_gpu_convolve(pn_tensor *y, pn_tensor *x, pn_tensor *filter, pn_tensor *bias, bool relu, const pn_gpu_geometry *g) {
  pn_tensor *from, *to;
  const pn_dtype dtype = filter->dtype;
  job j = { pn_gpu_of(y), PN_CUDNN_FORWARD, {}, {}, pn_bytes_of(filter), bias, relu, g, dtype };
  if (!pn_tensor_count(y)) return 0;
  if (!j.gpu || pn_gpu_read_as(&from, x, dtype)) return -1;
  int rc = write_as(&to, y, false, dtype);
  if (!rc) {
    j.x = pn_gpu_pixels_of(from), j.y = pn_gpu_pixels_of(to);
    rc = write_back(to, y, false, convolve(&j));
  }
  pn_tensor_release(from);
  return rc;
}

int pn_gpu_convolve_data(pn_tensor *x, bool add, pn_tensor *y, pn_tensor *filter, pn_tensor *bias, const pn_gpu_geometry *g) {
  pn_tensor *from, *to;
  const pn_dtype dtype = filter->dtype;
  job j = { pn_gpu_of(x), PN_CUDNN_DATA, {}, {}, pn_bytes_of(filter), bias, false, g, dtype };
  if (!pn_tensor_count(x)) return 0;
  if (!j.gpu || pn_gpu_read_as(&from, y, dtype)) return -1;
  int rc = write_as(&to, x, add, dtype);
  if (!rc) {
    j.x = pn_gpu_pixels_of(to), j.y = pn_gpu_pixels_of(from);
    rc = write_back(to, x, add, convolve(&j));
  }
  pn_tensor_release(from);
  return rc;
}

/* The gradient, made in scratch in the order O,t,h,w,I, goes to dense dw in its own order. */
template <typename T> static int filter_gradient(const job *j, pn_tensor *dw, bool add) {
  bool ready = pn_tensor_is_dense(dw, PN_CHANNELS_LAST);
  int64_t o = outputs_of(dw), k = rest_of(dw);
  job made = *j;
  void *scratch = NULL;
  if (ready && !add && j->dtype == dw->dtype) made.w = pn_bytes_of(dw);
  else if (!(made.w = scratch = pn_gpu_scratch(j->gpu, sizeof(T) * (size_t)(o * k)))) return -1;
  int rc = convolve(&made);
  if (!rc && scratch) rc = reorder(j->gpu, !ready, pn_real_of(dw), (const T *)scratch, NULL, 0, o, k, add);
  pn_gpu_scratch_free(j->gpu, scratch);
  return rc;
}

int pn_gpu_convolve_weight(pn_call *call, pn_tensor *x, pn_tensor *y, const pn_gpu_geometry *g, pn_dtype dtype) {
  pn_tensor *dw, *dense, *px, *py;
  bool fresh;
  job j = { pn_gpu_of(y), PN_CUDNN_WEIGHT, {}, {}, NULL, NULL, false, g, dtype };
  if (!j.gpu || pn_call_dx(call, 1, &dw, &fresh)) return -1;
  if (!dw || !pn_tensor_count(dw)) return 0;
  bool direct = pn_tensor_is_dense(dw, PN_CHANNELS_LAST) || pn_tensor_is_dense(dw, PN_FILTER);
  if (direct) {
    pn_tensor_retain(dw);
    dense = dw;
  } else if (pn_tensor_new(&dense, dw->dtype, 5, dw->shape, PN_FILTER, pn_device_of(dw))) return -1;
  int rc = pn_gpu_read_as(&px, x, dtype);
  if (!rc) {
    if (!(rc = pn_gpu_read_as(&py, y, dtype))) {
      j.x = pn_gpu_pixels_of(px), j.y = pn_gpu_pixels_of(py);
      PN_BY_TYPE(dtype, rc = pn_fail("convolution: gradients of %s", pn_dtype_name(dtype)),
                 rc = filter_gradient<T>(&j, dense, direct && !fresh));
      pn_tensor_release(py);
    }
    pn_tensor_release(px);
  }
  return write_back(dense, dw, !fresh, rc);
}

/* ---- behind the product ------------------------------------------------------------------------------------------------------------------ */

typedef struct end_job {
  pn_gpu_pixels dy, y, dz; /* y, dz: data NULL for none */
  const real *scale;
  int64_t scale_stride;
  double *sums; /* [block][c]; NULL for none */
  int64_t rows; /* of a block, of pixels */
  int lanes;    /* threads side by side along channels, a power of two */
} end_job;

/* A block has `rows` pixels and lanes*V channels. Each thread adds its pixels in order; the threads of a channel are added in order. */
template <typename T, int V> PN_KERNEL void end_back(end_job j) {
  PN_SHARED_MEMORY(real, room);
  int lane = pn_thread % j.lanes, line = pn_thread / j.lanes, lines = pn_threads / j.lanes;
  int64_t c = j.dy.c, wide = pn_ceil_div(c, (int64_t)j.lanes * V), block = pn_block / wide;
  int64_t first = (pn_block % wide * j.lanes + lane) * V, count = pn_gpu_pixels_count(&j.dy);
  int64_t stop = pn_min64(count, (block + 1) * j.rows);
  real sum[V], scale[V];
  for (int k = 0; k < V; k++) {
    sum[k] = 0;
    scale[k] = j.scale && first < c ? j.scale[(first + k) * j.scale_stride] : (real)1;
  }
  for (int64_t i = block * j.rows + line; i < stop && first < c; i += lines) {
    real dy[V], y[V];
    pn_load<T, V>(dy, (const T *)j.dy.data + pn_gpu_pixel_at(&j.dy, i) + first);
    if (j.y.data) {
      pn_load<T, V>(y, (const T *)j.y.data + pn_gpu_pixel_at(&j.y, i) + first);
      for (int k = 0; k < V; k++)
        if (!(y[k] > 0)) dy[k] = 0;
    }
    for (int k = 0; k < V; k++) {
      sum[k] += dy[k];
      dy[k] *= scale[k];
    }
    if (j.dz.data) pn_store<T, V>((T *)j.dz.data + pn_gpu_pixel_at(&j.dz, i) + first, dy);
  }
  if (!j.sums) return; /* the same for all threads */
  for (int k = 0; k < V; k++) room[pn_thread * V + k] = sum[k];
  PN_BARRIER();
  for (int i = pn_thread; i < j.lanes * V; i += pn_threads) {
    int64_t channel = pn_block % wide * j.lanes * V + i;
    double total = 0;
    for (int l = 0; l < lines; l++) total += (double)room[l * j.lanes * V + i];
    if (channel < c) j.sums[block * c + channel] = total;
  }
}

/* db = or += the sums of the blocks: a block for TILE channels, each of whose lines adds every so many of them in order. */
PN_KERNEL void join_sums(real *db, int64_t stride, const double *sums, int64_t blocks, int64_t c, bool fresh) {
  PN_SHARED_MEMORY(double, room);
  int64_t channel = pn_block * TILE + pn_thread % TILE;
  double sum = 0;
  for (int64_t b = pn_thread / TILE; b < blocks && channel < c; b += ROWS) sum += sums[b * c + channel];
  room[pn_thread] = sum;
  PN_BARRIER();
  if (pn_thread >= TILE || channel >= c) return;
  for (int line = 1; line < ROWS; line++) sum += room[line * TILE + pn_thread];
  db[channel * stride] = (real)(fresh ? sum : (double)db[channel * stride] + sum);
}

static bool goes_in_packs(const pn_gpu_pixels *p, int v) {
  int64_t bytes = pn_dtype_bytes((pn_dtype)p->dtype) * v;
  return !p->data ||
         (!((uintptr_t)p->data % (uintptr_t)bytes) && !(p->c % v) && !(p->sw % v) && !(p->sh % v) && !(p->st % v) && !(p->sn % v));
}

template <typename T, int V> static int end_launch(pn_gpu *gpu, end_job *j, int64_t blocks) {
  auto run = end_back<T, V>;
  int64_t groups = pn_ceil_div(j->dy.c, V);
  for (j->lanes = 1; j->lanes < TILE && j->lanes < groups;) j->lanes *= 2;
  return PN_LAUNCH_TEAM(gpu, run, blocks * pn_ceil_div(groups, j->lanes), THREADS, sizeof(real) * THREADS * V, *j);
}

template <typename T> static int end_sweep(pn_gpu *gpu, end_job *j, int64_t blocks) {
  enum { V = pn_per_pack<T>::COUNT };
  bool packs = goes_in_packs(&j->dy, V) && goes_in_packs(&j->y, V) && goes_in_packs(&j->dz, V);
  return packs ? end_launch<T, V>(gpu, j, blocks) : end_launch<T, 1>(gpu, j, blocks);
}

/* Sweeps all pixels, then joins the sums of the blocks, which the shape alone cuts. */
static int sweep(pn_gpu *gpu, end_job *j, pn_tensor *db, bool fresh) {
  int64_t count = pn_gpu_pixels_count(&j->dy), c = j->dy.c, blocks;
  if (!c) return 0;
  j->rows = pn_max64(64, pn_ceil_div(count, 1024));
  blocks = pn_ceil_div(count, j->rows);
  if (db && !(j->sums = (double *)pn_gpu_scratch(gpu, sizeof(double) * (size_t)(blocks * c + 1)))) return -1;
  int rc = 0;
  if (blocks)
    PN_BY_TYPE(j->dy.dtype, rc = pn_fail("convolution: gradients of %s", pn_dtype_name((pn_dtype)j->dy.dtype)),
               rc = end_sweep<T>(gpu, j, blocks));
  if (!rc && db)
    rc = PN_LAUNCH_TEAM(gpu, join_sums, pn_ceil_div(c, TILE), THREADS, sizeof(double) * THREADS, pn_real_of(db), db->stride[0],
                        j->sums, blocks, c, fresh);
  pn_gpu_scratch_free(gpu, j->sums);
  return rc;
}

int pn_gpu_end_gradient(pn_call *call, pn_tensor **dz, pn_tensor *given, pn_tensor *y, pn_tensor *scale) {
  pn_tensor *dy, *db, *mask = NULL;
  bool fresh, passes = !y && !scale;
  pn_gpu *gpu = pn_gpu_of(given);
  if (!gpu || pn_call_dx(call, 2, &db, &fresh) || pn_gpu_read_as(&dy, given, given->dtype)) return -1;
  *dz = dy;
  if (passes && !db) return 0;
  bool alone = pn_convolution_owns(call, dy);
  int rc = y ? pn_gpu_read_as(&mask, y, dy->dtype) : 0;
  if (!rc && !passes && !alone) rc = pn_tensor_new(dz, dy->dtype, 5, dy->shape, PN_CHANNELS_LAST, pn_device_of(dy));
  if (!rc) {
    end_job j = { pn_gpu_pixels_of(dy), {}, {}, scale ? pn_real_of(scale) : NULL, scale ? scale->stride[0] : 0, NULL, 0, 0 };
    if (mask) j.y = pn_gpu_pixels_of(mask);
    if (!passes) j.dz = pn_gpu_pixels_of(*dz);
    rc = sweep(gpu, &j, db, fresh);
    if (rc && *dz != dy) pn_tensor_release(*dz);
  }
  pn_tensor_release(mask);
  if (rc || *dz != dy) pn_tensor_release(dy);
  return rc;
}
