/* bce.c: see bce.h. */
#include "kernels/bce.h"
#include <string.h>
#include "kernels/curves.h"
#include "kernels/loop.h"

enum { BLOCK = 8192, CHUNK = 256, NORM_MEAN = 0, NORM_SUM = 1, NORM_NONE = 3, EMPTY_ZERO = 1 };

int pn_bce_shape(pn_call *call) {
  if (pn_need_real(call, 0)) return -1;
  for (int i = 1; i < 3; i++) {
    const pn_tensor *t = call->x[i];
    if (!t) continue;
    if (pn_need_same_shape(call, 0, i)) return -1;
    if (t->dtype != PN_U8 && pn_need_real(call, i)) return -1;
  }
  if (pn_bce_each(call)) {
    pn_out_like(&call->out[0], call->x[0]);
    call->out[0].dtype = PN_REAL_DTYPE;
  } else {
    pn_out_dims(&call->out[0], PN_REAL_DTYPE, 0, (const int64_t[]){ 0 });
  }
  return 0;
}

bool pn_bce_each(const pn_call *call) { return pn_arg_int(call, "norm") == NORM_NONE; }

pn_bce_rule pn_bce_rule_of(const pn_call *call, bool balanced) {
  int64_t norm = pn_arg_int(call, "norm");
  const pn_tensor *x = call->x[0];
  return (pn_bce_rule){ .balanced = balanced,
                        .zero_when_empty = balanced && pn_arg_int(call, "empty") == EMPTY_ZERO,
                        .divisor = norm == NORM_MEAN                                         ? 0
                                   : norm == NORM_SUM || norm == NORM_NONE || x->n_dims == 0 ? 1
                                                                                             : (double)pn_max64(x->shape[0], 1) };
}

typedef struct job {
  pn_loop loop;
  int at_x, at_target, at_dy, at_void; /* operands; -1: none */
  bool target_u8, void_u8, binary, fresh;
  real weight[2];
  pn_bce_sums *block;
} job;

/* to: what is written or added to; dy: of each element; either may be NULL. */
static void job_start(job *j, const pn_call *call, const pn_tensor *to, const pn_tensor *dy) {
  memset(j, 0, sizeof *j);
  pn_loop_start(&j->loop, call->x[0]->n_dims, call->x[0]->shape);
  if (to) pn_loop_add(&j->loop, to);
  j->at_x = j->loop.n_operands;
  pn_loop_add(&j->loop, call->x[0]);
  j->at_target = j->loop.n_operands;
  pn_loop_add(&j->loop, call->x[1]);
  j->target_u8 = call->x[1]->dtype == PN_U8;
  j->at_dy = dy ? j->loop.n_operands : -1;
  if (dy) pn_loop_add(&j->loop, dy);
  j->at_void = call->x[2] ? j->loop.n_operands : -1;
  if (call->x[2]) {
    pn_loop_add(&j->loop, call->x[2]);
    j->void_u8 = call->x[2]->dtype == PN_U8;
  }
  pn_loop_plan(&j->loop);
}

/* n elements from i on, as adjacent reals: where they lie, or copied to room. */
static const real *adjacent(real *room, const char *p, bool u8, int64_t stride, int64_t i, int64_t n) {
  const real *from = (const real *)(const void *)p;
  const uint8_t *bytes = (const uint8_t *)p;
  if (!u8 && stride == 1) return from + i;
  if (u8) {
    for (int64_t k = 0; k < n; k++) room[k] = (real)bytes[(i + k) * stride];
  } else {
    for (int64_t k = 0; k < n; k++) room[k] = from[(i + k) * stride];
  }
  return room;
}

/* 1 where the element counts, 0 where it is void. */
static const real *kept(real *room, const job *j, char *const *at, const int64_t *stride, int64_t i, int64_t n) {
  if (j->at_void < 0) return NULL;
  const real *v = adjacent(room, at[j->at_void], j->void_u8, stride[j->at_void], i, n);
  for (int64_t k = 0; k < n; k++) room[k] = v[k] != 0 ? 0 : 1;
  return room;
}

typedef struct sums_run {
  const job *j;
  pn_bce_run run;
} sums_run;

static void sum_elements(void *context, int64_t n, char *const *at, const int64_t *stride) {
  sums_run *sums = context;
  const job *j = sums->j;
  const pn_curve_kernels *kernels = pn_curves();
  real room_x[CHUNK], room_t[CHUNK], room_k[CHUNK];
  for (int64_t i = 0; i < n; i += CHUNK) {
    int64_t m = pn_min64(CHUNK, n - i);
    const real *x = adjacent(room_x, at[j->at_x], false, stride[j->at_x], i, m);
    const real *t = adjacent(room_t, at[j->at_target], j->target_u8, stride[j->at_target], i, m);
    kernels->bce(&sums->run, x, t, kept(room_k, j, at, stride, i, m), j->binary, m);
  }
}

