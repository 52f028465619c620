/* random.cu: tensors filled from Philox, a thread for each four numbers: those of core/random.c (philox.h says how nearly). */
#include "tensor.h"
#include "launch.h"
#include "philox.h"

template <typename T>
PN_KERNEL void fill_fours(T *to, int64_t count, pn_distribution kind, double a, double b, uint64_t seed, uint64_t stream,
                          uint64_t offset) {
  PN_EACH(four, (count + 3) / 4) {
    uint32_t word[4];
    double v[4];
    pn_philox_words(seed, stream, offset + (uint64_t)four, word);
    pn_draw_four(kind, a, b, word, v);
    for (int k = 0; k < 4 && four * 4 + k < count; k++)
      to[four * 4 + k] = sizeof(T) == sizeof(double) ? (T)v[k] : (T)pn_draw_to_float(kind, a, b, v[k]);
  }
}

int pn_gpu_random(pn_tensor *rows, pn_distribution kind, double a, double b, uint64_t seed, uint64_t stream, uint64_t offset) {
  pn_gpu *gpu = pn_gpu_of(rows);
  int64_t count = pn_tensor_count(rows);
  if (!gpu) return -1;
  if (!count) return 0;
  int64_t blocks = pn_gpu_blocks(gpu, pn_ceil_div(count, 4), 256);
  void *to = pn_bytes_of(rows);
  if (rows->dtype == PN_F64) {
    auto run = fill_fours<double>;
    return PN_LAUNCH(gpu, run, blocks, 256, (double *)to, count, kind, a, b, seed, stream, offset);
  }
  auto run = fill_fours<float>;
  return PN_LAUNCH(gpu, run, blocks, 256, (float *)to, count, kind, a, b, seed, stream, offset);
}
