/* loop.c: planning and walking of pn_loop, and copies. See loop.h. */
#include "kernels/loop.h"
#include <string.h>

enum { GRAIN = 16384 }; /* elements a thread should get at least */

/* ---- the loop ------------------------------------------------------------------------------------------------------ */

void pn_loop_start(pn_loop *loop, int n_dims, const int64_t *shape) {
  memset(loop, 0, sizeof *loop);
  loop->n_dims = n_dims;
  loop->count = 1;
  for (int d = 0; d < n_dims; d++) {
    loop->size[d] = shape[d];
    loop->count *= shape[d];
  }
}

void pn_loop_add_raw(pn_loop *loop, void *base, int64_t bytes, const int64_t *stride) {
  int k = loop->n_operands++;
  loop->base[k] = base;
  loop->bytes[k] = bytes;
  loop->dtype[k] = PN_N_DTYPES;
  for (int d = 0; d < loop->n_dims; d++) loop->stride[k][d] = loop->size[d] == 1 ? 0 : stride[d];
}

void pn_loop_add(pn_loop *loop, const pn_tensor *t) {
  int64_t stride[PN_MAX_DIMS];
  int lead = loop->n_dims - t->n_dims; /* shapes are aligned at their last axis */
  for (int d = 0; d < loop->n_dims; d++) stride[d] = d < lead || t->shape[d - lead] == 1 ? 0 : t->stride[d - lead];
  pn_loop_add_raw(loop, pn_bytes_of(t), pn_dtype_bytes(t->dtype), stride);
  loop->dtype[loop->n_operands - 1] = (int)t->dtype;
}

static void move_axis(pn_loop *loop, int to, int from) {
  loop->size[to] = loop->size[from];
  for (int k = 0; k < loop->n_operands; k++) loop->stride[k][to] = loop->stride[k][from];
}

static void swap_axes(pn_loop *loop, int i, int j) {
  int64_t size = loop->size[i];
  loop->size[i] = loop->size[j];
  loop->size[j] = size;
  for (int k = 0; k < loop->n_operands; k++) {
    int64_t stride = loop->stride[k][i];
    loop->stride[k][i] = loop->stride[k][j];
    loop->stride[k][j] = stride;
  }
}

void pn_loop_plan(pn_loop *loop) {
  int n = 0;
  for (int d = 0; d < loop->n_dims; d++) {
    if (loop->size[d] != 1) move_axis(loop, n++, d);
  }
  for (int i = 1; i < n; i++) {
    for (int j = i; j > 0 && loop->stride[0][j - 1] < loop->stride[0][j]; j--) swap_axes(loop, j - 1, j);
  }
  int last = 0;
  for (int d = 1; d < n; d++) {
    bool merges = true;
    for (int k = 0; k < loop->n_operands; k++) merges &= loop->stride[k][last] == loop->stride[k][d] * loop->size[d];
    if (merges) {
      int64_t size = loop->size[last] * loop->size[d];
      move_axis(loop, last, d);
      loop->size[last] = size;
    } else {
      move_axis(loop, ++last, d);
    }
  }
  if (n == 0) { /* one element, or none */
    loop->size[0] = loop->count;
    for (int k = 0; k < loop->n_operands; k++) loop->stride[k][0] = 0;
  }
  loop->n_dims = n == 0 ? 1 : last + 1;
}

void pn_loop_range(const pn_loop *loop, int64_t begin, int64_t end, pn_run run, void *context) {
  if (begin >= end) return;
  const int inner = loop->n_dims - 1;
  int64_t index[PN_MAX_DIMS], stride[PN_LOOP_OPERANDS] = { 0 };
  char *at[PN_LOOP_OPERANDS] = { 0 };
  int64_t rest = begin;
  for (int d = inner; d >= 0; d--) {
    index[d] = rest % loop->size[d];
    rest /= loop->size[d];
  }
  for (int k = 0; k < loop->n_operands; k++) {
    stride[k] = loop->stride[k][inner];
    int64_t offset = 0;
    for (int d = 0; d <= inner; d++) offset += index[d] * loop->stride[k][d];
    at[k] = loop->base[k] + offset * loop->bytes[k];
  }
  for (;;) {
    int64_t n = pn_min64(loop->size[inner] - index[inner], end - begin);
    run(context, n, at, stride);
    begin += n;
    if (begin >= end) return;
    /* to the start of the next run */
    int64_t back = index[inner];
    index[inner] = 0;
    int d = inner - 1;
    while (++index[d] == loop->size[d]) index[d--] = 0;
    for (int k = 0; k < loop->n_operands; k++) {
      int64_t move = loop->stride[k][d] - back * stride[k];
      for (int e = d + 1; e < inner; e++) move -= (loop->size[e] - 1) * loop->stride[k][e];
      at[k] += move * loop->bytes[k];
    }
  }
}

