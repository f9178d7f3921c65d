// Numeric memory. Nothing else in the core allocates numbers.
#pragma once

#include <algorithm>
#include <limits>
#include <memory>
#include <new>
#include <string>
#include <utility>

#include "ops/operation.h"

namespace bptt {

/// Asked for more memory than the machine has.
struct OutOfMemory : std::bad_alloc {
  explicit OutOfMemory(std::string message) : message(std::move(message)) {}
  const char* what() const noexcept override { return message.c_str(); }
  std::string message;
};

/// Throws OutOfMemory for more bytes than the machine has. Asking for them would not fail: the system promises more than
/// it has, and kills who takes it at its word.
void require_memory(double bytes);

/// Large blocks begin where the system's large pages do, and ask for them: numbers that are megabytes apart then need fewer
/// of the processor's notes on where pages lie.
constexpr std::size_t large_page = std::size_t{1} << 21;
void ask_for_large_pages(void* block, std::size_t bytes);

/// A fixed block of numbers on a cache-line boundary, zero at first. Its address never changes.
template <class S>
class Block {
 public:
  explicit Block(Index size = 0) : size_(size) {
    require_memory(static_cast<double>(size) * sizeof(S));
    const auto bytes = static_cast<std::size_t>(size) * sizeof(S);
    const bool large = bytes >= 2 * large_page;
    const std::align_val_t alignment{large ? large_page : 64};
    data_ = {static_cast<S*>(::operator new(bytes, alignment)), Free{alignment}};
    if (large) ask_for_large_pages(data_.get(), bytes);
    clear();
  }

  S* data() const { return data_.get(); }
  Index size() const { return size_; }
  void clear(Part part = {}) { std::fill(data() + part.begin(size_), data() + part.end(size_), S(0)); }

 private:
  struct Free {
    std::align_val_t alignment{64};
    void operator()(S* data) const { ::operator delete(data, alignment); }
  };
  std::unique_ptr<S, Free> data_;
  Index size_;
};

/// Plans a block before it is made: `reserve` while planning, `commit` once, then `at`.
template <class S>
class Arena {
 public:
  /// Room for `count` numbers that starts on a cache line; returns its place.
  Index reserve(Index count) {
    const Index place = planned_;
    constexpr Index line = 64 / sizeof(S);
    planned_ += (count + line - 1) / line * line;
    return place;
  }

  void commit() {
    block_ = Block<S>(planned_);
#ifdef BPTT_CHECKED  // a number that is read before it is written shows
    std::fill_n(block_.data(), block_.size(), std::numeric_limits<S>::quiet_NaN());
#endif
  }
  S* at(Index place) const { return block_.data() + place; }
  Index planned() const { return planned_; }
  Index size() const { return block_.size(); }
  void clear(Part part = {}) { block_.clear(part); }

 private:
  Index planned_ = 0;
  Block<S> block_;
};

}  // namespace bptt
