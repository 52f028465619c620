/* tensor.cu: copies and sums between tensors of one shape, constants, and the count of what is not finite. See tensor.h. */
#include "tensor.h"
#include "loop.h"
#include "pack.h"

/* ---- to = from, to += from --------------------------------------------------------------------------------------------------- */

/* As core/tensor.c: integers truncated toward zero and held to their range; NaN is 0. */
PN_DEVICE double held(double v, double low, double high) { return v != v ? 0 : v < low ? low : v > high ? high : v; }

PN_DEVICE double get_any(const void *p, int64_t i, int dtype) {
  switch (dtype) {
  case PN_F64: return ((const double *)p)[i];
  case PN_I64: return (double)((const int64_t *)p)[i];
  case PN_I32: return (double)((const int32_t *)p)[i];
  default: return (double)pn_get(p, i, dtype);
  }
}

PN_DEVICE void put_any(void *p, int64_t i, int dtype, double v) {
  switch (dtype) {
  case PN_F32: ((float *)p)[i] = (float)v; break;
  case PN_F64: ((double *)p)[i] = v; break;
  case PN_F16: ((pn_half *)p)[i] = __float2half_rn((float)v); break;
  case PN_BF16: ((pn_brain *)p)[i] = __float2bfloat16_rn((float)v); break;
  case PN_I64:
    ((int64_t *)p)[i] = v >= 9223372036854775808.0 ? INT64_MAX : (int64_t)held(v, -9223372036854775808.0, 9223372036854774784.0);
    break;
  case PN_I32: ((int32_t *)p)[i] = (int32_t)held(v, INT32_MIN, INT32_MAX); break;
  default: ((uint8_t *)p)[i] = (uint8_t)held(v, 0, 255); break;
  }
}

template <typename T> PN_KERNEL void move_elements(pn_loop loop) {
  PN_EACH(i, loop.count) {
    int64_t at[PN_LOOP_OPERANDS];
    pn_loop_at(&loop, i, at);
    ((T *)(void *)loop.base[0])[at[0]] = ((const T *)(const void *)loop.base[1])[at[1]];
  }
}

PN_KERNEL void convert_elements(pn_loop loop) {
  PN_EACH(i, loop.count) {
    int64_t at[PN_LOOP_OPERANDS];
    pn_loop_at(&loop, i, at);
    put_any(loop.base[0], at[0], loop.dtype[0], get_any(loop.base[1], at[1], loop.dtype[1]));
  }
}

struct copied {
  enum { INPUTS = 1 };
  PN_DEVICE real of(const real *x, pn_unary) { return x[0]; }
};

static bool is_floating(const pn_tensor *t) { return t->dtype == PN_REAL_DTYPE || pn_is_short(t); }

int pn_gpu_assign(pn_tensor *to, const pn_tensor *from, bool add) {
  pn_gpu *gpu = pn_gpu_of(to);
  pn_loop loop;
  if (!gpu) return -1;
  pn_loop_start(&loop, to->n_dims, to->shape);
  pn_loop_add(&loop, to);
  pn_loop_add(&loop, from);
  bool same = to->dtype == from->dtype;
  if (add || (!same && is_floating(to) && is_floating(from))) return pn_loop_map<copied>(gpu, &loop, pn_unary{ 0, 0, !add });
  pn_loop_plan(&loop);
  if (!loop.count) return 0;
  if (same) (void)pn_loop_group(&loop, 16 / loop.bytes[0]);
  auto run = !same                 ? convert_elements
             : loop.bytes[0] == 16 ? move_elements<pn_sixteen>
             : loop.bytes[0] == 8  ? move_elements<uint64_t>
             : loop.bytes[0] == 4  ? move_elements<uint32_t>
             : loop.bytes[0] == 2  ? move_elements<uint16_t>
                                   : move_elements<uint8_t>;
  return PN_LAUNCH(gpu, run, pn_gpu_blocks(gpu, loop.count, 256), 256, loop);
}

/* ---- constants --------------------------------------------------------------------------------------------------------------- */

PN_KERNEL void fill_elements(pn_loop loop, double value) {
  PN_EACH(i, loop.count) {
    int64_t at[PN_LOOP_OPERANDS];
    pn_loop_at(&loop, i, at);
    put_any(loop.base[0], at[0], loop.dtype[0], value);
  }
}

int pn_gpu_fill(pn_tensor *t, double value) {
  pn_gpu *gpu = pn_gpu_of(t);
  pn_loop loop;
  if (!gpu) return -1;
  pn_loop_start(&loop, t->n_dims, t->shape);
  pn_loop_add(&loop, t);
  pn_loop_plan(&loop);
  if (!loop.count) return 0;
  if (value == 0 && pn_is_plain(t)) {
    int64_t bytes = loop.count * loop.bytes[0];
    return pn_gpu_check(cudaMemsetAsync(pn_bytes_of(t), 0, (size_t)bytes, gpu->stream), "clear memory");
  }
  return PN_LAUNCH(gpu, fill_elements, pn_gpu_blocks(gpu, loop.count, 256), 256, loop, value);
}

/* ---- what is not finite -------------------------------------------------------------------------------------------------------- */

PN_KERNEL void count_bad(unsigned long long *partial, pn_loop loop) {
  PN_SHARED_MEMORY(unsigned long long, room);
  unsigned long long bad = 0;
  PN_EACH(i, loop.count) {
    int64_t at[PN_LOOP_OPERANDS];
    pn_loop_at(&loop, i, at);
    double v = get_any(loop.base[0], at[0], loop.dtype[0]);
    bad += !(v - v == 0);
  }
  bad = pn_block_sum(room, bad);
  if (pn_thread == 0) partial[pn_block] = bad;
}

int pn_gpu_count_bad(const pn_tensor *t, int64_t *n_bad) {
  enum { THREADS = 256, MOST = 1024 };
  pn_gpu *gpu = pn_gpu_of(t);
  pn_loop loop;
  *n_bad = 0;
  if (!gpu) return -1;
  pn_loop_start(&loop, t->n_dims, t->shape);
  pn_loop_add(&loop, t);
  pn_loop_plan(&loop);
  if (!loop.count || t->dtype >= PN_I64) return 0;
  int64_t blocks = pn_min64(MOST, pn_gpu_blocks(gpu, loop.count, THREADS));
  unsigned long long host[MOST], *partial = (unsigned long long *)pn_gpu_scratch(gpu, (size_t)blocks * sizeof *partial);
  if (!partial) return -1;
  int rc = PN_LAUNCH_TEAM(gpu, count_bad, blocks, THREADS, THREADS * sizeof *partial, partial, loop);
  rc = rc ? rc : pn_gpu_download(gpu, host, partial, (size_t)blocks * sizeof *partial);
  pn_gpu_scratch_free(gpu, partial);
  for (int64_t i = 0; i < blocks && !rc; i++) *n_bad += (int64_t)host[i];
  return rc;
}
