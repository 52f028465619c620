/* kernels.cpp: the emulated grid. Blocks run one after the other; the threads of a block too, each to its end, or, where they meet at
** barriers, each on a stack of its own to the next barrier.
**
** What a device would not forgive is found: threads that leave while others wait at a barrier, and shared memory written beyond its end.
** The sanitizer is told of every change of stacks, so it sees kernels as it sees any code. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>
#include "emulated/launch.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define LEAVING(save, to_stack, to_bytes) __sanitizer_start_switch_fiber(save, to_stack, to_bytes)
#define ARRIVED(save, from_stack, from_bytes) __sanitizer_finish_switch_fiber(save, from_stack, from_bytes)
enum { BEHIND = 0 }; /* the sanitizer looks after what lies there */
#else
#define LEAVING(save, to_stack, to_bytes) (void)0
#define ARRIVED(save, from_stack, from_bytes) (void)0
enum { BEHIND = 64 };
#define ASAN_UNPOISON_MEMORY_REGION(p, bytes) (void)0
#endif

pn_fake_place pn_fake_now;

enum { STACK = 128 << 10, PATTERN = 0xd5, SHARED_MOST = 48 << 10, THREADS_MOST = 1024 };

namespace {

/* ---- stacks ----------------------------------------------------------------------------------------------------------------- */

#if defined(__x86_64__)
/* Saves what a called function must keep, leaves the stack in *from and goes on where `to` was left. */
extern "C" void pn_fake_switch(void **from, void *to);
asm(".text\n"
    ".type pn_fake_switch, @function\n"
    "pn_fake_switch:\n"
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp, (%rdi)\n"
    "  movq %rsi, %rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n"
    "  ret\n"
    ".size pn_fake_switch, .-pn_fake_switch\n");
typedef void *place;
void prepare(place *p, char *stack, void (*begin)(void)) {
  void **top = (void **)(void *)(stack + STACK) - 2; /* the stack at the entry of a function: 8 below a multiple of 16 */
  *top = (void *)begin;
  *p = top - 6;
}
void change(place *from, place *to) { pn_fake_switch(from, *to); }
#else
#include <ucontext.h>
typedef ucontext_t place;
void prepare(place *p, char *stack, void (*begin)(void)) {
  getcontext(p);
  p->uc_stack.ss_sp = stack;
  p->uc_stack.ss_size = STACK;
  p->uc_link = nullptr;
  makecontext(p, begin, 0);
}
void change(place *from, place *to) { swapcontext(from, to); }
#endif

/* Stacks for n threads, kept for the next launch; below each lies a page that nobody may touch. */
char *stacks(int n) {
  static char *memory;
  static int held;
  if (n <= held) return memory;
  size_t page = (size_t)sysconf(_SC_PAGESIZE), bytes = (size_t)STACK * (size_t)n;
  void *p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) return nullptr;
  for (int i = 0; i < n; i++) (void)mprotect((char *)p + (size_t)STACK * (size_t)i, page, PROT_NONE);
  if (memory) (void)munmap(memory, (size_t)STACK * (size_t)held);
  memory = (char *)p;
  held = n;
  return memory;
}

/* ---- order ---------------------------------------------------------------------------------------------------------------------- */

/* The ith of n to run: a device promises no order, so specs ask for several (ORDER): as counted, backwards, mixed. */
struct order {
  int64_t n, step, mode;
  order(int64_t count) : n(count), step(1), mode(pn_fake_setting("ORDER", 0)) {
    if (mode != 2) return;
    for (step = n * 5 / 8 + 1; common(step, n) != 1;) step++;
  }
  int64_t at(int64_t i) const { return mode == 1 ? n - 1 - i : mode == 2 ? (i * step + n / 3) % n : i; }
  static int64_t common(int64_t a, int64_t b) { return b ? common(b, a % b) : a; }
};

/* ---- a block whose threads meet ----------------------------------------------------------------------------------------------- */

struct team {
  const pn_fake_task *body;
  place home;
  std::vector<place> threads;
  std::vector<char> finished;
  std::vector<void *> fakes; /* of the sanitizer, by thread */
  void *home_fake;
  const void *home_stack;
  size_t home_bytes;
  char *stack;
} * playing;

void thread_main(void) {
  team *t = playing;
  ARRIVED(nullptr, &t->home_stack, &t->home_bytes);
  (*t->body)();
  size_t me = (size_t)pn_fake_now.thread;
  t->finished[me] = 1;
  LEAVING(nullptr, t->home_stack, t->home_bytes);
  change(&t->threads[me], &t->home);
}

