/* program.h: what a graph of the emulated cuDNN says, taken out of its descriptors: a convolution and the element-wise steps behind it. */
#ifndef PENUMBRA_EMULATED_PROGRAM_H
#define PENUMBRA_EMULATED_PROGRAM_H
#include <cudnn.h>
#include <map>
#include <string>
#include <vector>
#include "emulated/arrays.h"

namespace fake {

typedef std::vector<int64_t> numbers;

struct tensor {
  int64_t id, alignment;
  number type;
  bool is_virtual;
  numbers dims, strides; /* N, C, then space; filters K, C, then taps */

  int64_t count(void) const;
  int64_t extent(void) const; /* bytes from its first element to the end of its last */
  bool overlaps_itself(void) const;
  bool operator==(const tensor &o) const;
};

enum class act { forward, data, filter, pointwise };

struct step {
  act what;
  int n_in;
  int64_t in[2], out;            /* ids: x, w; dy, w; x, dy; x or x, b */
  double alpha, beta;            /* of a convolution; of a pointwise step alpha of in[0] and of in[1] */
  numbers low, stride, dilation; /* of a convolution */
  cudnnPointwiseMode_t mode;
  double floor, ceiling, slope; /* of relu */
  bool keeps_nan;               /* of relu: NaN stays; else it is the floor */
};

struct program {
  std::map<int64_t, tensor> tensors;
  std::vector<step> steps; /* each after those it needs */

  const step &convolution(void) const { return steps[0]; }
  bool is_fused(void) const { return steps.size() > 1; }
};

/* How an engine differs from the definition. */
struct manner {
  bool tf32, noisy;
};

/* Computes, from and into memory: where[id] for every tensor that is not virtual. */
void program_run(const program &p, const std::map<int64_t, void *> &where, manner how);

/* What an engine leaves that stops half way: a result of NaN. */
void program_spoil(const program &p, const std::map<int64_t, void *> &where);

/* Does an element of `out` lie on one of `in`? */
bool tensors_collide(const tensor &out, const void *out_at, const tensor &in, const void *in_at);

} /* namespace fake */
#endif
