// One thread at a time in a net.
#pragma once

#include <atomic>
#include <thread>

#include "frame/errors.h"

namespace bptt {

/// A lock that is never waited for: a second thread gets an error at once. The same thread may enter again, but not from a
/// signal handler.
class Exclusive {
 public:
  /// Throws UsageError while another thread is inside, and in a signal handler.
  void enter() {
    if (interrupting())
      throw UsageError(
          "a signal handler cannot use a net, since it runs in the middle of a window; "
          "let it set a flag, and act in fit's callback");
    const std::thread::id me = std::this_thread::get_id();
    std::thread::id nobody;
    if (owner_.load(std::memory_order_relaxed) != me &&
        !owner_.compare_exchange_strong(nobody, me, std::memory_order_acquire))
      throw UsageError(
          "another thread is using this net; a net serves one thread at a time "
          "(nets of their own, or copies, can run side by side)");
    ++depth_;
  }

  void leave() {
    if (--depth_ == 0) owner_.store({}, std::memory_order_release);
  }

  /// Whether this thread is in a signal handler that a long call let run.
  static bool& interrupting() {
    thread_local bool inside = false;
    return inside;
  }

 private:
  std::atomic<std::thread::id> owner_{};
  int depth_ = 0;  // belongs to the owner
};

}  // namespace bptt
