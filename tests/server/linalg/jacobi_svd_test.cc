#include "server/linalg/jacobi_svd.h"

#include <cmath>
#include <random>

#include "gtest/gtest.h"
#include "server/linalg/reference_linalg.h"
#include "tests/support/status_matchers.h"

namespace ess::linalg {
namespace {

using ::ess::testing::IsOk;

// LAPACK's answer: the matrix is the last block of a causal operator.
std::vector<double> Reference(const std::vector<double>& matrix, int64_t size) {
  std::vector<double> causal(4 * size * size, 0.0);
  for (int64_t i = 0; i < size; ++i) {
    for (int64_t j = 0; j < size; ++j) causal[(size + i) * 2 * size + j] = matrix[i * size + j];
  }
  return *BlockSingularValues(causal, 2 * size, size);
}

TEST(JacobiSvdTest, EqualsLapackOnRandomMatrices) {
  std::mt19937_64 generator(5);
  std::normal_distribution<double> normal;
  for (const int64_t size : {1, 2, 3, 5, 8, 16, 31, 32}) {
    std::vector<double> matrix(size * size);
    for (double& entry : matrix) entry = normal(generator);

    const auto values = JacobiSingularValues(matrix, size);

    ASSERT_THAT(values, IsOk());
    const std::vector<double> expected = Reference(matrix, size);
    for (int64_t k = 0; k < size; ++k) EXPECT_NEAR((*values)[k], expected[k], 1e-13 * expected[0]);
  }
}

TEST(JacobiSvdTest, KeepsSmallSingularValuesOverThirtyDecades) {
  constexpr int64_t kSize = 6;
  std::vector<double> matrix(kSize * kSize, 0.0);
  for (int64_t k = 0; k < kSize; ++k) matrix[k * kSize + (k + 2) % kSize] = std::pow(1e-6, k);

  const auto values = JacobiSingularValues(matrix, kSize);

  ASSERT_THAT(values, IsOk());
  for (int64_t k = 0; k < kSize; ++k) {
    EXPECT_NEAR((*values)[k], std::pow(1e-6, k), 1e-14 * std::pow(1e-6, k));
  }
}

TEST(JacobiSvdTest, OfNothingIsZero) {
  EXPECT_EQ(*JacobiSingularValues(std::vector<double>(9, 0.0), 3), std::vector<double>(3, 0.0));
}

TEST(JacobiSvdTest, RankOneLeavesOneValue) {
  constexpr int64_t kSize = 8;
  const std::vector<double> matrix(kSize * kSize, 2.0);

  const auto values = JacobiSingularValues(matrix, kSize);

  ASSERT_THAT(values, IsOk());
  EXPECT_NEAR((*values)[0], 16, 1e-13);
  for (int64_t k = 1; k < kSize; ++k) EXPECT_LT((*values)[k], 1e-14);
}

}  // namespace
}  // namespace ess::linalg
