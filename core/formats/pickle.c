/* pickle.c: Python's pickle, protocols 2 to 5 (Lib/pickletools.py), read without obeying it.
**
** A pickle is a program for a stack machine, and its GLOBAL and REDUCE opcodes call anything by name. This machine knows a
** short list of names, each with a meaning of its own here, and refuses every other at once: no code of a file runs.
** Objects live in blocks that are freed together; there is no recursion, and the number of objects is bounded. */
#include "pickle.h"

enum { WINDOW = 1 << 16, MAX_TEXT = 1 << 24, MAX_OBJECTS = 1 << 22, MAX_STACK = 1 << 22, BLOCK = 1 << 16, FREE_MEMORY = 1 << 26 };

typedef enum global {
  ORDERED_DICT,
  RECONSTRUCT,
  NDARRAY,
  DTYPE,
  FROMBUFFER,
  SCALAR,
  ENCODE,
  EMPTY_BYTES,
  REBUILD_TENSOR,
  REBUILD_TENSOR_V2,
  REBUILD_PARAMETER,
  SIZE,
  DEVICE,
  HARMLESS,
  STORAGE,
} global;

/* clang-format off */
static const struct { const char *module, *name; global id; pn_element element; int bytes; } globals[] = {
  { "collections", "OrderedDict", ORDERED_DICT, 0, 0 },
  { "numpy.core.multiarray", "_reconstruct", RECONSTRUCT, 0, 0 }, { "numpy._core.multiarray", "_reconstruct", RECONSTRUCT, 0, 0 },
  { "numpy", "ndarray", NDARRAY, 0, 0 }, { "numpy", "dtype", DTYPE, 0, 0 },
  { "numpy.core.numeric", "_frombuffer", FROMBUFFER, 0, 0 }, { "numpy._core.numeric", "_frombuffer", FROMBUFFER, 0, 0 },
  { "numpy.core.multiarray", "scalar", SCALAR, 0, 0 }, { "numpy._core.multiarray", "scalar", SCALAR, 0, 0 },
  { "_codecs", "encode", ENCODE, 0, 0 }, { "__builtin__", "bytes", EMPTY_BYTES, 0, 0 }, { "builtins", "bytes", EMPTY_BYTES, 0, 0 },
  { "torch._utils", "_rebuild_tensor", REBUILD_TENSOR, 0, 0 }, { "torch._utils", "_rebuild_tensor_v2", REBUILD_TENSOR_V2, 0, 0 },
  { "torch._utils", "_rebuild_parameter", REBUILD_PARAMETER, 0, 0 },
  { "torch._utils", "_rebuild_parameter_with_state", REBUILD_PARAMETER, 0, 0 }, { "torch", "Size", SIZE, 0, 0 },
  { "torch", "device", DEVICE, 0, 0 }, { "torch", "float32", HARMLESS, 0, 0 }, { "torch", "float64", HARMLESS, 0, 0 },
  { "torch", "float16", HARMLESS, 0, 0 }, { "torch", "bfloat16", HARMLESS, 0, 0 }, { "torch", "int64", HARMLESS, 0, 0 },
  { "torch", "int32", HARMLESS, 0, 0 }, { "torch", "uint8", HARMLESS, 0, 0 }, { "torch", "bool", HARMLESS, 0, 0 },
  { "torch", "FloatStorage", STORAGE, PN_E_F32, 4 }, { "torch", "DoubleStorage", STORAGE, PN_E_F64, 8 },
  { "torch", "HalfStorage", STORAGE, PN_E_F16, 2 }, { "torch", "BFloat16Storage", STORAGE, PN_E_BF16, 2 },
  { "torch", "LongStorage", STORAGE, PN_E_I64, 8 }, { "torch", "IntStorage", STORAGE, PN_E_I32, 4 },
  { "torch", "ShortStorage", STORAGE, PN_E_I16, 2 }, { "torch", "CharStorage", STORAGE, PN_E_I8, 1 },
  { "torch", "ByteStorage", STORAGE, PN_E_U8, 1 }, { "torch", "BoolStorage", STORAGE, PN_E_BOOL, 1 },
  { "torch", "ComplexFloatStorage", STORAGE, PN_E_OTHER, 8 }, { "torch", "ComplexDoubleStorage", STORAGE, PN_E_OTHER, 16 },
};
/* clang-format on */

typedef struct block block;
struct block {
  block *next;
};

