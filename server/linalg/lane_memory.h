// Memory of the channel kernels: a number of doubles for each lane side by side.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "server/linalg/number_buffer.h"

namespace ess::linalg {

// Zeros at first; aligned as the kernels want it. Movable.
class LaneMemory {
 public:
  LaneMemory() = default;
  explicit LaneMemory(int64_t size);

  double* get() const { return numbers_.data(); }
  double& operator[](int64_t index) const { return numbers_.data()[index]; }
  int64_t bytes() const { return numbers_.capacity() * static_cast<int64_t>(sizeof(double)); }

 private:
  NumberBuffer numbers_;
};

int64_t BytesOf(std::initializer_list<const LaneMemory*> memories);

}  // namespace ess::linalg
