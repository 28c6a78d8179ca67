#include "server/linalg/jacobi_svd.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "server/base/log.h"

namespace ess::linalg {
namespace {

constexpr int kMaxSweeps = 60;

double Dot(const double* x, const double* y, int64_t size) {
  double sum = 0;
  for (int64_t i = 0; i < size; ++i) sum += x[i] * y[i];
  return sum;
}

// Rotates two columns until they are orthogonal; false if they were, as far as rounding can tell.
bool Rotate(double* x, double* y, int64_t size) {
  const double xx = Dot(x, x, size);
  const double yy = Dot(y, y, size);
  const double xy = Dot(x, y, size);
  const double rounding = static_cast<double>(size) * 0x1p-52;
  if (!(std::abs(xy) > rounding * std::sqrt(xx) * std::sqrt(yy))) return false;
  const double zeta = (yy - xx) / (2 * xy);
  const double tangent = std::copysign(1.0, zeta) / (std::abs(zeta) + std::hypot(1.0, zeta));
  const double cosine = 1 / std::hypot(1.0, tangent);
  const double sine = cosine * tangent;
  for (int64_t i = 0; i < size; ++i) {
    const double before = x[i];
    x[i] = cosine * before - sine * y[i];
    y[i] = sine * before + cosine * y[i];
  }
  return true;
}

}  // namespace

absl::StatusOr<std::vector<double>> JacobiSingularValues(std::span<const double> matrix,
                                                         int64_t size) {
  ESS_CHECK(static_cast<int64_t>(matrix.size()) == size * size);
  std::vector<double> columns(size * size);
  for (int64_t i = 0; i < size; ++i) {
    for (int64_t j = 0; j < size; ++j) columns[j * size + i] = matrix[i * size + j];
  }
  bool rotated = true;
  for (int sweep = 0; rotated; ++sweep) {
    if (sweep == kMaxSweeps) return absl::InternalError("a Jacobi SVD did not converge");
    rotated = false;
    for (int64_t p = 0; p < size; ++p) {
      for (int64_t q = p + 1; q < size; ++q) {
        rotated |= Rotate(columns.data() + p * size, columns.data() + q * size, size);
      }
    }
  }
  std::vector<double> values(size);
  for (int64_t j = 0; j < size; ++j) {
    const double* column = columns.data() + j * size;
    values[j] = std::sqrt(Dot(column, column, size));
  }
  std::sort(values.begin(), values.end(), std::greater<>());
  return values;
}

}  // namespace ess::linalg
