/* shape.c: element types, shapes and strides: what needs no tensor. */
#include "internal.h"

pn_dtype pn_real(void) { return PN_REAL_DTYPE; }

static const struct {
  const char *name;
  int bytes;
} dtypes[PN_N_DTYPES] = {
  [PN_F32] = {"f32",   4},
    [PN_F64] = { "f64",  8},
    [PN_F16] = { "f16",  2},
    [PN_BF16] = { "bf16", 2},
  [PN_I64] = { "i64",  8},
    [PN_I32] = { "i32",  4},
    [PN_U8] = { "u8",   1},
};

const char *pn_dtype_name(pn_dtype dtype) { return (unsigned)dtype < PN_N_DTYPES ? dtypes[dtype].name : "?"; }
int pn_dtype_bytes(pn_dtype dtype) { return (unsigned)dtype < PN_N_DTYPES ? dtypes[dtype].bytes : 0; }

int pn_format_shape(char *buffer, size_t bytes, int n_dims, const int64_t *shape) {
  size_t used = 0;
  if (bytes) buffer[0] = 0;
  if (n_dims == 0) return snprintf(buffer, bytes, "scalar");
  for (int d = 0; d < n_dims && used < bytes; d++)
    used += (size_t)snprintf(buffer + used, bytes - used, "%s%lld", d ? "," : "", (long long)shape[d]);
  return (int)used;
}

int pn_check_shape(int n_dims, const int64_t *shape) {
  if (n_dims < 0 || n_dims > PN_MAX_DIMS) return pn_fail("a tensor has 0 to %d axes, not %d", PN_MAX_DIMS, n_dims);
  if (n_dims && !shape) return pn_fail("shape is NULL");
  int64_t count = 1;
  for (int d = 0; d < n_dims; d++) {
    char text[160];
    if (shape[d] < 0 || __builtin_mul_overflow(count, shape[d], &count) || count > INT64_MAX / 16) {
      pn_format_shape(text, sizeof text, n_dims, shape);
      return pn_fail("impossible shape %s", text);
    }
  }
  return 0;
}

void pn_strides_of(int n_dims, const int64_t *shape, pn_layout layout, int64_t *stride) {
  static const int channels_last[5] = { 1, 4, 3, 2, 0 }, filter[5] = { 0, 1, 4, 3, 2 }; /* fastest axis first */
  int64_t step = 1;
  for (int i = 0; i < n_dims; i++) {
    int d = n_dims - 1 - i;
    if (n_dims == 5 && layout == PN_CHANNELS_LAST) d = channels_last[i];
    if (n_dims == 5 && layout == PN_FILTER) d = filter[i];
    stride[d] = step;
    step *= pn_max64(shape[d], 1);
  }
}
