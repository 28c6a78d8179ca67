// H^T H x in one pass over H: what Lanczos spends its time in.
#pragma once

#include <cstdint>
#include <span>

namespace ess::linalg {

// A row-major block of a larger matrix.
struct BlockView {
  const double* data;
  int64_t stride;
  int64_t rows;
  int64_t columns;
};

// image = H x [rows], result = H^T image [columns]. Cost: 4 rows columns operations.
void GramProduct(const BlockView& block, std::span<const double> x, std::span<double> image,
                 std::span<double> result);

}  // namespace ess::linalg
