#include "server/linalg/symmetric_inertia.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "server/base/log.h"

namespace ess::linalg {
namespace {

// (1 + sqrt 17) / 8, which makes the bounds of the growth of both kinds of pivots equal.
constexpr double kPivotShare = 0.6403882032022076;

// A symmetric matrix whose first rows and columns are eliminated one after the other.
class Elimination {
 public:
  Elimination(std::span<double> matrix, int64_t size) : data_(matrix.data()), size_(size) {}

  SymmetricInertia Run() {
    for (int64_t i = 0; i < size_; ++i) Look(Row(i), 0);
    for (int64_t k = 0; k < size_;) k += Step(k);
    return result_;
  }

 private:
  double* Row(int64_t i) { return data_ + i * size_; }
  double& At(int64_t i, int64_t j) { return data_[i * size_ + j]; }

  void Look(const double* row, int64_t first) {
    for (int64_t j = first; j < size_; ++j) {
      result_.largest = std::max(result_.largest, std::abs(row[j]));
    }
  }

  // Eliminates one row or two; returns how many.
  int64_t Step(int64_t k) {
    const int64_t strongest = LargestInRow(k, k);
    const double coupling = strongest == k ? 0 : std::abs(At(k, strongest));
    const double pivot = std::abs(At(k, k));
    if (strongest == k || pivot >= kPivotShare * coupling) return EliminateOne(k);
    const double other = std::abs(At(strongest, LargestInRow(strongest, k)));
    if (pivot * other >= kPivotShare * coupling * coupling) return EliminateOne(k);
    if (std::abs(At(strongest, strongest)) >= kPivotShare * other) {
      Exchange(k, strongest);
      return EliminateOne(k);
    }
    Exchange(k + 1, strongest);
    return EliminateTwo(k);
  }

  // The column from `first` on of the largest entry of a row beside its diagonal; the row itself
  // when there is none but 0.
  int64_t LargestInRow(int64_t row, int64_t first) {
    int64_t found = row;
    double largest = 0;
    for (int64_t j = first; j < size_; ++j) {
      if (j != row && std::abs(At(row, j)) > largest) {
        largest = std::abs(At(row, j));
        found = j;
      }
    }
    return found;
  }

  void Exchange(int64_t i, int64_t j) {
    if (i == j) return;
    std::swap_ranges(Row(i), Row(i) + size_, Row(j));
    for (int64_t row = 0; row < size_; ++row) std::swap(At(row, i), At(row, j));
  }

  int64_t EliminateOne(int64_t k) {
    const double pivot = At(k, k);
    result_.negative += pivot < 0;
    if (!(std::abs(pivot) > 0)) {
      result_.singular = true;
      return 1;
    }
    for (int64_t i = k + 1; i < size_; ++i) {
      const double share = At(i, k) / pivot;
      if (share == 0) continue;
      double* row = Row(i);
      const double* from = Row(k);
      for (int64_t j = k + 1; j < size_; ++j) row[j] -= share * from[j];
      Look(row, k + 1);
    }
    return 1;
  }

  // The pivot [a b; b c] has one eigenvalue of each sign: |a c| is below 0.42 b^2.
  int64_t EliminateTwo(int64_t k) {
    const double b = At(k, k + 1);
    const double a = At(k, k) / b;
    const double c = At(k + 1, k + 1) / b;
    const double determinant = a * c - 1;  // Over b^2; about -1.
    ++result_.negative;
    for (int64_t i = k + 2; i < size_; ++i) {
      const double x = At(i, k) / b;
      const double y = At(i, k + 1) / b;
      const double share1 = (c * x - y) / determinant;
      const double share2 = (a * y - x) / determinant;
      double* row = Row(i);
      const double* from1 = Row(k);
      const double* from2 = Row(k + 1);
      for (int64_t j = k + 2; j < size_; ++j) row[j] -= share1 * from1[j] + share2 * from2[j];
      Look(row, k + 2);
    }
    return 2;
  }

  double* const data_;
  const int64_t size_;
  SymmetricInertia result_;
};

}  // namespace

SymmetricInertia InertiaInPlace(std::span<double> matrix, int64_t size) {
  ESS_CHECK(static_cast<int64_t>(matrix.size()) == size * size);
  return Elimination(matrix, size).Run();
}

}  // namespace ess::linalg
