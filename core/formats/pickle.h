/* pickle.h: the value of a pickle, read without obeying it. Private to core/formats. */
#ifndef PENUMBRA_PICKLE_H
#define PENUMBRA_PICKLE_H
#include <string.h>
#include "formats.h"

typedef enum pn_pickle_kind {
  PN_PICKLE_NONE,
  PN_PICKLE_BOOL,
  PN_PICKLE_INT,
  PN_PICKLE_FLOAT,
  PN_PICKLE_LONG, /* LONG: beyond 64 bits; only compared */
  PN_PICKLE_TEXT,
  PN_PICKLE_BYTES,
  PN_PICKLE_TUPLE,
  PN_PICKLE_LIST,
  PN_PICKLE_DICT,
  PN_PICKLE_GLOBAL,
  PN_PICKLE_DTYPE,
  PN_PICKLE_ARRAY,
  PN_PICKLE_STORAGE,
  PN_PICKLE_TENSOR,
  PN_PICKLE_OPAQUE, /* OPAQUE: harmless, and of no use here */
} pn_pickle_kind;

typedef struct pn_object pn_object;
struct pn_object {
  pn_pickle_kind kind;
  union {
    int64_t integer; /* INT, BOOL; GLOBAL: which one */
    double number;
    struct {
      const char *text;
      int64_t n;
    } text; /* TEXT, LONG (little endian) */
    struct {
      const unsigned char *memory;
      int64_t offset, n;
      int copy;
    } bytes; /* BYTES: memory, or where in the part; copy: 1 + the part that has what was in memory, 0 while none has */
    struct {
      pn_object **item;
      int64_t n, room;
    } list; /* TUPLE, LIST; DICT: key, value, key, value, ... */
    struct {
      pn_element element;
      bool swap;
      const char *name;
      int64_t name_bytes;
    } dtype;
    struct {
      pn_object *shape, *dtype, *data,
          *axes; /* axes: shape is of what data hold, result axis d is axis axes[d] of it; NULL: as they are */
      bool fortran;
    } array; /* ARRAY: data is BYTES; all NULL until it is built */
    struct {
      pn_object *key;
      int64_t n, first;
      pn_element element;
      int element_bytes;
      const char *element_name;
    } storage; /* n, first in elements */
    struct {
      pn_object *storage, *offset, *shape, *stride;
    } tensor;
  };
};

typedef struct pn_pickle pn_pickle; /* the reader, and the owner of every object it made */

/* Reads pickles one after the other from a part, from byte 0. */
PN_CHECKED int pn_pickle_open(pn_pickle **out, pn_archive *a, int part);
PN_CHECKED int pn_pickle_next(pn_pickle *pickle, pn_object **out);
int64_t pn_pickle_tell(const pn_pickle *pickle);
pn_object **pn_pickle_storages(pn_pickle *pickle, int64_t *n); /* every reference to a storage so far; the caller may sort them */
void pn_pickle_close(pn_pickle *pickle);

pn_object *pn_pickle_get(const pn_object *dict, const char *key); /* NULL when dict is none, or has no such key */
static inline bool pn_pickle_is(const pn_object *o, const char *text) {
  return o && o->kind == PN_PICKLE_TEXT && o->text.n == (int64_t)strlen(text) && memcmp(o->text.text, text, (size_t)o->text.n) == 0;
}
#endif
