/* tensor.c: strided views over storages: making and looking. What they hold: copy.c; who holds them: node.c. */
#include <stdlib.h>
#include <string.h>
#include "internal.h"

/* ---- strides ---------------------------------------------------------------------------------------- */

bool pn_strides_match(const pn_tensor *t, const int64_t *stride) {
  for (int d = 0; d < t->n_dims; d++)
    if (t->shape[d] > 1 && t->stride[d] != stride[d]) return false;
  return true;
}

bool pn_tensor_is_dense(const pn_tensor *t, pn_layout layout) {
  int64_t stride[PN_MAX_DIMS];
  if (!t) return false;
  pn_strides_of(t->n_dims, t->shape, layout, stride);
  return pn_strides_match(t, stride);
}

int pn_axes_by_stride(const pn_tensor *t, int *axes) {
  int n = 0;
  for (int d = 0; d < t->n_dims; d++) {
    if (t->shape[d] <= 1) continue;
    int i = n++;
    while (i && t->stride[axes[i - 1]] < t->stride[d]) axes[i] = axes[i - 1], i--;
    axes[i] = d;
  }
  return n;
}

bool pn_is_plain(const pn_tensor *t) {
  int axes[PN_MAX_DIMS], n = pn_axes_by_stride(t, axes);
  int64_t step = 1;
  for (int i = n - 1; i >= 0; i--) {
    if (t->stride[axes[i]] != step) return false;
    step *= t->shape[axes[i]];
  }
  return true;
}

bool pn_same_shape(const pn_tensor *a, const pn_tensor *b) {
  return a->n_dims == b->n_dims && !memcmp(a->shape, b->shape, sizeof(int64_t) * (size_t)a->n_dims);
}

/* ---- making ------------------------------------------------------------------------------------------------------- */

int pn_tensor_on(pn_tensor **out, pn_storage *s, pn_dtype dtype, int n_dims, const int64_t *shape, const int64_t *stride,
                 int64_t offset) {
  pn_tensor *t = calloc(1, sizeof *t);
  if (!t) return pn_fail_memory((int64_t)sizeof *t, PN_CPU);
  atomic_init(&t->refs, 1);
  pn_storage_retain(s);
  t->storage = s;
  t->offset = offset;
  t->n_dims = n_dims;
  t->dtype = dtype;
  for (int d = 0; d < n_dims; d++) t->shape[d] = shape[d], t->stride[d] = stride[d];
  *out = t;
  return 0;
}

int pn_tensor_strided(pn_tensor **out, pn_dtype dtype, int n_dims, const int64_t *shape, const int64_t *stride, int device) {
  int64_t count = 1;
  for (int d = 0; d < n_dims; d++) count *= shape[d];
  pn_storage *s;
  if (pn_storage_new(&s, (size_t)count * (size_t)pn_dtype_bytes(dtype), device)) return -1;
  int rc = pn_tensor_on(out, s, dtype, n_dims, shape, stride, 0);
  pn_storage_release(s);
  return rc;
}

int pn_tensor_new(pn_tensor **out, pn_dtype dtype, int n_dims, const int64_t *shape, pn_layout layout, int device) {
  if (!out) return pn_fail("tensor_new: out is NULL");
  if ((unsigned)dtype >= PN_N_DTYPES) return pn_fail("no element type %d", (int)dtype);
  if ((unsigned)layout > PN_FILTER) return pn_fail("no layout %d", (int)layout);
  if (pn_check_shape(n_dims, shape)) return -1;
  int64_t stride[PN_MAX_DIMS];
  pn_strides_of(n_dims, shape, layout, stride);
  return pn_tensor_strided(out, dtype, n_dims, shape, stride, device);
}

int pn_tensor_like(pn_tensor **out, const pn_tensor *t) {
  int64_t stride[PN_MAX_DIMS];
  if (pn_is_plain(t)) memcpy(stride, t->stride, sizeof stride);
  else pn_strides_of(t->n_dims, t->shape, t->n_dims == 5 ? PN_CHANNELS_LAST : PN_ROWS, stride);
  return pn_tensor_strided(out, t->dtype, t->n_dims, t->shape, stride, pn_device_of(t));
}

