/* cudnn_convolve.c: the engine that does a convolution: chosen when a problem first comes, then kept. See cudnn_convolve.h.
**
** Of the engines that suit (cudnn_plan.h), the likely fastest first, the first that makes a plan within the limit of workspace, and
** runs, is taken, or, when autotuning, the fastest of all. Picks (engine and knobs) are kept by problem, in memory and in a file
** for the device and the version (picks.h). */
#include "cudnn_plan.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "linger.h"

enum { GROUPS = 5, MOST_RUNS = 20 };                   /* of a timing; of a group */
static const double group_ms = 0.1, most_ahead = 0.01; /* about what a group takes; seconds that the host may queue ahead */

/* ---- a problem: how its data lie, and its text for errors, picks and the file ------------------------------------------------ */

int64_t pn_cudnn_alignment(const void *p) {
  int64_t a = 16;
  while ((uintptr_t)p % (uintptr_t)a) a /= 2;
  return a;
}

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

/* ---- plans ------------------------------------------------------------------------------------------------------------------- */

typedef struct plan {
  struct plan *next;
  pn_cudnn_problem problem;
  pn_cudnn_policy policy;
  pn_cudnn_graph *graph;
  pn_cudnn_plan *plan; /* NULL: none was found so far */
  int64_t workspace;
  pn_pick pick;
  int n_tried;
  double milliseconds; /* 0 when it was not timed */
  bool from_file, ran; /* ran: when it was picked, so that the result asked for is there */
  bool none;           /* cuDNN has nothing, for this reason */
  char reason[256];
} plan;

enum { NO_ROOM = -2, BROKEN = -3 }; /* for the workspace; the device, or the capture of a graph */

/* As pn_cudnn_plan_run, or NO_ROOM. */
static int run(pn_gpu *gpu, const plan *p, const pn_cudnn_buffers *at) {
  void *workspace = p->workspace ? pn_gpu_scratch(gpu, (size_t)p->workspace) : NULL;
  if (p->workspace && !workspace) return NO_ROOM;
  int rc = pn_cudnn_plan_run(p->plan, at, workspace);
  pn_gpu_scratch_free(gpu, workspace);
  return rc;
}

static int check_device(cudaError_t code, const char *doing) { return pn_gpu_check(code, doing) ? BROKEN : 0; }

/* Groups of runs, with an event before and behind each. */
static int enqueue(pn_gpu *gpu, const plan *p, const pn_cudnn_buffers *at, void *workspace, cudaEvent_t *events, int groups,
                   int runs) {
  int rc = check_device(cudaEventRecord(events[0], gpu->stream), "record an event");
  for (int i = 0; i < groups; i++) {
    for (int k = 0; k < runs && !rc; k++) rc = pn_cudnn_plan_run(p->plan, at, workspace);
    rc = rc ? rc : check_device(cudaEventRecord(events[i + 1], gpu->stream), "record an event");
  }
  return rc;
}

/* The milliseconds of the fastest group, when all have run. */
static int read_events(pn_gpu *gpu, cudaEvent_t *events, int groups, double *least) {
  /* not pn_gpu_wait: complaints about data are not the engine's, and stay for whoever waits next */
  int rc = check_device(cudaStreamSynchronize(gpu->stream), "wait for the device");
  for (int i = 0; i < groups && !rc; i++) {
    float ms = 0;
    rc = check_device(cudaEventElapsedTime(&ms, events[i], events[i + 1]), "time a convolution");
    if (!i || (double)ms < *least) *least = (double)ms;
  }
  return rc;
}

/* The host takes longer over a run than the device over many a convolution: so the device is kept busy until all is queued, and between
** two events lies its work alone, as in a CUDA graph. One run before does not count, and one more says how long both take. */
static int time_runs(pn_gpu *gpu, const plan *p, const pn_cudnn_buffers *at, void *workspace, cudaEvent_t *events,
                     double *milliseconds) {
  double once = 0;
  int rc = pn_cudnn_plan_run(p->plan, at, workspace);
  const double began = pn_clock();
  rc = rc ? rc : enqueue(gpu, p, at, workspace, events, 1, 1);
  const double host = pn_clock() - began;
  rc = rc ? rc : read_events(gpu, events, 1, &once);
  if (rc) return rc;
  const int runs = once * MOST_RUNS > group_ms ? 1 + (int)(group_ms / once) : MOST_RUNS;
  const double ahead = 1.5 * host * GROUPS * runs;
  if (pn_gpu_linger(gpu, ahead < most_ahead ? ahead : most_ahead)) return BROKEN;
  rc = enqueue(gpu, p, at, workspace, events, GROUPS, runs);
  rc = rc ? rc : read_events(gpu, events, GROUPS, milliseconds);
  if (!rc) *milliseconds /= runs;
  return rc;
}

