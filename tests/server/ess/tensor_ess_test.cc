// The engine's tensor route, on the CPU: every measure against SVD and against the host's routes.
#include "server/ess/tensor_ess.h"

#include <ATen/ATen.h>

#include <cmath>
#include <string>

#include "gtest/gtest.h"
#include "server/operators/dense_operator.h"
#include "tests/support/expect_ess.h"
#include "tests/support/test_operators.h"

namespace ess {
namespace {

using ::ess::operators::DenseOperator;
using ::ess::operators::StateSize;
using ::ess::testing::DegenerateOperators;
using ::ess::testing::EveryMeasure;
using ::ess::testing::ExpectHead;
using ::ess::testing::HeadSigma;
using ::ess::testing::IsOk;
using ::ess::testing::MakeTestOperator;
using ::ess::testing::Range;
using ::ess::testing::RealisticOperators;
using ::ess::testing::SigmaOfHead;
using ::ess::testing::StatusIs;
using ::ess::testing::TestOperator;
using ::testing::HasSubstr;
using Kind = Measure::Kind;

const CancellationToken kNever;

enum class Where { kHost, kTensors };

absl::StatusOr<OperatorEss> Compute(const DenseOperator& op, Where where,
                                    std::span<const int64_t> heads,
                                    std::span<const int64_t> positions,
                                    std::span<const Measure> measures,
                                    const EssOptions& options = {}, int threads = 1) {
  WorkerPool pool(threads);
  const EssEngine engine(pool, {.tensors_on_cpu = where == Where::kTensors});
  return engine.Compute(op, heads, positions, measures, options, kNever);
}

at::Tensor MapOf(const TestOperator& op, int64_t length) {
  return at::tensor(op.make(length), at::kDouble).view({length, length});
}

// One head for each of them.
at::Tensor MapsOf(const std::vector<TestOperator>& ops, int64_t length) {
  std::vector<at::Tensor> maps;
  for (const TestOperator& op : ops) maps.push_back(MapOf(op, length));
  return at::stack(maps);
}

std::vector<TestOperator> AllTestOperators() {
  std::vector<TestOperator> all = RealisticOperators();
  for (TestOperator& op : DegenerateOperators()) all.push_back(std::move(op));
  return all;
}

DenseOperator Dense(const at::Tensor& maps) { return DenseOperator(maps, StateSize::Growing()); }

// All positions of short operators, some of long ones: the last, and odd and even ones.
std::vector<int64_t> PositionsOf(int64_t length) {
  const int64_t step = length <= 40 ? 1 : length / 9;
  std::vector<int64_t> positions;
  for (int64_t i = 0; i + 1 < length; i += step) positions.push_back(i);
  positions.push_back(length - 1);
  return positions;
}

// Both routes at every second head, from the last to the first, against SVD.
void ExpectBothRoutes(const at::Tensor& maps, const std::vector<Measure>& measures,
                      const EssOptions& options, const std::string& what) {
  const DenseOperator op = Dense(maps);
  std::vector<int64_t> heads;
  const int64_t last = op.head_count() - 1 - op.length() % 2;
  for (int64_t head = last; head >= 0; head -= 2) heads.push_back(head);
  const std::vector<int64_t> positions = PositionsOf(op.length());

  const auto tensors = Compute(op, Where::kTensors, heads, positions, measures, options);
  const auto host = Compute(op, Where::kHost, heads, positions, measures, options);

  ASSERT_THAT(tensors, IsOk()) << what;
  ASSERT_THAT(host, IsOk()) << what;
  const double floor_per_norm = op.feature_epsilon() * std::sqrt(static_cast<double>(op.length()));
  for (size_t row = 0; row < heads.size(); ++row) {
    EXPECT_NEAR(tensors->noise_floors[row], host->noise_floors[row],
                NormAccuracy(measures) * host->noise_floors[row]);
    HeadSigma expected = SigmaOfHead(op, heads[row], positions);
    expected.norm = host->noise_floors[row] / floor_per_norm;
    const std::string where = what + " head " + std::to_string(heads[row]);
    ExpectHead(*tensors, row, measures, expected, where + " by tensors");
    ExpectHead(*host, row, measures, expected, where + " on the host");
  }
}

TEST(TensorEssTest, EveryMeasureEqualsTheHostsAtAwkwardLengths) {
  for (const int64_t length : {1, 2, 3, 7, 8, 9, 31, 33, 63, 64, 100, 255}) {
    const at::Tensor maps = MapsOf(AllTestOperators(), length);
    for (const at::ScalarType type : {at::kDouble, at::kFloat, at::kBFloat16}) {
      if (length > 100 && type != at::kFloat) continue;
      ExpectBothRoutes(maps.to(type), EveryMeasure(1e-3, 1e-2, false), {},
                       "length " + std::to_string(length) + " " + at::toString(type));
    }
  }
}

TEST(TensorEssTest, CertifiedCountsEqualTheReferenceAndTheMarksOfTheHost) {
  const at::Tensor maps = MapsOf(AllTestOperators(), 50);
  const std::vector<Measure> measures = EveryMeasure(1e-6, 1e-5, false);
  ExpectBothRoutes(maps, measures, {.certify = true}, "certified");

  const DenseOperator op = Dense(maps);
  // Exactly the sixth singular value at position 20 of the first head.
  const double tie = SigmaOfHead(op, 0, Range(50)).sigma[20][5];
  const std::vector<Measure> ties = {{.kind = Kind::kTolerance, .value = tie},
                                     {.kind = Kind::kEntropy}};
  const auto ess = Compute(op, Where::kTensors, Range(1), Range(50), ties, {.certify = true});
  ASSERT_THAT(ess, IsOk());
  for (int64_t i = 0; i < 50; ++i) {
    EXPECT_EQ(ess->certain[0][i], i != 20) << i;
    EXPECT_EQ(ess->certain[1][i], 1) << i;
  }
  EXPECT_EQ(ess->values[0][20], 5);
}

TEST(TensorEssTest, AnOperatorOfZerosHasNoMemory) {
  const std::vector<Measure> measures = EveryMeasure(1e-3, 1e-2, false);

  const auto ess =
      Compute(Dense(at::zeros({2, 40, 40})), Where::kTensors, Range(2), Range(40), measures);

  ASSERT_THAT(ess, IsOk());
  for (const std::vector<float>& values : ess->values) {
    EXPECT_EQ(values, std::vector<float>(values.size(), 0));
  }
  EXPECT_EQ(ess->noise_floors, (std::vector<double>{0, 0}));
}

TEST(TensorEssTest, ScalesFarFromOneChangeNothingButTheUnit) {
  const at::Tensor maps = MapsOf(RealisticOperators(), 45);
  const std::vector<Measure> plain = {{.kind = Kind::kTolerance, .value = 1e-3},
                                      {.kind = Kind::kHeadRelative, .value = 1e-4},
                                      {.kind = Kind::kRelative, .value = 1e-2},
                                      {.kind = Kind::kEntropy}};
  const int64_t heads = maps.size(0);
  const auto expected = Compute(Dense(maps), Where::kTensors, Range(heads), Range(45), plain);
  ASSERT_THAT(expected, IsOk());
  for (const double scale : {1e150, 1e-150}) {
    std::vector<Measure> scaled = plain;
    scaled[0].value *= scale;

    const auto ess = Compute(Dense(maps * scale), Where::kTensors, Range(heads), Range(45), scaled);

    ASSERT_THAT(ess, IsOk());
    for (size_t m = 0; m < 3; ++m) EXPECT_EQ(ess->values[m], expected->values[m]) << scale;
    for (size_t x = 0; x < ess->values[3].size(); ++x) {
      EXPECT_NEAR(ess->values[3][x], expected->values[3][x], 1e-5 * expected->values[3][x]);
    }
    // Norms are beyond float32 there.
    ExpectBothRoutes(maps * scale, scaled, {}, "scaled");
  }
}

TEST(TensorEssTest, AnEntryThatIsNotFiniteIsNamedWithItsHead) {
  at::Tensor maps = at::zeros({5, 9, 9}, at::kFloat);
  maps[3][7][2] = NAN;
  const Measure entropy{.kind = Kind::kEntropy};
  for (const Where where : {Where::kHost, Where::kTensors}) {
    // Head 3 is the second of the selection.
    EXPECT_THAT(Compute(Dense(maps), where, std::vector<int64_t>{4, 3}, Range(9), {&entropy, 1}),
                StatusIs(absl::StatusCode::kInternal, HasSubstr("head 3: entry [7, 2] is nan")));
    EXPECT_THAT(Compute(Dense(maps), where, std::vector<int64_t>{2, 4}, Range(9), {&entropy, 1}),
                IsOk());
  }
}

TEST(TensorEssTest, EntriesWhoseNormOverflowsAreRefused) {
  const at::Tensor maps = at::full({1, 30, 30}, 1e308, at::kDouble);
  const Measure norm{.kind = Kind::kSpectralNorm};
  for (const Where where : {Where::kHost, Where::kTensors}) {
    EXPECT_THAT(Compute(Dense(maps), where, Range(1), Range(30), {&norm, 1}),
                StatusIs(absl::StatusCode::kInternal, HasSubstr("head 0: overflows float64")));
  }
}

TEST(TensorEssTest, TheOrderOfHeadsIsTheCallers) {
  const DenseOperator op = Dense(MapsOf(RealisticOperators(), 20));
  const Measure norm{.kind = Kind::kSpectralNorm};
  std::vector<int64_t> backwards = Range(op.head_count());
  std::reverse(backwards.begin(), backwards.end());

  const auto forth = Compute(op, Where::kTensors, Range(op.head_count()), Range(20), {&norm, 1});
  const auto back = Compute(op, Where::kTensors, backwards, Range(20), {&norm, 1});

  ASSERT_THAT(forth, IsOk());
  ASSERT_THAT(back, IsOk());
  for (int64_t row = 0; row < op.head_count(); ++row) {
    for (int64_t i = 0; i < 20; ++i) {
      EXPECT_NEAR(back->values[0][row * 20 + i], forth->values[0][backwards[row] * 20 + i], 1e-6);
    }
  }
}

TEST(TensorEssTest, RoutesSayHowEachMeasureWasMade) {
  const DenseOperator op = Dense(MapOf(RealisticOperators()[0], 20).unsqueeze(0));
  std::vector<Measure> measures = EveryMeasure(1e-3, 1e-2, false);
  measures.push_back({.kind = Kind::kTolerance, .value = 1e-12});

  const auto ess = Compute(op, Where::kTensors, Range(1), Range(20), measures);
  const auto cut = Compute(op, Where::kTensors, Range(1), Range(20), measures, {.horizon = 4});

  ASSERT_THAT(ess, IsOk());
  ASSERT_THAT(cut, IsOk());
  EXPECT_EQ(ess->routes, (std::vector<std::string>{"tensor_tree", "tensor_tree", "tensor_tree",
                                                   "tensor_tree", "tensor_tree", "prefix_sums",
                                                   "reference_svd", "reference_svd"}));
  EXPECT_EQ(cut->routes, std::vector<std::string>(measures.size(), "reference_svd"));
}

TEST(TensorEssTest, MatricesTooLongForTheBudgetGoTheWayOfTheHost) {
  const DenseOperator op = Dense(MapOf(RealisticOperators()[0], 64).unsqueeze(0));
  const Measure tolerance{.kind = Kind::kTolerance, .value = 1e-3};
  WorkerPool pool(1);
  const EssEngine engine(pool, {.tensor_bytes = 100000, .tensors_on_cpu = true});

  const auto ess = engine.Compute(op, Range(1), Range(64), {&tolerance, 1}, {}, kNever);

  ASSERT_THAT(ess, IsOk());
  EXPECT_EQ(ess->routes[0], "inertia_tree");
}

TEST(TensorEssTest, TheNumberOfThreadsChangesNoBit) {
  const DenseOperator op = Dense(MapsOf(AllTestOperators(), 70));
  const std::vector<Measure> measures = EveryMeasure(1e-3, 1e-2, false);
  const auto one = Compute(op, Where::kTensors, Range(op.head_count()), Range(70), measures);
  ASSERT_THAT(one, IsOk());
  for (const int threads : {1, 2, 3}) {
    const auto again =
        Compute(op, Where::kTensors, Range(op.head_count()), Range(70), measures, {}, threads);

    ASSERT_THAT(again, IsOk());
    EXPECT_EQ(again->values, one->values) << threads << " threads";
    EXPECT_EQ(again->noise_floors, one->noise_floors) << threads << " threads";
  }
}

}  // namespace
}  // namespace ess