struct pn_pickle {
  pn_archive *a;
  int part;
  int64_t bytes, at;          /* of the part; the next byte to read */
  const unsigned char *whole; /* a packed part, unpacked */
  unsigned char *window;
  int64_t window_at, window_n;
  block *blocks; /* all objects and texts */
  char *free_at;
  size_t free_n;
  int64_t n_objects, memory, max_memory; /* a small file must not become a large tree */
  pn_object **stack, **memo, **storages;
  int64_t *marks;
  int64_t n_stack, n_marks, n_memo, n_storages, room_stack, room_marks, room_memo, room_storages;
};

/* ---- memory ------------------------------------------------------------------------------------------------------ */

static void *take_memory(pn_pickle *k, size_t bytes) {
  bytes = (bytes + 15) / 16 * 16;
  k->memory += (int64_t)bytes;
  if (k->memory > k->max_memory &&
      pn_archive_fail(k->a, "its objects need more than %lld bytes: refused", (long long)k->max_memory))
    return NULL;
  if (bytes > k->free_n) {
    size_t room = bytes > BLOCK / 4 ? bytes : BLOCK;
    block *b = pn_alloc(room + 64);
    if (!b) return NULL;
    b->next = k->blocks;
    k->blocks = b;
    if (bytes > BLOCK / 4) return (char *)b + 64;
    k->free_at = (char *)b + 64;
    k->free_n = room;
  }
  void *p = k->free_at;
  k->free_at += bytes;
  k->free_n -= bytes;
  return p;
}

static int make(pn_pickle *k, pn_object **out, pn_pickle_kind kind) {
  if (++k->n_objects > MAX_OBJECTS) return pn_archive_fail(k->a, "more than %d objects: refused", MAX_OBJECTS);
  pn_object *o = take_memory(k, sizeof *o);
  if (!o) return -1;
  memset(o, 0, sizeof *o);
  o->kind = kind;
  *out = o;
  return 0;
}

/* ---- bytes ------------------------------------------------------------------------------------------------------- */

static int fail_end(const pn_pickle *k) {
  return pn_archive_fail(k->a, "the pickle ends too soon, at byte %lld", (long long)k->bytes);
}
static int fail_damaged(const pn_pickle *k, const char *what) {
  return pn_archive_fail(k->a, "the pickle is damaged before byte %lld: %s", (long long)k->at, what);
}

/* The next n bytes, n at most WINDOW; valid until the next call. */
static int next_bytes(pn_pickle *k, int64_t n, const unsigned char **out) {
  if (n > k->bytes - k->at) return fail_end(k);
  if (k->whole) *out = k->whole + k->at;
  else {
    if (k->at < k->window_at || k->at + n > k->window_at + k->window_n) {
      k->window_n = 0;
      int64_t have = pn_min64(WINDOW, k->bytes - k->at);
      if (pn_part_read(k->a, k->part, k->at, k->window, have) != 0) return -1;
      k->window_at = k->at;
      k->window_n = have;
    }
    *out = k->window + (k->at - k->window_at);
  }
  k->at += n;
  return 0;
}

/* A number of 1, 2, 4 or 8 bytes, little endian. */
static int next_number(pn_pickle *k, int bytes, uint64_t *out) {
  const unsigned char *p;
  if (next_bytes(k, bytes, &p) != 0) return -1;
  *out = 0;
  for (int i = 0; i < bytes; i++) *out |= (uint64_t)p[i] << 8 * i;
  return 0;
}

static int next_text(pn_pickle *k, int64_t n, pn_object *o) {
  if (n > k->bytes - k->at) return fail_end(k);
  if (n > MAX_TEXT) return pn_archive_fail(k->a, "a text of %lld bytes: refused", (long long)n);
  char *text = take_memory(k, (size_t)n + 1);
  if (!text) return -1;
  for (int64_t done = 0; done < n;) {
    const unsigned char *p;
    int64_t piece = pn_min64(n - done, WINDOW);
    if (next_bytes(k, piece, &p) != 0) return -1;
    memcpy(text + done, p, (size_t)piece);
    done += piece;
  }
  text[n] = 0;
  o->text.text = text;
  o->text.n = n;
  return 0;
}

/* A line, without its end. */
static int next_line(pn_pickle *k, char *line, size_t room) {
  size_t n = 0;
  const unsigned char *p;
  for (;;) {
    if (next_bytes(k, 1, &p) != 0) return -1;
    if (*p == '\n') break;
    if (*p == 0 || n + 1 >= room) return fail_damaged(k, "a name is too long");
    line[n++] = (char)*p;
  }
  line[n] = 0;
  return 0;
}

