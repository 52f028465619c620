/* update.cu: see update.h. */
#include "update.h"
#include "kernels/update_rules.h"
#include "launch.h"

enum { BLOCK = 4096, THREADS = 256, TABLE = 4096 - 128 }; /* elements a block of threads; threads; bytes of a table */
enum { PACK = 16 / (int)sizeof(real) };

/* ---- tables ------------------------------------------------------------------------------------------------------------------ */

typedef struct step {
  pn_update update;
  bool packed; /* all its memory begins on 16 bytes */
} step;
typedef struct steps {
  enum { MOST = (TABLE - 16) / (sizeof(step) + sizeof(int64_t)) };
  int n;
  int64_t entry;       /* the place of at[0] in the list */
  int64_t first[MOST]; /* block of each */
  step at[MOST];
} steps;

typedef struct span {
  const real *grad;
  int64_t count;
} span;
typedef struct spans {
  enum { MOST = (TABLE - 16) / (sizeof(span) + sizeof(int64_t)) };
  int n;
  int64_t entry;
  int64_t first[MOST];
  span at[MOST];
} spans;

/* The last piece that begins at block b or before it: those without elements share theirs with the next. */
PN_DEVICE int piece_of(const int64_t *first, int n, int64_t b) {
  int low = 0, high = n - 1;
  while (low < high) {
    int middle = (low + high + 1) / 2;
    if (first[middle] <= b) low = middle;
    else high = middle - 1;
  }
  return low;
}

/* ---- steps ------------------------------------------------------------------------------------------------------------------- */

template <int N> struct alignas(N * sizeof(real)) pack { real at[N]; };

PN_DEVICE void one(bool adam, const pn_update_numbers *how, real *param, real *first, real *second, real grad) {
  if (adam) {
    pn_adam_one(param, first, second, grad, &how->adam);
    return;
  }
  switch (how->sgd.rule) {
  case PN_RULE_PLAIN: pn_sgd_plain(param, grad, &how->sgd); return;
  case PN_RULE_TORCH: pn_sgd_torch(param, first, grad, &how->sgd); return;
  case PN_RULE_TORCH_FIRST: pn_sgd_torch_first(param, first, grad, &how->sgd); return;
  case PN_RULE_CAFFE: pn_sgd_caffe(param, first, grad, &how->sgd); return;
  }
}

/* N numbers from i on. */
template <int N> PN_DEVICE void few(bool adam, const pn_update_numbers *how, const pn_update *u, int64_t i) {
  typedef pack<N> P;
  real *const s0 = u->state[0], *const s1 = u->state[1]; /* read once, else each store of a pack becomes N */
  const P grad = *(const P *)(u->grad + i), was = *(const P *)(u->param + i), none = {};
  const P was_first = s0 ? *(const P *)(s0 + i) : none, was_second = s1 ? *(const P *)(s1 + i) : none;
  P param = was, first = was_first, second = was_second;
  for (int k = 0; k < N; k++) one(adam, how, &param.at[k], &first.at[k], &second.at[k], grad.at[k]);
  *(P *)(u->param + i) = param;
  if (s0) *(P *)(s0 + i) = first;
  if (s1) *(P *)(s1 + i) = second;
}

template <bool ADAM> PN_KERNEL void take_steps(steps table, const unsigned char *numbers, const double *verdict) {
  if (!pn_verdict_allows(verdict)) return;
  const int k = piece_of(table.first, table.n, pn_block);
  const step *s = &table.at[k];
  const pn_update *u = &s->update;
  const int64_t begin = (pn_block - table.first[k]) * BLOCK, end = begin + BLOCK < u->count ? begin + BLOCK : u->count;
  pn_update_numbers how =
      numbers ? *(const pn_update_numbers *)(const void *)(numbers + (table.entry + k) * PN_STEP_BYTES) : u->numbers;
  if (ADAM) how.adam.scale = pn_verdict_scale(verdict, how.adam.scale);
  else how.sgd.scale = pn_verdict_scale(verdict, how.sgd.scale);
  const int64_t packs = s->packed ? (end - begin) / PACK : 0;
  for (int64_t i = pn_thread; i < packs; i += pn_threads) few<PACK>(ADAM, &how, u, begin + i * PACK);
  for (int64_t i = begin + packs * PACK + pn_thread; i < end; i += pn_threads) few<1>(ADAM, &how, u, i);
}

static bool begins_on_16(const void *p) { return (uintptr_t)p % 16 == 0; }

int pn_gpu_update(int index, bool adam, const pn_update *list, int64_t n, const void *numbers, const double *verdict) {
  pn_gpu *gpu = pn_gpu_at(index);
  auto run = adam ? take_steps<true> : take_steps<false>;
  if (!gpu) return -1;
  for (int64_t i = 0; i < n;) {
    steps table;
    int64_t blocks = 0;
    table.entry = i;
    for (table.n = 0; table.n < steps::MOST && i < n; table.n++, i++) {
      const pn_update *u = &list[i];
      table.first[table.n] = blocks;
      table.at[table.n].update = *u;
      table.at[table.n].packed =
          begins_on_16(u->param) && begins_on_16(u->grad) && begins_on_16(u->state[0]) && begins_on_16(u->state[1]);
      blocks += pn_ceil_div(u->count, BLOCK);
    }
    if (blocks && PN_LAUNCH(gpu, run, blocks, THREADS, table, (const unsigned char *)numbers, verdict)) return -1;
  }
  return 0;
}

