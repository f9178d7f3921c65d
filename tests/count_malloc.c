/* Counts what asks the C library for memory. Loaded before it (LD_PRELOAD), it stands in for its functions. */
#include <stddef.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

static _Atomic long calls, bytes;

long allocations(void) { return calls; }

/* Of what was asked for at a boundary of its own, as all numbers of the core are. */
long aligned_bytes(void) { return bytes; }

void *malloc(size_t size) {
  ++calls;
  return __libc_malloc(size);
}

void *calloc(size_t count, size_t size) {
  ++calls;
  return __libc_calloc(count, size);
}

void *realloc(void *old, size_t size) {
  ++calls;
  return __libc_realloc(old, size);
}

void *memalign(size_t alignment, size_t size) {
  ++calls;
  bytes += size;
  return __libc_memalign(alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size) { return memalign(alignment, size); }

int posix_memalign(void **at, size_t alignment, size_t size) {
  *at = memalign(alignment, size);
  return *at ? 0 : 12;
}