/* ---- the stack --------------------------------------------------------------------------------------------------- */

static int push(pn_pickle *k, pn_object *o) {
  if (k->n_stack == MAX_STACK) return pn_archive_fail(k->a, "its stack is too deep: refused");
  if (pn_grow(&k->stack, &k->room_stack, k->n_stack, k->n_stack + 1, sizeof *k->stack) != 0) return -1;
  k->stack[k->n_stack++] = o;
  return 0;
}

/* Objects above the last mark belong to the opcode that takes that mark. */
static int64_t floor_of(const pn_pickle *k) { return k->n_marks > 0 ? k->marks[k->n_marks - 1] : 0; }

static int pop(pn_pickle *k, pn_object **out) {
  if (k->n_stack <= floor_of(k)) return fail_damaged(k, "its stack is empty");
  *out = k->stack[--k->n_stack];
  return 0;
}

static int top(pn_pickle *k, pn_object **out) {
  if (k->n_stack <= floor_of(k)) return fail_damaged(k, "its stack is empty");
  *out = k->stack[k->n_stack - 1];
  return 0;
}

/* Takes the last mark: the objects above it are stack[*first..n_stack). */
static int pop_mark(pn_pickle *k, int64_t *first) {
  if (k->n_marks == 0) return fail_damaged(k, "a mark is missing");
  *first = k->marks[--k->n_marks];
  return 0;
}

static int push_new(pn_pickle *k, pn_pickle_kind kind, pn_object **out) { return make(k, out, kind) || push(k, *out) ? -1 : 0; }

static int push_int(pn_pickle *k, int64_t value) {
  pn_object *o;
  if (push_new(k, PN_PICKLE_INT, &o) != 0) return -1;
  o->integer = value;
  return 0;
}

static int push_text(pn_pickle *k, pn_pickle_kind kind, int64_t n) {
  pn_object *o;
  return make(k, &o, kind) || next_text(k, n, o) || push(k, o) ? -1 : 0;
}

static int push_bytes(pn_pickle *k, uint64_t n) {
  pn_object *o;
  if (n > (uint64_t)(k->bytes - k->at)) return fail_end(k);
  if (push_new(k, PN_PICKLE_BYTES, &o) != 0) return -1;
  o->bytes.offset = k->at;
  o->bytes.n = (int64_t)n;
  k->at += (int64_t)n;
  return 0;
}

static int append(pn_pickle *k, pn_object *to, pn_object *const *items, int64_t n) {
  if (to->list.n + n > to->list.room) {
    int64_t room = pn_max64(to->list.n + n, to->list.room * 2);
    pn_object **grown = take_memory(k, (size_t)room * sizeof *grown);
    if (!grown) return -1;
    if (to->list.n > 0) memcpy(grown, to->list.item, (size_t)to->list.n * sizeof *grown);
    to->list.item = grown;
    to->list.room = room;
  }
  if (n > 0) memcpy(to->list.item + to->list.n, items, (size_t)n * sizeof *items);
  to->list.n += n;
  return 0;
}

static int push_tuple(pn_pickle *k, int64_t n) {
  pn_object *o;
  if (n > k->n_stack - floor_of(k)) return fail_damaged(k, "its stack is empty");
  if (make(k, &o, PN_PICKLE_TUPLE) || append(k, o, k->stack + k->n_stack - n, n)) return -1;
  k->n_stack -= n;
  return push(k, o);
}

/* ---- names and calls --------------------------------------------------------------------------------------------- */

static int push_global(pn_pickle *k, const char *module, const char *name) {
  for (size_t i = 0; i < PN_LENGTH(globals); i++)
    if (strcmp(module, globals[i].module) == 0 && strcmp(name, globals[i].name) == 0) {
      pn_object *o;
      if (push_new(k, PN_PICKLE_GLOBAL, &o) != 0) return -1;
      o->integer = (int64_t)i;
      return 0;
    }
  return pn_archive_fail(k->a, "refuses global %s.%s: only tensors are read, no code of a file runs", module, name);
}

static pn_object *argument(const pn_object *args, int64_t i, pn_pickle_kind kind) {
  if (args->kind != PN_PICKLE_TUPLE || i >= args->list.n) return NULL;
  pn_object *o = args->list.item[i];
  return o->kind == kind ? o : NULL;
}

