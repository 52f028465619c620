/* torch.c: what a pickle holds, as named tensors: PyTorch files and nested dictionaries of NumPy arrays.
**
** PyTorch since 1.6 writes a zip: data.pkl, whose tensors refer to storages in data/KEY (torch/serialization.py _save).
** Before, a file of pickles: a magic number, a protocol, facts of the machine, the object, the keys of the storages; then each
** storage as a count and its elements (_legacy_save). Keys of nested dictionaries join with '.' (PyTorch) or '/' (NumPy). */
#include "pickle.h"

enum { MAX_DEPTH = 32, MAX_NAME = 4096, MAX_VISITS = 1 << 22 };

typedef struct walk {
  pn_archive *a;
  int pickle_part;    /* bytes of NumPy arrays stand in it */
  bool swap;          /* storages are big endian */
  char separator;
  char name[MAX_NAME];
  int64_t visits;
  int (*storage)(struct walk *w, const pn_object *storage, int *part, int64_t *begin, int64_t *bytes); /* where a storage stands */
  const char *prefix; /* of the members of a zip */
  size_t prefix_bytes;
  struct { const pn_object *key; int64_t begin, n; } *storages; /* of a legacy file */
  int64_t n_storages;
} walk;

/* ---- leaves ------------------------------------------------------------------------------------------------------------------------ */

enum { MANY = 64 };

static bool sizes_of(const pn_object *tuple, int64_t *sizes, int *n) {
  if (tuple->list.n > MANY) return false;
  *n = (int)tuple->list.n;
  for (int i = 0; i < *n; i++) {
    const pn_object *o = tuple->list.item[i];
    if (o->kind != PN_PICKLE_INT || o->integer < 0) return false;
    sizes[i] = o->integer;
  }
  return true;
}

static int fail_leaf(const walk *w, const char *what) { return pn_archive_fail(w->a, "tensor %s: %s", w->name, what); }

static int add_array(walk *w, const pn_object *o) {
  int64_t shape[MANY], count;
  int n_dims, part = w->pickle_part;
  const pn_object *data = o->array.data, *dtype = o->array.dtype;
  if (!data) return fail_leaf(w, "an array without its data");
  if (!sizes_of(o->array.shape, shape, &n_dims) || !pn_count_of(n_dims, shape, &count)) return fail_leaf(w, "an impossible shape");
  pn_entry *entry;
  if (pn_archive_add_entry(w->a, &entry, w->name, strlen(w->name), dtype->dtype.element, n_dims, shape) != 0) return -1;
  entry->swap = dtype->dtype.swap;
  if (dtype->dtype.element == PN_E_OTHER)
    return pn_archive_refuse(entry, "has the element type %.*s, which no tensor has", (int)pn_min64(32, dtype->dtype.name_bytes), dtype->dtype.name);
  if (entry->refusal) return 0;
  if (count * pn_element_bytes(entry->element) != data->bytes.n) return fail_leaf(w, "its data do not fit its shape");
  if (o->array.fortran) {
    int64_t stride = 1;
    for (int d = 0; d < n_dims; d++) {
      entry->stride[d] = stride;
      stride *= pn_max64(shape[d], 1);
    }
  }
  entry->begin = data->bytes.offset;
  if (data->bytes.memory) { /* bytes that were text: they outlive the pickle */
    pn_part copy = { .file = -1, .bytes = data->bytes.n, .memory = pn_alloc((size_t)data->bytes.n + 1) };
    if (!copy.memory) return -1;
    memcpy(copy.memory, data->bytes.memory, (size_t)data->bytes.n);
    if (pn_archive_add_part(w->a, &copy, &part) != 0) return -1;
    entry->begin = 0;
  }
  entry->part = part;
  return pn_archive_check_entry(w->a, entry, w->a->parts[part].bytes);
}

static int add_tensor(walk *w, const pn_object *o) {
  int64_t shape[MANY], stride[MANY], begin = 0, bytes = 0, offset = 0, all;
  int n_dims, n_strides, part = 0;
  const pn_object *storage = o->tensor.storage;
  int element_bytes = storage->storage.element_bytes;
  if (!sizes_of(o->tensor.shape, shape, &n_dims) || !sizes_of(o->tensor.stride, stride, &n_strides) || n_strides != n_dims || o->tensor.offset->integer < 0)
    return fail_leaf(w, "an impossible shape or stride");
  if (w->storage(w, storage, &part, &begin, &bytes) != 0) return -1;
  bool good = !__builtin_add_overflow(o->tensor.offset->integer, storage->storage.first, &offset) && !__builtin_mul_overflow(offset, (int64_t)element_bytes, &offset) &&
              !__builtin_mul_overflow(storage->storage.n, (int64_t)element_bytes, &all) && all <= bytes;
  if (!good) return fail_leaf(w, "its storage is shorter than it says");
  pn_entry *entry;
  if (pn_archive_add_entry(w->a, &entry, w->name, strlen(w->name), storage->storage.element, n_dims, shape) != 0) return -1;
  if (storage->storage.element == PN_E_OTHER) return pn_archive_refuse(entry, "has the element type of %s, which no tensor has", storage->storage.element_name);
  if (entry->refusal) return 0;
  memcpy(entry->stride, stride, (size_t)n_dims * sizeof *stride);
  entry->swap = w->swap;
  entry->part = part;
  if (__builtin_add_overflow(begin, offset, &entry->begin)) return fail_leaf(w, "its storage is shorter than it says");
  return pn_archive_check_entry(w->a, entry, begin + all);
}

