/* channel.c: messages between threads: bytes and tensors, first in, first out. Tensors travel by reference count: the receiver reads
** the memory that the sender wrote. What belongs to a graph stays: the tape of a thread is its own. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "internal.h"

struct pn_message {
  struct pn_message *next;
  int64_t n_bytes;
  int n_tensors;
  pn_tensor **tensors;
  char *bytes;
};

struct pn_channel {
  atomic_int refs;
  pthread_mutex_t lock;
  pthread_cond_t changed;
  pn_message *first, *last;
  int64_t n;
  bool closed;
};

int pn_channel_new(pn_channel **out) {
  pn_channel *c = pn_alloc_zero(sizeof *c);
  if (!c) return -1;
  atomic_init(&c->refs, 1);
  pthread_mutex_init(&c->lock, NULL);
  pthread_condattr_t clock;
  pthread_condattr_init(&clock);
  pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
  pthread_cond_init(&c->changed, &clock);
  pthread_condattr_destroy(&clock);
  *out = c;
  return 0;
}

void pn_channel_retain(pn_channel *c) { atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed); }

void pn_channel_release(pn_channel *c) {
  if (!c || atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1) return;
  while (c->first) {
    pn_message *m = c->first;
    c->first = m->next;
    pn_message_free(m);
  }
  pthread_cond_destroy(&c->changed);
  pthread_mutex_destroy(&c->lock);
  pn_free(c);
}

void pn_message_free(pn_message *m) {
  if (!m) return;
  for (int i = 0; i < m->n_tensors; i++) pn_tensor_release(m->tensors[i]);
  pn_free(m->tensors);
  pn_free(m->bytes);
  pn_free(m);
}

const char *pn_message_bytes(const pn_message *m, int64_t *n) {
  *n = m->n_bytes;
  return m->bytes;
}

int pn_message_n_tensors(const pn_message *m) { return m->n_tensors; }

pn_tensor *pn_message_tensor(const pn_message *m, int i) { return i >= 0 && i < m->n_tensors ? m->tensors[i] : NULL; }

static pn_message *message_of(const char *bytes, int64_t n_bytes, pn_tensor *const *tensors, int n_tensors) {
  pn_message *m = pn_alloc_zero(sizeof *m);
  if (!m) return NULL;
  m->bytes = pn_alloc((size_t)n_bytes);
  m->tensors = pn_alloc(sizeof *m->tensors * (size_t)n_tensors);
  if (!m->bytes || !m->tensors) {
    pn_message_free(m);
    return NULL;
  }
  if (n_bytes) memcpy(m->bytes, bytes, (size_t)n_bytes);
  m->n_bytes = n_bytes;
  for (int i = 0; i < n_tensors; i++) pn_tensor_retain(m->tensors[i] = tensors[i]);
  m->n_tensors = n_tensors;
  return m;
}

int pn_channel_send(pn_channel *c, const char *bytes, int64_t n_bytes, pn_tensor *const *tensors, int n_tensors) {
  if (!c || (!bytes && n_bytes) || n_bytes < 0 || (!tensors && n_tensors) || n_tensors < 0) return pn_fail("send: NULL");
  for (int i = 0; i < n_tensors; i++) {
    if (!tensors[i]) return pn_fail("send: tensor %d is NULL", i + 1);
    if (tensors[i]->requires_grad)
      return pn_fail("send: tensor %d takes part in a graph, which stays with its thread; detach it first", i + 1);
  }
  pn_message *m = message_of(bytes, n_bytes, tensors, n_tensors);
  if (!m) return -1;
  pthread_mutex_lock(&c->lock);
  bool closed = c->closed;
  if (!closed) {
    if (c->last) c->last->next = m;
    else c->first = m;
    c->last = m;
    c->n++;
    pthread_cond_signal(&c->changed);
  }
  pthread_mutex_unlock(&c->lock);
  if (!closed) return 0;
  pn_message_free(m);
  return pn_fail("send: the channel is closed");
}

pn_message *pn_channel_receive(pn_channel *c, double seconds) {
  struct timespec until;
  clock_gettime(CLOCK_MONOTONIC, &until);
  bool forever = !(seconds < 1e9);
  if (!forever && seconds > 0) {
    until.tv_sec += (time_t)seconds;
    until.tv_nsec += (long)((seconds - (double)(time_t)seconds) * 1e9);
    if (until.tv_nsec >= 1000000000) until.tv_sec++, until.tv_nsec -= 1000000000;
  }
  pthread_mutex_lock(&c->lock);
  int rc = 0;
  while (!c->first && !c->closed && rc != ETIMEDOUT)
    rc = forever ? pthread_cond_wait(&c->changed, &c->lock) : pthread_cond_timedwait(&c->changed, &c->lock, &until);
  pn_message *m = c->first;
  if (m) {
    c->first = m->next;
    if (!c->first) c->last = NULL;
    m->next = NULL;
    c->n--;
  }
  pthread_mutex_unlock(&c->lock);
  return m;
}

int64_t pn_channel_count(pn_channel *c) {
  pthread_mutex_lock(&c->lock);
  int64_t n = c->n;
  pthread_mutex_unlock(&c->lock);
  return n;
}

bool pn_channel_closed(pn_channel *c) {
  pthread_mutex_lock(&c->lock);
  bool closed = c->closed;
  pthread_mutex_unlock(&c->lock);
  return closed;
}

void pn_channel_close(pn_channel *c) {
  pthread_mutex_lock(&c->lock);
  c->closed = true;
  pthread_cond_broadcast(&c->changed);
  pthread_mutex_unlock(&c->lock);
}
