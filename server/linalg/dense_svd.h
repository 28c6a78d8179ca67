// Singular values of one dense matrix, without LibTorch: for the few positions, and the small
// blocks, where a fast route hands over.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace ess::linalg {

// A matrix of its own, row-major.
struct DenseMatrix {
  int64_t rows = 0;
  int64_t columns = 0;
  std::vector<double> entries;  // [rows, columns]

  DenseMatrix(int64_t row_count, int64_t column_count)
      : rows(row_count), columns(column_count), entries(row_count * column_count, 0.0) {}
  double* Row(int64_t row) { return entries.data() + row * columns; }
};

// All min(rows, columns) singular values in descending order, right to about 1e-14 of the largest:
// Householder reflections to a bidiagonal matrix, then bisection, which cannot fail to converge.
// Entries of any finite size. Cost: 4 m n^2 operations, n the smaller side, and 200 n^2 divisions.
std::vector<double> DenseSingularValues(DenseMatrix matrix);

// R [columns, columns], upper triangular, with R^T R = matrix^T matrix: the same singular values
// from fewer rows. REQUIRES: rows >= columns; entries whose squares neither overflow nor matter
// when they underflow.
DenseMatrix TriangularFactor(DenseMatrix matrix);

}  // namespace ess::linalg
