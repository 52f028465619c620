/* torch.c: what a pickle holds, as named tensors: PyTorch files and nested dictionaries of NumPy arrays.
**
** PyTorch since 1.6 writes a zip: data.pkl, whose tensors refer to storages in data/KEY (torch/serialization.py _save).
** Before, a file of pickles: a magic number, a protocol, facts of the machine, the object, the keys of the storages; then each
** storage as a count and its elements (_legacy_save). Keys of nested dictionaries join with '.' (PyTorch) or '/' (NumPy). */
#include <stdlib.h>
#include "pickle.h"

enum { MAX_DEPTH = 32, MAX_NAME = 4096, MAX_VISITS = 1 << 22, MAX_NAMES = 1 << 26, MAX_METADATA = 1 << 26 };

/* Where a storage of a legacy file stands. */
typedef struct stored {
  const pn_object *key;
  int64_t begin, bytes;
} stored;

typedef struct walk {
  pn_archive *a;
  int pickle_part; /* bytes of NumPy arrays stand in it */
  bool swap;       /* storages are big endian */
  char separator;
  char name[MAX_NAME];
  int64_t visits; /* items of lists and dictionaries looked at */
  int (*storage)(struct walk *w, const pn_object *storage, int *part, int64_t *begin, int64_t *bytes); /* where a storage stands */
  const char *prefix;                                                                                  /* of the members of a zip */
  size_t prefix_bytes;
  int *members;     /* the parts of a zip, by name */
  stored *storages; /* of a legacy file, by key */
  int64_t n_storages;
  int64_t name_bytes, metadata_bytes; /* of all so far */
} walk;

/* ---- leaves ------------------------------------------------------------------------------------------------------ */

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

static int permute(pn_entry *entry, const pn_object *axes) {
  int64_t order[MANY], shape[PN_MAX_DIMS], stride[PN_MAX_DIMS];
  int n;
  unsigned seen = 0;
  if (!sizes_of(axes, order, &n) || n != entry->n_dims) return -1;
  for (int d = 0; d < n; d++) {
    if (order[d] >= n || seen >> order[d] & 1) return -1;
    seen |= 1u << order[d];
    shape[d] = entry->shape[order[d]];
    stride[d] = entry->stride[order[d]];
  }
  memcpy(entry->shape, shape, (size_t)n * sizeof *shape);
  memcpy(entry->stride, stride, (size_t)n * sizeof *stride);
  return 0;
}

