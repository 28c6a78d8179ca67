// Counts of ChannelSpectra against the SVD of the dense operator of every channel.
#include "server/linalg/channel_spectra.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <set>

#include "gtest/gtest.h"
#include "hwy/targets.h"
#include "server/linalg/block_spectra.h"
#include "tests/server/linalg/channel_reference.h"
#include "tests/support/status_matchers.h"
#include "tests/support/test_channels.h"

namespace ess::linalg {
namespace {

using ::ess::testing::HostileScan;
using ::ess::testing::HostileScans;
using ::ess::testing::IsOk;
using ::ess::testing::MakeScan;
using ::ess::testing::ScanKinds;
using ::ess::testing::StatusIs;
using ::ess::testing::StoredChannels;

const CancellationToken kNever;
const std::vector<double> kShares = {0.9999, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6};

TEST(ChannelSpectraTest, CountsEqualTheReferenceForAllKindsOfScans) {
  ChannelSpectra spectra;
  for (const std::string& kind : ScanKinds()) {
    for (const bool reads_before : {false, true}) {
      SCOPED_TRACE(::testing::Message() << kind << (reads_before ? ", pre-read" : ", post-read"));
      const StoredChannels channels = MakeScan(kind, 100, 16, 9, 7, reads_before);
      ExpectEqualCounts(channels, ReferenceOf(channels), kShares, spectra);
    }
  }
}

TEST(ChannelSpectraTest, CountsEqualTheReferenceForHostileScans) {
  ChannelSpectra spectra;
  for (const bool reads_before : {false, true}) {
    for (const HostileScan& scan : HostileScans(72, 16, 8, reads_before)) {
      SCOPED_TRACE(scan.name);
      ExpectEqualCounts(scan.channels, ReferenceOf(scan.channels), kShares, spectra);
    }
  }
}

TEST(ChannelSpectraTest, CountsEqualTheReferenceAtAwkwardLengthsAndStateSizes) {
  ChannelSpectra spectra;
  for (const int64_t length : {1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64}) {
    for (const int64_t states : {1, 2, 3, 4, 5, 7, 8, 12, 16, 17, 24, 32}) {
      SCOPED_TRACE(::testing::Message() << "length " << length << ", states " << states);
      const bool reads_before = (length + states) % 2 == 0;
      const StoredChannels channels = MakeScan("init", length, states, 2, length, reads_before);
      ExpectEqualCounts(channels, ReferenceOf(channels), {0.5, 1e-2, 1e-4}, spectra);
    }
  }
}

TEST(ChannelSpectraTest, CountsEqualTheReferenceAtLongerLengths) {
  ChannelSpectra spectra;
  for (const std::string& kind : ScanKinds()) {
    SCOPED_TRACE(kind);
    const StoredChannels channels = MakeScan(kind, 255, 16, 2, 3);
    ExpectEqualCounts(channels, ReferenceOf(channels, 23), kShares, spectra);
  }
  const StoredChannels channels = MakeScan("trained", 1000, 16, 1, 4);
  ExpectEqualCounts(channels, ReferenceOf(channels, 333), kShares, spectra);
}

TEST(ChannelSpectraTest, CountsEqualTheReferenceAtThousandsOfRandomTolerances) {
  constexpr int kDraws = 200;
  std::mt19937_64 generator(1);
  std::uniform_real_distribution<double> exponent(-8, 0);
  ChannelSpectra spectra;
  for (const std::string& kind : ScanKinds()) {
    SCOPED_TRACE(kind);
    const StoredChannels channels = MakeScan(kind, 96, 16, 4, 100);
    const ChannelReference reference = ReferenceOf(channels);
    ASSERT_THAT(spectra.Load(channels, 0, kNever), IsOk());
    for (int draw = 0; draw < kDraws; ++draw) {
      ChannelRequest request;
      for (int64_t lane = 0; lane < spectra.lanes(); ++lane) {
        const double norm = lane < 4 ? reference.norms[lane] : 1;
        request.tolerances.push_back(norm * std::pow(10, exponent(generator)));
      }
      ExpectEqualCounts(reference, 0, request, spectra);
    }
  }
}

TEST(ChannelSpectraTest, CountsEqualTheReferenceForThousandsOfSmallScans) {
  std::mt19937_64 generator(2);
  const auto below = [&](int64_t bound) { return static_cast<int64_t>(generator() % bound); };
  const std::vector<std::string> kinds = ScanKinds();
  ChannelSpectra spectra;
  for (int draw = 0; draw < 1500; ++draw) {
    const int64_t length = 2 + below(24);
    const int64_t states = 1 + below(10);
    const bool reads_before = below(2) == 0;
    StoredChannels channels =
        MakeScan(kinds[below(5)], length, states, spectra.lanes(), generator(), reads_before);
    for (int64_t silent = below(4); silent > 0; --silent) {
      const int64_t t = below(length);
      for (int64_t s = 0; s < states; ++s) {
        for (int64_t d = 0; d < spectra.lanes(); ++d) {
          (d % 2 == 0 ? channels.a(t, s, d) : channels.b(t, s, d)) = 0;
        }
      }
    }
    SCOPED_TRACE(::testing::Message() << "draw " << draw);
    ExpectEqualCounts(channels, ReferenceOf(channels), {0.7, 3e-2, 1e-3, 1e-5}, spectra);
  }
}

TEST(ChannelSpectraTest, TolerancesNextToASingularValueTellItsSide) {
  std::mt19937_64 generator(5);
  ChannelSpectra spectra;
  for (const std::string kind : {"init", "fast", "mixed"}) {
    const StoredChannels channels = MakeScan(kind, 80, 16, 1, 100);
    const ChannelReference reference = ReferenceOf(channels);
    const double norm = reference.norms[0];
    ASSERT_THAT(spectra.Load(channels, 0, kNever), IsOk());
    int tried = 0;
    for (int draw = 0; draw < 600; ++draw) {
      const int64_t i = 1 + static_cast<int64_t>(generator() % 79);
      const std::vector<double>& sigma = reference.sigma[0][i];
      const size_t j = generator() % sigma.size();
      // Not closer than promised, and far from the neighbours.
      const double margin = std::max(1e-8, 3 * GuardOf(norm, sigma[j]));
      if (margin > 1e-2 || (j > 0 && sigma[j - 1] < sigma[j] * (1 + 3 * margin)) ||
          (j + 1 < sigma.size() && sigma[j + 1] > sigma[j] * (1 - 3 * margin))) {
        continue;
      }
      ++tried;
      ChannelRequest request;
      request.tolerances.assign(spectra.lanes(), sigma[j] * (1 - margin));
      request.tolerances.resize(2 * spectra.lanes(), sigma[j] * (1 + margin));
      const auto answers = spectra.Compute(request, kNever);
      ASSERT_THAT(answers, IsOk());
      EXPECT_EQ(answers->tolerance_counts[i * spectra.lanes()], j + 1) << kind << " " << i;
      EXPECT_EQ(answers->tolerance_counts[(80 + i) * spectra.lanes()], j) << kind << " " << i;
    }
    EXPECT_GT(tried, 100);
  }
}

TEST(ChannelSpectraTest, ExactTiesAreNotCounted) {
  // Gates of 1, inputs and outputs unit vectors: singular values are roots of whole numbers.
  constexpr int64_t kLength = 64;
  ChannelSpectra spectra;
  for (const HostileScan& scan : HostileScans(kLength, 16, 1)) {
    if (scan.name != "copies") continue;
    const ChannelReference reference = ReferenceOf(scan.channels);
    ASSERT_THAT(spectra.Load(scan.channels, 0, kNever), IsOk());
    int64_t ties = 0;
    for (const bool forms : {false, true}) {
      for (const double square : {1, 2, 3, 4, 6, 12}) {
        const double tau = std::sqrt(square);
        ChannelRequest request{.tolerances = std::vector<double>(spectra.lanes(), tau),
                               .fractions = {},
                               .spectral_norms = forms};
        const auto answers = spectra.Compute(request, kNever);
        ASSERT_THAT(answers, IsOk());
        for (int64_t i = 1; i < kLength; ++i) {
          const std::vector<double>& sigma = reference.sigma[0][i];
          EXPECT_EQ(answers->tolerance_counts[i * spectra.lanes()],
                    CountOf(sigma, tau * (1 + 1e-9)))
              << tau << " at " << i;
          ties += CountOf(sigma, tau * (1 - 1e-9)) - CountOf(sigma, tau * (1 + 1e-9));
        }
      }
    }
    EXPECT_GT(ties, 1000);
  }
}

TEST(ChannelSpectraTest, TinyTolerancesAreCountedDownToRounding) {
  ChannelSpectra spectra;
  for (const std::string kind : {"init", "trained", "mixed"}) {
    SCOPED_TRACE(kind);
    const StoredChannels channels = MakeScan(kind, 64, 16, 4, 9);
    const ChannelReference reference = ReferenceOf(channels);
    ExpectEqualCounts(channels, reference, {1e-7, 1e-8, 1e-9, 1e-10, 1e-11, 1e-12}, spectra);
  }
}

TEST(ChannelSpectraTest, EveryInstructionSetOfThisMachineCountsTheSame) {
  const StoredChannels channels = MakeScan("init", 60, 16, 5, 21);
  const ChannelReference reference = ReferenceOf(channels);
  const StoredChannels small = MakeScan("mixed", 41, 6, 3, 22, true);
  const ChannelReference small_reference = ReferenceOf(small);
  std::set<int64_t> tested;
  std::set<int64_t> lanes;
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    SCOPED_TRACE(hwy::TargetName(target));
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    ChannelSpectra spectra;
    ExpectEqualCounts(channels, reference, kShares, spectra);
    ExpectEqualCounts(small, small_reference, kShares, spectra);
    for (const HostileScan& scan : HostileScans(30, 16, 2)) {
      SCOPED_TRACE(scan.name);
      ExpectEqualCounts(scan.channels, ReferenceOf(scan.channels), kShares, spectra);
    }
    tested.insert(target);
    lanes.insert(spectra.lanes());
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  EXPECT_GE(tested.size(), 2u);
  EXPECT_GE(lanes.size(), 2u);
}

TEST(ChannelSpectraTest, ACancelledCallStops) {
  const StoredChannels channels = MakeScan("init", 2000, 16, 8, 1);
  ChannelSpectra spectra;
  CancellationToken cancelled;
  cancelled.Cancel();
  const auto is_cancelled = StatusIs(absl::StatusCode::kCancelled, ::testing::_);

  EXPECT_THAT(spectra.Load(channels, 0, cancelled), is_cancelled);
  ASSERT_THAT(spectra.Load(channels, 0, kNever), IsOk());
  EXPECT_THAT(
      spectra.Compute({.tolerances = std::vector<double>(spectra.lanes(), 1e-3)}, cancelled),
      is_cancelled);
  EXPECT_THAT(spectra.Compute({.entropies = true}, cancelled), is_cancelled);
  EXPECT_THAT(spectra.MaxSpectralNorms(kExactNorm, cancelled), is_cancelled);
  EXPECT_THAT(spectra.CausalRanks(cancelled), is_cancelled);
  EXPECT_THAT(spectra.FrobeniusNorms(cancelled), is_cancelled);
}

}  // namespace
}  // namespace ess::linalg
