#include "server/linalg/block_norms.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "gtest/gtest.h"
#include "server/linalg/block_spectra.h"
#include "server/linalg/block_sums.h"
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

TEST(BlockNormsTest, AMagnitudeIsBracketedAlongARidge) {
  // The middle blocks of a slowly decaying random filter differ by less than Lanczos sees.
  for (const uint32_t seed : {1, 2, 3}) {
    constexpr int64_t kLength = 200;
    std::mt19937 generator(seed);
    std::vector<double> filter(kLength);
    for (int64_t lag = 0; lag < kLength; ++lag) {
      const double sign = static_cast<double>(generator()) / 0x1p31 - 1;
      filter[lag] = 0.9 * sign * std::exp(-0.02 * static_cast<double>(lag));
    }
    std::vector<double> matrix(kLength * kLength, 0.0);
    for (int64_t row = 0; row < kLength; ++row) {
      for (int64_t column = 0; column < row; ++column) {
        matrix[row * kLength + column] = filter[row - column];
      }
    }
    InertiaTree tree;
    ASSERT_THAT(tree.Load(matrix, kLength, kNever), IsOk());

    const auto norm = MaxBlockSpectralNorm(matrix, kLength, kNormMagnitude, tree, kNever);
    const auto exact = MaxBlockSpectralNorm(matrix, kLength, kExactNorm, tree, kNever);

    ASSERT_THAT(norm, IsOk());
    ASSERT_THAT(exact, IsOk());
    EXPECT_LE(*norm, *exact * (1 + 1e-13));
    EXPECT_GE(*norm * (1 + kNormMagnitude), *exact);
  }
}

TEST(BlockNormsTest, SchursBoundsAreNeverBelowTheNorms) {
  for (const TestOperator& op : RealisticOperators()) {
    for (const int64_t length : {2, 7, 33, 64}) {
      const std::vector<double> matrix = Scaled(op, length);
      std::vector<double> bounds(length);
      BlockSchurBounds(matrix, length, bounds);

      EXPECT_EQ(bounds[0], 0);
      for (int64_t i = 1; i < length; ++i) {
        double largest_row = 0;
        double largest_column = 0;
        for (int64_t row = i; row < length; ++row) {
          double sum = 0;
          for (int64_t c = 0; c < row; ++c) sum += std::abs(matrix[row * length + c]);
          largest_row = std::max(largest_row, sum);
        }
        for (int64_t c = 0; c < i; ++c) {
          double sum = 0;
          for (int64_t row = i; row < length; ++row) sum += std::abs(matrix[row * length + c]);
          largest_column = std::max(largest_column, sum);
        }
        const double expected = std::sqrt(largest_row * largest_column);
        EXPECT_NEAR(bounds[i], expected, 1e-13 * expected) << op.name << " position " << i;
        EXPECT_GE(bounds[i] * (1 + 1e-13), BlockSingularValues(matrix, length, i)->front());
      }
    }
  }
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