static int add_array(walk *w, const pn_object *o) {
  int64_t shape[MANY], count;
  int n_dims, part = w->pickle_part;
  pn_object *data = o->array.data;
  const pn_object *dtype = o->array.dtype;
  if (!data) return fail_leaf(w, "an array without its data");
  if (!sizes_of(o->array.shape, shape, &n_dims) || !pn_count_of(n_dims, shape, &count)) return fail_leaf(w, "an impossible shape");
  pn_entry *entry;
  if (pn_archive_add_entry(w->a, &entry, w->name, strlen(w->name), dtype->dtype.element, n_dims, shape) != 0) return -1;
  entry->swap = dtype->dtype.swap;
  if (dtype->dtype.element == PN_E_OTHER)
    return pn_archive_refuse(entry, "has the element type %.*s, which no tensor has", (int)pn_min64(32, dtype->dtype.name_bytes),
                             dtype->dtype.name);
  if (entry->refusal) return 0;
  if (count * pn_element_bytes(entry->element) != data->bytes.n) return fail_leaf(w, "its data do not fit its shape");
  if (o->array.fortran) {
    int64_t stride = 1;
    for (int d = 0; d < n_dims; d++) {
      entry->stride[d] = stride;
      stride *= pn_max64(shape[d], 1);
    }
  }
  if (o->array.axes && permute(entry, o->array.axes) != 0) return fail_leaf(w, "an impossible order of axes");
  entry->begin = data->bytes.offset;
  if (data->bytes.memory) { /* bytes that were text: they outlive the pickle, once for all arrays of them */
    if (data->bytes.copy == 0) {
      pn_part copy = { .file = -1, .bytes = data->bytes.n, .memory = pn_alloc((size_t)data->bytes.n + 1) };
      if (!copy.memory) return -1;
      memcpy(copy.memory, data->bytes.memory, (size_t)data->bytes.n);
      if (pn_archive_add_part(w->a, &copy, &part) != 0) return -1;
      data->bytes.copy = part + 1;
    }
    part = data->bytes.copy - 1;
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
  if (!sizes_of(o->tensor.shape, shape, &n_dims) || !sizes_of(o->tensor.stride, stride, &n_strides) || n_strides != n_dims ||
      o->tensor.offset->integer < 0)
    return fail_leaf(w, "an impossible shape or stride");
  if (w->storage(w, storage, &part, &begin, &bytes) != 0) return -1;
  bool good = !__builtin_add_overflow(o->tensor.offset->integer, storage->storage.first, &offset) &&
              !__builtin_mul_overflow(offset, (int64_t)element_bytes, &offset) &&
              !__builtin_mul_overflow(storage->storage.n, (int64_t)element_bytes, &all) && all <= bytes;
  if (!good) return fail_leaf(w, "its storage is shorter than it says");
  pn_entry *entry;
  if (pn_archive_add_entry(w->a, &entry, w->name, strlen(w->name), storage->storage.element, n_dims, shape) != 0) return -1;
  if (storage->storage.element == PN_E_OTHER)
    return pn_archive_refuse(entry, "has the element type of %s, which no tensor has", storage->storage.element_name);
  if (entry->refusal) return 0;
  memcpy(entry->stride, stride, (size_t)n_dims * sizeof *stride);
  entry->swap = w->swap;
  entry->part = part;
  if (__builtin_add_overflow(begin, offset, &entry->begin)) return fail_leaf(w, "its storage is shorter than it says");
  return pn_archive_check_entry(w->a, entry, begin + all);
}

/* ---- the tree ---------------------------------------------------------------------------------------------------- */

static bool is_leaf(const pn_object *o) { return o->kind == PN_PICKLE_TENSOR || o->kind == PN_PICKLE_ARRAY; }
static bool is_branch(const pn_object *o) {
  return o->kind == PN_PICKLE_DICT || o->kind == PN_PICKLE_LIST || o->kind == PN_PICKLE_TUPLE;
}

/* Appends a key to the name; returns its length before, or -1. */
static int64_t enter(walk *w, const pn_object *key, int64_t index) {
  size_t n = strlen(w->name);
  char separator[2] = { n > 0 ? w->separator : 0, 0 };
  int more;
  if (key && key->kind == PN_PICKLE_TEXT)
    more = snprintf(w->name + n, MAX_NAME - n, "%s%.*s", separator, (int)pn_min64(key->text.n, MAX_NAME), key->text.text);
  else if (!key || key->kind == PN_PICKLE_INT || key->kind == PN_PICKLE_BOOL)
    more = snprintf(w->name + n, MAX_NAME - n, "%s%lld", separator, (long long)(key ? key->integer : index));
  else return pn_archive_fail(w->a, "a key under %s is neither text nor a whole number", n ? w->name : "the root");
  if (key && key->kind == PN_PICKLE_TEXT && memchr(key->text.text, 0, (size_t)key->text.n))
    return pn_archive_fail(w->a, "the name of a tensor contains a NUL byte");
  if (more < 0 || (size_t)more >= MAX_NAME - n) return pn_archive_fail(w->a, "the name of a tensor is too long");
  return (int64_t)n;
}

/* Adds every tensor under o. Its children are walked by recursion, whose depth is bounded; so is the number of places looked at,
** for one object may stand in many. */
static int add_all(walk *w, const pn_object *o, int depth) {
  if (is_leaf(o)) {
    w->name_bytes += (int64_t)strlen(w->name) + (int64_t)sizeof(pn_entry);
    if (w->name_bytes > MAX_NAMES) return pn_archive_fail(w->a, "too many tensors: refused");
    return o->kind == PN_PICKLE_TENSOR ? add_tensor(w, o) : add_array(w, o);
  }
  if (!is_branch(o)) return 0;
  if (depth == MAX_DEPTH) return pn_archive_fail(w->a, "dictionaries nest deeper than %d at %.200s", MAX_DEPTH, w->name);
  int64_t each = o->kind == PN_PICKLE_DICT ? 2 : 1;
  for (int64_t i = 0; i < o->list.n; i += each) {
    const pn_object *child = o->list.item[i + each - 1];
    if (++w->visits > MAX_VISITS) return pn_archive_fail(w->a, "too many objects: refused");
    if (!is_leaf(child) && !is_branch(child)) continue;
    int64_t before = enter(w, each == 2 ? o->list.item[i] : NULL, i);
    if (before < 0 || add_all(w, child, depth + 1) != 0) return -1;
    w->name[before] = 0;
  }
  return 0;
}

static bool holds(const pn_object *o, pn_pickle_kind kind) {
  if (o->kind != PN_PICKLE_DICT) return false;
  for (int64_t i = 0; i < o->list.n; i += 2)
    if (o->list.item[i + 1]->kind == kind) return true;
  return false;
}

static int add_scalar(walk *w, const pn_object *key, const pn_object *o) {
  char text[64];
  if (key->kind != PN_PICKLE_TEXT) return 0;
  w->metadata_bytes += key->text.n + (o->kind == PN_PICKLE_TEXT ? o->text.n : (int64_t)sizeof text);
  if (w->metadata_bytes > MAX_METADATA) /* one text may stand under many keys */
    return pn_archive_fail(w->a, "its metadata need more than %d bytes: refused", MAX_METADATA);
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
    if (key->kind == PN_PICKLE_TEXT)
      n += (size_t)snprintf(text + n, sizeof text - n, "%s%.*s", n ? ", " : "", (int)pn_min64(64, key->text.n), key->text.text);
  }
  return pn_archive_fail(w->a, "no state dict is found; the keys are: %s", text);
}

