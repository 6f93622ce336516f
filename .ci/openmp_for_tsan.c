// Tells gcc's thread sanitizer that a parallel region begins after what is before it in the
// program, and ends before what follows: libgomp is not instrumented.
#define _GNU_SOURCE
#include <dlfcn.h>

void __tsan_acquire(void *);
void __tsan_release(void *);

struct region {
  void (*body)(void *);
  void *data;
};

static void run(void *given) {
  struct region *region = given;
  __tsan_acquire(&region->body);
  region->body(region->data);
  __tsan_release(&region->data);
}

void GOMP_parallel(void (*body)(void *), void *data, unsigned threads, unsigned flags) {
  void (*parallel)(void (*)(void *), void *, unsigned, unsigned) = dlsym(RTLD_NEXT, __func__);
  struct region region = {body, data};
  __tsan_release(&region.body);
  parallel(run, &region, threads, flags);
  __tsan_acquire(&region.data);
}
