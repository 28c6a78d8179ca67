// Operators whose ESS is known without computing it, through the engine.
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "gtest/gtest.h"
#include "server/base/worker_pool.h"
#include "server/ess/ess_engine.h"
#include "server/operators/banded_operator.h"
#include "server/operators/convolution.h"
#include "server/operators/delta_recurrence.h"
#include "server/operators/dense_operator.h"
#include "server/operators/diagonal_plus_rank_one.h"
#include "server/operators/diagonal_recurrence.h"
#include "server/operators/general_recurrence.h"
#include "server/operators/operator_classes.h"
#include "server/operators/selective_scan.h"
#include "tests/support/operator_forms.h"
#include "tests/support/status_matchers.h"

namespace ess {
namespace {

using namespace operators;  // NOLINT(build/namespaces): the test names nearly all of it.
using ::ess::testing::DenseForm;
using ::ess::testing::IsOk;
using ::ess::testing::RandomTensor;

constexpr int64_t kLength = 40;

// Rounding is far below, anything the operators here hold is far above.
constexpr Measure kRank = {.kind = Measure::Kind::kHeadRelative, .value = 1e-10};

Measure Tolerance(double tau) { return {.kind = Measure::Kind::kTolerance, .value = tau}; }

std::vector<Measure> AllMeasures() {
  using Kind = Measure::Kind;
  return {Tolerance(1e-3),
          {.kind = Kind::kRelative, .value = 1e-3},
          {.kind = Kind::kHeadRelative, .value = 1e-3},
          {.kind = Kind::kEntropy},
          {.kind = Kind::kSpectralNorm},
          {.kind = Kind::kFrobeniusNorm},
          {.kind = Kind::kSingularValues, .count = 3}};
}

OperatorEss EssOf(const SequenceOperator& op, const std::vector<Measure>& measures) {
  WorkerPool pool(1);
  std::vector<int64_t> heads(op.head_count());
  std::iota(heads.begin(), heads.end(), 0);
  std::vector<int64_t> positions(op.length());
  std::iota(positions.begin(), positions.end(), 0);
  auto ess = EssEngine(pool).Compute(op, heads, positions, measures, {}, CancellationToken());
  EXPECT_THAT(ess, IsOk());
  return ess.ok() ? *std::move(ess) : OperatorEss{};
}

std::vector<float> EssOf(const SequenceOperator& op, const Measure& measure) {
  return EssOf(op, std::vector{measure}).values.at(0);
}

// min(state, i, L - i) at each position.
std::vector<float> Tent(int64_t state, int64_t length) {
  std::vector<float> values(length);
  for (int64_t i = 0; i < length; ++i) {
    values[i] = static_cast<float>(std::min({state, i, length - i}));
  }
  return values;
}

DenseOperator Dense(const at::Tensor& T) {
  return DenseOperator(T.reshape({-1, T.size(-1), T.size(-1)}), StateSize::Growing());
}

DenseOperator DenseOf(const SequenceOperator& op) {
  std::vector<double> form = DenseForm(op, 0);
  return Dense(at::from_blob(form.data(), {op.length(), op.length()}, at::kDouble).clone());
}

at::Tensor SoftmaxMap(double gain, uint64_t seed) {
  const at::Tensor future = at::ones({kLength, kLength}, at::kBool).triu(1);
  const at::Tensor scores = RandomTensor({kLength, kLength}, seed) * gain;
  return at::softmax(scores.masked_fill(future, -INFINITY), -1);
}

// sum_m amplitude_m rate_m^t at t = 0 .. L - 1.
at::Tensor Exponentials(const std::vector<double>& rates) {
  const at::Tensor lag = at::arange(kLength, at::kDouble);
  at::Tensor taps = at::zeros({kLength}, at::kDouble);
  for (const double rate : rates) taps += at::pow(at::scalar_tensor(rate, at::kDouble), lag);
  return taps;
}

TEST(EssDefinitionTest, TheCurrentTokenDoesNotCount) {
  const at::Tensor T = SoftmaxMap(3, 1);
  const at::Tensor skip = at::diag(RandomTensor({kLength}, 2) * 1e6);

  EXPECT_EQ(EssOf(Dense(T), AllMeasures()).values, EssOf(Dense(T + skip), AllMeasures()).values);
}

TEST(EssDefinitionTest, ScalingTheOperatorScalesTheToleranceAndNotTheEntropy) {
  const at::Tensor T = SoftmaxMap(3, 3);
  const Measure entropy = {.kind = Measure::Kind::kEntropy};
  for (const double scale : {3.0, -0.1, 1e150, 1e-150}) {
    const DenseOperator scaled = Dense(T * scale);
    for (const double tau : {1e-1, 1e-2, 1e-4}) {
      EXPECT_EQ(EssOf(Dense(T), Tolerance(tau)), EssOf(scaled, Tolerance(tau * std::abs(scale))))
          << scale << " " << tau;
    }
    const std::vector<float> expected = EssOf(Dense(T), entropy);
    const std::vector<float> found = EssOf(scaled, entropy);
    for (int64_t i = 0; i < kLength; ++i) EXPECT_NEAR(found[i], expected[i], 1e-5 * expected[i]);
  }
}

TEST(EssDefinitionTest, ADelayOfKNeedsKPositions) {
  for (const int64_t delay : {1, 2, 7, 20}) {
    at::Tensor taps = at::zeros({kLength}, at::kDouble);
    taps[delay] = 1;
    const at::Tensor band = taps.slice(0, 0, delay + 1).expand({kLength, delay + 1});

    EXPECT_EQ(EssOf(Convolution(taps), Tolerance(0.5)), Tent(delay, kLength)) << delay;
    EXPECT_EQ(EssOf(BandedOperator(band), Tolerance(0.5)), Tent(delay, kLength)) << delay;
  }
}

TEST(EssDefinitionTest, AShiftRegisterIsADelayInEitherReadOrder) {
  constexpr int64_t kStates = 7;
  const at::Tensor unit = at::eye(kStates, at::kDouble);
  const at::Tensor A = unit.roll(1, 0).tril(-1).expand({kLength, kStates, kStates});
  const at::Tensor b = unit[0].expand({kLength, kStates});
  const at::Tensor c = unit[kStates - 1].expand({kLength, kStates});

  // Post-read, the last register is seen one step earlier.
  EXPECT_EQ(EssOf(GeneralRecurrence(A, b, c, false), Tolerance(0.5)), Tent(kStates - 1, kLength));
  EXPECT_EQ(EssOf(GeneralRecurrence(A, b, c, true), Tolerance(0.5)), Tent(kStates, kLength));
}

TEST(EssDefinitionTest, AnExponentialNeedsOneState) {
  const at::Tensor ones = at::ones({kLength, 1}, at::kDouble);

  EXPECT_EQ(EssOf(Convolution(Exponentials({0.9})), kRank), Tent(1, kLength));
  for (const bool read_before : {false, true}) {
    const DiagonalRecurrence op(ones * 0.9, ones, ones, read_before);
    EXPECT_EQ(EssOf(op, kRank), Tent(1, kLength));
  }
}

TEST(EssDefinitionTest, DistinctExponentialsNeedOneStateEach) {
  const std::vector<double> rates = {0.95, 0.5, -0.6, -0.95};
  for (size_t count = 2; count <= rates.size(); ++count) {
    const std::vector<double> some(rates.begin(), rates.begin() + count);
    const at::Tensor a = at::tensor(some, at::kDouble).expand({kLength, int64_t(count)});
    const at::Tensor ones = at::ones_like(a);

    EXPECT_EQ(EssOf(Convolution(Exponentials(some)), kRank), Tent(count, kLength));
    EXPECT_EQ(EssOf(DiagonalRecurrence(a, ones, ones), kRank), Tent(count, kLength));
  }
}

TEST(EssDefinitionTest, ADampedWaveNeedsTwoStates) {
  const at::Tensor lag = at::arange(kLength, at::kDouble);
  const at::Tensor wave = at::pow(0.95, lag) * at::cos(lag);
  const at::Tensor ones = at::ones({kLength, 1}, at::kComplexDouble);
  const DiagonalRecurrence op(ones * c10::complex<double>(0.95 * std::cos(1), 0.95 * std::sin(1)),
                              ones, ones);

  EXPECT_EQ(EssOf(Convolution(wave), kRank), Tent(2, kLength));
  EXPECT_EQ(EssOf(op, kRank), Tent(2, kLength));
  EXPECT_LE(ess::testing::LargestError(DenseForm(op, 0), DenseForm(Convolution(wave), 0)), 1e-14);
}

TEST(EssDefinitionTest, RandomAttentionNeedsEveryPosition) {
  EXPECT_EQ(EssOf(Dense(SoftmaxMap(3, 4)), kRank), Tent(kLength, kLength));
}

TEST(EssDefinitionTest, LinearAttentionNeedsTheFeaturesOfAKey) {
  for (const int64_t states : {1, 6, 16}) {
    const at::Tensor ones = at::ones({kLength, 1}, at::kDouble);
    const at::Tensor k = RandomTensor({kLength, states}, 5);
    const at::Tensor q = RandomTensor({kLength, states}, 6);

    EXPECT_EQ(EssOf(DiagonalRecurrence(ones, k, q), kRank), Tent(states, kLength));
    EXPECT_EQ(EssOf(Dense(q.matmul(k.t()).tril()), kRank), Tent(states, kLength));
  }
}

TEST(EssDefinitionTest, NoRecurrenceNeedsMoreThanItsState) {
  for (const OperatorClass& known : AllOperatorClasses()) {
    if (!known.recurrence) continue;
    const auto op = known.make_example(2, kLength, 8);
    for (const double tau : {1.0, 1e-2, 1e-4, 1e-6}) {
      const std::vector<float> ess = EssOf(*op, Tolerance(tau));
      const std::vector<float> bound = Tent(op->state_size().At(1), kLength);
      for (size_t x = 0; x < ess.size(); ++x) EXPECT_LE(ess[x], bound[x % kLength]) << known.name;
    }
  }
}

// Of one operator, in the words of different classes.
TEST(EssDefinitionTest, FormsOfOneOperatorAgree) {
  const auto expect_same = [](const SequenceOperator& one, const SequenceOperator& other) {
    for (const double tau : {1e-1, 1e-3, 1e-5}) {
      EXPECT_EQ(EssOf(one, Tolerance(tau)), EssOf(other, Tolerance(tau)))
          << one.class_name() << " " << other.class_name() << " " << tau;
    }
  };
  constexpr int64_t kStates = 5;
  const auto random = [](uint64_t seed) { return RandomTensor({kLength, kStates}, seed); };
  const at::Tensor delta = at::softplus(RandomTensor({kLength}, 1) - 1).unsqueeze(1);
  const at::Tensor A = -at::exp(RandomTensor({kStates}, 2));
  const at::Tensor a = at::exp(delta * A);
  const at::Tensor zeros = at::zeros_like(a);
  const at::Tensor taps = RandomTensor({kLength}, 3);
  const SelectiveScan scan(delta.select(1, 0), A, random(4), random(5));
  const DiagonalRecurrence diagonal(a, delta * random(4), random(5));

  expect_same(scan, diagonal);
  expect_same(diagonal, DiagonalPlusRankOne(a, zeros, zeros, delta * random(4), random(5)));
  expect_same(diagonal, GeneralRecurrence(at::diag_embed(a), delta * random(4), random(5)));
  expect_same(diagonal, DenseOf(diagonal));
  expect_same(Convolution(taps), BandedOperator(taps.expand({kLength, kLength})));
  expect_same(Convolution(taps), DenseOf(Convolution(taps)));
}

TEST(EssDefinitionTest, AnOperatorOfZerosHasNoMemory) {
  for (const OperatorClass& known : AllOperatorClasses()) {
    OperatorArguments arguments = known.example_arguments(2, 9, 1);
    for (auto& [name, tensor] : arguments.tensors) tensor = at::zeros_like(tensor);

    const OperatorEss ess = EssOf(*known.build(arguments), AllMeasures());

    for (const std::vector<float>& values : ess.values) {
      EXPECT_EQ(values, std::vector<float>(values.size(), 0)) << known.name;
    }
    EXPECT_EQ(ess.noise_floors, (std::vector<double>{0, 0})) << known.name;
  }
}

TEST(EssDefinitionTest, AHardResetForgetsThePast) {
  constexpr int64_t kReset = 17;
  // The arguments that are 0 at the reset make A_t = 0 there.
  const std::map<std::string_view, std::vector<std::string>> transitions = {
      {"DiagonalRecurrence", {"a"}},
      {"DeltaRecurrence", {"alpha"}},
      {"DiagonalPlusRankOne", {"w", "p"}},
      {"GeneralRecurrence", {"A"}}};
  for (const OperatorClass& known : AllOperatorClasses()) {
    const auto found = transitions.find(known.name);
    if (found == transitions.end()) continue;
    OperatorArguments arguments = known.example_arguments(1, kLength, 9);
    for (const std::string& name : found->second) {
      arguments.tensors.at(name).select(1, kReset).zero_();
    }

    const std::vector<float> ess = EssOf(*known.build(arguments), kRank);

    for (int64_t i = 1; i < kLength; ++i) EXPECT_EQ(ess[i] == 0, i == kReset) << known.name << i;
  }
  at::Tensor blocks = SoftmaxMap(2, 10);
  blocks.slice(0, kReset).slice(1, 0, kReset).zero_();
  EXPECT_EQ(EssOf(Dense(blocks), kRank)[kReset], 0);
}

TEST(EssDefinitionTest, OnePositionHasNoPast) {
  for (const OperatorClass& known : AllOperatorClasses()) {
    const OperatorEss ess = EssOf(*known.make_example(2, 1, 11), AllMeasures());
    for (const std::vector<float>& values : ess.values) {
      EXPECT_EQ(values, std::vector<float>(values.size(), 0)) << known.name;
    }
  }
}

}  // namespace
}  // namespace ess
