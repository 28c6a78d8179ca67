// Small helpers for tests of operators.
#pragma once

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <cmath>
#include <cstdint>
#include <vector>

#include "server/operators/sequence_operator.h"

namespace ess::testing {

// T of one head, row-major [L, L].
inline std::vector<double> DenseForm(const operators::SequenceOperator& op, int64_t head) {
  std::vector<double> out(op.length() * op.length(), NAN);
  op.DenseHead(head, out);
  return out;
}

// Standard normal float64; the same seed gives the same numbers.
inline at::Tensor RandomTensor(at::IntArrayRef shape, uint64_t seed) {
  return at::randn(shape, at::detail::createCPUGenerator(seed), at::kDouble);
}

// The largest difference, as a share of the largest entry of `expected` (at least 1).
inline double LargestError(const std::vector<double>& found, const std::vector<double>& expected) {
  if (found.size() != expected.size()) return INFINITY;
  double largest = 1;
  double difference = 0;
  for (size_t x = 0; x < found.size(); ++x) {
    if (!std::isfinite(found[x])) return INFINITY;
    largest = std::max(largest, std::abs(expected[x]));
    difference = std::max(difference, std::abs(found[x] - expected[x]));
  }
  return difference / largest;
}

}  // namespace ess::testing
