/* cudnn.c: convolutions by cuDNN's graph interface; the only file that calls cuDNN. See cudnn_convolve.h.
**
** A problem becomes a graph of one convolution, with the bias and relu behind it where asked: the pattern for which cuDNN has compiled
** kernels. Its heuristics list engines with their knobs, the likely fastest first. Left out are those whose notes say that they
** round what they read, add in less than f32 or, unless allowed, in an order of chance. The first of the rest that makes a plan
** within the limit of workspace, and runs, is taken, or, when autotuning, the fastest of all. Picks (engine and knobs) are kept by
** problem, in memory and in a file for the device and the version (picks.h). */
#include "cudnn_convolve.h"
#include <cudnn.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include "picks.h"

#if CUDNN_MAJOR < 9
#error "cuDNN 9 or later"
#endif

/* cuDNN 9.19 says at most 84 configurations; pieces: the question, the configurations, the engine of one and its knobs. */
enum { MOST_CONFIGS = 96, MOST_PIECES = 1 + MOST_CONFIGS + 1 + PN_MOST_KNOBS, REPEATS = 5 };
enum { UID_X = 1, UID_W, UID_Y, UID_BIAS, UID_PRODUCT, UID_SUM };

/* ---- statuses and descriptors ------------------------------------------------------------------------------------------------- */

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

/* ---- a problem as text: for errors, picks and the file ---------------------------------------------------------------------------- */

static const char *const kind_name[] = { "forward", "data", "weight" };

/* "forward of 1,64,16,56,56 by 192,64,3,3,3 in bf16" */
static void describe(const pn_cudnn_problem *p, char *text, size_t bytes) {
  snprintf(text, bytes, "%s of %lld,%lld,%lld,%lld,%lld by %lld,%lld,%lld,%lld,%lld in %s%s", kind_name[p->kind], (long long)p->n,
           (long long)p->c, (long long)p->x[0], (long long)p->x[1], (long long)p->x[2], (long long)p->o,
           (long long)(p->c / p->groups), (long long)p->kernel[0], (long long)p->kernel[1], (long long)p->kernel[2],
           p->tf32 ? "tf32" : pn_dtype_name((pn_dtype)p->dtype),
           p->relu   ? " + bias, relu"
           : p->bias ? " + bias"
                     : "");
}

/* The error at hand, with what was asked. */
static int blame(const pn_cudnn_problem *p) {
  char text[160];
  describe(p, text, sizeof text);
  return pn_fail("%s (%s)", pn_error(), text);
}

enum { N_NUMBERS = sizeof(pn_cudnn_problem) / sizeof(int64_t) };

/* The numbers of the struct in their order; whoever changes the struct changes FORMAT_VERSION. */
enum { FORMAT_VERSION = 1 };

int pn_cudnn_format(const pn_cudnn_problem *problem, char *buffer, size_t bytes) {
  int64_t numbers[N_NUMBERS];
  size_t used = (size_t)snprintf(buffer, bytes, "v%d", FORMAT_VERSION);
  memcpy(numbers, problem, sizeof numbers);
  for (int i = 0; i < N_NUMBERS && used < bytes; i++)
    used += (size_t)snprintf(buffer + used, bytes - used, ",%lld", (long long)numbers[i]);
  return used < bytes ? 0 : pn_fail("cuDNN: no room for the text of a problem");
}

static int parse(pn_cudnn_problem *problem, const char *text) {
  int64_t numbers[N_NUMBERS];
  char *end = (char *)(uintptr_t)text;
  bool good = *end++ == 'v' && strtol(end, &end, 10) == FORMAT_VERSION;
  for (int i = 0; i < N_NUMBERS && good; i++) {
    good = *end == ',';
    numbers[i] = good ? strtoll(end + 1, &end, 10) : 0;
  }
  if (!good || *end) return pn_fail("cuDNN: no problem: %s", text);
  memcpy(problem, numbers, sizeof numbers);
  if (problem->kind < PN_CUDNN_FORWARD || problem->kind > PN_CUDNN_WEIGHT || problem->groups < 1 || problem->dtype < 0 ||
      problem->dtype >= PN_N_DTYPES)
    return pn_fail("cuDNN: no problem: %s", text);
  return 0;
}

int64_t pn_cudnn_alignment(const void *p) {
  int64_t a = 16;
  while ((uintptr_t)p % (uintptr_t)a) a /= 2;
  return a;
}

/* ---- the graph -------------------------------------------------------------------------------------------------------------------- */

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

