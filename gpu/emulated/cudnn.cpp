/* cudnn.cpp: the emulated cuDNN: descriptors, engines and plans; program.cpp computes.
**
** Strict. Whatever the true library refuses is refused here, with its status, and more besides: attributes that are left out, shapes
** that only nearly fit, tensors that two steps write. spec/gpu/cudnn_spec.lua gives both libraries the same mistakes where the true
** one is installed (descriptors need no device). What engines there are, and what they take, is what cuDNN 9.19 says of an H100:
** element types that differ, 16-bit channels that are no multiple of 8 and fused f64 find few engines or none; the count of results
** is an upper bound; a plan may fail when it is made. Engines differ in what they do, too: those on tensor cores round f32 to TF32, one
** that is not deterministic gives other bits each time, one wants 16 GiB. */
#include <cudnn.h>
#include <stdarg.h>
#include <stdio.h>
#include <memory>
#include <mutex>
#include <set>
#include "emulated/program.h"
#include "emulated/runtime.h"

using namespace fake;

namespace {

/* ---- errors ---------------------------------------------------------------------------------------------------------------- */

thread_local std::string last;

cudnnStatus_t fail(cudnnStatus_t status, const char *format, ...) __attribute__((format(printf, 2, 3)));
cudnnStatus_t fail(cudnnStatus_t status, const char *format, ...) {
  char text[512];
  va_list ap;
  va_start(ap, format);
  vsnprintf(text, sizeof text, format, ap);
  va_end(ap);
  last = text;
  return status;
}

std::recursive_mutex lock; /* of all descriptors */

/* At the head of every call: one at a time, and the fault injected for it. */
#define CALL(status)                                                                                                               \
  std::lock_guard<std::recursive_mutex> hold(lock);                                                                                \
  if (pn_fake_fails(__func__)) return fail(status, "an injected fault")
#define TRY(expression)                                                                                                            \
  do {                                                                                                                             \
    cudnnStatus_t status_ = (expression);                                                                                          \
    if (status_ != CUDNN_STATUS_SUCCESS) return status_;                                                                           \
  } while (0)

/* ---- descriptors -------------------------------------------------------------------------------------------------------------- */

struct descriptor;
typedef std::shared_ptr<descriptor> ref;
struct engine;

struct value {
  cudnnBackendAttributeType_t type;
  numbers n; /* integers, truths, choices, addresses */
  std::vector<double> f;
  std::vector<ref> d;
  int64_t count(void) const { return (int64_t)(n.size() + f.size() + d.size()); }
};

struct descriptor {
  cudnnBackendDescriptorType_t kind;
  bool final = false;
  std::map<int, value> set;
  const struct engine *engine = nullptr; /* of engines, what they are */
  std::shared_ptr<const program> what;   /* of graphs and plans, what they compute */
  std::vector<ref> found;                /* of heuristics: configurations */

