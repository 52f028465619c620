/* cache.c: decoded pictures, kept within a bound in bytes and shared by all threads; least recently used first out.
** A picture is known by its owner (a data set, numbered when it is opened) and a name. What is inside is never written. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "picture.h"

typedef struct entry {
  uint64_t owner, hash, used;
  char *name;
  pn_tensor *tensor;
  int64_t bytes;
} entry;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static entry *entries;
static int64_t n_entries, room, held;
static uint64_t turn, last_owner;

static uint64_t hash_of(const char *name) { /* FNV-1a */
  uint64_t h = UINT64_C(0xcbf29ce484222325);
  for (; *name; name++) h = (h ^ (uint8_t)*name) * UINT64_C(0x100000001b3);
  return h;
}

static entry *find(uint64_t owner, const char *name) {
  uint64_t hash = hash_of(name);
  for (int64_t i = 0; i < n_entries; i++) {
    entry *e = entries + i;
    if (e->hash == hash && e->owner == owner && strcmp(e->name, name) == 0) return e;
  }
  return NULL;
}

static void remove_entry(entry *e) {
  held -= e->bytes;
  pn_tensor_release(e->tensor);
  free(e->name);
  *e = entries[--n_entries];
}

uint64_t pn_cache_owner(void) {
  pthread_mutex_lock(&lock);
  uint64_t owner = ++last_owner;
  pthread_mutex_unlock(&lock);
  return owner;
}

pn_tensor *pn_cache_get(uint64_t owner, const char *name) {
  pthread_mutex_lock(&lock);
  entry *e = find(owner, name);
  pn_tensor *t = e ? e->tensor : NULL;
  if (e) e->used = ++turn;
  pn_tensor_retain(t);
  pthread_mutex_unlock(&lock);
  return t;
}

void pn_cache_put(uint64_t owner, const char *name, pn_tensor *t, int64_t limit_bytes) {
  int64_t bytes = pn_tensor_count(t) * pn_dtype_bytes(t->dtype);
  if (bytes > limit_bytes) return;
  pthread_mutex_lock(&lock);
  bool there = find(owner, name) != NULL;
  while (!there && n_entries && held + bytes > limit_bytes) {
    entry *oldest = entries;
    for (int64_t i = 1; i < n_entries; i++)
      if (entries[i].used < oldest->used) oldest = entries + i;
    remove_entry(oldest);
  }
  if (!there && n_entries == room) { /* without memory for it, it is not kept: the picture is there all the same */
    int64_t wanted = room ? 2 * room : 256;
    entry *more = realloc(entries, sizeof *more * (size_t)wanted);
    if (more) entries = more, room = wanted;
  }
  char *copy = there || n_entries == room ? NULL : strdup(name);
  if (copy) {
    pn_tensor_retain(t);
    entries[n_entries++] = (entry){ owner, hash_of(name), ++turn, copy, t, bytes };
    held += bytes;
  }
  pthread_mutex_unlock(&lock);
}

void pn_cache_drop(uint64_t owner) {
  pthread_mutex_lock(&lock);
  for (int64_t i = n_entries - 1; i >= 0; i--)
    if (entries[i].owner == owner) remove_entry(entries + i);
  pthread_mutex_unlock(&lock);
}

int64_t pn_cache_bytes(void) {
  pthread_mutex_lock(&lock);
  int64_t bytes = held;
  pthread_mutex_unlock(&lock);
  return bytes;
}