/* ---- the tree ----------------------------------------------------------------------------------------------------------------------- */

static bool is_leaf(const pn_object *o) { return o->kind == PN_PICKLE_TENSOR || o->kind == PN_PICKLE_ARRAY; }
static bool is_branch(const pn_object *o) { return o->kind == PN_PICKLE_DICT || o->kind == PN_PICKLE_LIST || o->kind == PN_PICKLE_TUPLE; }

/* Appends a key to the name; returns its length before, or -1. */
static int64_t enter(walk *w, const pn_object *key, int64_t index) {
  size_t n = strlen(w->name);
  char separator[2] = { n > 0 ? w->separator : 0, 0 };
  int more;
  if (key && key->kind == PN_PICKLE_TEXT) more = snprintf(w->name + n, MAX_NAME - n, "%s%.*s", separator, (int)pn_min64(key->text.n, MAX_NAME), key->text.text);
  else if (!key || key->kind == PN_PICKLE_INT || key->kind == PN_PICKLE_BOOL) more = snprintf(w->name + n, MAX_NAME - n, "%s%lld", separator, (long long)(key ? key->integer : index));
  else return pn_archive_fail(w->a, "a key under %s is neither text nor a whole number", n ? w->name : "the root");
  if (key && key->kind == PN_PICKLE_TEXT && memchr(key->text.text, 0, (size_t)key->text.n)) return pn_archive_fail(w->a, "the name of a tensor contains a NUL byte");
  if (more < 0 || (size_t)more >= MAX_NAME - n) return pn_archive_fail(w->a, "the name of a tensor is too long");
  return (int64_t)n;
}

/* Adds every tensor under o. Its children are walked by recursion, whose depth is bounded; so is the number of visits, for one
** object may stand in many places. */
static int add_all(walk *w, const pn_object *o, int depth) {
  if (++w->visits > MAX_VISITS) return pn_archive_fail(w->a, "too many objects: refused");
  if (o->kind == PN_PICKLE_TENSOR) return add_tensor(w, o);
  if (o->kind == PN_PICKLE_ARRAY) return add_array(w, o);
  if (!is_branch(o)) return 0;
  if (depth == MAX_DEPTH) return pn_archive_fail(w->a, "dictionaries nest deeper than %d at %.200s", MAX_DEPTH, w->name);
  int64_t each = o->kind == PN_PICKLE_DICT ? 2 : 1;
  for (int64_t i = 0; i < o->list.n; i += each) {
    const pn_object *child = o->list.item[i + each - 1];
    if (!is_leaf(child) && !is_branch(child)) continue;
    int64_t before = enter(w, each == 2 ? o->list.item[i] : NULL, i);
    if (before < 0 || add_all(w, child, depth + 1) != 0) return -1;
    w->name[before] = 0;
  }
  return 0;
}

static bool holds_tensor(const pn_object *o) {
  if (o->kind != PN_PICKLE_DICT) return false;
  for (int64_t i = 0; i < o->list.n; i += 2)
    if (is_leaf(o->list.item[i + 1])) return true;
  return false;
}

static int add_scalar(walk *w, const pn_object *key, const pn_object *o) {
  char text[64];
  if (key->kind != PN_PICKLE_TEXT) return 0;
  switch (o->kind) {
    case PN_PICKLE_INT: snprintf(text, sizeof text, "%lld", (long long)o->integer); break;
    case PN_PICKLE_BOOL: snprintf(text, sizeof text, "%s", o->integer ? "true" : "false"); break;
    case PN_PICKLE_FLOAT: snprintf(text, sizeof text, "%.17g", o->number); break;
    case PN_PICKLE_TEXT: return pn_archive_add_metadata(w->a, key->text.text, (size_t)key->text.n, o->text.text, (size_t)o->text.n);
    default: return 0;
  }
  return pn_archive_add_metadata(w->a, key->text.text, (size_t)key->text.n, text, strlen(text));
}

