/* copy.c: what is in tensors: copying, converting, filling, from device to device and to the host. Nothing here is recorded for backward. */
#include <math.h>
#include <string.h>
#include "backend.h"
#include "bf16.h"
#include "half.h"
#include "kernels/loop.h"

/* ---- conversion of elements ---------------------------------------------------------------------------------------- */

static double get_element(const void *p, pn_dtype dtype) {
  switch (dtype) {
  case PN_F32: return (double)*(const float *)p;
  case PN_F64: return *(const double *)p;
  case PN_F16: return (double)pn_f16_to_float(*(const uint16_t *)p);
  case PN_BF16: return (double)pn_bf16_to_float(*(const uint16_t *)p);
  case PN_I64: return (double)*(const int64_t *)p;
  case PN_I32: return (double)*(const int32_t *)p;
  default: return (double)*(const uint8_t *)p;
  }
}

static double clamp_to(double v, double low, double high) { return v != v ? 0 : v < low ? low : v > high ? high : v; }

static void set_element(void *p, pn_dtype dtype, double v) { /* integers: truncated toward zero, held to their range, NaN is 0 */
  switch (dtype) {
  case PN_F32: *(float *)p = (float)v; break;
  case PN_F64: *(double *)p = v; break;
  case PN_F16: *(uint16_t *)p = pn_f16_of((float)v); break;
  case PN_BF16: *(uint16_t *)p = pn_bf16_of((float)v); break;
  case PN_I64: *(int64_t *)p = v >= 0x1p63 ? INT64_MAX : (int64_t)clamp_to(v, -0x1p63, 0x1.fffffffffffffp62); break;
  case PN_I32: *(int32_t *)p = (int32_t)clamp_to(v, INT32_MIN, INT32_MAX); break;
  default: *(uint8_t *)p = (uint8_t)clamp_to(v, 0, 255); break;
  }
}

/* ---- walking two tensors of one shape ------------------------------------------------------------------------------- */

typedef void (*line_fn)(char *to, int64_t to_step, pn_dtype to_type, const char *from, int64_t from_step, pn_dtype from_type,
                        int64_t n);

typedef struct walk {
  line_fn line;
  char *to;
  const char *from;
  pn_dtype to_type, from_type;
  int n_outer;
  int64_t outer[PN_MAX_DIMS], to_outer[PN_MAX_DIMS], from_outer[PN_MAX_DIMS]; /* strides in bytes, slowest first */
  int64_t n, to_step, from_step;                                              /* the innermost line */
} walk;

static void walk_range(void *context, int64_t begin, int64_t end) {
  const walk *w = context;
  for (int64_t i = begin; i < end; i++) {
    int64_t rest = i, to = 0, from = 0;
    for (int d = w->n_outer - 1; d >= 0; d--) {
      int64_t k = rest % w->outer[d];
      rest /= w->outer[d];
      to += k * w->to_outer[d];
      from += k * w->from_outer[d];
    }
    w->line(w->to + to, w->to_step, w->to_type, w->from + from, w->from_step, w->from_type, w->n);
  }
}