/* ---- norms: a sum a block, those of a tensor joined by one block, all by another ------------------------------------------------- */

PN_KERNEL void square_blocks(double *partial, spans table) {
  PN_SHARED_MEMORY(double, room);
  const int k = piece_of(table.first, table.n, pn_block);
  const real *x = table.at[k].grad;
  const int64_t begin = (pn_block - table.first[k]) * BLOCK, count = table.at[k].count;
  const int64_t end = begin + BLOCK < count ? begin + BLOCK : count;
  double sum = 0;
  for (int64_t i = begin + pn_thread; i < end; i += pn_threads) sum += (double)x[i] * (double)x[i];
  sum = pn_block_sum(room, sum);
  if (pn_thread == 0) partial[pn_block] = sum;
}

/* The sum of n numbers, each thread a stretch of them. */
PN_DEVICE double sum_of(double *room, const double *x, int64_t n) {
  const int64_t share = (n + pn_threads - 1) / pn_threads;
  double sum = 0;
  for (int64_t i = pn_thread * share; i < n && i < (pn_thread + 1) * share; i++) sum += x[i];
  return pn_block_sum(room, sum);
}

PN_KERNEL void join_squares(double *sums, const double *partial, spans table) {
  PN_SHARED_MEMORY(double, room);
  const int k = (int)pn_block;
  const double sum = sum_of(room, partial + table.first[k], (table.at[k].count + BLOCK - 1) / BLOCK);
  if (pn_thread == 0) sums[table.entry + k] = sum;
}

PN_KERNEL void pass_verdict(double *verdict, const double *sums, int64_t n, double clip_norm) {
  PN_SHARED_MEMORY(double, room);
  const double sum = sum_of(room, sums, n);
  if (pn_thread == 0) pn_verdict_set(verdict, sum, clip_norm);
}

enum { JOIN = 64 }; /* threads that join: few, for there are few sums */

static int launch_squares(pn_gpu *gpu, double *sums, double *partial, const spans *table, int64_t blocks) {
  if (blocks && PN_LAUNCH_TEAM(gpu, square_blocks, blocks, THREADS, THREADS * sizeof(double), partial, *table)) return -1;
  return PN_LAUNCH_TEAM(gpu, join_squares, table->n, JOIN, JOIN * sizeof(double), sums, partial, *table);
}

/* sums: of each tensor, on the device. */
static int squares(pn_gpu *gpu, double *sums, const pn_update *list, int64_t n) {
  int64_t most = 0;
  for (int64_t i = 0; i < n; i++) most += pn_ceil_div(list[i].count, BLOCK);
  double *partial = (double *)pn_gpu_scratch(gpu, (size_t)pn_max64(most, 1) * sizeof *partial);
  int rc = partial ? 0 : -1;
  for (int64_t i = 0; i < n && !rc;) {
    spans table;
    int64_t blocks = 0;
    table.entry = i;
    for (table.n = 0; table.n < spans::MOST && i < n; table.n++, i++) {
      table.first[table.n] = blocks;
      table.at[table.n] = span{ list[i].grad, list[i].count };
      blocks += pn_ceil_div(list[i].count, BLOCK);
    }
    rc = launch_squares(gpu, sums, partial, &table, blocks);
  }
  pn_gpu_scratch_free(gpu, partial);
  return rc;
}

int pn_gpu_sum_squares(int index, const pn_update *list, int64_t n, double *sums) {
  pn_gpu *gpu = pn_gpu_at(index);
  double *there = gpu ? (double *)pn_gpu_scratch(gpu, (size_t)pn_max64(n, 1) * sizeof *there) : NULL;
  int rc = there ? squares(gpu, there, list, n) : -1;
  if (!rc) rc = pn_gpu_download(gpu, sums, there, (size_t)n * sizeof *sums);
  if (there) pn_gpu_scratch_free(gpu, there);
  return rc;
}

int pn_gpu_judge(int index, const pn_update *list, int64_t n, double clip_norm, double *verdict) {
  pn_gpu *gpu = pn_gpu_at(index);
  double *there = gpu ? (double *)pn_gpu_scratch(gpu, (size_t)pn_max64(n, 1) * sizeof *there) : NULL;
  int rc = there ? squares(gpu, there, list, n) : -1;
  if (!rc) rc = PN_LAUNCH_TEAM(gpu, pass_verdict, 1, JOIN, JOIN * sizeof(double), verdict, there, n, clip_norm);
  if (there) pn_gpu_scratch_free(gpu, there);
  return rc;
}