/* A state dict, or the one in a checkpoint. */
static int add_torch(walk *w, const pn_object *root) {
  static const char *const names[] = { "state_dict", "model_state_dict", "model", "net", "params" };
  w->separator = '.';
  const pn_object *found = root->kind != PN_PICKLE_DICT || holds(root, PN_PICKLE_TENSOR) ? root : NULL;
  for (size_t i = 0; i < PN_LENGTH(names) && !found; i++) {
    const pn_object *o = pn_pickle_get(root, names[i]);
    if (o && holds(o, PN_PICKLE_TENSOR)) found = o;
  }
  if (!found && holds(root, PN_PICKLE_ARRAY)) found = root;
  if (!found) return fail_keys(w, root);
  if (found != root)
    for (int64_t i = 0; i < root->list.n; i += 2)
      if (add_scalar(w, root->list.item[i], root->list.item[i + 1]) != 0) return -1;
  if (is_leaf(found)) snprintf(w->name, sizeof w->name, "data");
  if (add_all(w, found, 0) != 0) return -1;
  return w->a->n_entries > 0 ? 0 : fail_keys(w, root);
}

/* ---- since 1.6: a zip -------------------------------------------------------------------------------------------- */

static int compare_members(const void *x, const void *y, void *context) {
  const pn_archive *a = context;
  return strcmp(a->parts[*(const int *)x].name, a->parts[*(const int *)y].name);
}

static int sort_members(walk *w) {
  w->members = pn_alloc((size_t)w->a->n_parts * sizeof *w->members);
  if (!w->members) return -1;
  for (int i = 0; i < w->a->n_parts; i++) w->members[i] = i;
  qsort_r(w->members, (size_t)w->a->n_parts, sizeof *w->members, compare_members, w->a);
  for (int64_t i = 1; i < w->a->n_parts; i++)
    if (compare_members(w->members + i - 1, w->members + i, w->a) == 0)
      return pn_archive_fail(w->a, "two members are named %s", w->a->parts[w->members[i]].name);
  return 0;
}

/* The part named prefix + name; -1 when there is none. */
static int find_member(const walk *w, const char *name) {
  int64_t low = 0, high = w->a->n_parts;
  while (low < high) {
    int64_t middle = (low + high) / 2;
    const char *member = w->a->parts[w->members[middle]].name;
    int order = strncmp(member, w->prefix, w->prefix_bytes);
    if (order == 0) order = strcmp(member + w->prefix_bytes, name);
    if (order == 0) return w->members[middle];
    if (order < 0) low = middle + 1;
    else high = middle;
  }
  return -1;
}

static int zip_storage(walk *w, const pn_object *storage, int *part, int64_t *begin, int64_t *bytes) {
  char name[300];
  const pn_object *key = storage->storage.key;
  if (key->text.n > 256) return fail_leaf(w, "the key of its storage is too long");
  snprintf(name, sizeof name, "data/%.*s", (int)key->text.n, key->text.text);
  *part = find_member(w, name);
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
    rc = sort_members(w);
    int order = rc == 0 ? find_member(w, "byteorder") : -1;
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
  if (w) pn_free(w->members);
  pn_free(w);
  return rc;
}