/* ---- looking ------------------------------------------------------------------------------------------------------ */

int pn_tensor_dims(const pn_tensor *t) { return t->n_dims; }
int64_t pn_tensor_size(const pn_tensor *t, int axis) { return axis >= 0 && axis < t->n_dims ? t->shape[axis] : -1; }
int64_t pn_tensor_stride(const pn_tensor *t, int axis) { return axis >= 0 && axis < t->n_dims ? t->stride[axis] : -1; }
pn_dtype pn_tensor_dtype(const pn_tensor *t) { return t->dtype; }
int pn_tensor_device(const pn_tensor *t) { return pn_device_of(t); }
void *pn_tensor_data(pn_tensor *t) { return pn_bytes_of(t); }
uint64_t pn_tensor_storage_id(const pn_tensor *t) { return t->storage->id; }
uint32_t pn_tensor_version(const pn_tensor *t) { return t ? t->storage->version : 0; }

int64_t pn_tensor_count(const pn_tensor *t) {
  int64_t count = 1;
  for (int d = 0; d < t->n_dims; d++) count *= t->shape[d];
  return count;
}

bool pn_tensor_grid(const pn_tensor *t, double *stride, double *centre) {
  if (!t->has_grid) return false;
  memcpy(stride, t->grid_stride, sizeof t->grid_stride);
  memcpy(centre, t->grid_centre, sizeof t->grid_centre);
  return true;
}

void pn_tensor_set_grid(pn_tensor *t, const double *stride, const double *centre) {
  t->has_grid = true;
  memcpy(t->grid_stride, stride, sizeof t->grid_stride);
  memcpy(t->grid_centre, centre, sizeof t->grid_centre);
}

/* ---- views -------------------------------------------------------------------------------------------------------- */

int pn_tensor_view(pn_tensor **out, pn_tensor *t, int n_dims, const int64_t *shape, const int64_t *stride, int64_t offset) {
  if (!out || !t) return pn_fail("tensor_view: NULL");
  if (pn_check_shape(n_dims, shape)) return -1;
  int64_t low = t->offset + offset, high = low;
  bool empty = false;
  for (int d = 0; d < n_dims; d++) {
    int64_t span;
    if (shape[d] == 0) {
      empty = true;
      continue;
    }
    if (__builtin_mul_overflow(shape[d] - 1, stride[d], &span))
      return pn_fail("tensor_view: stride %lld overflows", (long long)stride[d]);
    if (span < 0) low += span;
    else high += span;
  }
  int64_t held = (int64_t)(t->storage->bytes / (size_t)pn_dtype_bytes(t->dtype));
  if (!empty && (low < 0 || high >= held))
    return pn_fail("tensor_view: elements %lld..%lld of a storage that holds %lld", (long long)low, (long long)high,
                   (long long)held);
  return pn_tensor_on(out, t->storage, t->dtype, n_dims, shape, stride, t->offset + offset);
}

int pn_tensor_slot(pn_tensor **out, pn_tensor *t, int axis, int64_t first, int64_t count) {
  if (!out || !t) return pn_fail("tensor_slot: NULL");
  if (axis < 0 || axis >= t->n_dims) return pn_fail("tensor_slot: axis %d of a tensor with %d axes", axis, t->n_dims);
  if (first < 0 || count < 0 || first > t->shape[axis] - count)
    return pn_fail("tensor_slot: %lld from %lld along an axis of %lld", (long long)count, (long long)first,
                   (long long)t->shape[axis]);
  int64_t shape[PN_MAX_DIMS];
  memcpy(shape, t->shape, sizeof shape);
  shape[axis] = count;
  if (pn_tensor_on(out, t->storage, t->dtype, t->n_dims, shape, t->stride, t->offset + first * t->stride[axis])) return -1;
  (*out)->is_slot = true;
  return 0;
}

int pn_detach(pn_tensor **out, pn_tensor *t) {
  if (!out || !t) return pn_fail("detach: NULL");
  if (pn_tensor_on(out, t->storage, t->dtype, t->n_dims, t->shape, t->stride, t->offset)) return -1;
  if (t->has_grid) pn_tensor_set_grid(*out, t->grid_stride, t->grid_centre);
  return 0;
}
