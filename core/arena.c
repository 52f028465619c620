/* arena.c: the large blocks of host memory, cut from chunks of address space and joined again when they come back.
**
** A training step asks for the same sizes in the same order as the step before, so it finds the same places and touches no
** new page. The smallest place that fits is taken; among places that do not suffice, the one that grows least. What was once
** part of a block counts as held until a trim gives it back to the system; the rest of a chunk is only addresses.
** The book of a block lies outside it, so a block that nobody writes costs nothing: that is what dry runs stand on. */
#include <stdlib.h>
#include <sys/mman.h>
#include "arena.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define close_to_all(p, n) ASAN_POISON_MEMORY_REGION(p, n)
#define open_to_all(p, n) ASAN_UNPOISON_MEMORY_REGION(p, n)
#else
#define close_to_all(p, n) ((void)(p), (void)(n))
#define open_to_all(p, n) ((void)(p), (void)(n))
#endif

enum { PAGE = 4096, HUGE_PAGE = 2 << 20, CHUNK = 256 << 20 };

typedef struct chunk {
  struct chunk *next;
  char *at;
  size_t bytes;
  pn_block *first;
  char *top; /* where a dry run found the end of what was held */
} chunk;

struct pn_block { /* a piece of a chunk: a block, or free */
  chunk *in;
  pn_block *before, *after;  /* neighbours in the chunk */
  pn_block *next, *previous; /* the list of free ones */
  char *at;
  size_t bytes, warm; /* warm: how many of a free one's bytes, from its start, are held */
  bool is_free;
};

static chunk *chunks;
static pn_block *free_list;
static size_t held;

static void list_add(pn_block *s) {
  s->is_free = true;
  s->previous = NULL;
  s->next = free_list;
  if (free_list) free_list->previous = s;
  free_list = s;
}

static void list_remove(pn_block *s) {
  s->is_free = false;
  if (s->next) s->next->previous = s->previous;
  if (s->previous) s->previous->next = s->next;
  else free_list = s->next;
}

static void *map(size_t bytes, bool lazy) {
  void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | (lazy ? MAP_NORESERVE : 0), -1, 0);
  return p == MAP_FAILED ? NULL : p;
}

/* A chunk that begins and ends at a huge page. */
static bool chunk_new(size_t least, bool lazy) {
  size_t bytes = least > CHUNK ? (least + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE : CHUNK;
  if (bytes < least) return false;
  chunk *c = calloc(1, sizeof *c);
  pn_block *s = calloc(1, sizeof *s);
  char *p = c && s && bytes <= SIZE_MAX - HUGE_PAGE ? map(bytes + HUGE_PAGE, lazy) : NULL;
  if (!p && c && s && bytes > least) { /* little address space is left: no more than is needed */
    bytes = (least + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    p = map(bytes + HUGE_PAGE, lazy);
  }
  if (!p) {
    free(c);
    free(s);
    return false;
  }
  size_t low = (HUGE_PAGE - (uintptr_t)p % HUGE_PAGE) % HUGE_PAGE;
  if (low) munmap(p, low);
  if (low < HUGE_PAGE) munmap(p + low + bytes, HUGE_PAGE - low);
  *c = (chunk){ .next = chunks, .at = p + low, .bytes = bytes, .first = s };
  c->top = c->at;
  chunks = c;
  *s = (pn_block){ .in = c, .at = c->at, .bytes = bytes };
  list_add(s);
  close_to_all(c->at, bytes);
  if (!lazy) (void)madvise(c->at, bytes, MADV_HUGEPAGE); /* only a hint: fewer page faults and TLB misses */
  return true;
}

static void chunk_free(chunk *c) {
  chunk **link = &chunks;
  while (*link != c) link = &(*link)->next;
  *link = c->next;
  held -= c->first->warm;
  list_remove(c->first);
  open_to_all(c->at, c->bytes);
  munmap(c->at, c->bytes);
  free(c->first);
  free(c);
}

static pn_block *find(size_t bytes) {
  pn_block *best = NULL;
  size_t best_growth = 0;
  for (pn_block *s = free_list; s; s = s->next) {
    if (s->bytes < bytes) continue;
    size_t growth = s->warm < bytes ? bytes - s->warm : 0;
    bool better = !best || growth < best_growth || (growth == best_growth && s->warm < best->warm) ||
                  (growth == best_growth && s->warm == best->warm && s->at < best->at);
    if (better) best = s, best_growth = growth;
  }
  return best;
}

pn_block *pn_arena_take(size_t bytes, bool lazy) {
  if (bytes > SIZE_MAX / 2) return NULL;
  size_t size = (bytes + PAGE - 1) / PAGE * PAGE;
  pn_block *s = find(size);
  if (!s && chunk_new(size, lazy)) s = find(size);
  if (!s) return NULL;
  if (s->bytes > size) {
    pn_block *rest = calloc(1, sizeof *rest);
    if (!rest) return NULL;
    *rest = (pn_block){ .in = s->in, .before = s, .after = s->after, .at = s->at + size, .bytes = s->bytes - size };
    rest->warm = s->warm > size ? s->warm - size : 0;
    if (rest->after) rest->after->before = rest;
    s->after = rest;
    s->bytes = size;
    list_add(rest);
  }
  list_remove(s);
  if (s->warm < size) held += size - s->warm;
  s->warm = size;
  open_to_all(s->at, bytes);
  return s;
}

/* Two free neighbours become one; b comes after a. */
static void join(pn_block *a, pn_block *b) {
  a->bytes += b->bytes;
  a->warm += b->warm;
  a->after = b->after;
  if (b->after) b->after->before = a;
  list_remove(b);
  free(b);
}

void pn_arena_give(pn_block *s) {
  close_to_all(s->at, s->bytes);
  list_add(s);
  if (s->after && s->after->is_free) join(s, s->after);
  if (s->before && s->before->is_free) join(s->before, s);
}

void *pn_block_data(const pn_block *s) { return s->at; }
size_t pn_block_bytes(const pn_block *s) { return s->bytes; }
size_t pn_arena_held(void) { return held; }

void pn_arena_trim(void) {
  for (chunk *c = chunks, *next; c; c = next) {
    next = c->next;
    if (c->first->is_free && !c->first->after) chunk_free(c);
  }
  for (pn_block *s = free_list; s; s = s->next) {
    if (s->warm) (void)madvise(s->at, s->bytes, MADV_DONTNEED);
    held -= s->warm;
    s->warm = 0;
  }
}

void pn_arena_remember(void) {
  for (chunk *c = chunks; c; c = c->next) {
    c->top = c->at;
    for (pn_block *s = c->first; s; s = s->after)
      if (s->warm) c->top = s->at + s->warm;
    (void)madvise(c->at, c->bytes, MADV_NOHUGEPAGE); /* the little that a dry run writes costs small pages */
  }
}

void pn_arena_forget(void) {
  for (chunk *c = chunks, *next; c; c = next) {
    next = c->next;
    for (pn_block *s = c->first; s; s = s->after) {
      size_t touched = s->at < c->top ? (size_t)(c->top - s->at) : 0;
      if (!s->is_free || s->warm <= touched) continue;
      (void)madvise(s->at + touched, s->warm - touched, MADV_DONTNEED); /* the little that was written */
      held -= s->warm - touched;
      s->warm = touched;
    }
    (void)madvise(c->at, c->bytes, MADV_HUGEPAGE);
    c->top = c->at;
    if (c->first->is_free && !c->first->after && !c->first->warm) chunk_free(c);
  }
}