static void sum_blocks(void *context, int64_t begin, int64_t end) {
  const job *j = context;
  for (int64_t b = begin; b < end; b++) {
    sums_run sums = { .j = j };
    pn_loop_range(&j->loop, b * BLOCK, pn_min64((b + 1) * BLOCK, j->loop.count), sum_elements, &sums);
    j->block[b] = (pn_bce_sums){
      .loss = {sums.run.loss - sums.run.loss_of_ones, sums.run.loss_of_ones},
      .n = { sums.run.kept - sums.run.ones,        sums.run.ones        },
      .n_outside = sums.run.outside
    };
  }
}

static int sum(pn_call *call, bool binary, pn_bce_sums *out) {
  job j;
  job_start(&j, call, NULL, NULL);
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
  if (out->n_outside && !pn_is_dry()) {
    return pn_fail_shapes(call, "%lld of the %.0f targets are %s", (long long)out->n_outside, out->n[0] + out->n[1],
                          binary ? "neither 0 nor 1" : "not in 0..1");
  }
  return 0;
}

static void each_element(void *context, int64_t n, char *const *at, const int64_t *stride) {
  const job *j = context;
  const pn_curve_kernels *kernels = pn_curves();
  real *y = (real *)(void *)at[0], room_x[CHUNK], room_t[CHUNK], room_k[CHUNK], loss[CHUNK];
  for (int64_t i = 0; i < n; i += CHUNK) {
    int64_t m = pn_min64(CHUNK, n - i);
    const real *x = adjacent(room_x, at[j->at_x], false, stride[j->at_x], i, m);
    const real *t = adjacent(room_t, at[j->at_target], j->target_u8, stride[j->at_target], i, m);
    const real *keep = kept(room_k, j, at, stride, i, m);
    if (stride[0] == 1) kernels->bce_each(y + i, x, t, keep, j->weight, m);
    else {
      kernels->bce_each(loss, x, t, keep, j->weight, m);
      for (int64_t k = 0; k < m; k++) y[(i + k) * stride[0]] = loss[k];
    }
  }
}

static void write_each(const pn_call *call, const pn_bce_result *r) {
  job j;
  job_start(&j, call, call->y[0], NULL);
  for (int side = 0; side < 2; side++) j.weight[side] = (real)r->weight[side];
  pn_loop_all(&j.loop, each_element, &j);
}

int pn_bce_forward(pn_call *call, bool balanced) {
  pn_bce_sums sums;
  pn_tensor *kept;
  if (sum(call, balanced, &sums)) return -1;
  pn_bce_result r = pn_bce_join(&sums, pn_bce_rule_of(call, balanced));
  if (pn_bce_each(call)) write_each(call, &r);
  else *pn_real_of(call->y[0]) = (real)r.loss;
  if (!call->recording) return 0;
  if (pn_tensor_new(&kept, PN_F64, 1, (int64_t[]){ 2 }, PN_ROWS, PN_CPU)) return -1;
  memcpy(pn_bytes_of(kept), r.weight, sizeof r.weight);
  pn_call_save(call, 0, kept);
  return 0;
}

static void back_elements(void *context, int64_t n, char *const *at, const int64_t *stride) {
  const job *j = context;
  const pn_curve_kernels *kernels = pn_curves();
  real *dx = (real *)(void *)at[0], room_x[CHUNK], room_t[CHUNK], room_k[CHUNK], slope[CHUNK];
  for (int64_t i = 0; i < n; i += CHUNK) {
    int64_t m = pn_min64(CHUNK, n - i);
    const real *x = adjacent(room_x, at[j->at_x], false, stride[j->at_x], i, m);
    const real *t = adjacent(room_t, at[j->at_target], j->target_u8, stride[j->at_target], i, m);
    const real *keep = kept(room_k, j, at, stride, i, m);
    if (j->at_dy < 0 && stride[0] == 1) kernels->bce_slope(dx + i, !j->fresh, x, t, keep, j->weight, m);
    else {
      kernels->bce_slope(slope, false, x, t, keep, j->weight, m);
      const real *dy = j->at_dy < 0 ? NULL : adjacent(room_x, at[j->at_dy], false, stride[j->at_dy], i, m);
      for (int64_t k = 0; dy && k < m; k++) slope[k] = keep && !(keep[k] != 0) ? 0 : slope[k] * dy[k];
      for (int64_t k = 0; k < m; k++) dx[(i + k) * stride[0]] = j->fresh ? slope[k] : dx[(i + k) * stride[0]] + slope[k];
    }
  }
}

int pn_bce_backward(pn_call *call) {
  pn_tensor *dx;
  bool fresh;
  job j;
  if (pn_call_dx(call, 0, &dx, &fresh)) return -1;
  if (!dx) return 0;
  const bool each = pn_bce_each(call);
  job_start(&j, call, dx, each ? call->dy[0] : NULL);
  j.fresh = fresh;
  const double *weight = (const double *)(const void *)pn_bytes_of(call->saved[0]),
               dy = each ? 1 : (double)*pn_real_of(call->dy[0]);
  for (int side = 0; side < 2; side++) j.weight[side] = (real)(weight[side] * dy);
  pn_loop_all(&j.loop, back_elements, &j);
  return 0;
}
