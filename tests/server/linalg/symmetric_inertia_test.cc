#include "server/linalg/symmetric_inertia.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace ess::linalg {
namespace {

using Matrix = std::vector<double>;

// X^T diag(signs) X for a random X: by Sylvester's law its inertia is that of the signs.
Matrix Congruent(const std::vector<double>& signs, std::mt19937_64& generator) {
  const int64_t size = std::ssize(signs);
  std::normal_distribution<double> normal;
  Matrix x(size * size);
  for (double& entry : x) entry = normal(generator);
  Matrix product(size * size, 0.0);
  for (int64_t k = 0; k < size; ++k) {
    for (int64_t i = 0; i < size; ++i) {
      for (int64_t j = 0; j <= i; ++j) {
        product[i * size + j] += x[k * size + i] * signs[k] * x[k * size + j];
        product[j * size + i] = product[i * size + j];
      }
    }
  }
  return product;
}

TEST(SymmetricInertiaTest, CountsTheNegativeEigenvaluesOfRandomMatrices) {
  std::mt19937_64 generator(1);
  for (int64_t size = 0; size < 40; ++size) {
    for (int draw = 0; draw < 25; ++draw) {
      std::vector<double> signs(size);
      for (double& sign : signs) sign = generator() % 3 == 0 ? -1 : 1;
      Matrix matrix = Congruent(signs, generator);
      double largest = 0;
      for (const double entry : matrix) largest = std::max(largest, std::abs(entry));

      const SymmetricInertia inertia = InertiaInPlace(matrix, size);

      EXPECT_EQ(inertia.negative, std::count(signs.begin(), signs.end(), -1.0)) << size;
      EXPECT_FALSE(inertia.singular);
      EXPECT_GE(inertia.largest, largest);
      EXPECT_LE(inertia.largest, 20 * largest);
    }
  }
}

TEST(SymmetricInertiaTest, NeedsNoPivotOnTheDiagonal) {
  // [0 B; B^T 0] has as many eigenvalues above as below 0.
  constexpr int64_t kHalf = 9;
  std::mt19937_64 generator(2);
  std::normal_distribution<double> normal;
  Matrix matrix(4 * kHalf * kHalf, 0.0);
  for (int64_t i = 0; i < kHalf; ++i) {
    for (int64_t j = kHalf; j < 2 * kHalf; ++j) {
      matrix[i * 2 * kHalf + j] = matrix[j * 2 * kHalf + i] = normal(generator);
    }
  }

  const SymmetricInertia inertia = InertiaInPlace(matrix, 2 * kHalf);

  EXPECT_EQ(inertia.negative, kHalf);
  EXPECT_FALSE(inertia.singular);
}

TEST(SymmetricInertiaTest, TinyPivotsDoNotGrow) {
  Matrix matrix = {1e-20, 1, 2, 1, 1e-20, 3, 2, 3, 1e-20};  // Eigenvalues of both signs.

  const SymmetricInertia inertia = InertiaInPlace(matrix, 3);

  EXPECT_EQ(inertia.negative, 2);
  EXPECT_LE(inertia.largest, 10);
}

TEST(SymmetricInertiaTest, SaysWhenAMatrixIsSingular) {
  Matrix zero(9, 0.0);
  Matrix ones(9, 1.0);
  Matrix nothing(4, std::numeric_limits<double>::quiet_NaN());

  EXPECT_TRUE(InertiaInPlace(zero, 3).singular);
  EXPECT_TRUE(InertiaInPlace(ones, 3).singular);
  EXPECT_TRUE(InertiaInPlace(nothing, 2).singular);
}

}  // namespace
}  // namespace ess::linalg