static bool is_global(const pn_object *o, global id) { return o && o->kind == PN_PICKLE_GLOBAL && globals[o->integer].id == id; }

/* What np.dtype(text) and latin-1 bytes of text are. */
static int encode(pn_pickle *k, const pn_object *text, pn_object *to) {
  unsigned char *bytes = take_memory(k, (size_t)text->text.n + 1);
  if (!bytes) return -1;
  int64_t n = 0;
  const unsigned char *p = (const unsigned char *)text->text.text, *end = p + text->text.n;
  while (p < end) {
    if (*p < 0x80) bytes[n++] = *p++;
    else if ((*p & 0xFE) == 0xC2 && end - p > 1 && (p[1] & 0xC0) == 0x80) {
      bytes[n++] = (unsigned char)(*p << 6 | (p[1] & 63));
      p += 2;
    } else return fail_damaged(k, "bytes written as text are not latin-1");
  }
  to->kind = PN_PICKLE_BYTES;
  to->bytes.memory = bytes;
  to->bytes.n = n;
  return 0;
}

static int call(pn_pickle *k, const pn_object *f, const pn_object *args) {
  pn_object *o, *x, *y;
  if (f->kind != PN_PICKLE_GLOBAL || args->kind != PN_PICKLE_TUPLE) return fail_damaged(k, "it calls what is no function");
  if (make(k, &o, PN_PICKLE_OPAQUE) != 0) return -1;
  int64_t n = args->list.n;
  bool good = false;
  switch (globals[f->integer].id) {
  case ORDERED_DICT:
    o->kind = PN_PICKLE_DICT;
    good = n == 0;
    if (n == 1 && (x = argument(args, 0, PN_PICKLE_LIST))) { /* a list of pairs */
      good = true;
      for (int64_t i = 0; i < x->list.n && good; i++) {
        pn_object *pair = x->list.item[i];
        good = (pair->kind == PN_PICKLE_TUPLE || pair->kind == PN_PICKLE_LIST) && pair->list.n == 2;
        if (good && append(k, o, pair->list.item, 2) != 0) return -1;
      }
    }
    break;
  case RECONSTRUCT:
    o->kind = PN_PICKLE_ARRAY;
    good = n == 3 && is_global(args->list.item[0], NDARRAY);
    break;
  case DTYPE:
    o->kind = PN_PICKLE_DTYPE;
    good = n >= 1 && (x = argument(args, 0, PN_PICKLE_TEXT));
    if (good) {
      o->dtype.element = pn_numpy_element(x->text.text, (size_t)x->text.n, &o->dtype.swap);
      o->dtype.name = x->text.text;
      o->dtype.name_bytes = x->text.n;
    }
    break;
  case FROMBUFFER: /* data, dtype, shape, order, for order K the axes */
    o->kind = PN_PICKLE_ARRAY;
    o->array.data = argument(args, 0, PN_PICKLE_BYTES);
    o->array.dtype = argument(args, 1, PN_PICKLE_DTYPE);
    o->array.shape = argument(args, 2, PN_PICKLE_TUPLE);
    x = argument(args, 3, PN_PICKLE_TEXT);
    o->array.axes = argument(args, 4, PN_PICKLE_TUPLE);
    o->array.fortran = pn_pickle_is(x, "F");
    good = o->array.data && o->array.dtype && o->array.shape &&
           (pn_pickle_is(x, "C") || o->array.fortran || (pn_pickle_is(x, "K") && o->array.axes));
    break;
  case SCALAR:
    o->kind = PN_PICKLE_ARRAY;
    o->array.dtype = argument(args, 0, PN_PICKLE_DTYPE);
    o->array.data = argument(args, 1, PN_PICKLE_BYTES);
    good = o->array.dtype && o->array.data;
    if (good && make(k, &o->array.shape, PN_PICKLE_TUPLE) != 0) return -1;
    break;
  case EMPTY_BYTES:
    o->kind = PN_PICKLE_BYTES;
    good = n == 0;
    break;
  case ENCODE:
    x = argument(args, 0, PN_PICKLE_TEXT);
    y = argument(args, 1, PN_PICKLE_TEXT);
    good = x && (pn_pickle_is(y, "latin1") || pn_pickle_is(y, "latin-1"));
    if (good && encode(k, x, o) != 0) return -1;
    break;
  case REBUILD_TENSOR:
  case REBUILD_TENSOR_V2: /* storage, offset, shape, stride */
    o->kind = PN_PICKLE_TENSOR;
    o->tensor.storage = argument(args, 0, PN_PICKLE_STORAGE);
    o->tensor.offset = argument(args, 1, PN_PICKLE_INT);
    o->tensor.shape = argument(args, 2, PN_PICKLE_TUPLE);
    o->tensor.stride = argument(args, 3, PN_PICKLE_TUPLE);
    good = o->tensor.storage && o->tensor.offset && o->tensor.shape && o->tensor.stride;
    break;
  case REBUILD_PARAMETER:
    x = argument(args, 0, PN_PICKLE_TENSOR);
    good = x != NULL;
    if (good) *o = *x;
    break;
  case SIZE:
    x = argument(args, 0, PN_PICKLE_TUPLE);
    good = x != NULL;
    if (good) *o = *x;
    break;
  case DEVICE: good = true; break;
  case NDARRAY:
  case HARMLESS:
  case STORAGE: break;
  }
  if (!good)
    return pn_archive_fail(k->a, "refuses a call of %s.%s with arguments that it never has", globals[f->integer].module,
                           globals[f->integer].name);
  return push(k, o);
}

