/* convolution.c: between tensors of any strides and the pixels that convolve.c works on. */
#include "convolution.h"
#include "../precision.h"
#include "norm.h"
#include "pixels.h"

int pn_convolution_types(const pn_call *call, pn_dtype *result) {
  if (pn_need_dims(call, 0, 5) || pn_need_dims(call, 1, 5) || pn_need_real(call, 0) || pn_need_real(call, 1)) return -1;
  *result = pn_product_dtype(pn_device_of(call->x[0]));
  return 0;
}

void pn_convolution_geometry(const pn_call *call, const pn_tensor *spatial, bool transposed, pn_geometry *g, int64_t *high) {
  const pn_value *stride = pn_call_arg(call, "stride"), *pad = pn_call_arg(call, "pad"), *dilation = pn_call_arg(call, "dilation");
  g->groups = pn_arg_int(call, "groups");
  for (int d = 0; d < 3; d++) g->kernel[d] = call->x[1]->shape[2 + d], g->stride[d] = stride->i[d], g->dilation[d] = dilation->i[d];
  if (!transposed) {
    pn_resolve_pad(pad, spatial->shape + 2, g->kernel, g->stride, g->dilation, g->low, high);
    return;
  }
  for (int d = 0; d < 3; d++) { /* same: the result is stride times as large */
    int64_t total = pn_max64((g->kernel[d] - 1) * g->dilation[d] + 1 - g->stride[d], 0);
    g->low[d] = pad->same ? total / 2 : pad->i[2 * d];
    high[d] = pad->same ? total - total / 2 : pad->i[2 * d + 1];
  }
}

int pn_write_pixels(pn_tensor *t, bool add, pn_pixels_fn *fn, void *context) {
  pn_pixels p;
  if (pn_pixels_of(&p, t)) return fn(p, context);
  pn_tensor *made;
  if (pn_tensor_new(&made, t->dtype, t->n_dims, t->shape, PN_CHANNELS_LAST, pn_device_of(t))) return -1;
  int rc = add ? pn_tensor_fill(made, 0) : 0;
  (void)pn_pixels_of(&p, made);
  rc = rc ? rc : fn(p, context);
  rc = rc ? rc : add ? pn_add_into(t, made) : pn_tensor_copy(t, made);
  pn_tensor_release(made);
  return rc;
}

int pn_filter_open(pn_tensor **dense, pn_tensor *dw) {
  if (pn_tensor_is_dense(dw, PN_FILTER)) return pn_tensor_retain(*dense = dw), 0;
  if (pn_tensor_new(dense, dw->dtype, 5, dw->shape, PN_FILTER, pn_device_of(dw))) return -1;
  if (!pn_tensor_fill(*dense, 0)) return 0;
  pn_tensor_release(*dense);
  return -1;
}

int pn_filter_close(pn_tensor *dense, pn_tensor *dw, int rc) {
  if (!rc && dense != dw) rc = pn_add_into(dw, dense);
  pn_tensor_release(dense);
  return rc;
}

int pn_convolution_weight_gradient(pn_call *call, pn_tensor *big, pn_tensor *small, const pn_geometry *g) {
  pn_tensor *dw, *x = NULL, *y = NULL, *dense;
  if (pn_call_dx(call, 1, &dw, NULL)) return -1;
  if (!dw) return 0;
  int rc = pn_channels_last(&x, big);
  rc = rc ? rc : pn_channels_last(&y, small);
  if (!rc && !(rc = pn_filter_open(&dense, dw))) {
    pn_pixels px, py;
    (void)pn_pixels_of(&px, x);
    (void)pn_pixels_of(&py, y);
    rc = pn_filter_close(dense, dw, pn_convolve_weight(pn_real_of(dense), px, py, g));
  }
  pn_tensor_release(x);
  pn_tensor_release(y);
  return rc;
}

/* ---- behind the product: relu, scale, bias ----------------------------------------------------------------------------- */

typedef struct end_job {
  pn_pixels y, dy, dz; /* y, dz: data NULL for none */
  const real *scale;
  real *sums; /* [block][c] */
  int64_t count, rows;
} end_job;

