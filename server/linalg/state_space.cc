#include "server/linalg/state_space.h"

#include <algorithm>

namespace ess::linalg {

const double* PaddedRows(const double* matrix, int64_t first, int64_t count, int64_t columns,
                         int64_t rows, int64_t padded, double fill, Arena& arena) {
  const double* from = matrix + first * columns;
  if (count == rows && columns == padded) return from;
  double* copy = arena.Allocate(rows * padded);
  std::fill_n(copy, rows * padded, fill);
  for (int64_t row = 0; row < count; ++row) {
    std::copy_n(from + row * columns, columns, copy + row * padded);
  }
  return copy;
}

}  // namespace ess::linalg
