/* pool.c: see pool.h. Blocks of a segment form a chain by address; free ones are found by size, the smallest that fits, and joined
** with free neighbours when they come back. Small requests share segments of 2 MiB; larger ones are cut from segments of 32 MiB, or
** have one of their own, as each has where the pool is exact. Not thread-safe: the device's lock is held. */
#include "pool.h"
#include <stdlib.h>

enum { ALIGN = 512, BUCKETS = 8192 };
static const size_t small_most = 256 << 10, small_segment = 2 << 20, segment = 32 << 20;

typedef struct block {
  char *data;
  size_t bytes;
  bool out, small;
  struct block *before, *after; /* neighbours in the segment */
  struct block *next;           /* in its bucket while out; else in the list of free ones, by size */
} block;

struct pn_pool {
  pn_pool_source source;
  block *out[BUCKETS], *free[2]; /* free: [small] */
  pn_pool_count count;
};

static size_t bucket_of(const void *p) { return ((uintptr_t)p / ALIGN) % BUCKETS; }

pn_pool *pn_pool_new(pn_pool_source source) {
  pn_pool *pool = calloc(1, sizeof *pool);
  if (pool) pool->source = source;
  return pool;
}

static void free_insert(pn_pool *pool, block *b) {
  block **link = &pool->free[b->small];
  while (*link && (*link)->bytes < b->bytes) link = &(*link)->next;
  b->next = *link;
  *link = b;
}

static void free_remove(pn_pool *pool, block *b) {
  block **link = &pool->free[b->small];
  while (*link != b) link = &(*link)->next;
  *link = b->next;
}

static block *grow(pn_pool *pool, size_t bytes, bool small) {
  size_t whole = pool->source.exact    ? bytes
                 : small               ? small_segment
                 : bytes < segment / 2 ? segment
                                       : (bytes + small_segment - 1) / small_segment * small_segment;
  block *b = calloc(1, sizeof *b);
  if (!b) return NULL;
  b->data = pool->source.take(pool->source.context, whole);
  if (!b->data) {
    free(b);
    return NULL;
  }
  b->bytes = whole;
  b->small = small;
  pool->count.held += (int64_t)whole;
  if (pool->count.held > pool->count.peak_held) pool->count.peak_held = pool->count.held;
  return b;
}

/* The rest of a block that is cut becomes a free block, unless it is too small to be of use. */
static void cut(pn_pool *pool, block *b, size_t bytes) {
  if (b->bytes - bytes < (b->small ? ALIGN : small_segment / 2)) return;
  block *rest = calloc(1, sizeof *rest);
  if (!rest) return; /* the block stays whole */
  rest->data = b->data + bytes;
  rest->bytes = b->bytes - bytes;
  rest->small = b->small;
  rest->before = b;
  rest->after = b->after;
  if (b->after) b->after->before = rest;
  b->after = rest;
  b->bytes = bytes;
  free_insert(pool, rest);
}

static block *find(pn_pool *pool, size_t bytes, bool small) {
  for (block *b = pool->free[small]; b; b = b->next)
    if (pool->source.exact ? b->bytes == bytes : b->bytes >= bytes) {
      free_remove(pool, b);
      return b;
    }
  return NULL;
}

void *pn_pool_take(pn_pool *pool, size_t bytes) {
  if (!pool->source.exact) bytes = bytes ? (bytes + ALIGN - 1) / ALIGN * ALIGN : ALIGN;
  bool small = bytes <= small_most;
  block *b = find(pool, bytes, small);
  if (!b) b = grow(pool, bytes, small);
  if (!b) return NULL;
  if (!pool->source.exact) cut(pool, b, bytes);
  b->out = true;
  b->next = pool->out[bucket_of(b->data)];
  pool->out[bucket_of(b->data)] = b;
  pool->count.used += (int64_t)b->bytes;
  return b->data;
}

/* Joins b with the free block behind it. */
static void join(pn_pool *pool, block *b) {
  block *gone = b->after;
  free_remove(pool, gone);
  b->bytes += gone->bytes;
  b->after = gone->after;
  if (b->after) b->after->before = b;
  free(gone);
}

size_t pn_pool_give(pn_pool *pool, void *memory) {
  block **link = &pool->out[bucket_of(memory)];
  while (*link && (*link)->data != memory) link = &(*link)->next;
  block *b = *link;
  if (!b) return 0;
  *link = b->next;
  size_t bytes = b->bytes;
  b->out = false;
  pool->count.used -= (int64_t)bytes;
  if (b->after && !b->after->out) join(pool, b);
  if (b->before && !b->before->out) {
    b = b->before;
    free_remove(pool, b);
    block *gone = b->after;
    b->bytes += gone->bytes;
    b->after = gone->after;
    if (b->after) b->after->before = b;
    free(gone);
  }
  free_insert(pool, b);
  if (pool->source.exact && !pool->source.keeps) pn_pool_trim(pool); /* b alone */
  return bytes;
}

void pn_pool_trim(pn_pool *pool) {
  for (int small = 0; small < 2; small++)
    for (block **link = &pool->free[small], *b; (b = *link);) {
      if (b->before || b->after) {
        link = &b->next;
        continue;
      }
      *link = b->next;
      pool->count.held -= (int64_t)b->bytes;
      pool->source.give(pool->source.context, b->data);
      free(b);
    }
}

void pn_pool_free(pn_pool *pool) {
  if (!pool) return;
  for (int i = 0; i < BUCKETS; i++)
    while (pool->out[i]) (void)pn_pool_give(pool, pool->out[i]->data);
  pn_pool_trim(pool);
  free(pool);
}

pn_pool_count pn_pool_counts(const pn_pool *pool) { return pool->count; }
