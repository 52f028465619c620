/* cudnn_plan.c: convolutions by cuDNN's graph interface; the only file that calls cuDNN. See cudnn_plan.h.
**
** A problem becomes a graph of one convolution, with the bias and relu behind it where asked: the pattern for which cuDNN has
** compiled kernels. Its heuristics list engines with their knobs. Left out are those whose notes say that they round what they
** read, add in less than f32 or, unless allowed, in an order of chance. */
#include "cudnn_plan.h"
#include <cudnn.h>
#include <string.h>

#if CUDNN_VERSION < 90800
#error "cuDNN 9.8 or later: earlier headers cannot describe a device that is not there"
#endif

/* Of one builder: the question, the configurations, the engine of one and its knobs. */
enum { MOST_PIECES = 1 + PN_CUDNN_MOST_OFFERS + 1 + PN_MOST_KNOBS };
enum { UID_X = 1, UID_W, UID_Y, UID_BIAS, UID_PRODUCT, UID_SUM };

/* ---- statuses and descriptors ------------------------------------------------------------------------------------------------ */

static int check(cudnnStatus_t status, const char *doing) {
  char why[512] = "";
  if (status == CUDNN_STATUS_SUCCESS) return 0;
  cudnnGetLastErrorString(why, sizeof why);
  (void)pn_fail("cuDNN: cannot %s: %s%s%s", doing, cudnnGetErrorString(status), *why ? ": " : "", why);
  return (int)status / 1000 == CUDNN_STATUS_NOT_SUPPORTED / 1000 ? PN_CUDNN_NONE : -1; /* the thousands are the category */
}

/* Descriptors in the making. The first failure stays in rc, and what comes after it does nothing. */
typedef struct builder {
  cudnnBackendDescriptor_t pieces[MOST_PIECES], device; /* device: set where none is there */
  cudnnHandle_t handle;
  int n, rc;
  const char *doing;
} builder;

static builder builder_like(const builder *b) { return (builder){ .device = b->device, .handle = b->handle }; }

static void destroy_from(builder *b, int first) { /* what was made last goes first */
  while (b->n > first) (void)cudnnBackendDestroyDescriptor(b->pieces[--b->n]);
}

static cudnnBackendDescriptor_t make(builder *b, cudnnBackendDescriptorType_t type) {
  cudnnBackendDescriptor_t d = NULL;
  if (b->rc) return NULL;
  if (b->n == MOST_PIECES) b->rc = pn_fail("cuDNN: cannot %s: more than %d descriptors", b->doing, MOST_PIECES);
  else b->rc = check(cudnnBackendCreateDescriptor(type, &d), b->doing);
  return b->rc ? NULL : (b->pieces[b->n++] = d);
}

static void set(builder *b, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                int64_t count, const void *values) {
  if (!b->rc) b->rc = check(cudnnBackendSetAttribute(d, name, type, count, values), b->doing);
}

static void link_to(builder *b, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name, cudnnBackendDescriptor_t other) {
  set(b, d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &other);
}

static int64_t get(builder *b, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                   int64_t most, void *values) {
  int64_t count = 0;
  if (!b->rc) b->rc = check(cudnnBackendGetAttribute(d, name, type, most, &count, values), b->doing);
  return b->rc ? 0 : pn_min64(count, most);
}

static cudnnBackendDescriptor_t finish(builder *b, cudnnBackendDescriptor_t d) {
  if (!b->rc) b->rc = check(cudnnBackendFinalize(d), b->doing);
  return d;
}

/* ---- the device -------------------------------------------------------------------------------------------------------------- */

static cudnnHandle_t handles[PN_MOST_DEVICES];

size_t pn_cudnn_version(void) { return cudnnGetVersion(); }

/* NVIDIA's release notes, and PyTorch, which goes round them, tell of wrong sums in three dimensions. */
static void warn_of_version(void) {
  const size_t version = cudnnGetVersion();
  if (version >= 90800 && version < 91600)
    pn_notice(
        "cuDNN %zu.%zu.%zu: from 9.8 to 9.15 it has kernels for three dimensions that add up wrongly, in tf32, bf16 and fp16; "
        "install 9.16 or later, or keep to precision=f32",
        version / 10000, version / 100 % 100, version % 100);
}

int pn_cudnn_start(const pn_gpu *gpu) {
  cudnnHandle_t *h = &handles[gpu->index];
  if (*h) return 0;
  warn_of_version();
  if (!check(cudnnCreate(h), "start on the device")) {
    if (!check(cudnnSetStream(*h, gpu->stream), "take the stream of the device")) return 0;
    (void)cudnnDestroy(*h);
  }
  *h = NULL;
  return -1;
}

/* ---- the graph --------------------------------------------------------------------------------------------------------------- */

