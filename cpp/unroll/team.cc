#include "unroll/team.h"

#include <chrono>
#include <system_error>

#if __has_include(<unistd.h>)
#include <pthread.h>
#include <signal.h>
#include <unistd.h>
#endif

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace bptt {
namespace {

/// Thrown in the threads that have to leave because of another's exception.
struct Left {};

std::int64_t process() {
#if __has_include(<unistd.h>)
  return getpid();
#else
  return 0;
#endif
}

void pause() {
#if defined(__x86_64__) || defined(_M_X64)
  _mm_pause();
#elif defined(__aarch64__) && !defined(_MSC_VER)
  asm volatile("yield");
#endif
}

/// Waits until the number is another one: first awake, so that who is next need not be woken, which takes longer than most
/// waits. After the first moments others may have the processor, above all those that are waited for. Then asleep.
void await_change(const std::atomic<std::uint32_t>& number, std::uint32_t old) {
  constexpr int looks = 100;
  constexpr std::chrono::milliseconds awake{1};
  const auto changed = [&] { return number.load(std::memory_order_acquire) != old; };
  for (int i = 0; i < looks; ++i) {
    if (changed()) return;
    pause();
  }
  using Clock = std::chrono::steady_clock;
  for (const auto end = Clock::now() + awake; Clock::now() < end;) {
    if (changed()) return;
    std::this_thread::yield();
  }
  number.wait(old, std::memory_order_acquire);
}

/// While one of these lives, no signal is delivered to this thread, nor to those that it starts: they are for the
/// program's own threads.
class NoSignals {
#if __has_include(<unistd.h>)
 public:
  NoSignals() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~NoSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  NoSignals(const NoSignals&) = delete;
  NoSignals& operator=(const NoSignals&) = delete;

 private:
  sigset_t before_;
#endif
};

}  // namespace

/// The threads, and what they share during a call.
struct Crew {
  explicit Crew(Index size) {
    const NoSignals quiet;
    for (Index k = 1; k < size; ++k) try {
        threads.emplace_back([this, k] { live(k); });
      } catch (const std::system_error&) {
        break;  // the system gives no more; the rest can do it
      }
    count = 1 + static_cast<std::uint32_t>(threads.size());
  }

  ~Crew() {
    closing = true;
    advance(calls);
    for (std::thread& thread : threads) thread.join();
  }

  /// A worker's life.
  void live(Index index) {
    for (std::uint32_t seen = 0;;) {
      await_change(calls, seen);
      seen = calls.load(std::memory_order_acquire);
      if (closing) return;
      Pulse pulse([this] {
        if (leaving.load(std::memory_order_relaxed)) throw Left{};
      });
      perform(index, pulse);
      if (working.fetch_sub(1, std::memory_order_acq_rel) == 1) working.notify_one();
    }
  }

  void perform(Index index, Pulse& pulse) {
    Member member;
    member.part = {index, static_cast<Index>(count)};
    member.crew_ = this;
    try {
      work.run(work.closure, member, pulse);
    } catch (const Left&) {
    } catch (...) {
      if (!leaving.exchange(true)) error = std::current_exception();
      advance(phase);  // whoever waits at a barrier finds out
    }
  }

  void call(Team::Work what, Pulse& pulse) {
    work = what;
    leaving = false;
    arrived = 0;
    working = count - 1;
    advance(calls);
    perform(0, pulse);
    for (std::uint32_t left; (left = working.load(std::memory_order_acquire)) > 0;)
      await_change(working, left);
    if (leaving) std::rethrow_exception(std::exchange(error, nullptr));
  }

  void barrier() {
    const std::uint32_t now = phase.load(std::memory_order_acquire);
    if (leaving) throw Left{};
    if (arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == count) {
      arrived.store(0, std::memory_order_relaxed);
      advance(phase);
    } else {
      await_change(phase, now);
    }
    if (leaving) throw Left{};
  }

  static void advance(std::atomic<std::uint32_t>& number) {
    number.fetch_add(1, std::memory_order_acq_rel);
    number.notify_all();
  }

  const std::int64_t born = process();
  std::uint32_t count = 1;                // threads, the caller's included
  std::atomic<std::uint32_t> calls{0};    // so many, that being destroyed included
  std::atomic<std::uint32_t> working{0};  // others that have not finished the present call
  std::atomic<std::uint32_t> arrived{0};  // at the barrier
  std::atomic<std::uint32_t> phase{0};    // so many barriers were passed, or given up
  std::atomic<bool> leaving{false};       // somebody threw
  bool closing = false;
  Team::Work work{};
  std::exception_ptr error;
  std::vector<std::thread> threads;  // last: they use all of the above
};

Team::Team(Index threads, Index least) : size_(threads), least_(least) {}

Team::~Team() {
  if (crew_) abandon();
}

/// Forgets threads that stayed in another process: they cannot be joined, and what they share is as it happened to be.
void Team::abandon() {
  if (crew_->born != process()) crew_.release();
}

void Team::start() {
  if (crew_) abandon();
  if (!crew_) crew_ = std::make_unique<Crew>(size_);
}

void Team::call(Work work, Pulse& pulse) {
  start();
  crew_->call(work, pulse);
}

void Member::wait_for_all() {
  crew_->barrier();
}

}  // namespace bptt
