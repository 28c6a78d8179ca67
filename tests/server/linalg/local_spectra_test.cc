// The routes of windows against the SVD of every block: sliding-window attention with and without
// sinks, degenerate bands, thousands of small random ones, every instruction set of this machine.
#include "server/linalg/local_spectra.h"

#include <cmath>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "hwy/targets.h"
#include "tests/support/banded_cases.h"
#include "tests/support/status_matchers.h"

namespace ess::linalg {
namespace {

using ::ess::testing::Banded;
using ::ess::testing::BandReference;
using ::ess::testing::DegenerateBands;
using ::ess::testing::DoubtsOf;
using ::ess::testing::EntropyOf;
using ::ess::testing::ExpectCounts;
using ::ess::testing::ExpectEqualToReference;
using ::ess::testing::FilledBand;
using ::ess::testing::IsOk;
using ::ess::testing::ReferenceOf;
using ::ess::testing::SlidingAttention;
using ::ess::testing::StatusIs;

const CancellationToken kNever;

TEST(LocalSpectraTest, SlidingWindowAttentionEqualsTheReference) {
  int64_t doubts = 0;
  for (const int64_t window : {1, 2, 3, 8, 9, 16, 33, 64}) {
    for (const int64_t length : {1, 2, 7, 8, 31, 33, 64, 100}) {
      doubts += ExpectEqualToReference(SlidingAttention(length, window, 0, length + window));
    }
  }
  EXPECT_EQ(doubts, 0);
}

TEST(LocalSpectraTest, SinksAreExact) {
  int64_t doubts = 0;
  for (const int64_t window : {1, 2, 9, 16, 33}) {
    for (const int64_t sinks : {1, 4, 9, 40}) {
      for (const int64_t length : {3, 32, 63, 100}) {
        doubts += ExpectEqualToReference(SlidingAttention(length, window, sinks, length + sinks));
      }
    }
  }
  EXPECT_EQ(doubts, 0);
}

TEST(LocalSpectraTest, DegenerateBandsEqualTheReference) {
  int64_t doubts = 0;
  for (const auto& [length, window, sinks] :
       {std::tuple{40, 9, 0}, {63, 8, 3}, {40, 2, 0}, {33, 33, 0}, {48, 17, 9}}) {
    for (const Banded& op : DegenerateBands(length, window, sinks)) {
      doubts += ExpectEqualToReference(op);
    }
  }
  EXPECT_EQ(doubts, 0);
}

TEST(LocalSpectraTest, LongerOperatorsEqualTheReference) {
  EXPECT_EQ(ExpectEqualToReference(SlidingAttention(255, 33, 0, 1)), 0);
  EXPECT_EQ(ExpectEqualToReference(SlidingAttention(200, 64, 4, 2)), 0);
}

TEST(LocalSpectraTest, ThousandsOfSmallRandomOperatorsEqualTheReference) {
  std::mt19937_64 generator(7);
  std::normal_distribution<double> normal;
  const auto draw = [&](int64_t below) { return static_cast<int64_t>(generator() % below); };
  int64_t doubts = 0;
  for (int trial = 0; trial < 3000; ++trial) {
    const int64_t length = 1 + draw(24);
    const int64_t window = 1 + draw(12);
    const int64_t sinks = draw(3) == 0 ? draw(12) : 0;
    const int64_t zeros = draw(4);
    const double spread = static_cast<double>(draw(8));
    doubts += ExpectEqualToReference(
        FilledBand("random " + std::to_string(trial), length, window, sinks, [&](int64_t, int64_t) {
          if (draw(4) < zeros) return 0.0;
          return normal(generator) * std::pow(10.0, spread * std::abs(normal(generator)) / -3);
        }));
  }
  EXPECT_LE(doubts, 3);
}

TEST(LocalSpectraTest, CountsEqualTheReferenceAtRandomTolerances) {
  int64_t doubts = 0;
  std::mt19937_64 generator(3);
  std::uniform_real_distribution<double> exponent(-6, 0);
  for (const auto& [length, window, sinks] :
       {std::tuple{150, 17, 0}, {150, 40, 0}, {120, 24, 3}, {90, 90, 0}}) {
    const Banded op = SlidingAttention(length, window, sinks, 5);
    const BandReference reference = ReferenceOf(op);
    SpectrumRequest request;
    for (int draw = 0; draw < 200; ++draw) {
      request.tolerances.push_back(reference.largest * std::pow(10, exponent(generator)));
    }

    const auto spectrum = op.Spectra().Compute(request, kNever);

    ASSERT_THAT(spectrum, IsOk());
    for (size_t k = 0; k < request.tolerances.size(); ++k) {
      ExpectCounts(spectrum->tolerance_counts[k], reference,
                   std::vector<double>(length, request.tolerances[k]), op.name);
      doubts += DoubtsOf(spectrum->tolerance_counts[k]);
    }
  }
  EXPECT_LE(doubts, 100);  // Of 90,000.
}

TEST(LocalSpectraTest, ToleranceMayBeASingularValueOfABlockThatAWindowShares) {
  const Banded op = SlidingAttention(100, 17, 3, 8);
  const BandReference reference = ReferenceOf(op);
  SpectrumRequest request;
  for (const int64_t i : {16, 24, 32, 48, 80}) {
    for (const size_t k : {0, 1, 3, 7}) request.tolerances.push_back(reference.sigma[i][k]);
  }

  const auto spectrum = op.Spectra().Compute(request, kNever);

  ASSERT_THAT(spectrum, IsOk());
  for (size_t k = 0; k < request.tolerances.size(); ++k) {
    ExpectCounts(spectrum->tolerance_counts[k], reference,
                 std::vector<double>(op.length, request.tolerances[k]), op.name);
  }
}

TEST(LocalSpectraTest, RepeatsGiveTheSameBits) {
  const Banded op = SlidingAttention(130, 25, 3, 6);
  const SpectrumRequest request{
      .tolerances = {1e-1, 1e-3}, .fractions = {1e-2}, .spectral_norms = true, .entropies = true};
  LocalSpectra used = op.Spectra();
  ASSERT_THAT(used.Compute({.tolerances = {1e-5}, .entropies = true}, kNever), IsOk());
  ASSERT_THAT(used.MaxSpectralNorm(kExactNorm, kNever), IsOk());

  const auto first = op.Spectra().Compute(request, kNever);
  const auto second = used.Compute(request, kNever);

  ASSERT_THAT(first, IsOk());
  ASSERT_THAT(second, IsOk());
  EXPECT_EQ(first->tolerance_counts[1].counts, second->tolerance_counts[1].counts);
  EXPECT_EQ(first->fraction_counts[0].counts, second->fraction_counts[0].counts);
  EXPECT_EQ(first->spectral_norms, second->spectral_norms);
  EXPECT_EQ(first->entropies, second->entropies);
  EXPECT_EQ(first->entropy_errors, second->entropy_errors);
}

TEST(LocalSpectraTest, TheEntropyErrorIsNotUnderestimated) {
  for (const int64_t window : {9, 33}) {
    const Banded op = SlidingAttention(150, window, 0, window);
    const BandReference reference = ReferenceOf(op);

    const auto spectrum = op.Spectra().Compute({.entropies = true}, kNever);

    ASSERT_THAT(spectrum, IsOk());
    for (int64_t i = 1; i < op.length; ++i) {
      const double error = std::abs(spectrum->entropies[i] / EntropyOf(reference.sigma[i]) - 1);
      EXPECT_LE(error, spectrum->entropy_errors[i] + 1e-7) << window << " " << i;
      EXPECT_LE(spectrum->entropy_errors[i], 1e-2) << window << " " << i;
    }
  }
}

TEST(LocalSpectraTest, ACancelledRunStops) {
  const Banded op = SlidingAttention(100, 17, 2, 4);
  CancellationToken token;
  token.Cancel();
  LocalSpectra spectra = op.Spectra();
  const auto is_cancelled = StatusIs(absl::StatusCode::kCancelled, ::testing::_);

  EXPECT_THAT(spectra.Compute({.tolerances = {1e-3}}, token), is_cancelled);
  EXPECT_THAT(spectra.Compute({.entropies = true}, token), is_cancelled);
  EXPECT_THAT(spectra.Compute({.spectral_norms = true}, token), is_cancelled);
  EXPECT_THAT(spectra.MaxSpectralNorm(kExactNorm, token), is_cancelled);
}

TEST(LocalSpectraTest, EveryInstructionSetOfThisMachineAgreesWithTheReference) {
  int64_t tested = 0;
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    SCOPED_TRACE(hwy::TargetName(target));
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    EXPECT_EQ(ExpectEqualToReference(SlidingAttention(100, 33, 0, 1)), 0);
    EXPECT_EQ(ExpectEqualToReference(SlidingAttention(75, 10, 11, 2)), 0);
    ++tested;
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  EXPECT_GE(tested, 2);
}

}  // namespace
}  // namespace ess::linalg
