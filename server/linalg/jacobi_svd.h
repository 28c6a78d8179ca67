// Singular values of a small matrix, to full relative accuracy where the matrix allows it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

namespace ess::linalg {

// One-sided Jacobi: columns are rotated until all are orthogonal to each other; their norms are the
// singular values. No LibTorch, so it runs beside the kernels of a thread.
//
// Shapes: `matrix` is row-major [size, size]; finite, squares neither overflow nor matter when they
//         underflow. The result is in descending order.
// Errors: kInternal  no convergence; never seen.
// Cost:   about 10 size^3 multiplications a sweep, 4 to 10 sweeps.
absl::StatusOr<std::vector<double>> JacobiSingularValues(std::span<const double> matrix,
                                                         int64_t size);

}  // namespace ess::linalg