/* BUILD: gives an object its state. */
static int build(pn_pickle *k, pn_object *o, pn_object *state) {
  int64_t n = state->kind == PN_PICKLE_TUPLE ? state->list.n : -1, first = n - 4;
  pn_object *order;
  switch (o->kind) {
  case PN_PICKLE_DICT: return 0; /* attributes of an OrderedDict, such as a state dict's _metadata */
  case PN_PICKLE_TENSOR: return 0;
  case PN_PICKLE_DTYPE: /* version, byte order, subarray, names, fields, size, alignment, flags */
    order = argument(state, 1, PN_PICKLE_TEXT);
    if (n < 5 || !order) break;
    o->dtype.swap = pn_pickle_is(order, ">");
    if (state->list.item[2]->kind != PN_PICKLE_NONE || state->list.item[3]->kind != PN_PICKLE_NONE) o->dtype.element = PN_E_OTHER;
    return 0;
  case PN_PICKLE_ARRAY: /* [version,] shape, dtype, is it Fortran order, bytes */
    if (n < 4 || n > 5 || o->array.data) break;
    o->array.shape = argument(state, first, PN_PICKLE_TUPLE);
    o->array.dtype = argument(state, first + 1, PN_PICKLE_DTYPE);
    order = argument(state, first + 2, PN_PICKLE_BOOL);
    o->array.data = argument(state, first + 3, PN_PICKLE_BYTES);
    if (!order || !o->array.shape || !o->array.dtype) break;
    if (!o->array.data) { /* Python objects: a list of them */
      if (!argument(state, first + 3, PN_PICKLE_LIST)) break;
      if (make(k, &o->array.data, PN_PICKLE_BYTES) != 0) return -1;
    }
    o->array.fortran = order->integer != 0;
    return 0;
  default: break;
  }
  return fail_damaged(k, "an object is given a state that it never has");
}

/* ('storage', type, key, location, number of elements[, view]) */
static int persistent(pn_pickle *k) {
  pn_object *id, *o;
  if (pop(k, &id) != 0) return -1;
  pn_object *type = argument(id, 1, PN_PICKLE_GLOBAL), *key = argument(id, 2, PN_PICKLE_TEXT),
            *count = argument(id, 4, PN_PICKLE_INT);
  if (id->kind != PN_PICKLE_TUPLE || id->list.n < 5 || !pn_pickle_is(id->list.item[0], "storage") || !is_global(type, STORAGE) ||
      !key || !count || count->integer < 0)
    return fail_damaged(k, "a reference is not to the storage of a tensor");
  if (push_new(k, PN_PICKLE_STORAGE, &o) != 0) return -1;
  o->storage.key = key;
  o->storage.n = count->integer;
  o->storage.element = globals[type->integer].element;
  o->storage.element_bytes = globals[type->integer].bytes;
  o->storage.element_name = globals[type->integer].name;
  pn_object *view = argument(id, 5, PN_PICKLE_TUPLE); /* before 0.4: its own key, first element, number of elements */
  if (view) {
    pn_object *first = argument(view, 1, PN_PICKLE_INT);
    if (!first || first->integer < 0) return fail_damaged(k, "the view of a storage");
    o->storage.first = first->integer;
  }
  if (pn_grow(&k->storages, &k->room_storages, k->n_storages, k->n_storages + 1, sizeof *k->storages) != 0) return -1;
  k->storages[k->n_storages++] = o;
  return 0;
}