static cudnnDataType_t type_of(int64_t dtype) {
  switch (dtype) {
  case PN_F64: return CUDNN_DATA_DOUBLE;
  case PN_F16: return CUDNN_DATA_HALF;
  case PN_BF16: return CUDNN_DATA_BFLOAT16;
  default: return CUDNN_DATA_FLOAT;
  }
}

static cudnnDataType_t sums_in(const pn_cudnn_problem *p) { return p->dtype == PN_F64 ? CUDNN_DATA_DOUBLE : CUDNN_DATA_FLOAT; }

static cudnnBackendDescriptor_t tensor(builder *b, int64_t uid, cudnnDataType_t type, const int64_t *sizes, const int64_t *strides,
                                       int64_t alignment, bool is_virtual) {
  cudnnBackendDescriptor_t d = make(b, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  set(b, d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
  set(b, d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 5, sizes);
  set(b, d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 5, strides);
  set(b, d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &uid);
  set(b, d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment);
  if (is_virtual) set(b, d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &is_virtual);
  return finish(b, d);
}

/* y = mode(x) or mode(x, other), element by element */
static cudnnBackendDescriptor_t pointwise(builder *b, cudnnPointwiseMode_t mode, cudnnDataType_t precision,
                                          cudnnBackendDescriptor_t x, cudnnBackendDescriptor_t other, cudnnBackendDescriptor_t y) {
  cudnnNanPropagation_t nan = CUDNN_PROPAGATE_NAN;
  cudnnBackendDescriptor_t how = make(b, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
  set(b, how, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
  set(b, how, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &precision);
  if (mode == CUDNN_POINTWISE_RELU_FWD) /* else it may make 0 of what went wrong */
    set(b, how, CUDNN_ATTR_POINTWISE_NAN_PROPAGATION, CUDNN_TYPE_NAN_PROPOGATION, 1, &nan);
  (void)finish(b, how);
  cudnnBackendDescriptor_t d = make(b, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
  link_to(b, d, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, how);
  link_to(b, d, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x);
  if (other) link_to(b, d, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, other);
  link_to(b, d, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
  return finish(b, d);
}

static cudnnBackendDescriptor_t geometry(builder *b, const pn_cudnn_problem *p) {
  int64_t dims = 3;
  cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
  cudnnDataType_t precision = sums_in(p);
  cudnnBackendDescriptor_t d = make(b, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
  set(b, d, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &precision);
  set(b, d, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
  set(b, d, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &dims);
  set(b, d, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 3, p->low);
  set(b, d, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 3, p->high);
  set(b, d, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 3, p->stride);
  set(b, d, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 3, p->dilation);
  return finish(b, d);
}

/* The attributes of the three kinds of convolution. */
static const struct {
  cudnnBackendDescriptorType_t type;
  cudnnBackendAttributeName_t geometry, x, w, y, alpha, beta;
} convolution[] = {
  {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
   CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,    CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
   CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
   CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA   },
  { CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,   CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
   CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,  CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
   CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,   CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
   CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA  },
  { CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
   CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
   CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
   CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA},
};

static cudnnBackendDescriptor_t whole_of(builder *b, const pn_cudnn_problem *p) {
  b->doing = "describe a convolution";
  int64_t inner = p->c / p->groups, taps = p->kernel[0] * p->kernel[1] * p->kernel[2];
  int64_t x_sizes[5] = { p->n, p->c, p->x[0], p->x[1], p->x[2] }, y_sizes[5] = { p->n, p->o, p->y[0], p->y[1], p->y[2] };
  int64_t w_sizes[5] = { p->o, inner, p->kernel[0], p->kernel[1], p->kernel[2] }, bias_sizes[5] = { 1, p->o, 1, 1, 1 };
  int64_t x_strides[5] = { p->x_stride[0], 1, p->x_stride[1], p->x_stride[2], p->x_stride[3] };
  int64_t y_strides[5] = { p->y_stride[0], 1, p->y_stride[1], p->y_stride[2], p->y_stride[3] };
  int64_t w_strides[5] = { taps * inner, 1, p->kernel[1] * p->kernel[2] * inner, p->kernel[2] * inner, inner };
  int64_t bias_strides[5] = { p->o, 1, p->o, p->o, p->o };
  cudnnDataType_t type = type_of(p->dtype), precision = sums_in(p);
  cudnnBackendDescriptor_t x = tensor(b, UID_X, type, x_sizes, x_strides, p->x_align, false);
  cudnnBackendDescriptor_t w = tensor(b, UID_W, type, w_sizes, w_strides, p->w_align, false);
  cudnnBackendDescriptor_t y = tensor(b, UID_Y, type, y_sizes, y_strides, p->y_align, false), to = y, ops[3], whole;
  int n_ops = 0;
  double one = 1, zero = 0;
  if (p->bias) to = tensor(b, UID_PRODUCT, precision, y_sizes, y_strides, 16, true);
  cudnnBackendDescriptor_t how = geometry(b, p);
  ops[n_ops++] = make(b, convolution[p->kind].type);
  link_to(b, ops[0], convolution[p->kind].geometry, how);
  link_to(b, ops[0], convolution[p->kind].x, x);
  link_to(b, ops[0], convolution[p->kind].w, w);
  link_to(b, ops[0], convolution[p->kind].y, to);
  set(b, ops[0], convolution[p->kind].alpha, CUDNN_TYPE_DOUBLE, 1, &one);
  set(b, ops[0], convolution[p->kind].beta, CUDNN_TYPE_DOUBLE, 1, &zero);
  (void)finish(b, ops[0]);
  if (p->bias) {
    cudnnBackendDescriptor_t bias = tensor(b, UID_BIAS, type, bias_sizes, bias_strides, 16, false), sum = y;
    if (p->relu) sum = tensor(b, UID_SUM, precision, y_sizes, y_strides, 16, true);
    ops[n_ops++] = pointwise(b, CUDNN_POINTWISE_ADD, precision, to, bias, sum);
    if (p->relu) ops[n_ops++] = pointwise(b, CUDNN_POINTWISE_RELU_FWD, precision, sum, NULL, y);
  }
  whole = make(b, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
  if (b->handle) set(b, whole, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &b->handle);
  set(b, whole, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, n_ops, ops);
  return finish(b, whole);
}

struct pn_cudnn_graph {
  builder made;
  cudnnBackendDescriptor_t whole;
  pn_cudnn_problem problem;
};

int pn_cudnn_graph_new(pn_cudnn_graph **out, const pn_gpu *gpu, const char *device, const pn_cudnn_problem *problem) {
  pn_cudnn_graph *g = *out = pn_alloc_zero(sizeof *g);
  if (!g) return -1;
  builder *b = &g->made;
  *b = (builder){ .handle = gpu ? handles[gpu->index] : NULL, .doing = "describe the device" };
  if (!gpu) {
    cudnnBackendDescriptor_t d = make(b, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
    set(b, d, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, (int64_t)strlen(device), device);
    b->device = finish(b, d);
  }
  g->whole = whole_of(b, problem);
  g->problem = *problem;
  int rc = b->rc;
  if (rc) {
    pn_cudnn_graph_free(g);
    *out = NULL;
  }
  return rc;
}

void pn_cudnn_graph_free(pn_cudnn_graph *graph) {
  if (graph) destroy_from(&graph->made, 0);
  pn_free(graph);
}

/* ---- engines and their knobs ------------------------------------------------------------------------------------------------- */

static bool suits(const pn_cudnn_problem *p, const cudnnBackendNumericalNote_t *notes, int64_t n) {
  for (int64_t i = 0; i < n; i++) switch (notes[i]) {
    case CUDNN_NUMERICAL_NOTE_TENSOR_CORE: /* f32 goes there as TF32 */
      if (p->dtype == PN_F32 && !p->tf32) return false;
      break;
    case CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS:
    case CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION: return false;
    case CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC:
      if (p->deterministic) return false;
      break;
    case CUDNN_NUMERICAL_NOTE_FFT:
    case CUDNN_NUMERICAL_NOTE_WINOGRAD:
    case CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_4x4:
    case CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_6x6:
    case CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_13x13:
      if (p->exact) return false;
      break;
    default: break;
    }
  return true;
}

/* What a configuration is made of; false when it does not suit. */
static bool read_config(builder *b, const pn_cudnn_problem *p, cudnnBackendDescriptor_t config, pn_pick *out) {
  int first = b->n;
  cudnnBackendNumericalNote_t notes[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
  cudnnBackendDescriptor_t knobs[PN_MOST_KNOBS];
  cudnnBackendDescriptor_t engine = make(b, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
  (void)get(b, config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &engine);
  (void)get(b, engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &out->engine);
  int64_t n = get(b, engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE, CUDNN_NUMERICAL_NOTE_TYPE_COUNT, notes);
  bool good = suits(p, notes, n);
  if (good) {
    for (int i = 0; i < PN_MOST_KNOBS; i++) knobs[i] = make(b, CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR);
    out->n_knobs = (int)get(b, config, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_TYPE_BACKEND_DESCRIPTOR, PN_MOST_KNOBS, knobs);
    for (int i = 0; i < out->n_knobs; i++) {
      cudnnBackendKnobType_t type = CUDNN_KNOB_TYPE_COUNTS;
      (void)get(b, knobs[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1, &type);
      (void)get(b, knobs[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, 1, &out->knob[i].value);
      out->knob[i].type = (int64_t)type;
    }
  }
  destroy_from(b, first);
  return good && !b->rc;
}

int pn_cudnn_offers(const pn_cudnn_graph *graph, int mode, pn_pick *out, int *n) {
  static const cudnnBackendHeurMode_t modes[PN_CUDNN_N_MODES] = { CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_B, CUDNN_HEUR_MODE_FALLBACK };
  builder own = builder_like(&graph->made), *b = &own;
  cudnnBackendDescriptor_t configs[PN_CUDNN_MOST_OFFERS];
  b->doing = "ask for engines";
  cudnnBackendDescriptor_t d = make(b, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
  link_to(b, d, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph->whole);
  set(b, d, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &modes[mode]);
  if (b->device) link_to(b, d, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, b->device);
  (void)finish(b, d);
  for (int i = 0; i < PN_CUDNN_MOST_OFFERS; i++) configs[i] = make(b, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
  int64_t found = get(b, d, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, PN_CUDNN_MOST_OFFERS, configs);
  *n = 0;
  for (int64_t i = 0; i < found && !b->rc; i++) *n += read_config(b, &graph->problem, configs[i], &out[*n]);
  if (b->rc) *n = 0;
  destroy_from(b, 0);
  return b->rc;
}

/* ---- a plan, and a run of it ------------------------------------------------------------------------------------------------- */

struct pn_cudnn_plan {
  builder made; /* the descriptors behind it, and itself among them */
  cudnnBackendDescriptor_t plan;
  bool bias;
};

/* The configuration of a pick. */
static cudnnBackendDescriptor_t config_of(builder *b, cudnnBackendDescriptor_t whole, const pn_pick *from) {
  cudnnBackendDescriptor_t engine = make(b, CUDNN_BACKEND_ENGINE_DESCRIPTOR), knobs[PN_MOST_KNOBS];
  link_to(b, engine, CUDNN_ATTR_ENGINE_OPERATION_GRAPH, whole);
  set(b, engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &from->engine);
  if (b->device) link_to(b, engine, CUDNN_ATTR_ENGINE_DEVICEPROP, b->device);
  (void)finish(b, engine);
  for (int i = 0; i < from->n_knobs; i++) {
    cudnnBackendKnobType_t type = (cudnnBackendKnobType_t)from->knob[i].type;
    knobs[i] = make(b, CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR);
    set(b, knobs[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1, &type);
    set(b, knobs[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, 1, &from->knob[i].value);
    (void)finish(b, knobs[i]);
  }
  cudnnBackendDescriptor_t config = make(b, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
  link_to(b, config, CUDNN_ATTR_ENGINECFG_ENGINE, engine);
  if (from->n_knobs) set(b, config, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_TYPE_BACKEND_DESCRIPTOR, from->n_knobs, knobs);
  return finish(b, config);
}

static cudnnBackendDescriptor_t plan_of(builder *b, cudnnBackendDescriptor_t config, int64_t *workspace) {
  cudnnBackendDescriptor_t d = make(b, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
  if (b->handle) set(b, d, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &b->handle);
  if (b->device) link_to(b, d, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, b->device);
  link_to(b, d, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config);
  (void)finish(b, d);
  (void)get(b, d, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, workspace);
  return d;
}

int pn_cudnn_plan_new(pn_cudnn_plan **out, const pn_cudnn_graph *graph, const pn_pick *from, int64_t *workspace) {
  pn_cudnn_plan *p = *out = pn_alloc_zero(sizeof *p);
  if (!p) return -1;
  builder *b = &p->made;
  *b = builder_like(&graph->made);
  b->doing = "make the plan of an engine";
  p->plan = plan_of(b, config_of(b, graph->whole, from), workspace);
  p->bias = graph->problem.bias;
  int rc = b->rc;
  if (rc) {
    pn_cudnn_plan_free(p);
    *out = NULL;
  }
  return rc;
}

void pn_cudnn_plan_free(pn_cudnn_plan *plan) {
  if (plan) destroy_from(&plan->made, 0);
  pn_free(plan);
}

int pn_cudnn_plan_run(const pn_cudnn_plan *plan, const pn_cudnn_buffers *at, void *workspace) {
  builder b = { .doing = "run a convolution" };
  int64_t uids[4] = { UID_X, UID_W, UID_Y, UID_BIAS };
  const void *pointers[4] = { at->x, at->w, at->y, at->bias };
  cudnnBackendDescriptor_t pack = make(&b, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
  set(&b, pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, plan->bias ? 4 : 3, uids);
  set(&b, pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, plan->bias ? 4 : 3, pointers);
  set(&b, pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace);
  (void)finish(&b, pack);
  if (!b.rc) b.rc = check(cudnnBackendExecute(plan->made.handle, plan->plan, pack), b.doing);
  destroy_from(&b, 0);
  return b.rc;
}