/* Axes in the memory order of `to`, neighbours merged where both allow it. */
static void walk_run(pn_tensor *to, const char *from, const int64_t *from_stride, pn_dtype from_type, line_fn line) {
  if (pn_is_dry()) return;
  int axes[PN_MAX_DIMS], n = pn_axes_by_stride(to, axes);
  int64_t to_bytes = pn_dtype_bytes(to->dtype), from_bytes = pn_dtype_bytes(from_type);
  int64_t size[PN_MAX_DIMS], ts[PN_MAX_DIMS], fs[PN_MAX_DIMS];
  int m = 0;
  for (int i = 0; i < n; i++) {
    int d = axes[i];
    int64_t s = to->shape[d], a = to->stride[d] * to_bytes, b = from_stride[d] * from_bytes;
    if (m && ts[m - 1] == a * s && fs[m - 1] == b * s) size[m - 1] *= s, ts[m - 1] = a, fs[m - 1] = b;
    else size[m] = s, ts[m] = a, fs[m] = b, m++;
  }
  walk w = { .line = line,
             .to = pn_bytes_of(to),
             .from = from,
             .to_type = to->dtype,
             .from_type = from_type,
             .n = 1,
             .to_step = to_bytes,
             .from_step = from_bytes };
  int64_t lines = 1;
  if (m) {
    w.n = size[m - 1], w.to_step = ts[m - 1], w.from_step = fs[m - 1];
    w.n_outer = m - 1;
    for (int i = 0; i < m - 1; i++) w.outer[i] = size[i], w.to_outer[i] = ts[i], w.from_outer[i] = fs[i], lines *= size[i];
    if (m == 1 && w.n > 1 << 16) { /* one long line: cut it, so that threads share it */
      int64_t piece = 1 << 14, whole = w.n / piece;
      char *end_to = w.to + whole * piece * w.to_step;
      const char *end_from = w.from + whole * piece * w.from_step;
      line(end_to, w.to_step, w.to_type, end_from, w.from_step, w.from_type, w.n - whole * piece);
      w.n_outer = 1, w.outer[0] = lines = whole, w.to_outer[0] = piece * w.to_step, w.from_outer[0] = piece * w.from_step,
      w.n = piece;
    }
  }
  pn_parallel(lines, pn_max64(1, (1 << 15) / pn_max64(w.n, 1)), walk_range, &w);
}

static void line_copy(char *to, int64_t ts, pn_dtype tt, const char *from, int64_t fs, pn_dtype ft, int64_t n) {
  int64_t bytes = pn_dtype_bytes(tt);
  if (tt == ft) {
    if (ts == bytes && fs == bytes) memcpy(to, from, (size_t)(n * bytes));
    else if (bytes == 4)
      for (int64_t i = 0; i < n; i++) *(uint32_t *)(to + i * ts) = *(const uint32_t *)(from + i * fs);
    else
      for (int64_t i = 0; i < n; i++) memcpy(to + i * ts, from + i * fs, (size_t)bytes);
  } else if (tt == PN_F32 && ft == PN_U8) {
    for (int64_t i = 0; i < n; i++) *(float *)(to + i * ts) = (float)*(const uint8_t *)(from + i * fs);
  } else {
    for (int64_t i = 0; i < n; i++) set_element(to + i * ts, tt, get_element(from + i * fs, ft));
  }
}

static void line_add(char *to, int64_t ts, pn_dtype tt, const char *from, int64_t fs, pn_dtype ft, int64_t n) {
  (void)tt, (void)ft;
  if (ts == sizeof(real) && fs == sizeof(real)) {
    real *a = (real *)to;
    const real *b = (const real *)from;
    for (int64_t i = 0; i < n; i++) a[i] += b[i];
  } else
    for (int64_t i = 0; i < n; i++) *(real *)(to + i * ts) += *(const real *)(from + i * fs);
}

/* ---- other devices ----------------------------------------------------------------------------------------------------------- */

static bool on_cpu(const pn_tensor *t) { return pn_device_of(t) == PN_CPU; }

static const pn_backend *backend_of(const pn_tensor *t) {
  const pn_backend *backend;
  int index;
  return pn_backend_of(pn_device_of(t), &backend, &index) ? NULL : backend;
}

static bool same_bytes(const pn_tensor *a, const pn_tensor *b) { /* the same order of the same elements, without gaps? */
  return a->dtype == b->dtype && pn_is_plain(a) && pn_strides_match(b, a->stride);
}

/* Between devices only bytes travel. Where the two sides see them differently, the conversion is done on the device: it is faster there,
** and the CPU's side is a stretch of memory as it lies. */
static int copy_between(pn_tensor *to, pn_tensor *from) {
  const pn_backend *backend = backend_of(on_cpu(to) ? from : to);
  pn_tensor *middle;
  if (!backend) return -1;
  if (same_bytes(to, from))
    return backend->copy(pn_bytes_of(to), pn_device_of(to), pn_bytes_of(from), pn_device_of(from),
                         (size_t)(pn_tensor_count(to) * pn_dtype_bytes(to->dtype)));
  bool down = on_cpu(to);
  if (down && !pn_is_plain(to)) { /* gaps on the CPU: the elements in order first, then each to its place */
    if (pn_tensor_new(&middle, to->dtype, to->n_dims, to->shape, PN_ROWS, PN_CPU)) return -1;
    int rc = copy_between(middle, from);
    if (!rc) walk_run(to, pn_bytes_of(middle), middle->stride, middle->dtype, line_copy);
    pn_tensor_release(middle);
    return rc;
  }
  if (!down) {
    if (pn_tensor_to(&middle, from, pn_device_of(to))) return -1;
    int rc = backend->assign(to, middle, false);
    pn_tensor_release(middle);
    return rc;
  }
  if (pn_tensor_strided(&middle, to->dtype, to->n_dims, to->shape, to->stride, pn_device_of(from))) return -1;
  int rc = backend->assign(middle, from, false);
  rc = rc ? rc : copy_between(to, middle);
  pn_tensor_release(middle);
  return rc;
}

