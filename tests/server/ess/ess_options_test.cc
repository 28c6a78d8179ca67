// Horizons and certificates through the engine.
#include <ATen/ATen.h>

#include <cmath>
#include <numeric>

#include "gtest/gtest.h"
#include "server/base/worker_pool.h"
#include "server/ess/ess_engine.h"
#include "server/ess/reference_ess.h"
#include "server/linalg/reference_linalg.h"
#include "server/operators/dense_operator.h"
#include "tests/support/status_matchers.h"
#include "tests/support/test_operators.h"

namespace ess {
namespace {

using ::ess::operators::DenseOperator;
using ::ess::operators::StateSize;
using ::ess::testing::IsOk;
using ::ess::testing::MakeTestOperator;
using ::ess::testing::StatusIs;
using Kind = Measure::Kind;

constexpr int64_t kLength = 48;
const CancellationToken kNever;

std::vector<int64_t> Range(int64_t count) {
  std::vector<int64_t> range(count);
  std::iota(range.begin(), range.end(), 0);
  return range;
}

absl::StatusOr<OperatorEss> Compute(const std::vector<double>& matrix,
                                    const std::vector<Measure>& measures,
                                    const EssOptions& options) {
  const at::Tensor maps =
      at::from_blob(const_cast<double*>(matrix.data()), {1, kLength, kLength}, at::kDouble);
  WorkerPool pool(1);
  return EssEngine(pool).Compute(DenseOperator(maps, StateSize::Growing()), Range(1),
                                 Range(kLength), measures, options, kNever);
}

const std::vector<Measure> kMeasures = {{.kind = Kind::kTolerance, .value = 1e-2},
                                        {.kind = Kind::kRelative, .value = 1e-2},
                                        {.kind = Kind::kHeadRelative, .value = 1e-2},
                                        {.kind = Kind::kEntropy},
                                        {.kind = Kind::kSpectralNorm},
                                        {.kind = Kind::kFrobeniusNorm},
                                        {.kind = Kind::kSingularValues, .count = 3}};

TEST(EssOptionsTest, AHorizonCutsTheFutureOfEveryMeasure) {
  const std::vector<double> matrix = MakeTestOperator("attention_sink", kLength);
  for (const int64_t horizon : {1, 7, 47, 48, 1000}) {
    const auto ess = Compute(matrix, kMeasures, {.horizon = horizon});
    const auto expected = ReferenceEss(matrix, kLength, Range(kLength), kMeasures, kNever, horizon);

    ASSERT_THAT(ess, IsOk());
    ASSERT_THAT(expected, IsOk());
    for (size_t m = 0; m < kMeasures.size(); ++m) {
      for (size_t x = 0; x < (*expected)[m].size(); ++x) {
        EXPECT_NEAR(ess->values[m][x], (*expected)[m][x], 1e-6 * (1e-6 + (*expected)[m][x]))
            << horizon << " " << FormatMeasure(kMeasures[m]) << " " << x;
      }
      EXPECT_EQ(ess->routes[m], "reference_svd");
    }
  }
}

TEST(EssOptionsTest, AHorizonTakesAwayTheFallTowardsTheEnd) {
  // Uniform content: every H_i of 8 rows has full rank once there are 8 columns.
  const std::vector<double> matrix = MakeTestOperator("attention_g1", kLength);
  const std::vector<Measure> rank = {{.kind = Kind::kRelative, .value = 1e-9}};

  const auto ess = Compute(matrix, rank, {.horizon = 8});

  ASSERT_THAT(ess, IsOk());
  for (int64_t i = 8; i + 8 <= kLength; ++i) EXPECT_EQ(ess->values[0][i], 8) << i;
}

TEST(EssOptionsTest, AHorizonBelowOneIsRefused) {
  EXPECT_THAT(Compute(MakeTestOperator("uniform", kLength), kMeasures, {.horizon = 0}),
              StatusIs(absl::StatusCode::kInvalidArgument, ::testing::HasSubstr("horizon 0")));
}

TEST(EssOptionsTest, CertifiedCountsSayWhereASingularValueIsAtTheTolerance) {
  const std::vector<double> matrix = MakeTestOperator("attention_g1", kLength);
  const auto sigma = linalg::BlockSingularValues(matrix, kLength, 20);
  ASSERT_THAT(sigma, IsOk());
  const std::vector<Measure> measures = {{.kind = Kind::kTolerance, .value = (*sigma)[5]},
                                         {.kind = Kind::kEntropy}};

  const auto ess = Compute(matrix, measures, {.certify = true});

  ASSERT_THAT(ess, IsOk());
  for (int64_t i = 0; i < kLength; ++i) {
    EXPECT_EQ(ess->certain[0][i], i != 20) << i;
    EXPECT_EQ(ess->certain[1][i], 1) << i;
  }
  EXPECT_EQ(ess->values[0][20], 5);
}

TEST(EssOptionsTest, CertifiedCountsOfDegenerateOperatorsEqualTheReference) {
  for (const auto& op : testing::DegenerateOperators()) {
    const std::vector<double> matrix = op.make(kLength);
    const std::vector<Measure> measures = {{.kind = Kind::kTolerance, .value = 1},
                                           {.kind = Kind::kTolerance, .value = 1e-6},
                                           {.kind = Kind::kRelative, .value = 0.5}};

    const auto ess = Compute(matrix, measures, {.certify = true});

    const auto expected = ReferenceEss(matrix, kLength, Range(kLength), measures, kNever);
    ASSERT_THAT(ess, IsOk());
    ASSERT_THAT(expected, IsOk());
    EXPECT_EQ(ess->values, *expected) << op.name;
  }
}

TEST(EssOptionsTest, WithoutCertifyThereAreNoMarks) {
  const auto ess = Compute(MakeTestOperator("uniform", kLength), kMeasures, {});

  ASSERT_THAT(ess, IsOk());
  EXPECT_TRUE(ess->certain.empty());
}

}  // namespace
}  // namespace ess
