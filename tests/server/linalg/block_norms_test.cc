#include "server/linalg/block_norms.h"

#include <algorithm>
#include <cmath>

#include "gtest/gtest.h"
#include "server/linalg/reference_linalg.h"
#include "tests/support/status_matchers.h"
#include "tests/support/test_operators.h"

namespace ess::linalg {
namespace {

using ::ess::testing::DegenerateOperators;
using ::ess::testing::IsOk;
using ::ess::testing::RealisticOperators;
using ::ess::testing::StatusIs;
using ::ess::testing::TestOperator;

const CancellationToken kNever;

// The operator divided by a power of two, so that no entry is above 1.
std::vector<double> Scaled(const TestOperator& op, int64_t length) {
  std::vector<double> matrix = op.make(length);
  double largest = 0;
  for (const double entry : matrix) largest = std::max(largest, std::abs(entry));
  int exponent = 0;
  std::frexp(largest, &exponent);
  for (double& entry : matrix) entry = std::ldexp(entry, -exponent);
  return matrix;
}

TEST(BlockNormsTest, TheLargestSpectralNormEqualsTheReference) {
  std::vector<TestOperator> all = RealisticOperators();
  for (TestOperator& op : DegenerateOperators()) all.push_back(std::move(op));
  for (const TestOperator& op : all) {
    for (const int64_t length : {1, 2, 3, 17, 64, 150}) {
      const std::vector<double> matrix = Scaled(op, length);
      InertiaTree tree;
      ASSERT_THAT(tree.Load(matrix, length, kNever), IsOk());
      double expected = 0;
      for (int64_t i = 1; i < length; ++i) {
        expected = std::max(expected, BlockSingularValues(matrix, length, i)->front());
      }

      for (const double accuracy : {kExactNorm, kNormMagnitude}) {
        const auto norm = MaxBlockSpectralNorm(matrix, length, accuracy, tree, kNever);

        ASSERT_THAT(norm, IsOk()) << op.name << " " << length;
        EXPECT_NEAR(*norm, expected, accuracy * expected) << op.name << " " << length;
        EXPECT_LE(*norm, expected * (1 + 1e-13)) << op.name << " " << length;
      }
    }
  }
}

TEST(BlockNormsTest, TheLargestSpectralNormIsFoundAwayFromTheLargestFrobeniusNorm) {
  // A diagonal band late in the prompt has the larger Frobenius norm, a single strong entry early
  // in it the larger sigma_1.
  constexpr int64_t kLength = 80;
  std::vector<double> matrix(kLength * kLength, 0.0);
  matrix[4 * kLength + 2] = 0.9;
  for (int64_t row = 56; row < kLength; ++row) matrix[row * kLength + row - 16] = 0.5;
  InertiaTree tree;
  ASSERT_THAT(tree.Load(matrix, kLength, kNever), IsOk());

  const auto norm = MaxBlockSpectralNorm(matrix, kLength, kExactNorm, tree, kNever);

  ASSERT_THAT(norm, IsOk());
  EXPECT_NEAR(*norm, 0.9, 1e-10);
}

TEST(BlockNormsTest, FrobeniusNormsAreSumsOfSquares) {
  constexpr int64_t kLength = 40;
  const std::vector<double> matrix = Scaled(RealisticOperators().front(), kLength);

  const std::vector<double> norms = BlockFrobeniusNorms(matrix, kLength);

  EXPECT_EQ(norms[0], 0);
  for (int64_t i = 1; i < kLength; ++i) {
    double squares = 0;
    for (int64_t row = i; row < kLength; ++row) {
      for (int64_t column = 0; column < i; ++column) {
        squares += matrix[row * kLength + column] * matrix[row * kLength + column];
      }
    }
    EXPECT_NEAR(norms[i], std::sqrt(squares), 1e-13 * std::sqrt(squares)) << "position " << i;
  }
}

TEST(BlockNormsTest, ACancelledSearchStops) {
  const std::vector<double> matrix = Scaled(RealisticOperators().front(), 64);
  InertiaTree tree;
  ASSERT_THAT(tree.Load(matrix, 64, kNever), IsOk());
  CancellationToken token;
  token.Cancel();

  EXPECT_THAT(MaxBlockSpectralNorm(matrix, 64, kExactNorm, tree, token),
              StatusIs(absl::StatusCode::kCancelled, ::testing::_));
}

}  // namespace
}  // namespace ess::linalg