static void end_blocks(void *context, int64_t begin, int64_t end) {
  const end_job *j = context;
  int64_t c = j->dy.c;
  real more[256];
  for (int64_t b = begin; b < end; b++) {
    int64_t stop = pn_min64((b + 1) * j->rows, j->count);
    for (int64_t i = b * j->rows, run; i < stop; i += run) {
      run = pn_pixels_run(&j->dy, i, stop);
      if (j->y.data) run = pn_min64(run, pn_pixels_run(&j->y, i, stop));
      if (j->dz.data) run = pn_min64(run, pn_pixels_run(&j->dz, i, stop));
      const real *dy = pn_pixel_at(&j->dy, i), *y = j->y.data ? pn_pixel_at(&j->y, i) : NULL;
      real *dz = j->dz.data ? pn_pixel_at(&j->dz, i) : NULL, *sums = j->sums + b * c;
      for (int64_t k = 0, n; k < c; k += n) { /* a pixel's channels in pieces, for their sums to fit */
        bool first = i == b * j->rows;
        n = first ? c : pn_min64(c - k, (int64_t)PN_LENGTH(more));
        pn_norm()->end_gradient(first ? sums : more, dz ? dz + k : NULL, j->dz.sw, y ? y + k : NULL, j->y.sw, dy + k, j->dy.sw, run,
                                n, j->scale ? j->scale + k : NULL);
        for (int64_t l = 0; l < n && !first; l++) sums[k + l] += more[l];
      }
    }
  }
}

/* Sweeps blocks cut by the shape alone; db[k] (stride apart) += the sums, joined in double in order. */
static int end_sweep(end_job *j, real *db, int64_t stride) {
  int64_t c = j->dy.c;
  j->count = pn_pixels_count(&j->dy);
  j->rows = pn_min64(1024, pn_max64(16, 8192 / pn_max64(c, 1)));
  int64_t blocks = pn_ceil_div(j->count, j->rows);
  j->sums = pn_alloc(sizeof(real) * (size_t)(blocks * c + 1));
  if (!j->sums) return -1;
  pn_parallel(blocks, 2, end_blocks, j);
  for (int64_t k = 0; k < c && db; k++) {
    double sum = 0;
    for (int64_t b = 0; b < blocks; b++) sum += (double)j->sums[b * c + k];
    db[k * stride] += (real)sum;
  }
  pn_free(j->sums);
  return 0;
}

static int end_sweep_with_bias(pn_call *call, end_job *j) {
  pn_tensor *db;
  if (pn_call_dx(call, 2, &db, NULL)) return -1;
  return db || j->dz.data ? end_sweep(j, db ? pn_real_of(db) : NULL, db ? db->stride[0] : 0) : 0;
}

int pn_convolution_bias_gradient(pn_call *call, pn_tensor *dy) {
  pn_tensor *rows;
  if (!pn_call_wants(call, 2)) return 0;
  if (pn_channels_last(&rows, dy)) return -1;
  end_job j = { .scale = NULL };
  (void)pn_pixels_of(&j.dy, rows);
  int rc = end_sweep_with_bias(call, &j);
  pn_tensor_release(rows);
  return rc;
}

bool pn_convolution_owns(const pn_call *call, const pn_tensor *dy) {
  return atomic_load(&dy->refs) == (dy == call->dy[0] ? 2 : 1) && atomic_load(&dy->storage->refs) == 1;
}

int pn_convolution_end_gradient(pn_call *call, pn_tensor **dz, pn_tensor *dy, pn_tensor *y, const real *scale) {
  pn_tensor *held = NULL;
  bool alone = pn_convolution_owns(call, dy);
  end_job j = { .scale = scale };
  int rc = y ? pn_pixels_open(&j.y, &held, y) : 0;
  *dz = dy;
  if (!rc && !alone) rc = pn_tensor_new(dz, dy->dtype, 5, dy->shape, PN_CHANNELS_LAST, pn_device_of(dy));
  if (!rc) {
    (void)pn_pixels_of(&j.dy, dy);
    (void)pn_pixels_of(&j.dz, *dz);
    rc = end_sweep_with_bias(call, &j);
    if (rc && !alone) pn_tensor_release(*dz);
  }
  pn_tensor_release(held);
  if (rc || !alone) pn_tensor_release(dy);
  return rc;
}
