// The definitions on operators whose answers are known without computing.
#include "server/ess/reference_ess.h"

#include <cmath>
#include <numeric>

#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"
#include "tests/support/test_operators.h"

namespace ess {
namespace {

using ::ess::testing::IsOk;
using ::ess::testing::MakeTestOperator;
using ::ess::testing::StatusIs;

constexpr Measure kCount{.kind = Measure::Kind::kTolerance, .value = 1e-9};
constexpr Measure kEntropy{.kind = Measure::Kind::kEntropy};

std::vector<float> AtAllPositions(const std::vector<double>& matrix, const Measure& measure) {
  const int64_t L = std::llround(std::sqrt(matrix.size()));
  std::vector<int64_t> positions(L);
  std::iota(positions.begin(), positions.end(), 0);
  const CancellationToken never;
  const auto values = ReferenceEss(matrix, L, positions, {&measure, 1}, never);
  EXPECT_THAT(values, IsOk());
  return values.ok() ? values->front() : std::vector<float>();
}

// T[i, j] = taps(i - j).
template <typename Taps>
std::vector<double> Convolution(int64_t L, Taps taps) {
  std::vector<double> T(L * L, 0.0);
  for (int64_t i = 0; i < L; ++i) {
    for (int64_t j = 0; j <= i; ++j) T[i * L + j] = taps(i - j);
  }
  return T;
}

TEST(ReferenceEssTest, ADelayLineNeedsAsManyStatesAsItDelays) {
  constexpr int64_t kLength = 24;
  constexpr int64_t kDelay = 5;

  const auto counts = AtAllPositions(
      Convolution(kLength, [](int64_t lag) { return lag == kDelay ? 1.0 : 0.0; }), kCount);

  for (int64_t i = 0; i < kLength; ++i) {
    EXPECT_EQ(counts[i], std::min({kDelay, i, kLength - i})) << "position " << i;
  }
}

TEST(ReferenceEssTest, ASumOfExponentialsNeedsOneStateForEach) {
  constexpr int64_t kLength = 20;

  const auto counts = AtAllPositions(
      Convolution(kLength,
                  [](int64_t lag) {
                    return std::pow(0.9, lag) - 2 * std::pow(-0.5, lag) + std::pow(0.2, lag);
                  }),
      {.kind = Measure::Kind::kTolerance, .value = 1e-12});

  for (int64_t i = 0; i < kLength; ++i) {
    EXPECT_EQ(counts[i], std::min<int64_t>({3, i, kLength - i})) << "position " << i;
  }
}

TEST(ReferenceEssTest, AnExponentialHasEntropyEssOne) {
  const auto entropy =
      AtAllPositions(Convolution(16, [](int64_t lag) { return std::pow(0.8, lag); }), kEntropy);

  for (size_t i = 1; i < entropy.size(); ++i) EXPECT_NEAR(entropy[i], 1, 1e-6);
}

TEST(ReferenceEssTest, EqualSingularValuesHaveTheirNumberAsEntropyEss) {
  const std::vector<double> sigma(7, 0.3);

  EXPECT_NEAR(EntropyEss(sigma), 7, 1e-12);
}

TEST(ReferenceEssTest, RandomAttentionHasFullRank) {
  constexpr int64_t kLength = 24;

  const auto counts = AtAllPositions(MakeTestOperator("attention_g8", kLength), kCount);

  for (int64_t i = 0; i < kLength; ++i) EXPECT_EQ(counts[i], std::min(i, kLength - i));
}

TEST(ReferenceEssTest, AHardResetLeavesNothingAtTheBorder) {
  constexpr int64_t kLength = 32;

  const auto counts = AtAllPositions(MakeTestOperator("reset", kLength), kCount);

  EXPECT_EQ(counts[kLength / 2], 0);
  EXPECT_GT(counts[kLength / 2 - 1], 0);
  EXPECT_GT(counts[kLength / 2 + 1], 0);
}

TEST(ReferenceEssTest, TheZeroOperatorHasZeroOfEverything) {
  for (const Measure& measure :
       {kCount, kEntropy, Measure{.kind = Measure::Kind::kRelative, .value = 0.1},
        Measure{.kind = Measure::Kind::kHeadRelative, .value = 0.1},
        Measure{.kind = Measure::Kind::kSpectralNorm},
        Measure{.kind = Measure::Kind::kFrobeniusNorm}}) {
    for (const float value : AtAllPositions(MakeTestOperator("zero", 9), measure)) {
      EXPECT_EQ(value, 0) << FormatMeasure(measure);
    }
  }
}

TEST(ReferenceEssTest, ScalingMovesTheToleranceAndKeepsTheEntropy) {
  const std::vector<double> T = MakeTestOperator("attention_sink", 30);
  std::vector<double> scaled = T;
  for (double& entry : scaled) entry *= 8;

  EXPECT_EQ(AtAllPositions(scaled, {.kind = Measure::Kind::kTolerance, .value = 0.08}),
            AtAllPositions(T, {.kind = Measure::Kind::kTolerance, .value = 0.01}));
  EXPECT_EQ(AtAllPositions(scaled, kEntropy), AtAllPositions(T, kEntropy));
}

TEST(ReferenceEssTest, ASingularValueEqualToTheToleranceIsNotCounted) {
  const std::vector<double> sigma = {2, 1, 1, 0.5};

  EXPECT_EQ(CountAbove(sigma, 1.0), 1);
  EXPECT_EQ(CountAbove(sigma, 1 - 1e-9), 3);
}

TEST(ReferenceEssTest, LeadingSingularValuesAreFilledUpWithZeros) {
  const std::vector<double> sigma = {3, 2};

  const auto leading =
      EvaluateMeasure({.kind = Measure::Kind::kSingularValues, .count = 4}, sigma, 0);

  EXPECT_EQ(leading, (std::vector<float>{3, 2, 0, 0}));
}

TEST(ReferenceEssTest, ACancelledCallStops) {
  CancellationToken token;
  token.Cancel();
  const std::vector<int64_t> positions = {3};

  EXPECT_THAT(ReferenceEss(MakeTestOperator("uniform", 8), 8, positions, {&kCount, 1}, token),
              StatusIs(absl::StatusCode::kCancelled, ::testing::_));
}

}  // namespace
}  // namespace ess