/* ---- the machine ------------------------------------------------------------------------------------------------- */

static int remember(pn_pickle *k, uint64_t i) {
  pn_object *o;
  if (top(k, &o) != 0) return -1;
  if (i >= MAX_OBJECTS) return fail_damaged(k, "its memory is too large");
  if ((int64_t)i >= k->n_memo) {
    if (pn_grow(&k->memo, &k->room_memo, k->n_memo, (int64_t)i + 1, sizeof *k->memo) != 0) return -1;
    memset(k->memo + k->n_memo, 0, (size_t)((int64_t)i + 1 - k->n_memo) * sizeof *k->memo);
    k->n_memo = (int64_t)i + 1;
  }
  k->memo[i] = o;
  return 0;
}

static int recall(pn_pickle *k, uint64_t i) {
  if (i >= (uint64_t)k->n_memo || !k->memo[i]) return fail_damaged(k, "it recalls what it never remembered");
  return push(k, k->memo[i]);
}

static int push_long(pn_pickle *k, uint64_t n) {
  const unsigned char *p;
  if (n > 255) return fail_damaged(k, "a whole number is too long");
  if (n > 8) return push_text(k, PN_PICKLE_LONG, (int64_t)n);
  if (next_bytes(k, (int64_t)n, &p) != 0) return -1;
  uint64_t value = n > 0 && p[n - 1] & 0x80 ? UINT64_MAX : 0;
  for (int i = (int)n - 1; i >= 0; i--) value = value << 8 | p[i];
  return push_int(k, (int64_t)value);
}

static int set_items(pn_pickle *k, pn_pickle_kind kind, bool marked, int64_t n) {
  int64_t first = k->n_stack - n;
  if (marked && pop_mark(k, &first) != 0) return -1;
  n = k->n_stack - first;
  if (first <= floor_of(k)) return fail_damaged(k, "its stack is empty");
  pn_object *to = k->stack[first - 1];
  if (to->kind != kind || (kind == PN_PICKLE_DICT && n % 2 != 0))
    return fail_damaged(k, "items are added to what cannot hold them");
  if (append(k, to, k->stack + first, n) != 0) return -1;
  k->n_stack = first;
  return 0;
}

static int from_mark(pn_pickle *k, pn_pickle_kind kind) {
  int64_t first = 0;
  pn_object *o;
  if (pop_mark(k, &first) || make(k, &o, kind)) return -1;
  if (kind == PN_PICKLE_DICT && (k->n_stack - first) % 2 != 0) return fail_damaged(k, "a key lacks its value");
  if (append(k, o, k->stack + first, k->n_stack - first) != 0) return -1;
  k->n_stack = first;
  return push(k, o);
}