typedef struct {
  const pn_loop *loop;
  pn_run run;
  void *context;
} job;

static void part(void *context, int64_t begin, int64_t end) {
  job *j = context;
  pn_loop_range(j->loop, begin, end, j->run, j->context);
}

void pn_loop_all(const pn_loop *loop, pn_run run, void *context) {
  job j = { loop, run, context };
  pn_parallel(loop->count, GRAIN, part, &j);
}

/* ---- other element types --------------------------------------------------------------------------------------------- */

#define CONVERT(to_type, from_type)                                                                                                \
  {                                                                                                                                \
    const from_type *from = (const from_type *)(const void *)p;                                                                    \
    for (int64_t i = 0; i < n; i++) room[i] = (to_type)from[i * stride];                                                           \
    return room;                                                                                                                   \
  }

const real *pn_as_reals(real *room, const char *p, pn_dtype dtype, int64_t stride, int64_t n) {
  if (dtype == PN_U8) CONVERT(real, uint8_t)
  if (dtype == PN_I32) CONVERT(real, int32_t)
  if (dtype == PN_I64) CONVERT(real, int64_t)
  if (stride == 1) return (const real *)(const void *)p;
  CONVERT(real, real)
}

const int64_t *pn_as_integers(int64_t *room, const char *p, pn_dtype dtype, int64_t stride, int64_t n) {
  if (dtype == PN_U8) CONVERT(int64_t, uint8_t)
  if (dtype == PN_I32) CONVERT(int64_t, int32_t)
  if (stride == 1) return (const int64_t *)(const void *)p;
  CONVERT(int64_t, int64_t)
}

/* ---- copies ------------------------------------------------------------------------------------------------------ */

#define COPY_RUN(type)                                                                                                             \
  static void copy_##type(void *context, int64_t n, char *const *at, const int64_t *stride) {                                      \
    (void)context;                                                                                                                 \
    type *to = (type *)(void *)at[0];                                                                                              \
    const type *from = (const type *)(const void *)at[1];                                                                          \
    if (stride[0] == 1 && stride[1] == 1) {                                                                                        \
      memcpy(to, from, (size_t)n * sizeof(type));                                                                                  \
    } else {                                                                                                                       \
      for (int64_t i = 0; i < n; i++) to[i * stride[0]] = from[i * stride[1]];                                                     \
    }                                                                                                                              \
  }
COPY_RUN(uint8_t)
COPY_RUN(uint16_t)
COPY_RUN(uint32_t)
COPY_RUN(uint64_t)

/* Rows of adjacent bytes, many of them short (the channels of one pixel): 64 bytes at a time, without a call. */
static void copy_rows(void *context, int64_t begin, int64_t end) {
  const pn_loop *loop = context;
  const int inner = loop->n_dims - 1, walk = inner - 1;
  const size_t row = (size_t)(loop->size[inner] * loop->bytes[0]);
  const int64_t step_to = loop->stride[0][walk] * loop->bytes[0], step_from = loop->stride[1][walk] * loop->bytes[1];
  while (begin < end) {
    int64_t offset_to = 0, offset_from = 0, rest = begin;
    for (int d = walk; d >= 0; d--) {
      offset_to += rest % loop->size[d] * loop->stride[0][d];
      offset_from += rest % loop->size[d] * loop->stride[1][d];
      rest /= loop->size[d];
    }
    char *to = loop->base[0] + offset_to * loop->bytes[0];
    const char *from = loop->base[1] + offset_from * loop->bytes[1];
    int64_t n = pn_min64(loop->size[walk] - begin % loop->size[walk], end - begin);
    for (int64_t i = 0; i < n; i++, to += step_to, from += step_from) {
      size_t at = 0;
      for (; at + 64 <= row; at += 64) memcpy(to + at, from + at, 64);
      if (at < row) memcpy(to + at, from + at, row - at);
    }
    begin += n;
  }
}

void pn_copy_same(pn_tensor *to, const pn_tensor *from) {
  pn_loop loop;
  pn_loop_start(&loop, to->n_dims, to->shape);
  pn_loop_add(&loop, to);
  pn_loop_add(&loop, from);
  pn_loop_plan(&loop);
  const int bytes = pn_dtype_bytes(to->dtype), inner = loop.n_dims - 1;
  if (inner && loop.count && loop.stride[0][inner] == 1 && loop.stride[1][inner] == 1) {
    pn_parallel(loop.count / loop.size[inner], pn_max64(1, GRAIN / loop.size[inner]), copy_rows, &loop);
  } else {
    pn_loop_all(&loop, bytes == 1 ? copy_uint8_t : bytes == 2 ? copy_uint16_t : bytes == 4 ? copy_uint32_t : copy_uint64_t, NULL);
  }
}
