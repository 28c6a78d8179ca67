#include "server/ess/ess_engine.h"

#include <ATen/ATen.h>

#include <cmath>
#include <numeric>
#include <thread>

#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "server/ess/reference_ess.h"
#include "server/linalg/inertia_tree.h"
#include "server/linalg/reference_linalg.h"
#include "server/operators/dense_operator.h"
#include "server/operators/diagonal_recurrence.h"
#include "tests/support/status_matchers.h"
#include "tests/support/test_operators.h"

namespace ess {
namespace {

using ::ess::operators::DenseOperator;
using ::ess::operators::StateSize;
using ::ess::testing::IsOk;
using ::ess::testing::MakeTestOperator;
using ::ess::testing::RealisticOperators;
using ::ess::testing::StatusIs;
using ::ess::testing::TestOperator;
using ::testing::HasSubstr;
using Kind = Measure::Kind;

const CancellationToken kNever;

std::vector<int64_t> Range(int64_t count) {
  std::vector<int64_t> range(count);
  std::iota(range.begin(), range.end(), 0);
  return range;
}

// One head for each matrix.
DenseOperator Dense(std::vector<std::vector<double>> matrices, double scale = 1) {
  const int64_t L = std::llround(std::sqrt(matrices.front().size()));
  at::Tensor maps = at::empty({static_cast<int64_t>(matrices.size()), L, L}, at::kDouble);
  for (size_t head = 0; head < matrices.size(); ++head) {
    maps[head].copy_(at::from_blob(matrices[head].data(), {L, L}, at::kDouble) * scale);
  }
  return DenseOperator(maps, StateSize::Growing());
}

OperatorEss ComputeAll(const operators::SequenceOperator& op, std::vector<Measure> measures,
                       int threads = 1) {
  WorkerPool pool(threads);
  auto ess =
      EssEngine(pool).Compute(op, Range(op.head_count()), Range(op.length()), measures, {}, kNever);
  EXPECT_THAT(ess, IsOk());
  return ess.ok() ? *std::move(ess) : OperatorEss();
}

TEST(EssEngineTest, EveryMeasureEqualsTheReference) {
  const std::vector<Measure> measures = {{.kind = Kind::kTolerance, .value = 1e-3},
                                         {.kind = Kind::kRelative, .value = 1e-2},
                                         {.kind = Kind::kHeadRelative, .value = 1e-2},
                                         {.kind = Kind::kEntropy},
                                         {.kind = Kind::kSpectralNorm},
                                         {.kind = Kind::kFrobeniusNorm},
                                         {.kind = Kind::kSingularValues, .count = 3}};
  for (const TestOperator& test_operator : RealisticOperators()) {
    const std::vector<double> matrix = test_operator.make(60);
    const auto expected = ReferenceEss(matrix, 60, Range(60), measures, kNever);
    ASSERT_THAT(expected, IsOk());

    const OperatorEss ess = ComputeAll(Dense({matrix}), measures);

    for (size_t m = 0; m < measures.size(); ++m) {
      ASSERT_EQ(ess.values[m].size(), (*expected)[m].size());
      for (size_t x = 0; x < ess.values[m].size(); ++x) {
        const double accuracy = measures[m].kind == Kind::kEntropy ? 1e-4 : 1e-6;
        EXPECT_NEAR(ess.values[m][x], (*expected)[m][x], accuracy * (1e-6 + (*expected)[m][x]))
            << test_operator.name << " " << FormatMeasure(measures[m]) << " at " << x;
      }
    }
  }
}

TEST(EssEngineTest, CountsThatTheTreeIsNotSureOfEqualTheReference) {
  // Sharp attention, where pivots are sometimes small by accident. Tolerances just below a singular
  // value, as far as the tree is not sure there: counts a little above and below are different.
  constexpr int64_t kLength = 150;
  const std::vector<double> matrix = MakeTestOperator("attention_g8", kLength);
  std::vector<double> halved = matrix;
  for (double& entry : halved) entry /= 2;
  linalg::InertiaTree tree;
  ASSERT_THAT(tree.Load(halved, kLength, kNever), IsOk());
  std::vector<Measure> uncertain;
  for (int64_t i = 1; i < kLength; ++i) {
    const auto sigma = linalg::BlockSingularValues(matrix, kLength, i);
    ASSERT_THAT(sigma, IsOk());
    for (const double value : *sigma) {
      if (value < 1e-4) break;
      const double tau = value * (1 - 1e-9);
      const auto counts = tree.CountAbove(tau / 2, 1, kNever);
      if (!counts.ok() || counts->uncertainty > 0)
        uncertain.push_back({.kind = Kind::kTolerance, .value = tau});
    }
  }
  ASSERT_FALSE(uncertain.empty());
  const auto expected = ReferenceEss(matrix, kLength, Range(kLength), uncertain, kNever);
  ASSERT_THAT(expected, IsOk());

  EXPECT_EQ(ComputeAll(Dense({matrix}), uncertain).values, *expected);
}

TEST(EssEngineTest, RoutesSayHowEachMeasureWasMade) {
  const OperatorEss ess = ComputeAll(Dense({MakeTestOperator("attention_g1", 20)}),
                                     {{.kind = Kind::kTolerance, .value = 1e-3},
                                      {.kind = Kind::kEntropy},
                                      {.kind = Kind::kFrobeniusNorm},
                                      {.kind = Kind::kTolerance, .value = 1e-12}});

  EXPECT_EQ(ess.routes, (std::vector<std::string>{"inertia_tree", "band_windows", "prefix_sums",
                                                  "reference_svd"}));
}

TEST(EssEngineTest, EveryMeasureIsZeroAtPositionZero) {
  const OperatorEss ess = ComputeAll(Dense({MakeTestOperator("attention_g1", 12)}),
                                     {{.kind = Kind::kTolerance, .value = 1e-3},
                                      {.kind = Kind::kHeadRelative, .value = 1e-3},
                                      {.kind = Kind::kEntropy},
                                      {.kind = Kind::kSpectralNorm},
                                      {.kind = Kind::kFrobeniusNorm}});

  for (const std::vector<float>& values : ess.values) {
    EXPECT_EQ(values[0], 0);
    EXPECT_GT(values[1], 0);
  }
}

TEST(EssEngineTest, APromptOfOneTokenGivesOneZero) {
  const OperatorEss ess = ComputeAll(Dense({{0.7}}), {{.kind = Kind::kTolerance, .value = 1e-3},
                                                      {.kind = Kind::kEntropy},
                                                      {.kind = Kind::kSingularValues, .count = 2}});

  EXPECT_EQ(ess.values[0], std::vector<float>{0});
  EXPECT_EQ(ess.values[1], std::vector<float>{0});
  EXPECT_EQ(ess.values[2], (std::vector<float>{0, 0}));
  EXPECT_EQ(ess.noise_floors, std::vector<double>{0});
}

TEST(EssEngineTest, ScalesFarFromOneChangeNothingButTheUnit) {
  const std::vector<double> matrix = MakeTestOperator("attention_sink", 50);
  const OperatorEss plain = ComputeAll(
      Dense({matrix}),
      {{.kind = Kind::kTolerance, .value = 1e-3}, {.kind = Kind::kHeadRelative, .value = 1e-3}});
  for (const double scale : {1e150, 1e-150}) {
    const OperatorEss scaled =
        ComputeAll(Dense({matrix}, scale), {{.kind = Kind::kTolerance, .value = 1e-3 * scale},
                                            {.kind = Kind::kHeadRelative, .value = 1e-3}});

    EXPECT_EQ(scaled.values, plain.values) << scale;
    EXPECT_NEAR(scaled.noise_floors[0] / scale, plain.noise_floors[0],
                1e-9 * plain.noise_floors[0]);
  }
}

TEST(EssEngineTest, TheDiagonalChangesNothing) {
  std::vector<double> matrix = MakeTestOperator("attention_g8", 40);
  const OperatorEss before =
      ComputeAll(Dense({matrix}), {{.kind = Kind::kTolerance, .value = 1e-3}});
  for (int64_t i = 0; i < 40; ++i) matrix[i * 40 + i] += 1000 * (i + 1);

  const OperatorEss after =
      ComputeAll(Dense({matrix}), {{.kind = Kind::kTolerance, .value = 1e-3}});

  EXPECT_EQ(after.values, before.values);
  EXPECT_EQ(after.noise_floors, before.noise_floors);
}

TEST(EssEngineTest, TheNumberOfThreadsChangesNoBit) {
  std::vector<std::vector<double>> heads;
  for (const TestOperator& op : RealisticOperators()) heads.push_back(op.make(70));
  const std::vector<Measure> measures = {{.kind = Kind::kTolerance, .value = 1e-3},
                                         {.kind = Kind::kHeadRelative, .value = 1e-4},
                                         {.kind = Kind::kEntropy},
                                         {.kind = Kind::kFrobeniusNorm}};
  const OperatorEss one = ComputeAll(Dense(heads), measures, 1);

  for (const int threads : {2, 3, 5}) {
    const OperatorEss many = ComputeAll(Dense(heads), measures, threads);

    EXPECT_EQ(many.values, one.values) << threads << " threads";
    EXPECT_EQ(many.noise_floors, one.noise_floors) << threads << " threads";
  }
}

TEST(EssEngineTest, SelectionsGiveTheSameNumbersAsTheWhole) {
  std::vector<std::vector<double>> heads;
  for (const TestOperator& op : RealisticOperators()) heads.push_back(op.make(33));
  const DenseOperator op = Dense(heads);
  const std::vector<Measure> measures = {{.kind = Kind::kHeadRelative, .value = 1e-3},
                                         {.kind = Kind::kSingularValues, .count = 2}};
  const OperatorEss whole = ComputeAll(op, measures);
  WorkerPool pool(2);
  const std::vector<int64_t> selected_heads = {5, 2};
  const std::vector<int64_t> selected_positions = {0, 3, 32};

  const auto part =
      EssEngine(pool).Compute(op, selected_heads, selected_positions, measures, {}, kNever);

  ASSERT_THAT(part, IsOk());
  for (size_t h = 0; h < 2; ++h) {
    for (size_t p = 0; p < 3; ++p) {
      const int64_t at = selected_heads[h] * 33 + selected_positions[p];
      EXPECT_EQ(part->values[0][h * 3 + p], whole.values[0][at]);
      for (int64_t k = 0; k < 2; ++k) {
        EXPECT_EQ(part->values[1][(h * 3 + p) * 2 + k], whole.values[1][at * 2 + k]);
      }
    }
  }
}

TEST(EssEngineTest, TheNoiseFloorScalesTheLargestSingularValueByTheDtype) {
  const std::vector<double> matrix = MakeTestOperator("attention_g1", 36);
  const Measure spectral_norm{.kind = Kind::kSpectralNorm};
  const OperatorEss ess = ComputeAll(Dense({matrix}), {spectral_norm});
  const float largest = *std::max_element(ess.values[0].begin(), ess.values[0].end());

  EXPECT_NEAR(ess.noise_floors[0], 0x1p-52 * largest * 6, 1e-3 * ess.noise_floors[0]);
}

TEST(EssEngineTest, CausalOfADenseOperatorIsRefused) {
  WorkerPool pool(1);
  const Measure causal{.kind = Kind::kCausal};

  EXPECT_THAT(EssEngine(pool).Compute(Dense({{1.0}}), Range(1), Range(1), {&causal, 1}, {}, kNever),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("DenseOperator")));
}

const OperatorShape kDenseOfTen{.class_name = "DenseOperator", .head_count = 1, .length = 10};

TEST(EssEngineTest, ReferenceWorkCountsOnlyMeasuresThatNeedIt) {
  const std::vector<Measure> fast = {{.kind = Kind::kTolerance, .value = 1e-3},
                                     {.kind = Kind::kEntropy},
                                     {.kind = Kind::kRelative, .value = 1e-3},
                                     {.kind = Kind::kFrobeniusNorm}};
  const std::vector<Measure> slow = {{.kind = Kind::kSingularValues, .count = 2}};
  const std::vector<int64_t> positions = {0, 1, 5};

  EXPECT_EQ(ReferenceWork(kDenseOfTen, fast, {}, positions), 0);
  // i = 1: m = 9, n = 1. i = 5: m = n = 5.
  EXPECT_NEAR(ReferenceWork(kDenseOfTen, slow, {}, positions), (36 - 4.0 / 3) + (500 - 500.0 / 3),
              1e-9);
}

TEST(EssEngineTest, WithAHorizonEveryMeasureNeedsTheReferenceOfTheCutBlock) {
  const Measure tolerance{.kind = Kind::kTolerance, .value = 1e-3};
  const std::vector<int64_t> positions = {5};

  // The next 2 rows of 5 columns.
  EXPECT_NEAR(ReferenceWork(kDenseOfTen, {&tolerance, 1}, {.horizon = 2}, positions),
              4 * 5 * 4 - 4.0 / 3 * 8, 1e-9);
}

TEST(EssEngineTest, TheSvdOfARecurrenceIsNoLargerThanItsState) {
  const Measure values{.kind = Kind::kSingularValues, .count = 2};
  const std::vector<int64_t> positions = {50};
  const OperatorShape recurrence{.class_name = "DiagonalRecurrence",
                                 .head_count = 1,
                                 .length = 100,
                                 .state_size = StateSize::Constant(3)};

  EXPECT_NEAR(ReferenceWork(recurrence, {&values, 1}, {}, positions), 4 * 27 - 4.0 / 3 * 27, 1e-9);
}

TEST(EssEngineTest, ReferenceWorkCountsTolerancesThatMayBeTooSmallForTheTree) {
  const std::vector<int64_t> positions = {50};
  auto work = [&positions](Kind kind, double value, int64_t length) {
    const Measure measure{.kind = kind, .value = value};
    OperatorShape shape = kDenseOfTen;
    shape.length = length;
    return ReferenceWork(shape, {&measure, 1}, {}, positions);
  };

  EXPECT_GT(work(Kind::kTolerance, 0.9e-6, 100), 0);
  EXPECT_EQ(work(Kind::kTolerance, 1.1e-6, 100), 0);
  // Attention that looks at one column only has sigma_1 = sqrt(L).
  EXPECT_GT(work(Kind::kTolerance, 9e-6, 8192), 0);
  EXPECT_EQ(work(Kind::kTolerance, 1e-5, 8192), 0);
  EXPECT_GT(work(Kind::kHeadRelative, 0.9e-7, 100), 0);
  EXPECT_EQ(work(Kind::kHeadRelative, 1.1e-7, 100), 0);
}

TEST(EssEngineTest, ACancelledCallStopsWithin200Milliseconds) {
  std::vector<std::vector<double>> heads(2, MakeTestOperator("uniform", 300));
  const DenseOperator op = Dense(heads);
  const std::vector<int64_t> positions = Range(300);
  const std::vector<Measure> measures = {{.kind = Kind::kSingularValues, .count = 4}};
  WorkerPool pool(2);
  CancellationToken token;
  absl::Time cancelled_at;
  std::thread canceller([&] {
    absl::SleepFor(absl::Milliseconds(20));
    cancelled_at = absl::Now();
    token.Cancel();
  });

  const auto ess = EssEngine(pool).Compute(op, Range(2), positions, measures, {}, token);
  const absl::Time stopped_at = absl::Now();
  canceller.join();

  EXPECT_THAT(ess, StatusIs(absl::StatusCode::kCancelled, ::testing::_));
  EXPECT_LT(absl::ToDoubleMilliseconds(stopped_at - cancelled_at), 200);
}

TEST(EssEngineTest, APastDeadlineStopsTheWork) {
  const CancellationToken past(absl::Now() - absl::Seconds(1));
  WorkerPool pool(1);
  const Measure tolerance{.kind = Kind::kTolerance, .value = 1e-3};

  EXPECT_THAT(EssEngine(pool).Compute(Dense({MakeTestOperator("uniform", 64)}), Range(1), Range(64),
                                      {&tolerance, 1}, {}, past),
              StatusIs(absl::StatusCode::kDeadlineExceeded, ::testing::_));
}

}  // namespace
}  // namespace ess