int pn_tensor_copy(pn_tensor *to, pn_tensor *from) {
  if (!to || !from) return pn_fail("copy: NULL");
  if (!pn_same_shape(to, from)) {
    char a[96], b[96];
    pn_format_shape(a, sizeof a, to->n_dims, to->shape);
    pn_format_shape(b, sizeof b, from->n_dims, from->shape);
    return pn_fail("copy: shapes differ (to %s; from %s)", a, b);
  }
  if (pn_tensor_count(to)) {
    const pn_backend *backend;
    if (pn_device_of(to) != pn_device_of(from)) {
      if (copy_between(to, from)) return -1;
    } else if (!on_cpu(to)) {
      if (!(backend = backend_of(to)) || backend->assign(to, from, false)) return -1;
    } else walk_run(to, pn_bytes_of(from), from->stride, from->dtype, line_copy);
  }
  if (!to->is_slot) pn_storage_wrote(to->storage);
  return 0;
}

int pn_add_into(pn_tensor *to, const pn_tensor *from) {
  if (!pn_same_shape(to, from) || pn_device_of(to) != pn_device_of(from)) return pn_fail("add_into: shapes or devices differ");
  if (!on_cpu(to)) {
    const pn_backend *backend = backend_of(to);
    return backend ? backend->assign(to, from, true) : -1;
  }
  if (to->dtype != PN_REAL_DTYPE || from->dtype != PN_REAL_DTYPE) return pn_fail("add_into: element types differ");
  if (pn_tensor_count(to)) walk_run(to, pn_bytes_of(from), from->stride, from->dtype, line_add);
  return 0;
}

int pn_copy_into(pn_tensor *to, const pn_tensor *from) {
  if (!on_cpu(to)) {
    const pn_backend *backend = backend_of(to);
    return backend ? backend->assign(to, from, false) : -1;
  }
  pn_copy_same(to, from);
  return 0;
}

int pn_tensor_fill(pn_tensor *t, double value) {
  if (!t) return pn_fail("fill: NULL");
  static const int64_t zero[PN_MAX_DIMS];
  double element = 0; /* aligned room for one element of any type */
  set_element(&element, t->dtype, value);
  if (!on_cpu(t)) {
    const pn_backend *backend = backend_of(t);
    if (!backend || backend->fill(t, value)) return -1;
  } else if (pn_tensor_count(t)) {
    if (value == 0 && !signbit(value) && pn_is_plain(t))
      pn_clear(pn_bytes_of(t), (size_t)(pn_tensor_count(t) * pn_dtype_bytes(t->dtype)));
    else walk_run(t, (const char *)&element, zero, t->dtype, line_copy);
  }
  if (!t->is_slot) pn_storage_wrote(t->storage);
  return 0;
}

int pn_tensor_contiguous(pn_tensor **out, pn_tensor *t, pn_layout layout) {
  if (!out || !t) return pn_fail("contiguous: NULL");
  if (pn_tensor_is_dense(t, layout)) {
    pn_tensor_retain(t);
    *out = t;
    return 0;
  }
  pn_tensor *made;
  if (pn_tensor_new(&made, t->dtype, t->n_dims, t->shape, layout, pn_device_of(t))) return -1;
  if (pn_tensor_copy(made, t)) {
    pn_tensor_release(made);
    return -1;
  }
  if (t->has_grid) pn_tensor_set_grid(made, t->grid_stride, t->grid_centre);
  *out = made;
  return 0;
}