static int fail_keys(const walk *w, const pn_object *root) {
  char text[512] = "";
  size_t n = 0;
  if (root->kind != PN_PICKLE_DICT) return pn_archive_fail(w->a, "it holds no tensors");
  for (int64_t i = 0; i < root->list.n && n < sizeof text; i += 2) {
    const pn_object *key = root->list.item[i];
    if (key->kind == PN_PICKLE_TEXT) n += (size_t)snprintf(text + n, sizeof text - n, "%s%.*s", n ? ", " : "", (int)pn_min64(64, key->text.n), key->text.text);
  }
  return pn_archive_fail(w->a, "no state dict is found; the keys are: %s", text);
}

/* A state dict, or the one in a checkpoint. */
static int add_torch(walk *w, const pn_object *root) {
  static const char *const names[] = { "state_dict", "model_state_dict", "model", "net", "params" };
  w->separator = '.';
  const pn_object *found = root->kind != PN_PICKLE_DICT || holds_tensor(root) ? root : NULL;
  for (size_t i = 0; i < PN_LENGTH(names) && !found; i++) {
    const pn_object *o = pn_pickle_get(root, names[i]);
    if (o && holds_tensor(o)) found = o;
  }
  if (!found) return fail_keys(w, root);
  if (found != root)
    for (int64_t i = 0; i < root->list.n; i += 2)
      if (add_scalar(w, root->list.item[i], root->list.item[i + 1]) != 0) return -1;
  if (is_leaf(found)) snprintf(w->name, sizeof w->name, "data");
  if (add_all(w, found, 0) != 0) return -1;
  return w->a->n_entries > 0 ? 0 : fail_keys(w, root);
}

/* ---- since 1.6: a zip ----------------------------------------------------------------------------------------------------------------- */

static int find_part(const pn_archive *a, const char *prefix, size_t prefix_bytes, const char *name, size_t name_bytes) {
  for (int64_t i = 0; i < a->n_parts; i++) {
    const char *part = a->parts[i].name;
    if (part && strlen(part) == prefix_bytes + name_bytes && memcmp(part, prefix, prefix_bytes) == 0 && memcmp(part + prefix_bytes, name, name_bytes) == 0) return (int)i;
  }
  return -1;
}

static int zip_storage(walk *w, const pn_object *storage, int *part, int64_t *begin, int64_t *bytes) {
  char name[300];
  const pn_object *key = storage->storage.key;
  if (key->text.n > 256) return fail_leaf(w, "the key of its storage is too long");
  int n = snprintf(name, sizeof name, "data/%.*s", (int)key->text.n, key->text.text);
  *part = find_part(w->a, w->prefix, w->prefix_bytes, name, (size_t)n);
  if (*part < 0) return pn_archive_fail(w->a, "tensor %s: the member %s is missing", w->name, name);
  *begin = 0;
  *bytes = w->a->parts[*part].bytes;
  return 0;
}

int pn_read_torch_zip(pn_archive *a, int pickle_part) {
  a->format = "pytorch";
  const char *path = a->parts[pickle_part].name;
  walk *w = pn_alloc_zero(sizeof *w);
  char *prefix = pn_copy_text(path, strlen(path) - strlen("data.pkl"));
  pn_pickle *pickle = NULL;
  pn_object *root;
  int rc = w && prefix ? 0 : -1;
  if (rc == 0) {
    w->a = a;
    w->pickle_part = pickle_part;
    w->storage = zip_storage;
    w->prefix = prefix;
    w->prefix_bytes = strlen(prefix);
    int order = find_part(a, prefix, w->prefix_bytes, "byteorder", 9);
    char text[3];
    if (order >= 0 && a->parts[order].bytes == 3) {
      rc = pn_part_read(a, order, 0, text, 3);
      w->swap = rc == 0 && memcmp(text, "big", 3) == 0;
    }
  }
  if (rc == 0) rc = pn_pickle_open(&pickle, a, pickle_part);
  if (rc == 0) rc = pn_pickle_next(pickle, &root);
  if (rc == 0) rc = add_torch(w, root);
  pn_pickle_close(pickle);
  pn_free(prefix);
  pn_free(w);
  return rc;
}

/* ---- before 1.6, and pickles of NumPy arrays --------------------------------------------------------------------------------------------- */

static int legacy_storage(walk *w, const pn_object *storage, int *part, int64_t *begin, int64_t *bytes) {
  const pn_object *key = storage->storage.key;
  for (int64_t i = 0; i < w->n_storages; i++) {
    const pn_object *other = w->storages[i].key;
    if (other->text.n != key->text.n || memcmp(other->text.text, key->text.text, (size_t)key->text.n) != 0) continue;
    *part = w->pickle_part;
    *begin = w->storages[i].begin;
    if (__builtin_mul_overflow(w->storages[i].n, (int64_t)storage->storage.element_bytes, bytes)) return fail_leaf(w, "its storage is impossible");
    return 0;
  }
  return fail_leaf(w, "its storage is missing");
}

