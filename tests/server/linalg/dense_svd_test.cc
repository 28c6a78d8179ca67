// Our own singular values against those of LAPACK.
#include "server/linalg/dense_svd.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "gtest/gtest.h"
#include "hwy/targets.h"
#include "server/linalg/reference_linalg.h"
#include "tests/support/status_matchers.h"

namespace ess::linalg {
namespace {

using ::ess::testing::IsOk;

DenseMatrix Random(int64_t rows, int64_t columns, int64_t rank, uint64_t seed) {
  std::mt19937_64 generator(seed);
  std::normal_distribution<double> normal;
  DenseMatrix left(rows, rank), right(rank, columns), product(rows, columns);
  for (double& x : left.entries) x = normal(generator);
  for (double& x : right.entries) x = normal(generator);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t k = 0; k < rank; ++k) {
      for (int64_t c = 0; c < columns; ++c) product.Row(r)[c] += left.Row(r)[k] * right.Row(k)[c];
    }
  }
  return product;
}

// LAPACK's, of the matrix as a block of a larger one.
std::vector<double> Reference(DenseMatrix matrix) {
  const int64_t length = matrix.rows + matrix.columns;
  std::vector<double> whole(length * length, 0.0);
  for (int64_t r = 0; r < matrix.rows; ++r) {
    std::copy_n(matrix.Row(r), matrix.columns, &whole[(matrix.columns + r) * length]);
  }
  const auto sigma = BlockSingularValues(whole, length, matrix.columns);
  EXPECT_THAT(sigma, IsOk());
  return *sigma;
}

void ExpectEqual(const std::vector<double>& values, const std::vector<double>& expected) {
  ASSERT_EQ(values.size(), expected.size());
  EXPECT_TRUE(std::is_sorted(values.rbegin(), values.rend()));
  for (size_t k = 0; k < values.size(); ++k) {
    EXPECT_NEAR(values[k], expected[k], 2e-14 * expected[0]) << k;
  }
}

TEST(DenseSvdTest, EqualsLapackForEveryShapeAndRank) {
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    for (const int64_t rows : {1, 2, 3, 8, 33, 70}) {
      for (const int64_t columns : {1, 2, 5, 8, 31, 70}) {
        for (const int64_t rank : {1, 3, 70}) {
          SCOPED_TRACE(::testing::Message() << hwy::TargetName(target) << " " << rows << " x "
                                            << columns << " of rank " << rank);
          const DenseMatrix matrix = Random(rows, columns, rank, rows + columns);
          ExpectEqual(DenseSingularValues(matrix), Reference(matrix));
        }
      }
    }
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

TEST(DenseSvdTest, EqualValuesAndZerosAreNoTrouble) {
  DenseMatrix identity(20, 20);
  for (int64_t i = 0; i < 20; ++i) identity.Row(i)[19 - i] = i < 15 ? 3.0 : 0.0;

  std::vector<double> expected(20, 0.0);
  std::fill_n(expected.begin(), 15, 3.0);
  ExpectEqual(DenseSingularValues(identity), expected);
  EXPECT_EQ(DenseSingularValues(DenseMatrix(4, 3)), std::vector<double>(3, 0.0));
  EXPECT_TRUE(DenseSingularValues(DenseMatrix(4, 0)).empty());
}

TEST(DenseSvdTest, ScaleDoesNotMatter) {
  const DenseMatrix matrix = Random(12, 9, 9, 1);
  const std::vector<double> expected = DenseSingularValues(matrix);
  for (const int exponent : {1000, -1000}) {
    DenseMatrix scaled = matrix;
    for (double& entry : scaled.entries) entry = std::ldexp(entry, exponent);

    const std::vector<double> values = DenseSingularValues(scaled);

    for (size_t k = 0; k < values.size(); ++k) {
      EXPECT_EQ(values[k], std::ldexp(expected[k], exponent));
    }
  }
}

TEST(DenseSvdTest, ColumnsThatUnderflowDoNotHurt) {
  DenseMatrix matrix = Random(12, 9, 9, 1);
  for (int64_t r = 0; r < 12; ++r) {
    for (int64_t c = 0; c < 9; ++c)
      matrix.Row(r)[c] *= std::pow(10.0, -40.0 * static_cast<double>(c));
  }

  ExpectEqual(DenseSingularValues(matrix), Reference(matrix));
}

TEST(DenseSvdTest, ATriangleHasTheSameSingularValues) {
  const DenseMatrix matrix = Random(50, 7, 7, 2);

  DenseMatrix triangle = TriangularFactor(matrix);

  ASSERT_EQ(triangle.rows, 7);
  for (int64_t r = 0; r < 7; ++r) {
    for (int64_t c = 0; c < r; ++c) EXPECT_EQ(triangle.Row(r)[c], 0);
  }
  ExpectEqual(DenseSingularValues(triangle), Reference(matrix));
}

}  // namespace
}  // namespace ess::linalg