static cudnnBackendDescriptor_t graph(builder *b, const pn_cudnn_problem *p) {
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

/* ---- engines and their knobs -------------------------------------------------------------------------------------------------------- */

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

/* The configuration of a pick that was kept. */
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

/* ---- plans ------------------------------------------------------------------------------------------------------------------------ */

typedef struct plan {
  struct plan *next;
  pn_cudnn_problem problem;
  pn_cudnn_policy policy;
  builder graph, made; /* the descriptors behind the plan, and it among them */
  cudnnBackendDescriptor_t plan;
  int64_t workspace;
  pn_pick pick;
  int n_tried;
  double milliseconds; /* 0 when it was not timed */
  bool from_file, ran; /* ran: when it was picked, so that the result asked for is there */
  bool none;           /* cuDNN has nothing, for this reason */
  char reason[256];
} plan;

typedef struct buffers {
  void *x, *w, *y;
  const void *bias;
} buffers;

/* 0; PN_CUDNN_NONE when the engine refuses after all; -1 when it failed. */
static int execute(const plan *p, const buffers *at, void *workspace) {
  builder b = { .doing = "run a convolution" };
  int64_t uids[4] = { UID_X, UID_W, UID_Y, UID_BIAS };
  const void *pointers[4] = { at->x, at->w, at->y, at->bias };
  cudnnBackendDescriptor_t pack = make(&b, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
  set(&b, pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, p->problem.bias ? 4 : 3, uids);
  set(&b, pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, p->problem.bias ? 4 : 3, pointers);
  set(&b, pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace);
  (void)finish(&b, pack);
  if (!b.rc) b.rc = check(cudnnBackendExecute(p->graph.handle, p->plan, pack), b.doing);
  destroy_from(&b, 0);
  return b.rc;
}

enum { NO_ROOM = -2, BROKEN = -3 }; /* for the workspace; the device, or the capture of a graph */

/* As execute, or NO_ROOM. */
static int run(pn_gpu *gpu, const plan *p, const buffers *at) {
  void *workspace = p->workspace ? pn_gpu_scratch(gpu, (size_t)p->workspace) : NULL;
  if (p->workspace && !workspace) return NO_ROOM;
  int rc = execute(p, at, workspace);
  pn_gpu_scratch_free(gpu, workspace);
  return rc;
}

static int check_device(cudaError_t code, const char *doing) { return pn_gpu_check(code, doing) ? BROKEN : 0; }

/* Milliseconds of a run: the median of a few, after one that does not count. As run, or BROKEN. */
static int time_plan(pn_gpu *gpu, const plan *p, const buffers *at, double *milliseconds) {
  cudaEvent_t events[REPEATS + 1] = { NULL };
  double took[REPEATS];
  int rc = run(gpu, p, at), n = 0;
  for (; n <= REPEATS && !rc; n++) {
    rc = check_device(cudaEventCreateWithFlags(&events[n], 0), "make an event");
    if (!rc && n) rc = run(gpu, p, at);
    rc = rc ? rc : check_device(cudaEventRecord(events[n], gpu->stream), "record an event");
  }
  /* not pn_gpu_wait: complaints about data are not the engine's, and stay for whoever waits next */
  rc = rc ? rc : check_device(cudaStreamSynchronize(gpu->stream), "wait for the device");
  for (int i = 0; i < REPEATS && !rc; i++) {
    float ms = 0;
    rc = check_device(cudaEventElapsedTime(&ms, events[i], events[i + 1]), "time a convolution");
    int k = i;
    for (; k > 0 && took[k - 1] > (double)ms; k--) took[k] = took[k - 1];
    took[k] = (double)ms;
  }
  for (int i = 0; i < n; i++)
    if (events[i]) (void)pn_gpu_try(cudaEventDestroy(events[i]));
  if (!rc) *milliseconds = took[REPEATS / 2];
  return rc;
}

/* ---- the choice -------------------------------------------------------------------------------------------------------------------- */

typedef struct search {
  plan *best; /* its graph is made */
  cudnnBackendDescriptor_t whole;
  pn_gpu *gpu; /* NULL where there is no device: nothing is timed */
  const buffers *at;
  int failure;      /* -1 when one failed in another way than by not being able: then to find nothing is an error */
  char reason[256]; /* of the first such, else of the last */
} search;

static bool is_captured(pn_gpu *gpu) {
  enum cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  return pn_gpu_try(cudaStreamIsCapturing(gpu->stream, &status)) && status != cudaStreamCaptureStatusNone;
}

static void note_failure(search *s, int rc) {
  if (!s->failure) snprintf(s->reason, sizeof s->reason, "%s", pn_error());
  if (rc < 0) s->failure = -1;
}

/* Runs a plan that was just made: an engine may say only now that it cannot, or fail. 0; PN_CUDNN_NONE when it can't; -1 when there
** was no room for it; BROKEN when no other can be tried.
**
** While a graph is captured nothing runs, but engines check what they are given, and are recorded. Plans are made by the calls before a
** capture, as a rule. If one is made inside it and its engine fails, then what it recorded so far is part of the graph, though its plan
** goes, and the capture may be invalid: so the search ends there. Nothing is kept of it, and the capture fails with it. */
static int try_run(search *s, plan *made) {
  const bool timed = made->policy.autotune;
  int rc = timed ? time_plan(s->gpu, made, s->at, &made->milliseconds) : run(s->gpu, made, s->at);
  if (!rc) {
    made->ran = !timed; /* what is timed later writes over it */
    return 0;
  }
  if (is_captured(s->gpu)) {
    (void)pn_fail("%s; run the step once before a CUDA graph is captured", pn_error());
    return BROKEN;
  }
  (void)pn_gpu_try(cudaStreamSynchronize(s->gpu->stream)); /* what it has begun must not outlive its plan */
  return rc == BROKEN ? BROKEN : rc == NO_ROOM ? -1 : PN_CUDNN_NONE;
}

/* Makes the plan of a pick and runs it; where it is the best so far, it stays, at s->best. -1: the search cannot go on. */
static int try_pick(search *s, const pn_pick *from) {
  plan *best = s->best, made = *best;
  made.pick = *from;
  made.made = builder_like(&best->graph);
  made.made.doing = "make the plan of an engine";
  made.plan = plan_of(&made.made, config_of(&made.made, s->whole, from), &made.workspace);
  int rc = made.made.rc;
  if (!rc && made.workspace > best->policy.workspace_bytes) {
    (void)pn_fail("cuDNN: engine %lld wants %lld bytes of workspace, more than the limit of %lld", (long long)from->engine,
                  (long long)made.workspace, (long long)best->policy.workspace_bytes);
    rc = PN_CUDNN_NONE;
  }
  if (!rc && s->gpu) rc = try_run(s, &made);
  if (rc) note_failure(s, rc);
  else best->n_tried = ++made.n_tried;
  if (rc || (best->plan && best->milliseconds <= made.milliseconds)) destroy_from(&made.made, 0);
  else {
    destroy_from(&best->made, 0);
    *best = made;
  }
  return rc == BROKEN ? -1 : 0;
}

static bool same_pick(const pn_pick *a, const pn_pick *b) {
  return a->engine == b->engine && a->n_knobs == b->n_knobs && !memcmp(a->knob, b->knob, sizeof *a->knob * (size_t)a->n_knobs);
}

/* The picks that one kind of heuristics offers; returns how many, and keeps nothing of cuDNN's. */
static int offers(search *s, cudnnBackendHeurMode_t mode, pn_pick *out) {
  builder own = builder_like(&s->best->graph), *b = &own;
  int n = 0;
  cudnnBackendDescriptor_t configs[MOST_CONFIGS];
  b->doing = "ask for engines";
  cudnnBackendDescriptor_t d = make(b, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
  link_to(b, d, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, s->whole);
  set(b, d, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
  if (b->device) link_to(b, d, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, b->device);
  (void)finish(b, d);
  for (int i = 0; i < MOST_CONFIGS; i++) configs[i] = make(b, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
  int64_t found = get(b, d, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, MOST_CONFIGS, configs);
  for (int64_t i = 0; i < found && !b->rc; i++) n += read_config(b, &s->best->problem, configs[i], &out[n]);
  if (b->rc) {
    note_failure(s, b->rc);
    n = 0;
  }
  destroy_from(b, 0);
  return n;
}

/* Is there more to try? Any until one works; all when autotuning, but for what cuDNN falls back on: when something works, that is
** slower and, compiled at run time, takes half a minute to find out. */
static bool goes_on(const search *s, cudnnBackendHeurMode_t mode) {
  return !s->best->plan || (s->best->policy.autotune && mode != CUDNN_HEUR_MODE_FALLBACK);
}

/* Tries what the heuristics offer. */
static int choose(search *s) {
  static const cudnnBackendHeurMode_t modes[] = { CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_B, CUDNN_HEUR_MODE_FALLBACK };
  pn_pick *picks = pn_alloc(sizeof *picks * MOST_CONFIGS * PN_LENGTH(modes));
  int n = 0, rc = 0;
  if (!picks) return -1;
  for (size_t m = 0; m < PN_LENGTH(modes) && !rc && goes_on(s, modes[m]); m++) {
    int more = offers(s, modes[m], picks + n), kept = 0;
    for (int i = 0; i < more && !rc && goes_on(s, modes[m]); i++) {
      pn_pick next = picks[n + i];
      bool seen = false;
      for (int k = 0; k < n + kept && !seen; k++) seen = same_pick(&picks[k], &next);
      if (seen) continue;
      picks[n + kept++] = next;
      rc = try_pick(s, &next);
    }
    n += kept;
  }
  pn_free(picks);
  return rc;
}

/* What a pick depends on besides the device and the version. */
static int key_of(const plan *p, char *key, size_t bytes) {
  if (pn_cudnn_format(&p->problem, key, bytes)) return -1;
  size_t used = strlen(key);
  snprintf(key + used, bytes - used, ",%s,%lld", p->policy.autotune ? "tuned" : "heuristic", (long long)p->policy.workspace_bytes);
  return 0;
}

/* The file for a device; false when there is no place for one. */
static bool file_of(char *path, size_t bytes, int index) {
  struct cudaDeviceProp device;
  return pn_gpu_try(cudaGetDeviceProperties(&device, index)) && pn_picks_path(path, bytes, cudnnGetVersion(), device.name);
}

/* ---- convolve -------------------------------------------------------------------------------------------------------------------------- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of all that follows */
static cudnnHandle_t handles[PN_MOST_DEVICES];
static plan *plans[PN_MOST_DEVICES]; /* the newest first */

static void drop(plan *p) {
  destroy_from(&p->made, 0);
  destroy_from(&p->graph, 0);
  pn_free(p);
}

/* NVIDIA's release notes, and PyTorch, which goes round them, tell of wrong sums in three dimensions. */
static void warn_of_version(void) {
  const size_t version = cudnnGetVersion();
  if (version >= 90800 && version < 91600)
    pn_notice(
        "cuDNN %zu.%zu.%zu: from 9.8 to 9.15 it has kernels for three dimensions that add up wrongly, in tf32, bf16 and fp16; "
        "install 9.16 or later, or keep to precision=f32",
        version / 10000, version / 100 % 100, version % 100);
}

static cudnnHandle_t handle_of(pn_gpu *gpu) {
  cudnnHandle_t *h = &handles[gpu->index];
  if (*h) return *h;
  warn_of_version();
  if (check(cudnnCreate(h), "start on the device")) return *h = NULL;
  if (!check(cudnnSetStream(*h, gpu->stream), "take the stream of the device")) return *h;
  (void)cudnnDestroy(*h);
  return *h = NULL;
}

/* The kept pick, else a choice. The pick may be of an engine that is refused here, when its plan is made or when it runs: then it is
** chosen anew. A choice that hung on how much memory was free is not for the file. */
static int settle(search *s, int index) {
  plan *p = s->best;
  char key[PN_PICK_KEY], path[1024];
  pn_pick kept;
  bool has_file = s->gpu && file_of(path, sizeof path, index);
  if (key_of(p, key, sizeof key)) return -1;
  FILE *file = has_file ? fopen(path, "re") : NULL;
  if (file) {
    double milliseconds = 0;
    if (pn_picks_recall(file, key, &kept, &milliseconds)) {
      bool autotune = p->policy.autotune;
      p->policy.autotune = false; /* it was timed when it was kept */
      int rc = try_pick(s, &kept);
      p->policy.autotune = autotune;
      p->from_file = p->plan != NULL;
      p->milliseconds = milliseconds;
      s->failure = 0;
      *s->reason = 0;
      if (rc || p->plan) {
        (void)fclose(file);
        return rc;
      }
    }
    (void)fclose(file);
  }
  if (s->gpu && p->policy.autotune && is_captured(s->gpu))
    return pn_fail("cuDNN: cannot time engines while a CUDA graph is captured; run the step once before");
  if (choose(s)) return -1;
  if (p->plan && has_file && !s->failure) pn_picks_remember(path, key, &p->pick, p->milliseconds);
  return 0;
}

/* A plan, or one that says there is none; NULL on failure. */
static plan *make_plan(pn_gpu *gpu, cudnnHandle_t handle, const char *device, const pn_cudnn_problem *problem,
                       const pn_cudnn_policy *policy, const buffers *at) {
  plan *p = pn_alloc_zero(sizeof *p);
  if (!p) return NULL;
  p->problem = *problem;
  p->policy = *policy;
  builder *b = &p->graph;
  *b = (builder){ .handle = handle, .doing = "describe the device" };
  if (device) {
    cudnnBackendDescriptor_t d = make(b, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
    set(b, d, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, (int64_t)strlen(device), device);
    b->device = finish(b, d);
  }
  search s = { .best = p, .whole = graph(b, problem), .gpu = gpu, .at = at };
  int rc = b->rc;
  if (rc == PN_CUDNN_NONE) note_failure(&s, rc);
  else if (!rc) rc = settle(&s, gpu ? gpu->index : 0);
  if (rc >= 0 && !p->plan) {
    p->none = true;
    snprintf(p->reason, sizeof p->reason, "%s", *s.reason ? s.reason : "cuDNN: no engine suits");
    rc = s.failure ? pn_fail("%s", s.reason) : 0;
  }
  if (rc < 0) {
    drop(p);
    (void)blame(problem);
    return NULL;
  }
  return p;
}

int pn_cudnn_convolve(pn_gpu *gpu, const pn_cudnn_problem *problem, const pn_cudnn_policy *policy, void *x, void *w, void *y,
                      const void *bias) {
  buffers at = { x, w, y, bias };
  int rc = -1;
  pthread_mutex_lock(&lock);
  plan *p = plans[gpu->index];
  while (p && (memcmp(&p->problem, problem, sizeof *problem) != 0 || p->policy.autotune != policy->autotune ||
               p->policy.workspace_bytes != policy->workspace_bytes))
    p = p->next;
  cudnnHandle_t handle = p ? NULL : handle_of(gpu);
  if (handle && (p = make_plan(gpu, handle, NULL, problem, policy, &at))) {
    p->next = plans[gpu->index];
    plans[gpu->index] = p;
  }
  if (p && p->none) {
    (void)pn_fail("%s", p->reason);
    (void)blame(problem);
    rc = PN_CUDNN_NONE;
  } else if (p) {
    rc = p->ran ? 0 : run(gpu, p, &at);
    p->ran = false;
    if (rc) rc = blame(problem);
  }
  pthread_mutex_unlock(&lock);
  return rc;
}

/* ---- what was picked ---------------------------------------------------------------------------------------------------------------------- */

static int report_of(const plan *p, char *text, size_t bytes) {
  char what[160], chosen[PN_MOST_KNOBS * 16], how[96];
  describe(&p->problem, what, sizeof what);
  if (p->none) return snprintf(text, bytes, "%s: none: %s\n", what, p->reason);
  pn_pick_write(chosen, sizeof chosen, &p->pick);
  if (p->milliseconds > 0) snprintf(how, sizeof how, "%.4f ms, %s", p->milliseconds, p->from_file ? "from file" : "the fastest");
  else snprintf(how, sizeof how, "%s", p->from_file ? "from file" : "by heuristics");
  return snprintf(text, bytes, "%s: engine %s, workspace %lld, %s, %d tried\n", what, chosen, (long long)p->workspace, how,
                  p->n_tried);
}

void pn_cudnn_picks(int index, char *buffer, size_t bytes) {
  size_t used = 0;
  if (bytes) *buffer = 0;
  pthread_mutex_lock(&lock);
  for (const plan *p = plans[index]; p; p = p->next) {
    char line[1400];
    size_t n = (size_t)report_of(p, line, sizeof line);
    if (n >= sizeof line || used + n >= bytes) continue;
    memcpy(buffer + used, line, n + 1);
    used += n;
  }
  pthread_mutex_unlock(&lock);
}

void pn_cudnn_forget(void) {
  pthread_mutex_lock(&lock);
  for (int i = 0; i < PN_MOST_DEVICES; i++)
    for (plan *p; (p = plans[i]);) {
      plans[i] = p->next;
      drop(p);
    }
  pthread_mutex_unlock(&lock);
}

int pn_cudnn_check(const char *device, const char *problem, int64_t workspace_bytes, char *report, size_t bytes) {
  pn_cudnn_problem p;
  if (!device || !problem || !report || !bytes) return pn_fail("cudnn_check: NULL");
  if (parse(&p, problem)) return -1;
  plan *made = make_plan(NULL, NULL, device, &p, &(pn_cudnn_policy){ .workspace_bytes = workspace_bytes }, NULL);
  if (!made) return -1;
  int rc = made->none ? PN_CUDNN_NONE : 0;
  report_of(made, report, bytes);
  drop(made);
  return rc;
}