/* One opcode; *done when it was the last. */
static int step(pn_pickle *k, bool *done) {
  const unsigned char *p;
  uint64_t n;
  int64_t first = 0;
  pn_object *o, *x;
  char module[256], name[256];
  if (next_bytes(k, 1, &p) != 0) return -1;
  unsigned char code = *p;
  switch (code) {
  case 0x80: /* PROTO */
    if (next_number(k, 1, &n) != 0) return -1;
    return n >= 2 && n <= 5 ? 0 : pn_archive_fail(k->a, "pickle protocol %d; 2 to 5 are read", (int)n);
  case 0x95: return next_number(k, 8, &n); /* FRAME */
  case '.': *done = true; return 0;        /* STOP */
  case '(':                                /* MARK */
    if (k->n_marks == MAX_STACK) return pn_archive_fail(k->a, "its stack is too deep: refused");
    if (pn_grow(&k->marks, &k->room_marks, k->n_marks, k->n_marks + 1, sizeof *k->marks) != 0) return -1;
    k->marks[k->n_marks++] = k->n_stack;
    return 0;
  case '0': /* POP */
    if (k->n_stack > floor_of(k)) k->n_stack--;
    else return pop_mark(k, &first);
    return 0;
  case '1': /* POP_MARK */
    if (pop_mark(k, &first) != 0) return -1;
    k->n_stack = first;
    return 0;
  case '2': return top(k, &o) || push(k, o) ? -1 : 0; /* DUP */
  case 'N': return push_new(k, PN_PICKLE_NONE, &o);   /* NONE */
  case 0x88:                                          /* NEWTRUE */
  case 0x89:                                          /* NEWFALSE */
    if (push_new(k, PN_PICKLE_BOOL, &o) != 0) return -1;
    o->integer = code == 0x88;
    return 0;
  case 'J': return next_number(k, 4, &n) ? -1 : push_int(k, (int32_t)(uint32_t)n); /* BININT */
  case 'K': return next_number(k, 1, &n) ? -1 : push_int(k, (int64_t)n);           /* BININT1 */
  case 'M': return next_number(k, 2, &n) ? -1 : push_int(k, (int64_t)n);           /* BININT2 */
  case 0x8a: return next_number(k, 1, &n) ? -1 : push_long(k, n);                  /* LONG1 */
  case 0x8b: return next_number(k, 4, &n) ? -1 : push_long(k, n);                  /* LONG4 */
  case 'G':                                                                        /* BINFLOAT, big endian */
    if (next_bytes(k, 8, &p) != 0) return -1;
    for (n = 0, first = 0; first < 8; first++) n = n << 8 | p[first];
    if (push_new(k, PN_PICKLE_FLOAT, &o) != 0) return -1;
    memcpy(&o->number, &n, 8);
    return 0;
  case 0x8c: return next_number(k, 1, &n) ? -1 : push_text(k, PN_PICKLE_TEXT, (int64_t)n); /* SHORT_BINUNICODE */
  case 'X': return next_number(k, 4, &n) ? -1 : push_text(k, PN_PICKLE_TEXT, (int64_t)n);  /* BINUNICODE */
  case 0x8d:                                                                               /* BINUNICODE8 */
    if (next_number(k, 8, &n) != 0) return -1;
    return n > INT64_MAX ? fail_end(k) : push_text(k, PN_PICKLE_TEXT, (int64_t)n);
  case 'U': return next_number(k, 1, &n) ? -1 : push_text(k, PN_PICKLE_TEXT, (int64_t)n); /* SHORT_BINSTRING, of Python 2 */
  case 'T': return next_number(k, 4, &n) ? -1 : push_text(k, PN_PICKLE_TEXT, (int64_t)n); /* BINSTRING, of Python 2 */
  case 'C': return next_number(k, 1, &n) ? -1 : push_bytes(k, n);                         /* SHORT_BINBYTES */
  case 'B': return next_number(k, 4, &n) ? -1 : push_bytes(k, n);                         /* BINBYTES */
  case 0x8e:                                                                              /* BINBYTES8 */
  case 0x96: return next_number(k, 8, &n) ? -1 : push_bytes(k, n);                        /* BYTEARRAY8 */
  case ')': return push_tuple(k, 0);                                                      /* EMPTY_TUPLE */
  case 0x85: return push_tuple(k, 1);                                                     /* TUPLE1 */
  case 0x86: return push_tuple(k, 2);
  case 0x87: return push_tuple(k, 3);
  case 't': return from_mark(k, PN_PICKLE_TUPLE);               /* TUPLE */
  case ']': return push_new(k, PN_PICKLE_LIST, &o);             /* EMPTY_LIST */
  case 'l': return from_mark(k, PN_PICKLE_LIST);                /* LIST */
  case 'a': return set_items(k, PN_PICKLE_LIST, false, 1);      /* APPEND */
  case 'e': return set_items(k, PN_PICKLE_LIST, true, 0);       /* APPENDS */
  case '}': return push_new(k, PN_PICKLE_DICT, &o);             /* EMPTY_DICT */
  case 'd': return from_mark(k, PN_PICKLE_DICT);                /* DICT */
  case 's': return set_items(k, PN_PICKLE_DICT, false, 2);      /* SETITEM */
  case 'u': return set_items(k, PN_PICKLE_DICT, true, 0);       /* SETITEMS */
  case 0x8f: return push_new(k, PN_PICKLE_LIST, &o);            /* EMPTY_SET: a list does */
  case 0x90: return set_items(k, PN_PICKLE_LIST, true, 0);      /* ADDITEMS */
  case 0x91: return from_mark(k, PN_PICKLE_TUPLE);              /* FROZENSET */
  case 'q': return next_number(k, 1, &n) ? -1 : remember(k, n); /* BINPUT */
  case 'r': return next_number(k, 4, &n) ? -1 : remember(k, n); /* LONG_BINPUT */
  case 0x94: return remember(k, (uint64_t)k->n_memo);           /* MEMOIZE */
  case 'h': return next_number(k, 1, &n) ? -1 : recall(k, n);   /* BINGET */
  case 'j': return next_number(k, 4, &n) ? -1 : recall(k, n);   /* LONG_BINGET */
  case 'c':                                                     /* GLOBAL */
    return next_line(k, module, sizeof module) || next_line(k, name, sizeof name) ? -1 : push_global(k, module, name);
  case 0x93: /* STACK_GLOBAL */
    if (pop(k, &x) || pop(k, &o)) return -1;
    if (o->kind != PN_PICKLE_TEXT || x->kind != PN_PICKLE_TEXT) return fail_damaged(k, "a name is not text");
    return push_global(k, o->text.text, x->text.text);
  case 'R': /* REDUCE */
  case 0x81: /* NEWOBJ */ return pop(k, &x) || pop(k, &o) ? -1 : call(k, o, x);
  case 'b': /* BUILD */ return pop(k, &x) || top(k, &o) ? -1 : build(k, o, x);
  case 'Q': return persistent(k); /* BINPERSID */
  case 0x97: return pn_archive_fail(k->a, "its buffers are outside the pickle (protocol 5): write it without them");
  default: return pn_archive_fail(k->a, "refuses pickle opcode 0x%02x at byte %lld", code, (long long)k->at - 1);
  }
}

