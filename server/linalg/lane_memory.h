// Memory of the channel kernels: a number of doubles for each lane side by side.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "hwy/aligned_allocator.h"

namespace ess::linalg {

// Zeros at first; aligned as the kernels want it. Movable.
class LaneMemory {
 public:
  LaneMemory() = default;
  explicit LaneMemory(int64_t size);

  double* get() const { return numbers_.get(); }
  double& operator[](int64_t index) const { return numbers_[index]; }
  int64_t bytes() const { return size_ * static_cast<int64_t>(sizeof(double)); }

 private:
  int64_t size_ = 0;
  hwy::AlignedFreeUniquePtr<double[]> numbers_;
};

int64_t BytesOf(std::initializer_list<const LaneMemory*> memories);

}  // namespace ess::linalg
