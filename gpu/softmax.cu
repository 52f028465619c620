/* softmax.cu: see softmax.h. A loop walks all positions of the other axes; a team of threads goes along the axis of each, thrice: the
** largest, the sum of e^(x - largest), and what is written. */
#include "softmax.h"
#include "kernels/lanes.h"
#include "loop.h"
#include "team.h"

typedef struct job {
  pn_loop loop; /* value: y, x; slope: dx, dy, x */
  pn_team team;
  int64_t n, step[3]; /* along the axis: how far, and the strides of the operands */
  bool logarithm, fresh;
} job;

struct larger {
  PN_DEVICE real of(real a, real b) { return b > a ? b : a; }
};

typedef struct shifted {
  real largest, sum;
} shifted;

/* Of the position at `x`; all threads of a team get it. A NaN makes the sum NaN. */
PN_DEVICE shifted shifted_sum(const job *j, int operand, int64_t x, bool here, double *room) {
  const void *base = j->loop.base[operand];
  const int dtype = j->loop.dtype[operand], first = pn_team_along(&j->team);
  const int64_t step = j->step[operand], n = here ? j->n : 0;
  real largest = -(real)INFINITY;
  for (int64_t k = first; k < n; k += j->team.along) largest = larger::of(largest, pn_get(base, x + k * step, dtype));
  pn_team_join<larger, 1>(&j->team, (real *)(void *)room, &largest);
  double sum = 0;
  for (int64_t k = first; k < n; k += j->team.along) sum += (double)exp(pn_get(base, x + k * step, dtype) - largest);
  pn_team_join<pn_added, 1>(&j->team, room, &sum);
  return shifted{ largest, (real)sum };
}

PN_KERNEL void softmax_values(job j) {
  PN_SHARED_MEMORY(double, room);
  for (int64_t group = pn_block; group < j.team.groups; group += pn_blocks) {
    const int64_t i = group * j.team.across + pn_team_across(&j.team);
    const bool here = i < j.loop.count;
    int64_t at[PN_LOOP_OPERANDS] = { 0 };
    if (here) pn_loop_at(&j.loop, i, at);
    const shifted s = shifted_sum(&j, 1, at[1], here, room);
    const real log_sum = log(s.sum), inverse = 1 / s.sum;
    for (int64_t k = pn_team_along(&j.team); here && k < j.n; k += j.team.along) {
      const real v = pn_get(j.loop.base[1], at[1] + k * j.step[1], j.loop.dtype[1]) - s.largest;
      pn_put(j.loop.base[0], at[0] + k * j.step[0], j.loop.dtype[0],
             j.logarithm ? pn_log_softmax_value(v, log_sum) : pn_softmax_value(v, inverse));
    }
  }
}

PN_KERNEL void softmax_slopes(job j) {
  PN_SHARED_MEMORY(double, room);
  const pn_loop *l = &j.loop;
  for (int64_t group = pn_block; group < j.team.groups; group += pn_blocks) {
    const int64_t i = group * j.team.across + pn_team_across(&j.team);
    const bool here = i < l->count;
    int64_t at[PN_LOOP_OPERANDS] = { 0 };
    if (here) pn_loop_at(l, i, at);
    const shifted s = shifted_sum(&j, 2, at[2], here, room);
    const real inverse = 1 / s.sum;
    double sum = 0;
    for (int64_t k = pn_team_along(&j.team); here && k < j.n; k += j.team.along) {
      const real g = pn_get(l->base[1], at[1] + k * j.step[1], l->dtype[1]);
      const real v = pn_get(l->base[2], at[2] + k * j.step[2], l->dtype[2]) - s.largest;
      sum += j.logarithm ? (double)g : (double)g * (double)pn_softmax_value(v, inverse);
    }
    pn_team_join<pn_added, 1>(&j.team, room, &sum);
    for (int64_t k = pn_team_along(&j.team); here && k < j.n; k += j.team.along) {
      const int64_t to = at[0] + k * j.step[0];
      const real g = pn_get(l->base[1], at[1] + k * j.step[1], l->dtype[1]);
      const real p = pn_softmax_value(pn_get(l->base[2], at[2] + k * j.step[2], l->dtype[2]) - s.largest, inverse);
      const real d = j.logarithm ? pn_log_softmax_slope(p, g, (real)sum) : pn_softmax_slope(p, g, (real)sum);
      pn_put(l->base[0], to, l->dtype[0], j.fresh ? d : pn_get(l->base[0], to, l->dtype[0]) + d);
    }
  }
}

/* False: there is nothing to do. */
static bool plan(job *j, const pn_call *call, int n, const pn_tensor *const *t) {
  const int axis = (int)pn_arg_int(call, "axis");
  pn_loop_lanes(&j->loop, axis, n, t, j->step);
  j->n = t[0]->shape[axis];
  if (!j->n || !j->loop.count) return false;
  const int64_t near = j->loop.stride[0][j->loop.n_dims - 1];
  j->team = pn_team_for(j->loop.count, j->n, j->loop.count > 1 && near < j->step[0], 1, 1);
  return true;
}

static int64_t blocks_of(const job *j) { return pn_min64(j->team.groups, INT32_MAX); }
static size_t room_of(const job *j) { return (size_t)pn_team_threads(&j->team) * sizeof(double); }

int pn_gpu_softmax_forward(pn_call *call, bool logarithm) {
  const pn_tensor *const operands[] = { call->y[0], call->x[0] };
  pn_gpu *gpu = pn_gpu_of(call->y[0]);
  job j = {};
  j.logarithm = logarithm;
  if (!gpu) return -1;
  if (!plan(&j, call, 2, operands)) return 0;
  return PN_LAUNCH_TEAM(gpu, softmax_values, blocks_of(&j), pn_team_threads(&j.team), room_of(&j), j);
}

int pn_gpu_softmax_backward(pn_call *call, bool logarithm) {
  pn_gpu *gpu = pn_gpu_of(call->dy[0]);
  pn_tensor *dx;
  job j = {};
  j.logarithm = logarithm;
  if (!gpu || pn_call_dx(call, 0, &dx, &j.fresh)) return -1;
  if (!dx) return 0;
  const pn_tensor *const operands[] = { dx, call->dy[0], call->x[0] };
  if (!plan(&j, call, 3, operands)) return 0;
  return PN_LAUNCH_TEAM(gpu, softmax_slopes, blocks_of(&j), pn_team_threads(&j.team), room_of(&j), j);
}