/* Milliseconds of a run, the least of what was measured. As run, or BROKEN. */
static int time_plan(pn_gpu *gpu, const plan *p, const pn_cudnn_buffers *at, double *milliseconds) {
  cudaEvent_t events[GROUPS + 1] = { NULL };
  void *workspace = p->workspace ? pn_gpu_scratch(gpu, (size_t)p->workspace) : NULL;
  int rc = p->workspace && !workspace ? NO_ROOM : 0;
  for (int i = 0; i <= GROUPS && !rc; i++) rc = check_device(cudaEventCreateWithFlags(&events[i], 0), "make an event");
  rc = rc ? rc : time_runs(gpu, p, at, workspace, events, milliseconds);
  for (int i = 0; i <= GROUPS; i++)
    if (events[i]) (void)pn_gpu_try(cudaEventDestroy(events[i]));
  pn_gpu_scratch_free(gpu, workspace);
  return rc;
}

/* ---- the choice -------------------------------------------------------------------------------------------------------------- */

typedef struct search {
  plan *best;  /* its graph is made */
  pn_gpu *gpu; /* NULL where there is no device: nothing is timed */
  const pn_cudnn_buffers *at;
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
  int rc = pn_cudnn_plan_new(&made.plan, best->graph, from, &made.workspace);
  if (!rc && made.workspace > best->policy.workspace_bytes) {
    (void)pn_fail("cuDNN: engine %lld wants %lld bytes of workspace, more than the limit of %lld", (long long)from->engine,
                  (long long)made.workspace, (long long)best->policy.workspace_bytes);
    rc = PN_CUDNN_NONE;
  }
  if (!rc && s->gpu) rc = try_run(s, &made);
  if (rc) note_failure(s, rc);
  else best->n_tried = ++made.n_tried;
  if (rc || (best->plan && best->milliseconds <= made.milliseconds)) pn_cudnn_plan_free(made.plan);
  else {
    pn_cudnn_plan_free(best->plan);
    *best = made;
  }
  return rc == BROKEN ? -1 : 0;
}

static bool same_pick(const pn_pick *a, const pn_pick *b) {
  return a->engine == b->engine && a->n_knobs == b->n_knobs && !memcmp(a->knob, b->knob, sizeof *a->knob * (size_t)a->n_knobs);
}

/* Is there more to try? Any until one works; all when autotuning, but for what cuDNN falls back on: when something works, that is
** slower and, compiled at run time, takes half a minute to find out. */
static bool goes_on(const search *s, int mode) { return !s->best->plan || (s->best->policy.autotune && mode != PN_CUDNN_FALLBACK); }

/* Tries what the heuristics offer. */
static int choose(search *s) {
  pn_pick *picks = pn_alloc(sizeof *picks * PN_CUDNN_MOST_OFFERS * PN_CUDNN_N_MODES);
  int n = 0, rc = 0;
  if (!picks) return -1;
  for (int mode = 0; mode < PN_CUDNN_N_MODES && !rc && goes_on(s, mode); mode++) {
    int more, kept = 0, refusal = pn_cudnn_offers(s->best->graph, mode, picks + n, &more);
    if (refusal) note_failure(s, refusal);
    for (int i = 0; i < more && !rc && goes_on(s, mode); i++) {
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
  return pn_gpu_try(cudaGetDeviceProperties(&device, index)) && pn_picks_path(path, bytes, pn_cudnn_version(), device.name);
}

/* ---- convolve ---------------------------------------------------------------------------------------------------------------- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of all that follows */
static plan *plans[PN_MOST_DEVICES];                     /* the newest first */

static void drop(plan *p) {
  pn_cudnn_plan_free(p->plan);
  pn_cudnn_graph_free(p->graph);
  pn_free(p);
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
static plan *make_plan(pn_gpu *gpu, const char *device, const pn_cudnn_problem *problem, const pn_cudnn_policy *policy,
                       const pn_cudnn_buffers *at) {
  plan *p = pn_alloc_zero(sizeof *p);
  if (!p) return NULL;
  p->problem = *problem;
  p->policy = *policy;
  search s = { .best = p, .gpu = gpu, .at = at };
  int rc = pn_cudnn_graph_new(&p->graph, gpu, device, problem);
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
  pn_cudnn_buffers at = { x, w, y, bias };
  int rc = -1;
  pthread_mutex_lock(&lock);
  plan *p = plans[gpu->index];
  while (p && (memcmp(&p->problem, problem, sizeof *problem) != 0 || p->policy.autotune != policy->autotune ||
               p->policy.workspace_bytes != policy->workspace_bytes))
    p = p->next;
  if (!p && !pn_cudnn_start(gpu) && (p = make_plan(gpu, NULL, problem, policy, &at))) {
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

/* ---- what was picked --------------------------------------------------------------------------------------------------------- */

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
  plan *made = make_plan(NULL, device, &p, &(pn_cudnn_policy){ .workspace_bytes = workspace_bytes }, NULL);
  if (!made) return -1;
  int rc = made->none ? PN_CUDNN_NONE : 0;
  report_of(made, report, bytes);
  drop(made);
  return rc;
}