int pn_tensor_cast(pn_tensor **out, pn_tensor *t, pn_dtype dtype) {
  if (!out || !t) return pn_fail("cast: NULL");
  if ((unsigned)dtype >= PN_N_DTYPES) return pn_fail("no element type %d", (int)dtype);
  int64_t stride[PN_MAX_DIMS];
  if (pn_is_plain(t)) memcpy(stride, t->stride, sizeof stride);
  else pn_strides_of(t->n_dims, t->shape, t->n_dims == 5 ? PN_CHANNELS_LAST : PN_ROWS, stride);
  pn_tensor *made;
  if (pn_tensor_strided(&made, dtype, t->n_dims, t->shape, stride, pn_device_of(t))) return -1;
  if (pn_tensor_copy(made, t)) {
    pn_tensor_release(made);
    return -1;
  }
  if (t->has_grid) pn_tensor_set_grid(made, t->grid_stride, t->grid_centre);
  *out = made;
  return 0;
}

/* The stretch of its storage that a tensor spans, in elements from element 0. */
static void span_of(const pn_tensor *t, int64_t *low, int64_t *high) {
  *low = 0, *high = pn_tensor_count(t) ? 1 : 0;
  for (int d = 0; d < t->n_dims && *high; d++) {
    int64_t reach = (t->shape[d] - 1) * t->stride[d];
    if (reach < 0) *low += reach;
    else *high += reach;
  }
}

/* The stretch is copied as it lies and seen with the same strides: no kernel is needed on either side. */
int pn_tensor_to(pn_tensor **out, pn_tensor *t, int device) {
  if (!out || !t) return pn_fail("to: NULL");
  int from = pn_device_of(t);
  if (device == from) {
    pn_tensor_retain(t);
    *out = t;
    return 0;
  }
  const pn_backend *backend;
  int index;
  if (pn_backend_of(device == PN_CPU ? from : device, &backend, &index)) return -1;
  int64_t low, high, size = pn_dtype_bytes(t->dtype);
  span_of(t, &low, &high);
  pn_storage *s;
  const size_t bytes = (size_t)((high - low) * size);
  bool up = from == PN_CPU && bytes; /* beside what the device computes */
  if (up ? pn_storage_upload(&s, pn_bytes_of(t) + low * size, bytes, device) : pn_storage_new(&s, bytes, device)) return -1;
  int rc = up ? 0 : backend->copy(s->data, device, pn_bytes_of(t) + low * size, from, bytes);
  rc = rc ? rc : pn_tensor_on(out, s, t->dtype, t->n_dims, t->shape, t->stride, -low);
  pn_storage_release(s);
  if (!rc && t->has_grid) pn_tensor_set_grid(*out, t->grid_stride, t->grid_centre);
  return rc;
}

static int element_of(pn_tensor *t, const int64_t *index, char **p) {
  if (!t || (t->n_dims && !index)) return pn_fail("element: NULL");
  int64_t offset = 0;
  for (int d = 0; d < t->n_dims; d++) {
    if (index[d] < 0 || index[d] >= t->shape[d])
      return pn_fail("index %lld along axis %d of size %lld", (long long)index[d] + 1, d + 1, (long long)t->shape[d]);
    offset += index[d] * t->stride[d];
  }
  *p = pn_bytes_of(t) + offset * pn_dtype_bytes(t->dtype);
  return 0;
}

int pn_tensor_get(pn_tensor *t, const int64_t *index, double *out) {
  char *p;
  if (element_of(t, index, &p)) return -1;
  double element = 0;
  if (!on_cpu(t)) {
    const pn_backend *backend = backend_of(t);
    if (!backend || backend->copy(&element, PN_CPU, p, pn_device_of(t), (size_t)pn_dtype_bytes(t->dtype))) return -1;
    p = (char *)&element;
  }
  double value = pn_is_dry() ? 0 : get_element(p, t->dtype);
  *out = value != value ? (double)NAN : value; /* LuaJIT would take the bits of some NaN for another type */
  return 0;
}