  bool has(int name) const { return set.count(name) != 0; }
  const numbers &all(int name) const { return set.at(name).n; }
  int64_t one(int name, int64_t otherwise = 0) const { return has(name) ? set.at(name).n[0] : otherwise; }
  double real(int name, double otherwise) const { return has(name) ? set.at(name).f[0] : otherwise; }
  const std::vector<ref> &list(int name) const { return set.at(name).d; }
  const descriptor &to(int name) const { return *set.at(name).d[0]; }
};

std::map<const void *, ref> living;

ref find(const void *p) {
  auto found = living.find(p);
  return found == living.end() ? nullptr : found->second;
}

enum role { NEEDED, OPTIONAL, ANSWER }; /* ANSWER: can only be asked for */

struct field {
  int kind, name, type;
  int64_t least, most;
  enum role role;
};

#define FIELD(kind, name, type, least, most, role)                                                                                 \
  { CUDNN_BACKEND_##kind##_DESCRIPTOR, CUDNN_ATTR_##name, CUDNN_TYPE_##type, least, most, role }
#define ONE(kind, name, type, role) FIELD(kind, name, type, 1, 1, role)
#define CONVOLUTION(kind, name, w, x, y)                                                                                           \
  ONE(OPERATION_CONVOLUTION_##kind, OPERATION_CONVOLUTION_##name##_ALPHA, FLOAT, NEEDED),                                          \
      ONE(OPERATION_CONVOLUTION_##kind, OPERATION_CONVOLUTION_##name##_BETA, FLOAT, NEEDED),                                       \
      ONE(OPERATION_CONVOLUTION_##kind, OPERATION_CONVOLUTION_##name##_CONV_DESC, BACKEND_DESCRIPTOR, NEEDED),                     \
      ONE(OPERATION_CONVOLUTION_##kind, OPERATION_CONVOLUTION_##name##_##w, BACKEND_DESCRIPTOR, NEEDED),                           \
      ONE(OPERATION_CONVOLUTION_##kind, OPERATION_CONVOLUTION_##name##_##x, BACKEND_DESCRIPTOR, NEEDED),                           \
      ONE(OPERATION_CONVOLUTION_##kind, OPERATION_CONVOLUTION_##name##_##y, BACKEND_DESCRIPTOR, NEEDED)

enum { SPACE = 3, MANY = 64, TEXT = 65536 };

/* clang-format off */
const field fields[] = {
  ONE(TENSOR, TENSOR_DATA_TYPE, DATA_TYPE, NEEDED),
  FIELD(TENSOR, TENSOR_DIMENSIONS, INT64, 1, CUDNN_DIM_MAX, NEEDED),
  FIELD(TENSOR, TENSOR_STRIDES, INT64, 1, CUDNN_DIM_MAX, NEEDED),
  ONE(TENSOR, TENSOR_UNIQUE_ID, INT64, NEEDED),
  ONE(TENSOR, TENSOR_BYTE_ALIGNMENT, INT64, NEEDED),
  ONE(TENSOR, TENSOR_IS_VIRTUAL, BOOLEAN, OPTIONAL),

  ONE(CONVOLUTION, CONVOLUTION_COMP_TYPE, DATA_TYPE, NEEDED),
  ONE(CONVOLUTION, CONVOLUTION_CONV_MODE, CONVOLUTION_MODE, NEEDED),
  ONE(CONVOLUTION, CONVOLUTION_SPATIAL_DIMS, INT64, NEEDED),
  FIELD(CONVOLUTION, CONVOLUTION_DILATIONS, INT64, 1, SPACE, NEEDED),
  FIELD(CONVOLUTION, CONVOLUTION_FILTER_STRIDES, INT64, 1, SPACE, NEEDED),
  FIELD(CONVOLUTION, CONVOLUTION_PRE_PADDINGS, INT64, 1, SPACE, NEEDED),
  FIELD(CONVOLUTION, CONVOLUTION_POST_PADDINGS, INT64, 1, SPACE, NEEDED),

  CONVOLUTION(FORWARD, FORWARD, W, X, Y),
  CONVOLUTION(BACKWARD_DATA, BWD_DATA, W, DX, DY),
  CONVOLUTION(BACKWARD_FILTER, BWD_FILTER, DW, X, DY),

  ONE(POINTWISE, POINTWISE_MODE, POINTWISE_MODE, NEEDED),
  ONE(POINTWISE, POINTWISE_MATH_PREC, DATA_TYPE, NEEDED),
  ONE(POINTWISE, POINTWISE_NAN_PROPAGATION, NAN_PROPOGATION, OPTIONAL),
  ONE(POINTWISE, POINTWISE_RELU_LOWER_CLIP, DOUBLE, OPTIONAL),
  ONE(POINTWISE, POINTWISE_RELU_UPPER_CLIP, DOUBLE, OPTIONAL),
  ONE(POINTWISE, POINTWISE_RELU_LOWER_CLIP_SLOPE, DOUBLE, OPTIONAL),
  ONE(OPERATION_POINTWISE, OPERATION_POINTWISE_PW_DESCRIPTOR, BACKEND_DESCRIPTOR, NEEDED),
  ONE(OPERATION_POINTWISE, OPERATION_POINTWISE_XDESC, BACKEND_DESCRIPTOR, NEEDED),
  ONE(OPERATION_POINTWISE, OPERATION_POINTWISE_BDESC, BACKEND_DESCRIPTOR, OPTIONAL),
  ONE(OPERATION_POINTWISE, OPERATION_POINTWISE_YDESC, BACKEND_DESCRIPTOR, NEEDED),
  ONE(OPERATION_POINTWISE, OPERATION_POINTWISE_ALPHA1, FLOAT, OPTIONAL),
  ONE(OPERATION_POINTWISE, OPERATION_POINTWISE_ALPHA2, FLOAT, OPTIONAL),

  ONE(OPERATIONGRAPH, OPERATIONGRAPH_HANDLE, HANDLE, OPTIONAL),
  FIELD(OPERATIONGRAPH, OPERATIONGRAPH_OPS, BACKEND_DESCRIPTOR, 1, MANY, NEEDED),

  ONE(ENGINEHEUR, ENGINEHEUR_OPERATION_GRAPH, BACKEND_DESCRIPTOR, NEEDED),
  ONE(ENGINEHEUR, ENGINEHEUR_MODE, HEUR_MODE, NEEDED),
  FIELD(ENGINEHEUR, ENGINEHEUR_RESULTS, BACKEND_DESCRIPTOR, 0, MANY, ANSWER),

  ONE(ENGINEHEUR, ENGINEHEUR_DEVICEPROP, BACKEND_DESCRIPTOR, OPTIONAL),
  ONE(ENGINE, ENGINE_DEVICEPROP, BACKEND_DESCRIPTOR, OPTIONAL),
  ONE(EXECUTION_PLAN, EXECUTION_PLAN_DEVICEPROP, BACKEND_DESCRIPTOR, OPTIONAL),
  ONE(DEVICEPROP, DEVICEPROP_DEVICE_ID, INT64, OPTIONAL),
  ONE(DEVICEPROP, DEVICEPROP_HANDLE, HANDLE, OPTIONAL),
  FIELD(DEVICEPROP, DEVICEPROP_JSON_REPRESENTATION, CHAR, 1, TEXT, OPTIONAL),

  ONE(ENGINE, ENGINE_OPERATION_GRAPH, BACKEND_DESCRIPTOR, NEEDED),
  ONE(ENGINE, ENGINE_GLOBAL_INDEX, INT64, NEEDED),
  FIELD(ENGINE, ENGINE_NUMERICAL_NOTE, NUMERICAL_NOTE, 0, MANY, ANSWER),
  FIELD(ENGINE, ENGINE_BEHAVIOR_NOTE, BEHAVIOR_NOTE, 0, MANY, ANSWER),
  FIELD(ENGINE, ENGINE_KNOB_INFO, BACKEND_DESCRIPTOR, 0, MANY, ANSWER),

  ONE(KNOB_INFO, KNOB_INFO_TYPE, KNOB_TYPE, ANSWER),
  ONE(KNOB_INFO, KNOB_INFO_MINIMUM_VALUE, INT64, ANSWER),
  ONE(KNOB_INFO, KNOB_INFO_MAXIMUM_VALUE, INT64, ANSWER),
  ONE(KNOB_INFO, KNOB_INFO_STRIDE, INT64, ANSWER),
  ONE(KNOB_CHOICE, KNOB_CHOICE_KNOB_TYPE, KNOB_TYPE, NEEDED),
  ONE(KNOB_CHOICE, KNOB_CHOICE_KNOB_VALUE, INT64, NEEDED),

  ONE(ENGINECFG, ENGINECFG_ENGINE, BACKEND_DESCRIPTOR, NEEDED),
  FIELD(ENGINECFG, ENGINECFG_KNOB_CHOICES, BACKEND_DESCRIPTOR, 1, MANY, OPTIONAL),

  ONE(EXECUTION_PLAN, EXECUTION_PLAN_HANDLE, HANDLE, OPTIONAL),
  ONE(EXECUTION_PLAN, EXECUTION_PLAN_ENGINE_CONFIG, BACKEND_DESCRIPTOR, NEEDED),
  ONE(EXECUTION_PLAN, EXECUTION_PLAN_WORKSPACE_SIZE, INT64, ANSWER),

  FIELD(VARIANT_PACK, VARIANT_PACK_UNIQUE_IDS, INT64, 1, MANY, NEEDED),
  FIELD(VARIANT_PACK, VARIANT_PACK_DATA_POINTERS, VOID_PTR, 1, MANY, NEEDED),
  ONE(VARIANT_PACK, VARIANT_PACK_WORKSPACE, VOID_PTR, OPTIONAL),
};
/* clang-format on */

const field *field_of(int kind, int name) {
  for (const field &f : fields)
    if (f.kind == kind && f.name == name) return &f;
  return nullptr;
}

/* The kind of descriptor that an attribute may name; -1: any. */
int kind_named(int name) {
  switch (name) {
  case CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC:
  case CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC:
  case CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC: return CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR;
  case CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR: return CUDNN_BACKEND_POINTWISE_DESCRIPTOR;
  case CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH:
  case CUDNN_ATTR_ENGINE_OPERATION_GRAPH: return CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR;
  case CUDNN_ATTR_ENGINEHEUR_RESULTS:
  case CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG: return CUDNN_BACKEND_ENGINECFG_DESCRIPTOR;
  case CUDNN_ATTR_ENGINECFG_ENGINE: return CUDNN_BACKEND_ENGINE_DESCRIPTOR;
  case CUDNN_ATTR_ENGINECFG_KNOB_CHOICES: return CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR;
  case CUDNN_ATTR_ENGINE_KNOB_INFO: return CUDNN_BACKEND_KNOB_INFO_DESCRIPTOR;
  case CUDNN_ATTR_ENGINEHEUR_DEVICEPROP:
  case CUDNN_ATTR_ENGINE_DEVICEPROP:
  case CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP: return CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR;
  case CUDNN_ATTR_OPERATIONGRAPH_OPS: return -1;
  default: return CUDNN_BACKEND_TENSOR_DESCRIPTOR;
  }
}

bool is_operation(int kind) {
  return kind >= CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR && kind <= CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR;
}

ref made(cudnnBackendDescriptorType_t kind) {
  ref d = std::make_shared<descriptor>();
  d->kind = kind;
  return d;
}

void put_one(descriptor &d, int name, cudnnBackendAttributeType_t type, int64_t n) { d.set[name] = value{ type, { n }, {}, {} }; }

/* ---- tensors and operations ---------------------------------------------------------------------------------------------------- */

bool number_of(int64_t type, number *out) {
  switch (type) {
  case CUDNN_DATA_FLOAT: *out = number::f32; return true;
  case CUDNN_DATA_DOUBLE: *out = number::f64; return true;
  case CUDNN_DATA_HALF: *out = number::f16; return true;
  case CUDNN_DATA_BFLOAT16: *out = number::bf16; return true;
  default: return false;
  }
}

tensor tensor_of(const descriptor &d) {
  number type = number::f32;
  (void)number_of(d.one(CUDNN_ATTR_TENSOR_DATA_TYPE), &type);
  return tensor{
    d.one(CUDNN_ATTR_TENSOR_UNIQUE_ID),       d.one(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT), type,
    d.one(CUDNN_ATTR_TENSOR_IS_VIRTUAL) != 0, d.all(CUDNN_ATTR_TENSOR_DIMENSIONS),     d.all(CUDNN_ATTR_TENSOR_STRIDES)
  };
}

cudnnStatus_t check_tensor(const descriptor &d) {
  number type;
  if (!number_of(d.one(CUDNN_ATTR_TENSOR_DATA_TYPE), &type))
    return fail(CUDNN_STATUS_BAD_PARAM, "a tensor's element type is %lld", (long long)d.one(CUDNN_ATTR_TENSOR_DATA_TYPE));
  const numbers &dims = d.all(CUDNN_ATTR_TENSOR_DIMENSIONS), &strides = d.all(CUDNN_ATTR_TENSOR_STRIDES);
  if (dims.size() != strides.size())
    return fail(CUDNN_STATUS_BAD_PARAM, "a tensor has %zu dimensions and %zu strides", dims.size(), strides.size());
  for (size_t i = 0; i < dims.size(); i++)
    if (dims[i] < 1 || strides[i] < 1)
      return fail(CUDNN_STATUS_BAD_PARAM, "dimension %zu of a tensor is %lld, its stride %lld", i, (long long)dims[i],
                  (long long)strides[i]);
  int64_t alignment = d.one(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT);
  if (alignment < 1 || alignment % (int64_t)size_of(type))
    return fail(CUDNN_STATUS_BAD_PARAM, "a tensor is aligned to %lld bytes, its elements have %zu", (long long)alignment,
                size_of(type));
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t check_convolution(const descriptor &d) {
  int64_t n = d.one(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS);
  if (n < 1 || n > SPACE) return fail(CUDNN_STATUS_BAD_PARAM, "a convolution of %lld dimensions", (long long)n);
  static const struct {
    int name;
    int64_t least;
  } lists[] = {
    {CUDNN_ATTR_CONVOLUTION_DILATIONS,       1},
    { CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, 1},
    { CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS,   0},
    { CUDNN_ATTR_CONVOLUTION_POST_PADDINGS,  0}
  };
  for (auto &list : lists) {
    const numbers &v = d.all(list.name);
    if ((int64_t)v.size() != n)
      return fail(CUDNN_STATUS_BAD_PARAM, "attribute %d has %zu numbers for %lld dimensions", list.name, v.size(), (long long)n);
    for (int64_t x : v)
      if (x < list.least) return fail(CUDNN_STATUS_BAD_PARAM, "attribute %d has a %lld", list.name, (long long)x);
  }
  return CUDNN_STATUS_SUCCESS;
}

/* The names of the attributes of a convolution, in order: alpha, beta, convolution, w, x, y. */
int base_of(const descriptor &d) {
  switch (d.kind) {
  case CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR: return CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA;
  case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR: return CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA;
  case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR: return CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA;
  default: return -1;
  }
}

/* A dense memory order is not asked for, but one in which no two elements share a place, where something is written. */
cudnnStatus_t check_written(const tensor &t) {
  return t.overlaps_itself()
             ? fail(CUDNN_STATUS_BAD_PARAM, "elements of tensor %lld, which is written, share a place", (long long)t.id)
             : CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t check_shapes(const descriptor &d) {
  int base = base_of(d);
  const descriptor &c = d.to(base + 2);
  tensor w = tensor_of(d.to(base + 3)), x = tensor_of(d.to(base + 4)), y = tensor_of(d.to(base + 5));
  size_t n = (size_t)c.one(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS);
  if (x.dims.size() != n + 2 || y.dims.size() != n + 2 || w.dims.size() != n + 2)
    return fail(CUDNN_STATUS_BAD_PARAM, "a convolution of %zu dimensions on tensors of %zu, %zu and %zu", n, x.dims.size(),
                w.dims.size(), y.dims.size());
  if (x.dims[1] % w.dims[1])
    return fail(CUDNN_STATUS_BAD_PARAM, "filters of %lld channels for %lld", (long long)w.dims[1], (long long)x.dims[1]);
  int64_t groups = x.dims[1] / w.dims[1];
  if (w.dims[0] % groups)
    return fail(CUDNN_STATUS_BAD_PARAM, "%lld filters in %lld groups", (long long)w.dims[0], (long long)groups);
  if (y.dims[1] != w.dims[0] || y.dims[0] != x.dims[0])
    return fail(CUDNN_STATUS_BAD_PARAM, "a result of %lld x %lld channels for a batch of %lld and %lld filters",
                (long long)y.dims[0], (long long)y.dims[1], (long long)x.dims[0], (long long)w.dims[0]);
  for (size_t i = 0; i < n; i++) {
    int64_t span = x.dims[i + 2] + c.all(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS)[i] + c.all(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS)[i] -
                   c.all(CUDNN_ATTR_CONVOLUTION_DILATIONS)[i] * (w.dims[i + 2] - 1) - 1;
    if (span < 0 || y.dims[i + 2] != span / c.all(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES)[i] + 1)
      return fail(CUDNN_STATUS_BAD_PARAM, "axis %zu: %lld with %lld taps does not make %lld", i, (long long)x.dims[i + 2],
                  (long long)w.dims[i + 2], (long long)y.dims[i + 2]);
  }
  if (d.set.at(base).type != d.set.at(base + 1).type) return fail(CUDNN_STATUS_BAD_PARAM, "alpha and beta differ in type");
  return check_written(base == CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA    ? y
                       : base == CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA ? x
                                                                                 : w);
}

bool is_binary(int64_t mode) {
  return mode == CUDNN_POINTWISE_ADD || mode == CUDNN_POINTWISE_MUL || mode == CUDNN_POINTWISE_MIN || mode == CUDNN_POINTWISE_MAX ||
         mode == CUDNN_POINTWISE_SUB;
}

cudnnStatus_t check_pointwise(const descriptor &d) {
  int64_t mode = d.one(CUDNN_ATTR_POINTWISE_MODE);
  if (!is_binary(mode) && mode != CUDNN_POINTWISE_IDENTITY && mode != CUDNN_POINTWISE_RELU_FWD)
    return fail(CUDNN_STATUS_NOT_SUPPORTED, "pointwise mode %lld", (long long)mode);
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t check_pointwise_operation(const descriptor &d) {
  tensor x = tensor_of(d.to(CUDNN_ATTR_OPERATION_POINTWISE_XDESC)), y = tensor_of(d.to(CUDNN_ATTR_OPERATION_POINTWISE_YDESC));
  bool binary = is_binary(d.to(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR).one(CUDNN_ATTR_POINTWISE_MODE));
  if (binary != d.has(CUDNN_ATTR_OPERATION_POINTWISE_BDESC))
    return fail(CUDNN_STATUS_BAD_PARAM, binary ? "a pointwise step lacks its second input" : "a pointwise step has a second input");
  tensor b = binary ? tensor_of(d.to(CUDNN_ATTR_OPERATION_POINTWISE_BDESC)) : x;
  if (x.dims.size() != y.dims.size() || b.dims.size() != y.dims.size())
    return fail(CUDNN_STATUS_BAD_PARAM, "a pointwise step on tensors of %zu, %zu and %zu dimensions", x.dims.size(), b.dims.size(),
                y.dims.size());
  for (size_t i = 0; i < y.dims.size(); i++)
    if ((x.dims[i] != y.dims[i] && x.dims[i] != 1) || (b.dims[i] != y.dims[i] && b.dims[i] != 1) ||
        (x.dims[i] != y.dims[i] && b.dims[i] != y.dims[i]))
      return fail(CUDNN_STATUS_BAD_PARAM, "axis %zu of a pointwise step: %lld and %lld do not make %lld", i, (long long)x.dims[i],
                  (long long)b.dims[i], (long long)y.dims[i]);
  return check_written(y);
}

/* ---- graphs ---------------------------------------------------------------------------------------------------------------------- */

step step_of(const descriptor &d) {
  step s = {};
  int base = base_of(d);
  if (base < 0) {
    const descriptor &p = d.to(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR);
    s.what = act::pointwise;
    s.mode = (cudnnPointwiseMode_t)p.one(CUDNN_ATTR_POINTWISE_MODE);
    s.floor = p.real(CUDNN_ATTR_POINTWISE_RELU_LOWER_CLIP, 0);
    s.ceiling = p.real(CUDNN_ATTR_POINTWISE_RELU_UPPER_CLIP, HUGE_VAL);
    s.slope = p.real(CUDNN_ATTR_POINTWISE_RELU_LOWER_CLIP_SLOPE, 0);
    s.keeps_nan = p.one(CUDNN_ATTR_POINTWISE_NAN_PROPAGATION, CUDNN_NOT_PROPAGATE_NAN) == CUDNN_PROPAGATE_NAN;
    s.alpha = d.real(CUDNN_ATTR_OPERATION_POINTWISE_ALPHA1, 1);
    s.beta = d.real(CUDNN_ATTR_OPERATION_POINTWISE_ALPHA2, 1);
    s.n_in = d.has(CUDNN_ATTR_OPERATION_POINTWISE_BDESC) ? 2 : 1;
    s.in[0] = d.to(CUDNN_ATTR_OPERATION_POINTWISE_XDESC).one(CUDNN_ATTR_TENSOR_UNIQUE_ID);
    if (s.n_in == 2) s.in[1] = d.to(CUDNN_ATTR_OPERATION_POINTWISE_BDESC).one(CUDNN_ATTR_TENSOR_UNIQUE_ID);
    s.out = d.to(CUDNN_ATTR_OPERATION_POINTWISE_YDESC).one(CUDNN_ATTR_TENSOR_UNIQUE_ID);
    return s;
  }
  const descriptor &c = d.to(base + 2);
  int64_t w = d.to(base + 3).one(CUDNN_ATTR_TENSOR_UNIQUE_ID), x = d.to(base + 4).one(CUDNN_ATTR_TENSOR_UNIQUE_ID),
          y = d.to(base + 5).one(CUDNN_ATTR_TENSOR_UNIQUE_ID);
  s.what = base == CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA    ? act::forward
           : base == CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA ? act::data
                                                                     : act::filter;
  s.n_in = 2;
  s.in[0] = s.what == act::data ? y : x;
  s.in[1] = s.what == act::filter ? y : w;
  s.out = s.what == act::forward ? y : s.what == act::data ? x : w;
  s.alpha = d.real(base, 1);
  s.beta = d.real(base + 1, 0);
  s.low = c.all(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS);
  s.stride = c.all(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES);
  s.dilation = c.all(CUDNN_ATTR_CONVOLUTION_DILATIONS);
  return s;
}

void tensors_in(const descriptor &operation, std::vector<tensor> &list) {
  for (auto &entry : operation.set)
    for (const ref &d : entry.second.d)
      if (d->kind == CUDNN_BACKEND_TENSOR_DESCRIPTOR) list.push_back(tensor_of(*d));
}

/* Puts the steps behind what they need, and sees that they hang together. */
cudnnStatus_t understand(descriptor &graph) {
  auto p = std::make_shared<program>();
  std::vector<step> left;
  std::set<int64_t> written, known;
  for (const ref &operation : graph.list(CUDNN_ATTR_OPERATIONGRAPH_OPS)) {
    std::vector<tensor> list;
    tensors_in(*operation, list);
    for (tensor &t : list) {
      auto seen = p->tensors.emplace(t.id, t);
      if (!seen.second && !(seen.first->second == t))
        return fail(CUDNN_STATUS_BAD_PARAM, "tensor %lld is described in two ways", (long long)t.id);
    }
    left.push_back(step_of(*operation));
    if (!written.insert(left.back().out).second)
      return fail(CUDNN_STATUS_BAD_PARAM, "tensor %lld is written twice", (long long)left.back().out);
  }
  std::set<int64_t> read;
  for (const step &s : left) read.insert(s.in, s.in + s.n_in);
  for (auto &entry : p->tensors) {
    if (entry.second.is_virtual && !(written.count(entry.first) && read.count(entry.first)))
      return fail(CUDNN_STATUS_BAD_PARAM, "the virtual tensor %lld is not both written and read", (long long)entry.first);
    if (!written.count(entry.first)) known.insert(entry.first);
  }
  for (const step &s : left)
    if (s.what != act::pointwise && s.beta != 0 && p->tensors.at(s.out).is_virtual)
      return fail(CUDNN_STATUS_BAD_PARAM, "beta reads the virtual tensor %lld", (long long)s.out);
  while (!left.empty()) {
    size_t i = 0;
    while (i < left.size() && !(known.count(left[i].in[0]) && (left[i].n_in == 1 || known.count(left[i].in[1])))) i++;
    if (i == left.size()) return fail(CUDNN_STATUS_BAD_PARAM, "the operations need each other in a circle");
    known.insert(left[i].out);
    p->steps.push_back(left[i]);
    left.erase(left.begin() + (int64_t)i);
  }
  graph.what = p;
  return CUDNN_STATUS_SUCCESS;
}

/* ---- engines --------------------------------------------------------------------------------------------------------------------- */

/* Types of a graph: what the convolution reads and writes, and what else comes in or goes out. */
struct traits {
  bool good; /* one convolution, then steps that each read the one before; cross-correlation; a type to add in that fits */
  bool fused, uniform, f32, f64, half, eights;
  act what;
};

traits traits_of(const descriptor &graph) {
  const program &p = *graph.what;
  traits t = { p.steps[0].what != act::pointwise, p.is_fused(), true, false, false, false, true, p.steps[0].what };
  if (!t.good) return t;
  for (size_t i = 1; i < p.steps.size(); i++) {
    const step &s = p.steps[i];
    t.good &= s.what == act::pointwise && (s.in[0] == p.steps[i - 1].out || (s.n_in == 2 && s.in[1] == p.steps[i - 1].out));
  }
  if (p.is_fused()) t.good &= t.what == act::forward;
  for (const ref &d : graph.list(CUDNN_ATTR_OPERATIONGRAPH_OPS)) {
    int base = base_of(*d);
    if (base < 0) continue;
    const descriptor &c = d->to(base + 2);
    bool wide = tensor_of(d->to(base + 3)).type == number::f64;
    t.good &= c.one(CUDNN_ATTR_CONVOLUTION_CONV_MODE) == CUDNN_CROSS_CORRELATION;
    t.good &= c.one(CUDNN_ATTR_CONVOLUTION_COMP_TYPE) == (wide ? CUDNN_DATA_DOUBLE : CUDNN_DATA_FLOAT);
    tensor w = tensor_of(d->to(base + 3)), x = tensor_of(d->to(base + 4));
    bool grouped = x.dims[1] != w.dims[1];
    t.eights = !grouped && (t.what == act::forward || (w.dims[0] % 8 == 0 && w.dims[1] % 8 == 0));
  }
  number type = p.tensors.at(p.steps[0].in[0]).type;
  t.f32 = type == number::f32;
  t.f64 = type == number::f64;
  t.half = type == number::f16 || type == number::bf16;
  t.good &= p.tensors.at(p.steps[0].in[1]).type == type;
  t.uniform = p.tensors.at(p.steps.back().out).type == type;
  return t;
}

struct engine {
  int64_t index, most; /* the largest value of its one knob; 0: it has none */
  numbers notes, behaviours;
  bool (*takes)(const traits &t);
  int64_t workspace; /* bytes; -1: grows with the result */
  manner how;
};

const int64_t knob = CUDNN_KNOB_TYPE_KERNEL_CFG;

const engine engines[] = {
  {0,
   0,      { CUDNN_NUMERICAL_NOTE_STRICT_NAN_PROP },
   {},
   [](const traits &t) { return t.uniform && (!t.fused || t.f32); },
   0,                                                                                                                                                                                           { false, false }},
  { 7,
   1,      { CUDNN_NUMERICAL_NOTE_TENSOR_CORE },
   { CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION, CUDNN_BEHAVIOR_NOTE_SUPPORTS_CUDA_GRAPH_NATIVE_API },
   [](const traits &t) { return t.what == act::forward && t.half && (t.fused || !t.uniform); },
   0,                                                                                                                                                                                           { true, false } },
  { 20,
   0,      { CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION, CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC },
   {},
   [](const traits &t) { return t.uniform && t.what != act::forward; },
   0,                                                                                                                                                                                           { false, true } },
  { 28,
   0,      {},
   {},
   [](const traits &t) { return t.uniform && (t.f32 || (t.f64 && !t.fused && t.what == act::forward)); },
   0,                                                                                                                                                                                           { false, false }},
  { 40, 0, {},                                                                                          {}, [](const traits &t) { return t.uniform && !t.f64 && !t.fused; }, (int64_t)16 << 30, { false, false }},
  { 62,
   2,      { CUDNN_NUMERICAL_NOTE_TENSOR_CORE },
   {},
   [](const traits &t) { return t.uniform && (t.f32 || (t.half && t.eights && !t.fused)); },
   -1,
   { true, false }                                                                                                                                                                                              },
  { 25,
   0,      { CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC },
   {},
   [](const traits &t) { return t.uniform && t.f32 && t.what == act::data; },
   0,                                                                                                                                                                                           { false, true } },
};

const engine *engine_at(int64_t index) {
  for (const engine &e : engines)
    if (e.index == index) return &e;
  return nullptr;
}

/* Masks for specs: bit i is for the ith of the list. ENGINES lets it be; with REFUSES it says only when it runs that it cannot. */
bool is_set(const char *mask, long long usual, const engine &e) { return pn_fake_setting(mask, usual) >> (&e - engines) & 1; }
bool takes(const engine &e, const traits &t) { return t.good && e.takes(t) && is_set("ENGINES", -1, e); }

ref configured(const ref &graph, const engine *e, int64_t choice) {
  ref made_engine = made(CUDNN_BACKEND_ENGINE_DESCRIPTOR), config = made(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
  made_engine->set[CUDNN_ATTR_ENGINE_OPERATION_GRAPH] = value{ CUDNN_TYPE_BACKEND_DESCRIPTOR, {}, {}, { graph } };
  put_one(*made_engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, e->index);
  made_engine->engine = e;
  made_engine->final = config->final = true;
  config->set[CUDNN_ATTR_ENGINECFG_ENGINE] = value{ CUDNN_TYPE_BACKEND_DESCRIPTOR, {}, {}, { made_engine } };
  if (e->most) {
    ref chosen = made(CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR);
    put_one(*chosen, CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, knob);
    put_one(*chosen, CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, choice);
    chosen->final = true;
    config->set[CUDNN_ATTR_ENGINECFG_KNOB_CHOICES] = value{ CUDNN_TYPE_BACKEND_DESCRIPTOR, {}, {}, { chosen } };
  }
  return config;
}

/* A plan of this configuration fails, as some do in earnest: the third of the tensor-core engine. */
bool is_broken(const engine &e, int64_t choice) { return e.index == 62 && choice == 2; }

cudnnStatus_t guess(descriptor &d) {
  static const struct {
    int64_t index, choice;
  } first[] = { { 62, 2 }, { 40, 0 }, { 62, 0 }, { 7, 1 }, { 20, 0 }, { 62, 1 }, { 7, 0 }, { 28, 0 } },
    careful[] = { { 25, 0 }, { 28, 0 }, { 20, 0 }, { 0, 0 } };
  const ref &graph = d.list(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH)[0];
  int64_t mode = d.one(CUDNN_ATTR_ENGINEHEUR_MODE);
  traits t = traits_of(*graph);
  auto consider = [&](int64_t index, int64_t choice) {
    const engine *e = engine_at(index);
    if (takes(*e, t)) d.found.push_back(configured(graph, e, choice));
  };
  if (mode == CUDNN_HEUR_MODE_FALLBACK)
    for (auto &g : careful) consider(g.index, g.choice);
  else if (mode == CUDNN_HEUR_MODE_B)
    for (size_t i = sizeof first / sizeof *first; i-- > 0;) consider(first[i].index, first[i].choice);
  else
    for (auto &g : first) consider(g.index, g.choice);
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t check_engine(descriptor &d) {
  const engine *e = engine_at(d.one(CUDNN_ATTR_ENGINE_GLOBAL_INDEX));
  if (!e || !takes(*e, traits_of(d.to(CUDNN_ATTR_ENGINE_OPERATION_GRAPH))))
    return fail(CUDNN_STATUS_NOT_SUPPORTED, "engine %lld does not take this graph",
                (long long)d.one(CUDNN_ATTR_ENGINE_GLOBAL_INDEX));
  d.engine = e;
  return CUDNN_STATUS_SUCCESS;
}

int64_t choice_of(const descriptor &config) {
  return config.has(CUDNN_ATTR_ENGINECFG_KNOB_CHOICES)
             ? config.to(CUDNN_ATTR_ENGINECFG_KNOB_CHOICES).one(CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE)
             : 0;
}

cudnnStatus_t check_config(const descriptor &d) {
  const engine *e = d.to(CUDNN_ATTR_ENGINECFG_ENGINE).engine;
  if (!d.has(CUDNN_ATTR_ENGINECFG_KNOB_CHOICES)) return CUDNN_STATUS_SUCCESS;
  std::set<int64_t> seen;
  for (const ref &choice : d.list(CUDNN_ATTR_ENGINECFG_KNOB_CHOICES)) {
    int64_t type = choice->one(CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE), v = choice->one(CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE);
    if (!e->most || type != knob || v < 0 || v > e->most || !seen.insert(type).second)
      return fail(CUDNN_STATUS_NOT_SUPPORTED, "engine %lld has no knob %lld with a %lld", (long long)e->index, (long long)type,
                  (long long)v);
  }
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t check_plan(descriptor &d) {
  const descriptor &config = d.to(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG), &chosen = config.to(CUDNN_ATTR_ENGINECFG_ENGINE);
  const engine *e = chosen.engine;
  if (is_broken(*e, choice_of(config)))
    return fail(CUDNN_STATUS_NOT_SUPPORTED, "engine %lld cannot be made so for this device", (long long)e->index);
  d.engine = e;
  d.what = chosen.to(CUDNN_ATTR_ENGINE_OPERATION_GRAPH).what;
  const tensor &out = d.what->tensors.at(d.what->convolution().out);
  put_one(d, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64,
          e->workspace < 0 ? out.count() * (int64_t)size_of(out.type) + 131 : e->workspace);
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t check_pack(const descriptor &d) {
  const numbers &ids = d.all(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS), &at = d.all(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS);
  if (ids.size() != at.size()) return fail(CUDNN_STATUS_BAD_PARAM, "%zu ids and %zu addresses", ids.size(), at.size());
  if (std::set<int64_t>(ids.begin(), ids.end()).size() != ids.size())
    return fail(CUDNN_STATUS_BAD_PARAM_DUPLICATED_ENTRIES, "a pack names a tensor twice");
  return CUDNN_STATUS_SUCCESS;
}

/* A device by its number, by a handle, or as text, which stands for one that is not here. */
cudnnStatus_t check_device(const descriptor &d) {
  if (d.set.size() != 1) return fail(CUDNN_STATUS_BAD_PARAM, "a device is described in %zu ways", d.set.size());
  if (d.has(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION) && d.one(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION) != '{')
    return fail(CUDNN_STATUS_BAD_PARAM, "the description of a device is no JSON object");
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t finish(descriptor &d) {
  for (const field &f : fields)
    if (f.kind == d.kind && f.role == NEEDED && !d.has(f.name))
      return fail(CUDNN_STATUS_BAD_PARAM, "attribute %d is not set", f.name);
  switch (d.kind) {
  case CUDNN_BACKEND_TENSOR_DESCRIPTOR: return check_tensor(d);
  case CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR: return check_convolution(d);
  case CUDNN_BACKEND_POINTWISE_DESCRIPTOR: return check_pointwise(d);
  case CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR: return check_pointwise_operation(d);
  case CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR: return understand(d);
  case CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR: return guess(d);
  case CUDNN_BACKEND_ENGINE_DESCRIPTOR: return check_engine(d);
  case CUDNN_BACKEND_ENGINECFG_DESCRIPTOR: return check_config(d);
  case CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR: return check_plan(d);
  case CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR: return check_pack(d);
  case CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR: return check_device(d);
  case CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR: return CUDNN_STATUS_SUCCESS;
  case CUDNN_BACKEND_KNOB_INFO_DESCRIPTOR: return fail(CUDNN_STATUS_BAD_PARAM, "what is told of a knob is not made by a caller");
  default: return check_shapes(d);
  }
}

} /* namespace */

/* ---- the library -------------------------------------------------------------------------------------------------------------------- */

struct cudnnContext {
  cudaStream_t stream;
};

static std::set<cudnnHandle_t> handles;

size_t cudnnGetVersion(void) { return (size_t)pn_fake_setting("CUDNN", CUDNN_VERSION); }
size_t cudnnGetCudartVersion(void) { return 13000; }

const char *cudnnGetErrorString(cudnnStatus_t status) {
#define NAME(status)                                                                                                               \
  case CUDNN_STATUS_##status: return "CUDNN_STATUS_" #status
  switch (status) {
    NAME(SUCCESS);
    NAME(NOT_INITIALIZED);
    NAME(BAD_PARAM);
    NAME(BAD_PARAM_NULL_POINTER);
    NAME(BAD_PARAM_MISALIGNED_POINTER);
    NAME(BAD_PARAM_NOT_FINALIZED);
    NAME(BAD_PARAM_OUT_OF_BOUND);
    NAME(BAD_PARAM_SIZE_INSUFFICIENT);
    NAME(BAD_PARAM_SHAPE_MISMATCH);
    NAME(BAD_PARAM_DUPLICATED_ENTRIES);
    NAME(BAD_PARAM_ATTRIBUTE_TYPE);
    NAME(BAD_PARAM_DESCRIPTOR_TYPE);
    NAME(NOT_SUPPORTED);
    NAME(NOT_SUPPORTED_GRAPH_PATTERN);
    NAME(NOT_SUPPORTED_SHAPE);
    NAME(NOT_SUPPORTED_DATA_TYPE);
    NAME(NOT_SUPPORTED_LAYOUT);
    NAME(NOT_SUPPORTED_ARCH_MISMATCH);
    NAME(NOT_SUPPORTED_PADDING);
    NAME(INTERNAL_ERROR);
    NAME(INTERNAL_ERROR_HOST_ALLOCATION_FAILED);
    NAME(EXECUTION_FAILED);
  }
#undef NAME
  return "CUDNN_UNKNOWN_STATUS";
}

void cudnnGetLastErrorString(char *message, size_t max_size) {
  if (!message || !max_size) return;
  snprintf(message, max_size, "%s", last.c_str());
  last.clear();
}

cudnnStatus_t cudnnCreate(cudnnHandle_t *handle) {
  CALL(CUDNN_STATUS_NOT_INITIALIZED);
  if (!handle) return fail(CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "no place for the handle");
  *handle = new cudnnContext{ nullptr };
  handles.insert(*handle);
  pn_fake_alive("cudnnHandle", 1);
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnDestroy(cudnnHandle_t handle) {
  CALL(CUDNN_STATUS_INTERNAL_ERROR);
  if (!handles.erase(handle)) return fail(CUDNN_STATUS_BAD_PARAM, "no such handle");
  delete handle;
  pn_fake_alive("cudnnHandle", -1);
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) {
  CALL(CUDNN_STATUS_INTERNAL_ERROR);
  if (!handles.count(handle)) return fail(CUDNN_STATUS_BAD_PARAM, "no such handle");
  handle->stream = stream;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnGetStream(cudnnHandle_t handle, cudaStream_t *stream) {
  CALL(CUDNN_STATUS_INTERNAL_ERROR);
  if (!handles.count(handle) || !stream) return fail(CUDNN_STATUS_BAD_PARAM, "no such handle, or no place for the stream");
  *stream = handle->stream;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t *out) {
  CALL(CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED);
  if (!out) return fail(CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "no place for the descriptor");
  bool known = false;
  for (const field &f : fields) known |= f.kind == type;
  if (!known) return fail(CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED, "no descriptor of kind %d", (int)type);
  ref d = made(type);
  living[d.get()] = d;
  *out = d.get();
  pn_fake_alive("cudnnBackendDescriptor", 1);
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t p) {
  CALL(CUDNN_STATUS_INTERNAL_ERROR);
  if (!p) return fail(CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "no descriptor");
  if (!living.erase(p)) return fail(CUDNN_STATUS_BAD_PARAM, "no such descriptor, or no more");
  pn_fake_alive("cudnnBackendDescriptor", -1);
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t p) {
  CALL(CUDNN_STATUS_INTERNAL_ERROR);
  ref d = find(p);
  if (!d) return fail(CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "no such descriptor");
  if (d->final) return fail(CUDNN_STATUS_BAD_PARAM, "the descriptor is final already");
  TRY(finish(*d));
  d->final = true;
  return CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t take_descriptor(const field &f, const void *p, ref *out) {
  ref d = find(p);
  if (!d) return fail(CUDNN_STATUS_BAD_PARAM, "attribute %d names no descriptor that lives", f.name);
  int want = kind_named(f.name);
  if (want < 0 ? !is_operation(d->kind) : (int)d->kind != want)
    return fail(CUDNN_STATUS_BAD_PARAM, "attribute %d names a descriptor of kind %d", f.name, (int)d->kind);
  if (!d->final) return fail(CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED, "attribute %d names a descriptor that is not final", f.name);
  *out = d;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t p, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t count, const void *elements) {
  CALL(CUDNN_STATUS_INTERNAL_ERROR);
  ref d = find(p);
  if (!d) return fail(CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "no such descriptor");
  const field *f = field_of(d->kind, name);
  if (!f || f->role == ANSWER)
    return fail(CUDNN_STATUS_BAD_PARAM, "a descriptor of kind %d takes no attribute %d", (int)d->kind, name);
  if (d->final) return fail(CUDNN_STATUS_BAD_PARAM, "the descriptor is final");
  bool factor = f->type == CUDNN_TYPE_FLOAT && type == CUDNN_TYPE_DOUBLE; /* alpha and beta may be either */
  if (type != f->type && !factor)
    return fail(CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE, "attribute %d is of type %d, not %d", name, f->type, (int)type);
  if (count < f->least || count > f->most || !elements)
    return fail(CUDNN_STATUS_BAD_PARAM, "attribute %d takes %lld to %lld elements, not %lld", name, (long long)f->least,
                (long long)f->most, elements ? (long long)count : 0);
  value v = { type, {}, {}, {} };
  for (int64_t i = 0; i < count; i++) switch (type) {
    case CUDNN_TYPE_CHAR: v.n.push_back(((const char *)elements)[i]); break;
    case CUDNN_TYPE_BOOLEAN: v.n.push_back(((const bool *)elements)[i]); break;
    case CUDNN_TYPE_INT64: v.n.push_back(((const int64_t *)elements)[i]); break;
    case CUDNN_TYPE_FLOAT: v.f.push_back((double)((const float *)elements)[i]); break;
    case CUDNN_TYPE_DOUBLE: v.f.push_back(((const double *)elements)[i]); break;
    case CUDNN_TYPE_HANDLE:
      v.n.push_back((int64_t)(intptr_t)((void *const *)elements)[i]);
      if (!handles.count((cudnnHandle_t)((void *const *)elements)[i])) return fail(CUDNN_STATUS_BAD_PARAM, "no such handle");
      break;
    case CUDNN_TYPE_VOID_PTR: v.n.push_back((int64_t)(intptr_t)((void *const *)elements)[i]); break;
    case CUDNN_TYPE_BACKEND_DESCRIPTOR: {
      ref named;
      TRY(take_descriptor(*f, ((void *const *)elements)[i], &named));
      v.d.push_back(named);
      break;
    }
    default: v.n.push_back(((const int32_t *)elements)[i]); /* choices */
    }
  d->set[name] = v;
  return CUDNN_STATUS_SUCCESS;
}

/* What a descriptor says of itself, as descriptors or numbers. */
static value answer(const descriptor &d, const field &f, int64_t *bound) {
  auto had = d.set.find(f.name);
  value v = { (cudnnBackendAttributeType_t)f.type, {}, {}, {} };
  if (f.name == CUDNN_ATTR_ENGINEHEUR_RESULTS) {
    v.d = d.found;
    *bound = 10 + (int64_t)d.found.size();
    return v;
  }
  if (f.name == CUDNN_ATTR_ENGINE_NUMERICAL_NOTE) v.n = d.engine->notes;
  else if (f.name == CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE) v.n = d.engine->behaviours;
  else if (f.name == CUDNN_ATTR_ENGINE_KNOB_INFO && d.engine->most) {
    ref info = made(CUDNN_BACKEND_KNOB_INFO_DESCRIPTOR);
    put_one(*info, CUDNN_ATTR_KNOB_INFO_TYPE, CUDNN_TYPE_KNOB_TYPE, knob);
    put_one(*info, CUDNN_ATTR_KNOB_INFO_MINIMUM_VALUE, CUDNN_TYPE_INT64, 0);
    put_one(*info, CUDNN_ATTR_KNOB_INFO_MAXIMUM_VALUE, CUDNN_TYPE_INT64, d.engine->most);
    put_one(*info, CUDNN_ATTR_KNOB_INFO_STRIDE, CUDNN_TYPE_INT64, 1);
    info->final = true;
    v.d = { info };
  } else if (had != d.set.end()) v = had->second;
  *bound = v.count();
  return v;
}

cudnnStatus_t cudnnBackendGetAttribute(const cudnnBackendDescriptor_t p, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t requested, int64_t *count, void *elements) {
  CALL(CUDNN_STATUS_INTERNAL_ERROR);
  ref d = find(p);
  if (!d) return fail(CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "no such descriptor");
  if (!d->final) return fail(CUDNN_STATUS_NOT_INITIALIZED, "the descriptor is not final");
  const field *f = field_of(d->kind, name);
  if (!f) return fail(CUDNN_STATUS_BAD_PARAM, "a descriptor of kind %d has no attribute %d", (int)d->kind, name);
  if (type != f->type)
    return fail(CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE, "attribute %d is of type %d, not %d", name, f->type, (int)type);
  if (requested < 0 || (requested > 0 && !elements)) return fail(CUDNN_STATUS_BAD_PARAM, "no place for attribute %d", name);
  int64_t bound;
  value v = answer(*d, *f, &bound);
  if (!requested) {
    if (count) *count = bound;
    return CUDNN_STATUS_SUCCESS;
  }
  int64_t n = requested < v.count() ? requested : v.count();
  for (int64_t i = 0; i < n; i++) switch (type) {
    case CUDNN_TYPE_CHAR: ((char *)elements)[i] = (char)v.n[(size_t)i]; break;
    case CUDNN_TYPE_BOOLEAN: ((bool *)elements)[i] = v.n[(size_t)i] != 0; break;
    case CUDNN_TYPE_INT64: ((int64_t *)elements)[i] = v.n[(size_t)i]; break;
    case CUDNN_TYPE_FLOAT: ((float *)elements)[i] = (float)v.f[(size_t)i]; break;
    case CUDNN_TYPE_DOUBLE: ((double *)elements)[i] = v.f[(size_t)i]; break;
    case CUDNN_TYPE_HANDLE:
    case CUDNN_TYPE_VOID_PTR: ((void **)elements)[i] = (void *)(intptr_t)v.n[(size_t)i]; break;
    case CUDNN_TYPE_BACKEND_DESCRIPTOR: { /* into a descriptor that the caller has made */
      ref into = find(((void **)elements)[i]);
      if (!into || into->final || into->kind != v.d[(size_t)i]->kind)
        return fail(CUDNN_STATUS_BAD_PARAM, "attribute %d is written into fresh descriptors of kind %d", name,
                    (int)v.d[(size_t)i]->kind);
      *into = *v.d[(size_t)i];
      break;
    }
    default: ((int32_t *)elements)[i] = (int32_t)v.n[(size_t)i];
    }
  if (count) *count = n;
  return CUDNN_STATUS_SUCCESS;
}

/* Every tensor must lie in one allocation, where its alignment says, and what is written apart from what is read. */
static cudnnStatus_t check_places(cudaStream_t stream, const program &p, const std::map<int64_t, void *> &where) {
  for (auto &entry : p.tensors) {
    const tensor &t = entry.second;
    if (t.is_virtual) continue;
    auto at = where.find(t.id);
    if (at == where.end()) return fail(CUDNN_STATUS_BAD_PARAM, "the pack has no tensor %lld", (long long)t.id);
    if ((uintptr_t)at->second % (uintptr_t)t.alignment)
      return fail(CUDNN_STATUS_BAD_PARAM_MISALIGNED_POINTER, "tensor %lld is not aligned to %lld bytes", (long long)t.id,
                  (long long)t.alignment);
    if (!pn_fake_owns(stream, at->second, (size_t)t.extent()))
      return fail(CUDNN_STATUS_EXECUTION_FAILED, "tensor %lld does not lie inside an allocation of the device", (long long)t.id);
  }
  for (const step &s : p.steps)
    for (auto &entry : p.tensors) {
      const tensor &out = p.tensors.at(s.out), &other = entry.second;
      if (out.is_virtual || other.is_virtual || out.id == other.id) continue;
      if (tensors_collide(out, where.at(out.id), other, where.at(other.id)))
        return fail(CUDNN_STATUS_EXECUTION_FAILED, "tensor %lld is written where tensor %lld lies", (long long)out.id,
                    (long long)other.id);
    }
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan_p, cudnnBackendDescriptor_t pack_p) {
  CALL(CUDNN_STATUS_EXECUTION_FAILED);
  ref plan = find(plan_p), pack = find(pack_p);
  if (!handles.count(handle)) return fail(CUDNN_STATUS_BAD_PARAM, "no such handle");
  if (!plan || !pack || plan->kind != CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR ||
      pack->kind != CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR)
    return fail(CUDNN_STATUS_BAD_PARAM, "a plan and a pack are wanted");
  if (!plan->final || !pack->final) return fail(CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED, "the plan or the pack is not final");
  std::map<int64_t, void *> where;
  const numbers &ids = pack->all(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS), &at = pack->all(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS);
  for (size_t i = 0; i < ids.size(); i++) where[ids[i]] = (void *)(intptr_t)at[i];
  TRY(check_places(handle->stream, *plan->what, where));
  size_t workspace = (size_t)plan->one(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE);
  void *room = (void *)(intptr_t)pack->one(CUDNN_ATTR_VARIANT_PACK_WORKSPACE);
  if (workspace && !pn_fake_owns(handle->stream, room, workspace))
    return fail(CUDNN_STATUS_BAD_PARAM_SIZE_INSUFFICIENT, "the workspace has not the %zu bytes that the plan asks for", workspace);
  for (auto &entry : plan->what->tensors)
    if (workspace && !entry.second.is_virtual) {
      char *p = (char *)where.at(entry.first), *w = (char *)room;
      if (p < w + workspace && w < p + entry.second.extent())
        return fail(CUDNN_STATUS_EXECUTION_FAILED, "the workspace lies on tensor %lld", (long long)entry.first);
    }
  std::shared_ptr<const program> what = plan->what;
  manner how = plan->engine->how;
  if (is_set("REFUSES", 0, *plan->engine)) {
    (void)pn_fake_push(handle->stream, "half a convolution", [=] { program_spoil(*what, where); });
    return fail(CUDNN_STATUS_NOT_SUPPORTED, "engine %lld does not run this after all", (long long)plan->engine->index);
  }
  cudaError_t rc = pn_fake_push(handle->stream, "a convolution", [=] {
    program_run(*what, where, how);
    if (workspace) memset(room, 0xa5, workspace);
  });
  return rc == cudaSuccess ? CUDNN_STATUS_SUCCESS : fail(CUDNN_STATUS_EXECUTION_FAILED, "%s", cudaGetErrorString(rc));
}