int pn_pickle_next(pn_pickle *k, pn_object **out) {
  k->n_stack = k->n_marks = k->n_memo = 0;
  bool done = false;
  const unsigned char *p;
  if (next_bytes(k, 1, &p) != 0) return -1;
  if (*p != 0x80) return fail_damaged(k, "it does not begin with a protocol");
  k->at--;
  while (!done)
    if (step(k, &done) != 0) return -1;
  return pop(k, out);
}

int pn_pickle_open(pn_pickle **out, pn_archive *a, int part) {
  enum { MAX_PACKED = 1 << 28, MAX_PAID = 1 << 24 }; /* bytes of the file that count for its memory */
  pn_pickle *k = pn_alloc_zero(sizeof *k);
  if (!k) return -1;
  k->a = a;
  k->part = part;
  k->bytes = a->parts[part].bytes;
  k->max_memory = FREE_MEMORY + 64 * pn_min64(a->parts[part].deflated ? a->parts[part].packed_bytes : k->bytes, MAX_PAID);
  int rc = pn_grow(&k->stack, &k->room_stack, 0, 1, sizeof *k->stack); /* so that no place in it is counted from NULL */
  if (rc == 0 && a->parts[part].deflated) {
    if (k->bytes > MAX_PACKED) rc = pn_archive_fail(a, "a packed pickle of %lld bytes: refused", (long long)k->bytes);
    unsigned char *whole = rc == 0 ? pn_alloc((size_t)k->bytes) : NULL;
    k->whole = whole;
    rc = whole ? pn_part_read(a, part, 0, whole, k->bytes) : -1;
  } else if (rc == 0) {
    k->window = pn_alloc(WINDOW);
    rc = k->window ? 0 : -1;
  }
  if (rc != 0) {
    pn_pickle_close(k);
    return -1;
  }
  *out = k;
  return 0;
}

int64_t pn_pickle_tell(const pn_pickle *k) { return k->at; }

pn_object **pn_pickle_storages(pn_pickle *k, int64_t *n) {
  *n = k->n_storages;
  return k->storages;
}

void pn_pickle_close(pn_pickle *k) {
  if (!k) return;
  while (k->blocks) {
    block *b = k->blocks;
    k->blocks = b->next;
    pn_free(b);
  }
  if (k->whole) pn_free((unsigned char *)(uintptr_t)k->whole);
  pn_free(k->window);
  pn_free(k->stack);
  pn_free(k->marks);
  pn_free(k->memo);
  pn_free(k->storages);
  pn_free(k);
}

pn_object *pn_pickle_get(const pn_object *dict, const char *key) {
  if (!dict || dict->kind != PN_PICKLE_DICT) return NULL;
  for (int64_t i = dict->list.n - 2; i >= 0; i -= 2) /* the last one counts */
    if (pn_pickle_is(dict->list.item[i], key)) return dict->list.item[i + 1];
  return NULL;
}
