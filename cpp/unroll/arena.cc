#include "unroll/arena.h"

#if __has_include(<unistd.h>)
#include <unistd.h>
#endif
#if __has_include(<sys/mman.h>)
#include <sys/mman.h>
#endif

#include <sstream>

namespace bptt {

void require_memory(double bytes) {
#ifdef _SC_PHYS_PAGES
  static const double there =
      static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGE_SIZE));
#else
  constexpr double there = 0x1p47;  // as much as can be addressed
#endif
  if (bytes <= there) return;
  std::ostringstream message;
  message.precision(3);
  message << bytes / 0x1p30 << " GiB are needed, and the machine has " << there / 0x1p30;
  throw OutOfMemory(message.str());
}

void ask_for_large_pages([[maybe_unused]] void* block, [[maybe_unused]] std::size_t bytes) {
#ifdef MADV_HUGEPAGE
  madvise(block, bytes / large_page * large_page, MADV_HUGEPAGE);  // advice: it may well be refused
#endif
}

}  // namespace bptt
