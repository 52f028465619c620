/* random.c: Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011), the only source of chance: the same numbers on every
** device and for every number of threads, because element i takes the counter (offset + i/4, stream). */
#include <math.h>
#include <string.h>
#include "internal.h"

void pn_philox(uint64_t seed, uint64_t stream, uint64_t offset, uint32_t *out) {
  uint32_t c0 = (uint32_t)offset, c1 = (uint32_t)(offset >> 32), c2 = (uint32_t)stream, c3 = (uint32_t)(stream >> 32);
  uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
  for (int round = 0; round < 10; round++) {
    uint64_t a = (uint64_t)0xD2511F53u * c0, b = (uint64_t)0xCD9E8D57u * c2;
    c0 = (uint32_t)(b >> 32) ^ c1 ^ k0;
    c1 = (uint32_t)b;
    c2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
    c3 = (uint32_t)a;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

typedef struct fill_job {
  void *data;
  pn_dtype dtype;
  pn_distribution kind;
  double a, b;
  uint64_t seed, stream, offset;
  int64_t count;
} fill_job;

static double unit(uint32_t bits) { return (double)bits * 0x1p-32; }

static void fill_range(void *context, int64_t begin, int64_t end) {
  const fill_job *j = context;
  for (int64_t block = begin; block < end; block++) {
    uint32_t r[4];
    double v[4];
    pn_philox(j->seed, j->stream, j->offset + (uint64_t)block, r);
    for (int k = 0; k < 4; k++) {
      if (j->kind == PN_UNIFORM) v[k] = j->a + (j->b - j->a) * unit(r[k]);
      else if (j->kind == PN_BERNOULLI) v[k] = unit(r[k]) < j->a;
      else if (k % 2 == 0) { /* Box-Muller, a pair at a time */
        double radius = sqrt(-2 * log((unit(r[k]) + 0x1p-33))), angle = 6.283185307179586 * unit(r[k + 1]);
        v[k] = j->a + j->b * radius * cos(angle);
        v[k + 1] = j->a + j->b * radius * sin(angle);
      }
    }
    for (int k = 0; k < 4 && block * 4 + k < j->count; k++) {
      if (j->dtype == PN_F64) ((double *)j->data)[block * 4 + k] = v[k];
      else {
        float f = (float)v[k];
        if (j->kind == PN_UNIFORM && f >= (float)j->b && j->b > j->a)
          f = nextafterf((float)j->b, (float)j->a); /* rounding must not reach b */
        ((float *)j->data)[block * 4 + k] = f;
      }
    }
  }
}

int pn_random_fill(pn_tensor *t, pn_distribution kind, double a, double b, uint64_t seed, uint64_t stream, uint64_t offset) {
  if (!t) return pn_fail("random_fill: NULL");
  if ((unsigned)kind > PN_BERNOULLI) return pn_fail("random_fill: no distribution %d", (int)kind);
  if (kind == PN_BERNOULLI && !(a >= 0 && a <= 1)) return pn_fail("random_fill: a probability of %g", a);
  if (kind == PN_NORMAL && !(b >= 0)) return pn_fail("random_fill: a deviation of %g", b);
  pn_tensor *rows;
  bool direct = t->dtype == PN_F32 || t->dtype == PN_F64;
  if (direct && pn_tensor_is_dense(t, PN_ROWS)) pn_tensor_retain(rows = t);
  else if (pn_tensor_new(&rows, direct ? t->dtype : PN_F32, t->n_dims, t->shape, PN_ROWS, PN_CPU)) return -1;
  fill_job j = { pn_bytes_of(rows), rows->dtype, kind, a, b, seed, stream, offset, pn_tensor_count(t) };
  pn_parallel(pn_ceil_div(j.count, 4), 1024, fill_range, &j);
  int rc = rows == t ? (pn_storage_wrote(t->storage), 0) : pn_tensor_copy(t, rows);
  pn_tensor_release(rows);
  return rc;
}
