/* profile.c: what ran, when, for how long, and on which thread, while the recorder is on.
**
** A span is an operation (pn_apply, backward) or a part that a script names (pn_profile_begin). Spans of a thread nest: a row's
** seconds are its own, without those of the spans inside. Rows are of the thread that profiles, by name, direction, label, shapes and
** arguments, and add up to its outermost spans; events are single spans in time, of every thread, and the pieces that the pool's threads
** did of them. A row that only events of other threads refer to has no calls.
**
** A CUDA device works later than it is asked to. So once one is in use each span of the thread that profiles also leaves two moments in
** its stream; how far these are apart is looked up when the recorder is switched off, and nothing waits before. */
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "backend.h"
#include "profile.h"

enum { MOST_EVENTS = 1 << 22, MOST_OPEN = 16, FOREIGN = 1000 };

typedef struct row {
  char name[48], label[64], shapes[192], args[160];
  int64_t calls;
  double seconds, flops, bytes, device_seconds;
  uint64_t hash;
} row;

static atomic_bool profiling;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static row *rows;
static int *buckets, n_rows, room;
static pn_profile_event *events;
static int64_t n_events, event_room;
static pthread_t owner;
static atomic_int n_foreign;
static unsigned session; /* of the recorder: numbers of foreign threads are drawn anew in each */
static _Thread_local pn_span *open;
static _Thread_local int thread_number;
static _Thread_local unsigned thread_session;
static pn_span named[MOST_OPEN]; /* of pn_profile_begin, on the thread that profiles */
static int n_named;

typedef struct moments {
  int row;
  int64_t outer; /* the moments of the span around it; -1: none */
  void *begin, *end;
  double seconds, inner;
} moments;

static moments *taken; /* of the device in use, by the order of beginning */
static int64_t n_taken, taken_room;
static int in_use;            /* a CUDA device, or PN_CPU; that of one recording is expected in the next */
static bool worked;           /* it did something in this recording */
static void *origin;          /* the first moment of the recording, */
static double origin_seconds; /* on pn_clock */