/* The element size of each storage is known only to the tensors that use it. */
static int64_t element_bytes_of(const pn_object *o, const pn_object *key, int depth, int64_t *visits) {
  if (++*visits > MAX_VISITS || depth > MAX_DEPTH) return 0;
  if (o->kind == PN_PICKLE_TENSOR) {
    const pn_object *other = o->tensor.storage->storage.key;
    bool same = other->text.n == key->text.n && memcmp(other->text.text, key->text.text, (size_t)key->text.n) == 0;
    return same ? o->tensor.storage->storage.element_bytes : 0;
  }
  if (!is_branch(o)) return 0;
  for (int64_t i = 0; i < o->list.n; i++) {
    int64_t bytes = element_bytes_of(o->list.item[i], key, depth + 1, visits);
    if (bytes > 0) return bytes;
  }
  return 0;
}

static int read_legacy(walk *w, pn_pickle *pickle) {
  pn_object *version, *machine, *root, *keys;
  pn_archive *a = w->a;
  a->format = "pytorch";
  if (pn_pickle_next(pickle, &version) != 0) return -1;
  if (version->kind != PN_PICKLE_INT || version->integer != 1001) return pn_archive_fail(a, "an unknown version of the format before 1.6");
  if (pn_pickle_next(pickle, &machine) || pn_pickle_next(pickle, &root) || pn_pickle_next(pickle, &keys)) return -1;
  const pn_object *little = pn_pickle_get(machine, "little_endian");
  w->swap = little && little->kind == PN_PICKLE_BOOL && !little->integer;
  if (keys->kind != PN_PICKLE_LIST) return pn_archive_fail(a, "the list of storages is damaged");
  w->storages = pn_alloc((size_t)keys->list.n * sizeof *w->storages);
  if (!w->storages) return -1;
  int64_t at = pn_pickle_tell(pickle), visits = 0;
  for (int64_t i = 0; i < keys->list.n; i++) {
    unsigned char head[8];
    const pn_object *key = keys->list.item[i];
    if (key->kind != PN_PICKLE_TEXT) return pn_archive_fail(a, "the list of storages is damaged");
    if (pn_part_read(a, w->pickle_part, at, head, 8) != 0) return -1;
    int64_t n = (int64_t)pn_le64(head), each = element_bytes_of(root, key, 0, &visits), bytes;
    if (w->swap) n = (int64_t)__builtin_bswap64((uint64_t)n);
    if (each == 0) return pn_archive_fail(a, "the storage %.64s belongs to no tensor", key->text.text);
    if (n < 0 || __builtin_mul_overflow(n, each, &bytes) || bytes > a->files[0].bytes - at - 8) return pn_archive_fail(a, "the storage %.64s reaches past the end of the file", key->text.text);
    w->storages[i].key = key;
    w->storages[i].begin = at + 8;
    w->storages[i].n = n;
    at += 8 + bytes;
  }
  w->n_storages = keys->list.n;
  w->storage = legacy_storage;
  return add_torch(w, root);
}

static int no_storage(walk *w, const pn_object *storage, int *part, int64_t *begin, int64_t *bytes) {
  (void)storage, (void)part, (void)begin, (void)bytes;
  return fail_leaf(w, "its storage is missing");
}

int pn_read_pickle(pn_archive *a) {
  static const unsigned char magic[] = { 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19 }; /* 0x1950a86a20f9469cfc6c */
  a->format = "pickle";
  walk *w = pn_alloc_zero(sizeof *w);
  pn_pickle *pickle = NULL;
  pn_object *root;
  int rc = w ? pn_archive_add_part(a, &(pn_part){ .bytes = a->files[0].bytes }, NULL) : -1;
  if (rc == 0) rc = pn_pickle_open(&pickle, a, 0);
  if (rc == 0) rc = pn_pickle_next(pickle, &root);
  if (rc == 0) {
    w->a = a;
    w->separator = '/';
    w->storage = no_storage;
    if (root->kind == PN_PICKLE_LONG && root->text.n == sizeof magic && memcmp(root->text.text, magic, sizeof magic) == 0) rc = read_legacy(w, pickle);
    else {
      if (root->kind == PN_PICKLE_ARRAY) snprintf(w->name, sizeof w->name, "data");
      rc = add_all(w, root, 0);
      if (rc == 0 && a->n_entries == 0) rc = fail_keys(w, root);
    }
  }
  pn_pickle_close(pickle);
  if (w) pn_free(w->storages);
  pn_free(w);
  return rc;
}