int pn_tensor_set(pn_tensor *t, const int64_t *index, double value) {
  char *p;
  if (element_of(t, index, &p)) return -1;
  if (on_cpu(t)) set_element(p, t->dtype, value);
  else {
    const pn_backend *backend = backend_of(t);
    double element = 0;
    set_element(&element, t->dtype, value);
    if (!backend || backend->copy(p, pn_device_of(t), &element, PN_CPU, (size_t)pn_dtype_bytes(t->dtype))) return -1;
  }
  pn_storage_wrote(t->storage);
  return 0;
}

static int rows_buffer(pn_tensor *t, const void *buffer, size_t bytes, const char *what) {
  if (!t || !buffer) return pn_fail("%s: NULL", what);
  size_t want = (size_t)(pn_tensor_count(t) * pn_dtype_bytes(t->dtype));
  return want == bytes ? 0 : pn_fail("%s: the tensor has %zu bytes, the buffer %zu", what, want, bytes);
}

/* A tensor struct over foreign memory, for the time of a copy. */
static void borrow(pn_tensor *shell, pn_storage *s, const pn_tensor *like, void *memory, size_t bytes) {
  *s = (pn_storage){ .device = PN_CPU, .bytes = bytes, .data = memory };
  atomic_init(&s->refs, 1);
  *shell = (pn_tensor){ .storage = s, .n_dims = like->n_dims, .dtype = like->dtype };
  memcpy(shell->shape, like->shape, sizeof shell->shape);
  pn_strides_of(like->n_dims, like->shape, PN_ROWS, shell->stride);
}

int pn_tensor_read(pn_tensor *t, void *buffer, size_t bytes) {
  pn_tensor shell;
  pn_storage s;
  if (rows_buffer(t, buffer, bytes, "read")) return -1;
  borrow(&shell, &s, t, buffer, bytes);
  return pn_tensor_copy(&shell, t);
}

int pn_tensor_write(pn_tensor *t, const void *buffer, size_t bytes) {
  pn_tensor shell;
  pn_storage s;
  if (rows_buffer(t, buffer, bytes, "write")) return -1;
  borrow(&shell, &s, t, (void *)(uintptr_t)buffer, bytes); /* read only: it is the source of the copy */
  return pn_tensor_copy(t, &shell);
}

typedef struct count_job {
  const pn_tensor *t;
  atomic_llong bad;
} count_job;

static bool finite_bits(const char *p, pn_dtype dtype) {
  switch (dtype) {
  case PN_F32: return (*(const uint32_t *)p & 0x7f800000u) != 0x7f800000u;
  case PN_F64: return (*(const uint64_t *)p & 0x7ff0000000000000u) != 0x7ff0000000000000u;
  case PN_F16: return (*(const uint16_t *)p & 0x7c00) != 0x7c00;
  case PN_BF16: return (*(const uint16_t *)p & 0x7f80) != 0x7f80;
  default: return true;
  }
}

static void count_range(void *context, int64_t begin, int64_t end) {
  count_job *j = context;
  int64_t bytes = pn_dtype_bytes(j->t->dtype), bad = 0;
  int last = j->t->n_dims - 1;
  for (int64_t i = begin; i < end; i++) {
    int64_t rest = i, offset = 0, n = last < 0 ? 1 : j->t->shape[last], step = last < 0 ? 1 : j->t->stride[last];
    for (int d = last - 1; d >= 0; d--) offset += rest % j->t->shape[d] * j->t->stride[d], rest /= j->t->shape[d];
    const char *p = pn_bytes_of(j->t) + offset * bytes;
    for (int64_t k = 0; k < n; k++) bad += !finite_bits(p + k * step * bytes, j->t->dtype);
  }
  atomic_fetch_add(&j->bad, bad);
}

int pn_tensor_check_finite(pn_tensor *t, int64_t *n_bad) {
  if (!t || !n_bad) return pn_fail("check_finite: NULL");
  if (!on_cpu(t)) {
    const pn_backend *backend = backend_of(t);
    return backend ? backend->count_bad(t, n_bad) : -1;
  }
  count_job j = { .t = t };
  atomic_init(&j.bad, 0);
  int64_t count = pn_tensor_count(t);
  if (count) pn_parallel(t->n_dims ? count / t->shape[t->n_dims - 1] : 1, 64, count_range, &j);
  *n_bad = atomic_load(&j.bad);
  return 0;
}