double pn_clock(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

bool pn_profiling(void) { return atomic_load_explicit(&profiling, memory_order_relaxed); }
const pn_span *pn_span_current(void) { return open; }

static void forget_moments(void);
static void settle_moments(void);

void pn_profile(bool on) {
  if (!on && pn_profiling()) settle_moments();
  pthread_mutex_lock(&lock);
  if (on) {
    forget_moments();
    worked = false;
    n_rows = n_named = 0;
    n_events = 0;
    session++;
    owner = pthread_self();
    atomic_store(&n_foreign, 0);
    open = NULL;
  }
  atomic_store(&profiling, on);
  pthread_mutex_unlock(&lock);
}

/* 0: the thread that began the profile; the pool numbers its own; others as they come. */
static int this_thread(void) {
  if (pthread_equal(owner, pthread_self())) return 0;
  if (thread_session != session) thread_session = session, thread_number = FOREIGN + atomic_fetch_add(&n_foreign, 1);
  return thread_number;
}

/* ---- text of a call ---------------------------------------------------------------------------------------------------- */

static void append(char *text, size_t bytes, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void append(char *text, size_t bytes, const char *format, ...) {
  size_t used = strlen(text);
  va_list ap;
  va_start(ap, format);
  vsnprintf(text + used, bytes - used, format, ap);
  va_end(ap);
}

/* "1,64,8,56,56 192,64,3,3,3 -": the inputs, as the cases of an operation write them. */
static void write_shapes(char *text, size_t bytes, const pn_call *call) {
  text[0] = 0;
  for (int i = 0; i < call->n_x; i++) {
    char shape[96] = "-";
    if (call->x[i]) pn_format_shape(shape, sizeof shape, call->x[i]->n_dims, call->x[i]->shape);
    append(text, bytes, "%s%s", i ? " " : "", shape);
  }
}

/* "stride=1,2,2 pad=same": the arguments, as pn_op_parse reads them. */
static void write_args(char *text, size_t bytes, const pn_call *call) {
  text[0] = 0;
  const pn_arg *args = call->op->args;
  for (int i = 0; args && args[i].name; i++) {
    const pn_value *v = &call->arg[i];
    append(text, bytes, "%s%s=", i ? " " : "", args[i].name);
    switch (args[i].kind) {
    case PN_REAL: append(text, bytes, "%g", v->f); break;
    case PN_BOOL: append(text, bytes, "%s", v->i[0] ? "true" : "false"); break;
    case PN_CHOICE: {
      const char *p = args[i].choices;
      for (int64_t k = 0; k < v->i[0]; k++) p += strcspn(p, "|") + 1;
      append(text, bytes, "%.*s", (int)strcspn(p, "|"), p);
      break;
    }
    default: {
      int n = args[i].kind == PN_INT ? 1 : args[i].kind == PN_INT3 ? 3 : args[i].kind == PN_PAD3 ? 6 : v->n;
      if (args[i].kind == PN_PAD3 && v->same) append(text, bytes, "same");
      else
        for (int k = 0; k < n; k++) append(text, bytes, "%s%lld", k ? "," : "", (long long)v->i[k]);
    }
    }
  }
}

static double bytes_of(pn_tensor *const *x, int n) {
  double bytes = 0;
  for (int i = 0; i < n; i++)
    if (x[i]) bytes += (double)(pn_tensor_count(x[i]) * pn_dtype_bytes(x[i]->dtype));
  return bytes;
}

/* ---- rows and events, under the lock ----------------------------------------------------------------------------------- */

static uint64_t hash_of(const row *r) { /* FNV-1a */
  uint64_t h = 14695981039346656037u;
  const char *const parts[] = { r->name, r->label, r->shapes, r->args };
  for (size_t i = 0; i < PN_LENGTH(parts); i++)
    for (const char *p = parts[i];; p++) {
      h = (h ^ (unsigned char)*p) * 1099511628211u;
      if (!*p) break;
    }
  return h;
}

static bool grow_rows(void) {
  int more = room ? 2 * room : 256;
  row *grown = realloc(rows, sizeof *rows * (size_t)more);
  if (grown) rows = grown;
  int *wider = realloc(buckets, sizeof *buckets * 2 * (size_t)more);
  if (wider) buckets = wider;
  if (!grown || !wider) return false;
  room = more;
  return true;
}

/* The place of a row in the table of open addresses: where it is, or where it would be. */
static int *bucket_of(const row *r) {
  size_t size = 2 * (size_t)room, i = (size_t)(r->hash % size);
  while (buckets[i] >= 0) {
    const row *have = &rows[buckets[i]];
    if (have->hash == r->hash && !strcmp(have->name, r->name) && !strcmp(have->label, r->label) &&
        !strcmp(have->shapes, r->shapes) && !strcmp(have->args, r->args))
      break;
    i = (i + 1) % size;
  }
  return &buckets[i];
}

/* The index of the row; -1 without memory: a profile may lose a line, the computation goes on. */
static int row_of(row *r) {
  r->hash = hash_of(r);
  if (n_rows == room || n_rows == 0) {
    if (n_rows == room && !grow_rows()) return -1;
    memset(buckets, -1, sizeof *buckets * 2 * (size_t)room);
    for (int i = 0; i < n_rows; i++) *bucket_of(&rows[i]) = i;
  }
  int *bucket = bucket_of(r);
  if (*bucket < 0) {
    *bucket = n_rows;
    rows[n_rows++] = *r;
  }
  return *bucket;
}

static void add_event(int of, int thread, bool piece, double begin, double seconds) {
  if (n_events == event_room) {
    int64_t more = event_room ? 2 * event_room : 4096;
    pn_profile_event *grown = more > MOST_EVENTS ? NULL : realloc(events, sizeof *events * (size_t)more);
    if (!grown) return;
    events = grown, event_room = more;
  }
  events[n_events++] = (pn_profile_event){ of, thread, piece, begin, seconds };
}

/* ---- moments of a device ------------------------------------------------------------------------------------------------ */

static void forget_moments(void) {
  const pn_backend *backend;
  int index;
  if (origin && !pn_backend_of(in_use, &backend, &index)) {
    for (int64_t i = 0; i < n_taken; i++) {
      if (taken[i].begin) backend->unmark(index, taken[i].begin);
      if (taken[i].end) backend->unmark(index, taken[i].end);
    }
    backend->unmark(index, origin);
  }
  origin = NULL;
  n_taken = 0;
}

static int first_moment(const pn_backend *backend, int index) {
  if (backend->mark(index, &origin)) return -1;
  if (backend->wait(index)) return -1;
  origin_seconds = pn_clock();
  return 0;
}

/* The place of a span that begins; -1 where no device is in use, and without memory: a profile may lose a line. */
static int64_t begin_moments(const pn_span *s) {
  const pn_call *call = s->call;
  int device = call && call->x[0] ? pn_device_of(call->x[0]) : PN_CPU, index;
  const pn_backend *backend;
  if (device != PN_CPU && device != in_use) {
    forget_moments(); /* another device: the recording begins anew for it */
    in_use = device;
  }
  worked |= device != PN_CPU;
  if (in_use == PN_CPU || pn_capturing() || !pthread_equal(owner, pthread_self()) || pn_backend_of(in_use, &backend, &index))
    return -1;
  if (!origin && first_moment(backend, index)) return -1;
  if (n_taken == taken_room) {
    int64_t more = taken_room ? 2 * taken_room : 1024;
    moments *grown = more > MOST_EVENTS ? NULL : realloc(taken, sizeof *taken * (size_t)more);
    if (!grown) return -1;
    taken = grown, taken_room = more;
  }
  void *mark;
  if (backend->mark(index, &mark)) return -1;
  taken[n_taken] = (moments){ .row = -1, .outer = s->outer ? s->outer->moments : -1, .begin = mark };
  return n_taken++;
}

static void end_moments(const pn_span *s) {
  const pn_backend *backend;
  int index;
  if (s->moments < 0 || s->moments >= n_taken || pn_capturing() || pn_backend_of(in_use, &backend, &index)) return;
  moments *m = &taken[s->moments];
  if (backend->mark(index, &m->end)) m->end = NULL;
}

static void settle_moments(void) {
  const pn_backend *backend;
  int index;
  if (!worked) {
    forget_moments();
    in_use = PN_CPU;
  }
  if (!origin || pn_backend_of(in_use, &backend, &index)) return;
  for (int64_t i = n_taken - 1; i >= 0; i--) { /* what is inside began later */
    moments *m = &taken[i];
    double begin;
    if (!m->end || m->row < 0 || m->row >= n_rows || backend->between(index, m->begin, m->end, &m->seconds) ||
        backend->between(index, origin, m->begin, &begin))
      continue;
    if (m->outer >= 0) taken[m->outer].inner += m->seconds;
    rows[m->row].device_seconds += m->seconds - m->inner;
    add_event(m->row, -1 - index, false, origin_seconds + begin, m->seconds);
  }
  forget_moments();
}

/* ---- spans ------------------------------------------------------------------------------------------------------------- */

static void begin_span(pn_span *s, const char *name, const pn_call *call, bool backward) {
  s->on = pn_profiling();
  if (!s->on) return;
  s->name = name, s->call = call, s->backward = backward;
  snprintf(s->label, sizeof s->label, "%s", pn_memory_label());
  s->inner = 0;
  s->outer = open;
  s->moments = begin_moments(s);
  open = s;
  s->begin = pn_clock();
}

void pn_span_open(pn_span *s, const char *name) { begin_span(s, name, NULL, false); }
void pn_span_open_call(pn_span *s, const pn_call *call, bool backward) { begin_span(s, call->op->name, call, backward); }

double pn_span_close(pn_span *s) {
  if (!s->on) return 0;
  end_moments(s);
  double seconds = pn_clock() - s->begin;
  open = s->outer;
  if (open) open->inner += seconds;
  if (!pn_profiling()) return 0;
  row r = { .calls = 0 };
  double flops = 0, bytes = 0;
  snprintf(r.label, sizeof r.label, "%s", s->label);
  if (s->call) {
    const pn_call *call = s->call;
    snprintf(r.name, sizeof r.name, "%s.%s", s->name, s->backward ? "backward" : "forward");
    write_shapes(r.shapes, sizeof r.shapes, call);
    write_args(r.args, sizeof r.args, call);
    /* The gradient of each factor costs what the product costs. */
    flops = call->flops * (!s->backward ? 1 : pn_call_wants(call, 0) + (call->n_x > 1 && pn_call_wants(call, 1)));
    bytes = bytes_of(call->x, call->n_x) + bytes_of(s->backward ? call->dy : call->y, call->n_y);
  } else snprintf(r.name, sizeof r.name, "%s", s->name);
  pthread_mutex_lock(&lock);
  int at = row_of(&r), thread = this_thread();
  if (at >= 0) {
    if (thread == 0) { /* what others do beside it would count the same time twice */
      rows[at].calls++;
      rows[at].seconds += seconds - s->inner;
      rows[at].flops += flops;
      rows[at].bytes += bytes;
    }
    add_event(at, thread, false, s->begin, seconds);
    if (s->moments >= 0 && s->moments < n_taken) taken[s->moments].row = at;
  }
  pthread_mutex_unlock(&lock);
  return seconds;
}

void pn_profile_piece(const pn_span *of, int thread, double begin, double end) {
  row r = { .calls = 0 };
  if (of) {
    snprintf(r.name, sizeof r.name, "%s%s", of->name, !of->call ? "" : of->backward ? ".backward" : ".forward");
    snprintf(r.label, sizeof r.label, "%s", of->label);
  } else snprintf(r.name, sizeof r.name, "parallel");
  snprintf(r.args, sizeof r.args, "a piece");
  pthread_mutex_lock(&lock);
  int at = pn_profiling() ? row_of(&r) : -1;
  if (at >= 0) add_event(at, thread, true, begin, end - begin);
  pthread_mutex_unlock(&lock);
}

int pn_profile_begin(const char *name) {
  if (!name) return pn_fail("profile_begin: name is NULL");
  if (!pn_profiling() || !pthread_equal(owner, pthread_self())) return 0;
  if (n_named == MOST_OPEN) return pn_fail("profile_begin: %d parts are open, and \"%s\" would be one too many", MOST_OPEN, name);
  static char names[MOST_OPEN][48];
  snprintf(names[n_named], sizeof names[0], "%s", name);
  pn_span_open(&named[n_named], names[n_named]);
  n_named++;
  return 0;
}

double pn_profile_end(void) {
  if (!pn_profiling() || !pthread_equal(owner, pthread_self()) || n_named == 0) return 0;
  return pn_span_close(&named[--n_named]);
}

/* ---- reading ----------------------------------------------------------------------------------------------------------- */

int pn_profile_report(char *buffer, size_t bytes) {
  if (!buffer || !bytes) return pn_fail("profile_report: no buffer");
  size_t used = 0;
  buffer[0] = 0;
  for (int i = 0; i < n_rows; i++) {
    int n = snprintf(buffer + used, bytes - used, "%s\t%s\t%lld\t%.9f\t%.0f\t%.0f\t%s\t%s\t%.9f\n", rows[i].name, rows[i].label,
                     (long long)rows[i].calls, rows[i].seconds, rows[i].flops, rows[i].bytes, rows[i].shapes, rows[i].args,
                     rows[i].device_seconds);
    if (n < 0 || (size_t)n >= bytes - used) return pn_fail("profile_report: %zu bytes are too few", bytes);
    used += (size_t)n;
  }
  return 0;
}

int64_t pn_profile_events(const pn_profile_event **out) {
  *out = events;
  return n_events;
}
