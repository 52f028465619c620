/* bce.c: see bce.h. */
#include "kernels/bce.h"
#include <string.h>
#include <tgmath.h>
#include "kernels/elementwise.h"

enum { BLOCK = 8192, NORM_MEAN = 0, NORM_SUM = 1 };

int pn_bce_shape(pn_call *call) {
  if (pn_need_real(call, 0)) return -1;
  for (int i = 1; i < 3; i++) {
    const pn_tensor *t = call->x[i];
    if (!t) continue;
    if (pn_need_same_shape(call, 0, i)) return -1;
    if (t->dtype != PN_U8 && pn_need_real(call, i)) return -1;
  }
  pn_out_dims(&call->out[0], PN_REAL_DTYPE, 0, (const int64_t[]){ 0 });
  return 0;
}

double pn_bce_divisor(const pn_call *call, int64_t n) {
  int64_t norm = pn_arg_int(call, "norm");
  if (norm == NORM_MEAN) return n ? (double)n : 1;
  return norm == NORM_SUM || call->x[0]->n_dims == 0 ? 1 : (double)pn_max64(call->x[0]->shape[0], 1);
}

typedef struct job {
  pn_loop loop;
  int at_x, at_target, at_void; /* operands; at_void -1: none */
  bool target_u8, void_u8, binary, fresh;
  real weight[2];
  pn_bce_sums *block;
} job;

static inline real number_at(const char *p, bool u8, int64_t i) {
  return u8 ? (real)((const uint8_t *)p)[i] : ((const real *)(const void *)p)[i];
}

static void job_start(job *j, const pn_call *call, const pn_tensor *dx) {
  memset(j, 0, sizeof *j);
  pn_loop_start(&j->loop, call->x[0]->n_dims, call->x[0]->shape);
  if (dx) pn_loop_add(&j->loop, dx);
  j->at_x = j->loop.n_operands;
  pn_loop_add(&j->loop, call->x[0]);
  j->at_target = j->loop.n_operands;
  pn_loop_add(&j->loop, call->x[1]);
  j->target_u8 = call->x[1]->dtype == PN_U8;
  j->at_void = call->x[2] ? j->loop.n_operands : -1;
  if (call->x[2]) {
    pn_loop_add(&j->loop, call->x[2]);
    j->void_u8 = call->x[2]->dtype == PN_U8;
  }
  pn_loop_plan(&j->loop);
}

typedef struct sums_run {
  const job *j;
  pn_bce_sums *sums;
} sums_run;

static void sum_elements(void *context, int64_t n, char *const *at, const int64_t *stride) {
  const sums_run *run = context;
  const job *j = run->j;
  const real *logit = (const real *)(const void *)at[j->at_x];
  for (int64_t i = 0; i < n; i++) {
    if (j->at_void >= 0 && number_at(at[j->at_void], j->void_u8, i * stride[j->at_void]) != 0) continue;
    real x = logit[i * stride[j->at_x]], y = number_at(at[j->at_target], j->target_u8, i * stride[j->at_target]);
    int side = y >= (real)0.5;
    run->sums->loss[side] += (double)((x > 0 ? x : 0) - x * y + log1p(exp(-fabs(x))));
    run->sums->n[side]++;
    run->sums->n_outside += j->binary ? y != 0 && y != 1 : !(y >= 0 && y <= 1);
  }
}

static void sum_blocks(void *context, int64_t begin, int64_t end) {
  const job *j = context;
  for (int64_t b = begin; b < end; b++) {
    sums_run run = { j, &j->block[b] };
    pn_loop_range(&j->loop, b * BLOCK, pn_min64((b + 1) * BLOCK, j->loop.count), sum_elements, &run);
  }
}

int pn_bce_sum(pn_call *call, bool binary, pn_bce_sums *out) {
  job j;
  job_start(&j, call, NULL);
  j.binary = binary;
  int64_t blocks = pn_ceil_div(j.loop.count, BLOCK);
  memset(out, 0, sizeof *out);
  if (blocks == 0) return 0;
  j.block = pn_alloc_zero((size_t)blocks * sizeof *j.block);
  if (!j.block) return -1;
  pn_parallel(blocks, 1, sum_blocks, &j);
  for (int64_t b = 0; b < blocks; b++) {
    for (int side = 0; side < 2; side++) {
      out->loss[side] += j.block[b].loss[side];
      out->n[side] += j.block[b].n[side];
    }
    out->n_outside += j.block[b].n_outside;
  }
  pn_free(j.block);
  if (out->n_outside) {
    return pn_fail_shapes(call, "%lld of the %lld targets are %s", (long long)out->n_outside, (long long)(out->n[0] + out->n[1]),
                          binary ? "neither 0 nor 1" : "not in 0..1");
  }
  return 0;
}

static void back_elements(void *context, int64_t n, char *const *at, const int64_t *stride) {
  const job *j = context;
  real *dx = (real *)(void *)at[0];
  const real *logit = (const real *)(const void *)at[j->at_x];
  for (int64_t i = 0; i < n; i++) {
    real slope = 0;
    if (j->at_void < 0 || number_at(at[j->at_void], j->void_u8, i * stride[j->at_void]) == 0) {
      real y = number_at(at[j->at_target], j->target_u8, i * stride[j->at_target]);
      slope = j->weight[y >= (real)0.5] * (1 / (1 + exp(-logit[i * stride[j->at_x]])) - y);
    }
    dx[i * stride[0]] = j->fresh ? slope : dx[i * stride[0]] + slope;
  }
}

int pn_bce_back(pn_call *call, const double *weight) {
  pn_tensor *dx;
  bool fresh;
  job j;
  if (pn_call_dx(call, 0, &dx, &fresh)) return -1;
  if (!dx) return 0;
  job_start(&j, call, dx);
  j.fresh = fresh;
  double dy = (double)*pn_real_of(call->dy[0]);
  for (int side = 0; side < 2; side++) j.weight[side] = (real)(weight[side] * dy);
  pn_loop_all(&j.loop, back_elements, &j);
  return 0;
}
