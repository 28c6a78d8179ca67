// Memory for many float64 numbers.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>

namespace ess::linalg {

// Aligned for vectors; large ones lie on huge pages where the kernel grants them, which spares
// address translation and most of the page faults of the first use. Thread-compatible.
class NumberBuffer {
 public:
  // Makes room for `count` numbers, not initialized. Old ones are lost when the room has to grow.
  // Throws std::bad_alloc.
  void Reserve(int64_t count);
  int64_t capacity() const { return capacity_; }
  double* data() const { return memory_.get(); }

 private:
  struct Release {
    void operator()(double* memory) const { std::free(memory); }
  };
  std::unique_ptr<double, Release> memory_;
  int64_t capacity_ = 0;
};

}  // namespace ess::linalg
