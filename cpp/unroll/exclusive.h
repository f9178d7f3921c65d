// One thread at a time in a net.
#pragma once

#include <atomic>
#include <thread>
#include <utility>

#include "frame/errors.h"

namespace bptt {

/// A lock that is never waited for: a second thread gets an error at once. So does the same thread, unless the call that is
/// inside has lent the net to a function of the user's: else it is a signal handler, which may run anywhere in a call.
class Exclusive {
 public:
  /// Throws UsageError while another thread is inside, and in a signal handler that interrupts this one.
  void enter() {
    const std::thread::id me = std::this_thread::get_id();
    if (interrupting() || (owner_.load(std::memory_order_relaxed) == me && depth_ > lent_))
      throw UsageError(
          "a signal handler cannot use a net, since it runs in the middle of a call on it; "
          "let it set a flag, and act in fit's callback");
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

  /// The owner may enter once more, until it takes back: it is about to call a function of the user's. Returns what to
  /// take back to.
  int lend() { return std::exchange(lent_, depth_); }
  void take_back(int before) { lent_ = before; }

  /// Whether this thread is in a signal handler that a long call let run.
  static bool& interrupting() {
    thread_local bool inside = false;
    return inside;
  }

 private:
  std::atomic<std::thread::id> owner_{};
  int depth_ = 0,
      lent_ = 0;  // belong to the owner: how often it is inside, and how often it may be to enter once more
};

}  // namespace bptt
