/* random.c: tensors filled from Philox (philox.h), the only source of chance: the same numbers on every device and for every number
** of threads, because element i takes the counter (offset + i/4, stream). */
#include "backend.h"
#include "philox.h"

void pn_philox(uint64_t seed, uint64_t stream, uint64_t offset, uint32_t *out) { pn_philox_words(seed, stream, offset, out); }

typedef struct fill_job {
  void *data;
  pn_dtype dtype;
  pn_distribution kind;
  double a, b;
  uint64_t seed, stream, offset;
  int64_t count;
} fill_job;

static void fill_range(void *context, int64_t begin, int64_t end) {
  const fill_job *j = context;
  for (int64_t block = begin; block < end; block++) {
    uint32_t r[4];
    double v[4];
    pn_philox_words(j->seed, j->stream, j->offset + (uint64_t)block, r);
    pn_draw_four(j->kind, j->a, j->b, r, v);
    for (int k = 0; k < 4 && block * 4 + k < j->count; k++) {
      if (j->dtype == PN_F64) ((double *)j->data)[block * 4 + k] = v[k];
      else ((float *)j->data)[block * 4 + k] = pn_draw_to_float(j->kind, j->a, j->b, v[k]);
    }
  }
}

static int fill_rows(pn_tensor *rows, pn_distribution kind, double a, double b, uint64_t seed, uint64_t stream, uint64_t offset) {
  const pn_backend *backend;
  int index;
  if (pn_device_of(rows) != PN_CPU)
    return pn_backend_of(pn_device_of(rows), &backend, &index) ? -1 : backend->random(rows, kind, a, b, seed, stream, offset);
  fill_job j = { pn_bytes_of(rows), rows->dtype, kind, a, b, seed, stream, offset, pn_tensor_count(rows) };
  pn_parallel(pn_ceil_div(j.count, 4), 1024, fill_range, &j);
  return 0;
}

int pn_random_fill(pn_tensor *t, pn_distribution kind, double a, double b, uint64_t seed, uint64_t stream, uint64_t offset) {
  if (!t) return pn_fail("random_fill: NULL");
  if ((unsigned)kind > PN_BERNOULLI) return pn_fail("random_fill: no distribution %d", (int)kind);
  if (kind == PN_BERNOULLI && !(a >= 0 && a <= 1)) return pn_fail("random_fill: a probability of %g", a);
  if (kind == PN_NORMAL && !(b >= 0)) return pn_fail("random_fill: a deviation of %g", b);
  if (pn_capturing() && pn_device_of(t) != PN_CPU)
    return pn_fail(
        "random_fill: inside a captured step it would give the same numbers each time; give them to the step as an argument");
  pn_tensor *rows;
  bool direct = t->dtype == PN_F32 || t->dtype == PN_F64;
  if (direct && pn_tensor_is_dense(t, PN_ROWS)) pn_tensor_retain(rows = t);
  else if (pn_tensor_new(&rows, direct ? t->dtype : PN_F32, t->n_dims, t->shape, PN_ROWS, pn_device_of(t))) return -1;
  int rc = fill_rows(rows, kind, a, b, seed, stream, offset);
  if (!rc && rows == t) pn_storage_wrote(t->storage);
  else if (!rc) rc = pn_tensor_copy(t, rows);
  pn_tensor_release(rows);
  return rc;
}