void go_on(team *t, int i) {
  pn_fake_now.thread = i;
  LEAVING(&t->home_fake, t->stack + (size_t)STACK * (size_t)i, STACK);
  change(&t->home, &t->threads[(size_t)i]);
  ARRIVED(t->home_fake, nullptr, nullptr);
}

bool run_team(const char *kernel, const pn_fake_task &body, const order &threads) {
  const int n = (int)threads.n;
  team t;
  t.body = &body;
  t.stack = stacks(n);
  if (!t.stack) {
    pn_fake_complain("%s: no room for the stacks of %d threads", kernel, n);
    return false;
  }
  t.threads.resize((size_t)n);
  t.finished.assign((size_t)n, 0);
  t.fakes.assign((size_t)n, nullptr);
  playing = &t;
  ASAN_UNPOISON_MEMORY_REGION(t.stack, (size_t)STACK * (size_t)n); /* a launch that failed may have left frames there */
  for (int i = 0; i < n; i++) prepare(&t.threads[(size_t)i], t.stack + (size_t)STACK * (size_t)i, thread_main);
  bool good = true;
  for (int left = n; left && good;) {
    int waiting = 0;
    for (int k = 0; k < n; k++) { /* each to its next barrier, or its end */
      const int i = (int)threads.at(k);
      if (t.finished[(size_t)i]) continue;
      go_on(&t, i);
      waiting += !t.finished[(size_t)i];
    }
    good = !waiting || waiting == left;
    if (!good)
      pn_fake_complain("%s: %d threads of block %lld wait at a barrier that %d others have left", kernel, waiting,
                       (long long)pn_fake_now.block, left - waiting);
    left = waiting;
  }
  playing = nullptr;
  return good;
}

/* Bytes behind a block's shared memory that nobody may write. */
void guard(char *p) {
  for (int i = 0; i < BEHIND; i++) p[i] = (char)PATTERN;
}

bool is_guarded(const char *p) {
  for (int i = 0; i < BEHIND; i++)
    if (p[i] != (char)PATTERN) return false;
  return true;
}

/* ---- the grid --------------------------------------------------------------------------------------------------------------------- */

void run_grid(const char *kernel, int64_t n_blocks, int n_threads, size_t shared, bool meet, const pn_fake_task &body) {
  const order blocks(n_blocks), threads(n_threads);
  char *room = (char *)malloc(shared + BEHIND);
  bool good = room != nullptr;
  if (!good) pn_fake_complain("%s: no room for %zu bytes of shared memory", kernel, shared);
  for (int64_t k = 0; k < n_blocks && good; k++) {
    memset(room, 0xff, shared); /* shared memory begins as anything */
    guard(room + shared);
    pn_fake_now = pn_fake_place{ blocks.at(k), n_blocks, 0, n_threads, room };
    if (meet) good = run_team(kernel, body, threads);
    else
      for (int i = 0; i < n_threads; i++) {
        pn_fake_now.thread = (int)threads.at(i);
        body();
      }
    if (good && !is_guarded(room + shared)) {
      pn_fake_complain("%s: block %lld wrote behind its %zu bytes of shared memory", kernel, (long long)pn_fake_now.block, shared);
      good = false;
    }
  }
  free(room);
}

} /* namespace */

void pn_fake_barrier(void) {
  team *t = playing;
  if (!t) {
    pn_fake_complain("a kernel meets a barrier but was launched with PN_LAUNCH: it needs PN_LAUNCH_TEAM");
    return;
  }
  size_t me = (size_t)pn_fake_now.thread;
  LEAVING(&t->fakes[me], t->home_stack, t->home_bytes);
  change(&t->threads[me], &t->home);
  ARRIVED(t->fakes[me], &t->home_stack, &t->home_bytes);
}

cudaError_t pn_fake_launch(cudaStream_t stream, const char *kernel, int64_t blocks, int threads, size_t shared, bool meet,
                           pn_fake_task body) {
  cudaError_t refused = cudaSuccess;
  if (blocks < 1 || blocks > 0x7fffffff || threads < 1 || threads > THREADS_MOST || shared > SHARED_MOST)
    refused = cudaErrorInvalidConfiguration;
  return pn_fake_start(stream, kernel, refused, [=] { run_grid(kernel, blocks, threads, shared, meet, body); });
}
