// Scales, limits, errors and cancellation of the tensor route.
#include <limits>
#include <thread>

#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "tests/support/tensor_cases.h"

namespace ess::linalg {
namespace {

using ::testing::HasSubstr;

TEST(TensorSpectraTest, ScaleChangesNothing) {
  constexpr int64_t kLength = 60;
  const Batch batch = BatchOf(RealisticOperators(), kLength, 1000);
  TensorSpectraRequest request = RelativeTolerances(batch, {1e-2, 1e-4});
  request.entropies = true;
  const auto expected = SpectraOf(batch.maps).Compute(request, kNever);
  ASSERT_THAT(expected, IsOk());
  for (const int exponent : {-500, 500}) {
    const double scale = std::ldexp(1, exponent);
    TensorSpectraRequest scaled = request;
    for (auto& of_heads : scaled.tolerances) {
      for (double& tau : of_heads) tau *= scale;
    }

    TensorSpectra spectra = SpectraOf(batch.maps * scale);
    const auto result = spectra.Compute(scaled, kNever);

    ASSERT_THAT(result, IsOk());
    const auto norms = spectra.MaxSpectralNorms(kExactNorm, kNever);
    const auto unscaled = SpectraOf(batch.maps).MaxSpectralNorms(kExactNorm, kNever);
    for (int64_t head = 0; head < batch.heads(); ++head) {
      for (size_t t = 0; t < 2; ++t) {
        EXPECT_EQ((*result)[head].tolerance_counts[t].counts,
                  (*expected)[head].tolerance_counts[t].counts);
      }
      EXPECT_EQ((*result)[head].entropies, (*expected)[head].entropies);
      EXPECT_EQ((*norms)[head], (*unscaled)[head] * scale);
    }
  }
}

TEST(TensorSpectraTest, ToleranceBelowTheAccuracyIsDoubtful) {
  constexpr int64_t kLength = 40;
  const Batch batch = BatchOf({RealisticOperators().front()}, kLength);
  TensorSpectra spectra = SpectraOf(batch.maps);
  ASSERT_THAT(spectra.MaxSpectralNorms(kExactNorm, kNever), IsOk());

  const auto result = spectra.Compute(RelativeTolerances(batch, {1e-8, 1e-2}), kNever);

  ASSERT_THAT(result, IsOk());
  const PositionCounts& below = (*result)[0].tolerance_counts[0];
  EXPECT_EQ(std::count(below.doubtful.begin(), below.doubtful.end(), 1), kLength - 1);
  EXPECT_TRUE((*result)[0].tolerance_counts[1].doubtful.empty());
}

TEST(TensorSpectraTest, SingularValuesOfOneBlock) {
  const at::Tensor maps = BatchOf(RealisticOperators(), 50, 1000).maps;
  const TensorSpectra spectra = SpectraOf(maps);

  const auto sigma = spectra.SingularValues(2, 20);

  ASSERT_THAT(sigma, IsOk());
  const std::vector<double> expected = SigmaOf(maps[2], 20);
  ASSERT_EQ(sigma->size(), expected.size());
  for (size_t k = 0; k < expected.size(); ++k) EXPECT_NEAR((*sigma)[k], expected[k], 1e-13);
}

TEST(TensorSpectraTest, WhatIsAboveTheDiagonalIsNotRead) {
  constexpr int64_t kLength = 40;
  const at::Tensor maps = BatchOf(RealisticOperators(), kLength, 1000).maps;
  const at::Tensor dirty = maps.clone();
  dirty.masked_fill_(at::ones({kLength, kLength}, at::kBool).triu(1), NAN);
  const TensorSpectraRequest request{.tolerances = {std::vector<double>(maps.size(0), 1e-3)},
                                     .entropies = true};

  const auto result = SpectraOf(dirty).Compute(request, kNever);
  const auto expected = SpectraOf(maps).Compute(request, kNever);

  ASSERT_THAT(result, IsOk());
  for (int64_t head = 0; head < maps.size(0); ++head) {
    EXPECT_EQ((*result)[head].tolerance_counts[0].counts,
              (*expected)[head].tolerance_counts[0].counts);
    EXPECT_EQ((*result)[head].entropies, (*expected)[head].entropies);
  }
}

TEST(TensorSpectraTest, AnEntryThatIsNotFiniteIsNamed) {
  const at::Tensor maps = at::zeros({5, 9, 9}, at::kFloat);
  maps[3][7][2] = std::numeric_limits<float>::infinity();

  EXPECT_THAT(TensorSpectra::Create(maps, kLargeBudget, kNever),
              StatusIs(absl::StatusCode::kInternal, HasSubstr("head 3: entry [7, 2] is inf")));
}

TEST(TensorSpectraTest, ABudgetTooSmallForOneHeadIsNamed) {
  EXPECT_THAT(TensorSpectra::Create(at::zeros({1, 100, 100}), 1000, kNever),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr(std::to_string(TensorSpectra::BytesNeeded(100)) +
                                 " bytes; the budget is 1000")));
}

TEST(TensorSpectraTest, ACancelledCallStopsWithin200Milliseconds) {
  const at::Tensor maps = at::tensor(MakeTestOperator("attention_g1", 1024), at::kDouble)
                              .view({1, 1024, 1024})
                              .expand({8, 1024, 1024});
  TensorSpectra spectra = SpectraOf(maps, 128 << 20);
  for (const bool entropies : {false, true}) {
    CancellationToken token;
    absl::Time cancelled;
    std::thread canceller([&] {
      absl::SleepFor(absl::Milliseconds(100));
      cancelled = absl::Now();
      token.Cancel();
    });

    const auto result = spectra.Compute(
        {.fractions = {}, .spectral_norms = !entropies, .entropies = entropies}, token);

    canceller.join();
    EXPECT_THAT(result, StatusIs(absl::StatusCode::kCancelled, ::testing::_));
    EXPECT_LT(absl::Now() - cancelled, absl::Milliseconds(200));
  }
}

}  // namespace
}  // namespace ess::linalg