/* ---- before 1.6, and pickles of NumPy arrays --------------------------------------------------------------------- */

static int compare_texts(const pn_object *x, const pn_object *y) {
  int order = memcmp(x->text.text, y->text.text, (size_t)pn_min64(x->text.n, y->text.n));
  return order != 0 ? order : x->text.n < y->text.n ? -1 : x->text.n > y->text.n;
}

static int compare_stored(const void *x, const void *y) {
  return compare_texts(((const stored *)x)->key, ((const stored *)y)->key);
}

static int compare_storages(const void *x, const void *y) {
  return compare_texts((*(pn_object *const *)x)->storage.key, (*(pn_object *const *)y)->storage.key);
}

static int legacy_storage(walk *w, const pn_object *storage, int *part, int64_t *begin, int64_t *bytes) {
  stored wanted = { .key = storage->storage.key };
  const stored *found = bsearch(&wanted, w->storages, (size_t)w->n_storages, sizeof *w->storages, compare_stored);
  if (!found) return fail_leaf(w, "its storage is missing");
  *part = w->pickle_part;
  *begin = found->begin;
  *bytes = found->bytes;
  return 0;
}

/* The storages, one after the other, as the list of their keys says. Their element types are known to the tensors alone. */
static int find_storages(walk *w, pn_pickle *pickle, const pn_object *keys) {
  pn_archive *a = w->a;
  int64_t at = pn_pickle_tell(pickle), n_references;
  pn_object **references = pn_pickle_storages(pickle, &n_references);
  if (n_references > 1) qsort(references, (size_t)n_references, sizeof(pn_object *), compare_storages);
  if (keys->kind != PN_PICKLE_LIST) return pn_archive_fail(a, "the list of storages is damaged");
  w->storages = pn_alloc((size_t)keys->list.n * sizeof *w->storages);
  if (!w->storages) return -1;
  for (int64_t i = 0; i < keys->list.n; i++) {
    unsigned char head[8];
    pn_object wanted = { .storage.key = keys->list.item[i] }, *pointer = &wanted;
    if (wanted.storage.key->kind != PN_PICKLE_TEXT) return pn_archive_fail(a, "the list of storages is damaged");
    const char *key = wanted.storage.key->text.text;
    pn_object **found =
        n_references > 0 ? bsearch(&pointer, references, (size_t)n_references, sizeof(pn_object *), compare_storages) : NULL;
    if (!found) return pn_archive_fail(a, "the storage %.64s belongs to no tensor", key);
    if (pn_part_read(a, w->pickle_part, at, head, 8) != 0) return -1;
    int64_t n = (int64_t)pn_le64(head), bytes;
    if (w->swap) n = (int64_t)__builtin_bswap64((uint64_t)n);
    if (n < 0 || __builtin_mul_overflow(n, (int64_t)(*found)->storage.element_bytes, &bytes) || bytes > a->files[0].bytes - at - 8)
      return pn_archive_fail(a, "the storage %.64s reaches past the end of the file", key);
    w->storages[i] = (stored){ wanted.storage.key, at + 8, bytes };
    at += 8 + bytes;
  }
  w->n_storages = keys->list.n;
  if (w->n_storages > 1) qsort(w->storages, (size_t)w->n_storages, sizeof *w->storages, compare_stored);
  return 0;
}

static int read_legacy(walk *w, pn_pickle *pickle) {
  pn_object *version, *machine, *root, *keys;
  pn_archive *a = w->a;
  a->format = "pytorch";
  if (pn_pickle_next(pickle, &version) != 0) return -1;
  if (version->kind != PN_PICKLE_INT || version->integer != 1001)
    return pn_archive_fail(a, "an unknown version of the format before 1.6");
  if (pn_pickle_next(pickle, &machine) || pn_pickle_next(pickle, &root) || pn_pickle_next(pickle, &keys)) return -1;
  const pn_object *little = pn_pickle_get(machine, "little_endian");
  w->swap = little && little->kind == PN_PICKLE_BOOL && !little->integer;
  w->storage = legacy_storage;
  return find_storages(w, pickle, keys) ? -1 : add_torch(w, root);
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
    if (root->kind == PN_PICKLE_LONG && root->text.n == sizeof magic && memcmp(root->text.text, magic, sizeof magic) == 0)
      rc = read_legacy(w, pickle);
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
