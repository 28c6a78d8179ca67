// The routes of windows where numbers are extreme: exact ties, scales, tolerances too small.
#include "server/linalg/local_spectra.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "gtest/gtest.h"
#include "server/linalg/reference_linalg.h"
#include "tests/support/banded_cases.h"
#include "tests/support/status_matchers.h"

namespace ess::linalg {
namespace {

using ::ess::testing::Banded;
using ::ess::testing::CountOf;
using ::ess::testing::DoubtsOf;
using ::ess::testing::EntropyOf;
using ::ess::testing::FilledBand;
using ::ess::testing::IsOk;
using ::ess::testing::SlidingAttention;

const CancellationToken kNever;

TEST(LocalExtremesTest, ExactTiesAreNotCounted) {
  constexpr int64_t kLength = 70;
  for (const int64_t distance : {1, 5, 16, 31}) {
    const Banded op = FilledBand("shift", kLength, distance + 1, 0, [&](int64_t i, int64_t j) {
      return i - j == distance ? 1.0 : 0.0;
    });

    const auto spectrum =
        op.Spectra().Compute({.tolerances = {1.0, 1 - 1e-9}, .fractions = {1 - 1e-9}}, kNever);

    ASSERT_THAT(spectrum, IsOk());
    for (int64_t i = 0; i < kLength; ++i) {
      const int64_t all = std::min({i, distance, kLength - i});
      EXPECT_EQ(spectrum->tolerance_counts[0].counts[i], 0) << distance << " " << i;
      EXPECT_EQ(spectrum->tolerance_counts[1].counts[i], all) << distance << " " << i;
      EXPECT_EQ(spectrum->fraction_counts[0].counts[i], all) << distance << " " << i;
    }
  }
}

TEST(LocalExtremesTest, ScaleDoesNotMatter) {
  const Banded op = SlidingAttention(60, 17, 2, 4);
  SpectrumRequest request{.tolerances = {0.3, 1e-2, 1e-5},
                          .fractions = {1e-3},
                          .spectral_norms = true,
                          .entropies = true};
  const auto expected = op.Spectra().Compute(request, kNever);
  ASSERT_THAT(expected, IsOk());
  for (const int exponent : {500, -500, 1000, -960}) {
    Banded scaled = op;
    SpectrumRequest scaled_request = request;
    for (double& entry : scaled.band) entry = std::ldexp(entry, exponent);
    for (double& entry : scaled.sink_columns) entry = std::ldexp(entry, exponent);
    for (double& tau : scaled_request.tolerances) tau = std::ldexp(tau, exponent);

    const auto spectrum = scaled.Spectra().Compute(scaled_request, kNever);

    ASSERT_THAT(spectrum, IsOk());
    for (size_t k = 0; k < request.tolerances.size(); ++k) {
      EXPECT_EQ(spectrum->tolerance_counts[k].counts, expected->tolerance_counts[k].counts);
    }
    EXPECT_EQ(spectrum->fraction_counts[0].counts, expected->fraction_counts[0].counts);
    EXPECT_EQ(spectrum->entropies, expected->entropies);
    for (int64_t i = 0; i < op.length; ++i) {
      EXPECT_EQ(spectrum->spectral_norms[i], std::ldexp(expected->spectral_norms[i], exponent));
    }
    EXPECT_EQ(*scaled.Spectra().MaxSpectralNorm(kExactNorm, kNever),
              std::ldexp(*op.Spectra().MaxSpectralNorm(kExactNorm, kNever), exponent));
  }
}

TEST(LocalExtremesTest, PositionsOfVeryDifferentScaleDoNotDisturbEachOther) {
  // Each position, from 1 down to 1e-240, against the same operator cut off before it.
  constexpr int64_t kLength = 48;
  const auto fading = [](int64_t i, int64_t j) {
    return std::pow(10.0, -5.0 * static_cast<double>(i)) *
           (1 + static_cast<double>((3 * i + 5 * j * j) % 7));
  };
  for (const int64_t sinks : {0, 3}) {
    const Banded op = FilledBand("fading", kLength, 6, sinks, fading);
    const SpectrumRequest request{.fractions = {1e-6}, .spectral_norms = true, .entropies = true};
    const auto spectrum = op.Spectra().Compute(request, kNever);
    ASSERT_THAT(spectrum, IsOk());
    for (int64_t i = 1; i < kLength; ++i) {
      const double unit = std::pow(10.0, 5.0 * static_cast<double>(i));
      const Banded alone = FilledBand("alone", kLength, 6, sinks, [&](int64_t row, int64_t column) {
        return row >= i && column < i ? unit * fading(row, column) : 0.0;
      });
      const auto sigma = BlockSingularValues(alone.Dense(), kLength, i);
      ASSERT_THAT(sigma, IsOk());
      EXPECT_NEAR(spectrum->spectral_norms[i] * unit, sigma->front(), 1e-10 * sigma->front());
      EXPECT_NEAR(spectrum->entropies[i], EntropyOf(*sigma), 1e-4 * EntropyOf(*sigma)) << i;
      EXPECT_EQ(spectrum->fraction_counts[0].counts[i], CountOf(*sigma, 1e-6 * sigma->front()));
    }
  }
}

TEST(LocalExtremesTest, TooSmallTolerancesAreDoubtful) {
  const Banded op = SlidingAttention(60, 17, 0, 4);

  const auto spectrum =
      op.Spectra().Compute({.tolerances = {1e-12, 1e-300, 1e300}, .fractions = {1e-9}}, kNever);

  ASSERT_THAT(spectrum, IsOk());
  EXPECT_EQ(DoubtsOf(spectrum->tolerance_counts[0]), 59);
  EXPECT_EQ(DoubtsOf(spectrum->tolerance_counts[1]), 59);
  EXPECT_EQ(DoubtsOf(spectrum->tolerance_counts[2]), 0);
  EXPECT_EQ(spectrum->tolerance_counts[2].counts, std::vector<int32_t>(60, 0));
  EXPECT_EQ(DoubtsOf(spectrum->fraction_counts[0]), 59);
}

}  // namespace
}  // namespace ess::linalg
