// Everything of ChannelSpectra but counts at tolerances, against SVD.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "gtest/gtest.h"
#include "hwy/targets.h"
#include "server/linalg/block_spectra.h"
#include "server/linalg/channel_spectra.h"
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
using ::ess::testing::StoredChannels;

const CancellationToken kNever;

// All kinds and all hostile scans, post-read and pre-read.
std::vector<HostileScan> AllScans(int64_t length, int64_t states, int64_t channels) {
  std::vector<HostileScan> scans;
  for (const bool reads_before : {false, true}) {
    for (const std::string& kind : ScanKinds()) {
      scans.push_back({kind, MakeScan(kind, length, states, channels, 7, reads_before)});
    }
    for (HostileScan& scan : HostileScans(length, states, channels, reads_before)) {
      scans.push_back(std::move(scan));
    }
  }
  return scans;
}

double EntropyOf(const std::vector<double>& sigma) {
  const double sum = std::accumulate(sigma.begin(), sigma.end(), 0.0);
  if (sum == 0) return 0;
  double entropy = 0;
  for (const double s : sigma) {
    if (s > 0) entropy -= s / sum * std::log(s / sum);
  }
  return std::exp(entropy);
}

// A block this far below the largest one is rounding errors to the reference.
bool IsNoise(const std::vector<double>& sigma, double norm) { return sigma[0] <= 1e-12 * norm; }

TEST(ChannelMeasuresTest, EntropiesEqualTheReferenceWithinTheirEstimate) {
  ChannelSpectra spectra;
  for (const HostileScan& scan : AllScans(72, 16, 3)) {
    SCOPED_TRACE(scan.name);
    const ChannelReference reference = ReferenceOf(scan.channels);
    ASSERT_THAT(spectra.Load(scan.channels, 0, kNever), IsOk());

    const auto answers = spectra.Compute({.entropies = true}, kNever);

    ASSERT_THAT(answers, IsOk());
    for (int64_t d = 0; d < std::min<int64_t>(3, spectra.lanes()); ++d) {
      EXPECT_EQ(answers->entropies[d], 0);
      for (int64_t i = 1; i < 72; ++i) {
        const std::vector<double>& sigma = reference.sigma[d][i];
        const double entropy = answers->entropies[i * spectra.lanes() + d];
        if (IsNoise(sigma, reference.norms[d])) {
          EXPECT_TRUE(sigma[0] > 0 || entropy == 0);
          continue;
        }
        const double expected = EntropyOf(sigma);
        const double error = std::abs(entropy - expected) / expected;
        EXPECT_LE(error, 1.2e-5) << "channel " << d << " position " << i;
        EXPECT_LE(error, answers->entropy_errors[i * spectra.lanes() + d] + 1e-9);
        EXPECT_LE(answers->entropy_errors[i * spectra.lanes() + d], 5e-3);
      }
    }
  }
}

TEST(ChannelMeasuresTest, SpectralNormsAndTheirFractionsEqualTheReference) {
  ChannelSpectra spectra;
  const std::vector<double> fractions = {0.9, 0.3, 1e-1, 1e-2, 1e-3, 1e-6, 1e-9};
  for (const HostileScan& scan : AllScans(72, 16, 3)) {
    SCOPED_TRACE(scan.name);
    const ChannelReference reference = ReferenceOf(scan.channels);
    ASSERT_THAT(spectra.Load(scan.channels, 0, kNever), IsOk());

    const auto answers = spectra.Compute({.fractions = fractions, .spectral_norms = true}, kNever);

    ASSERT_THAT(answers, IsOk());
    const int64_t lanes = spectra.lanes();
    for (int64_t d = 0; d < std::min<int64_t>(3, lanes); ++d) {
      EXPECT_EQ(answers->spectral_norms[d], 0);
      for (int64_t i = 1; i < 72; ++i) {
        SCOPED_TRACE(::testing::Message() << "channel " << d << " position " << i);
        const std::vector<double>& sigma = reference.sigma[d][i];
        const double top = answers->spectral_norms[i * lanes + d];
        EXPECT_NEAR(top, sigma[0], 1e-11 * sigma[0] + 1e-14 * reference.norms[d]);
        if (IsNoise(sigma, reference.norms[d])) continue;
        for (size_t k = 0; k < fractions.size(); ++k) {
          const int64_t count =
              answers->fraction_counts[(static_cast<int64_t>(k) * 72 + i) * lanes + d];
          ExpectCount(count, sigma, reference.norms[d], fractions[k] * sigma[0]);
        }
      }
    }
  }
}

TEST(ChannelMeasuresTest, TheLargestSpectralNormEqualsTheReference) {
  ChannelSpectra spectra;
  for (const int64_t length : {1, 2, 9, 72}) {
    for (const HostileScan& scan : AllScans(length, 16, spectra.lanes())) {
      SCOPED_TRACE(::testing::Message() << scan.name << " of length " << length);
      const ChannelReference reference = ReferenceOf(scan.channels);
      ASSERT_THAT(spectra.Load(scan.channels, 0, kNever), IsOk());

      for (const double accuracy : {kExactNorm, kNormMagnitude}) {
        const std::vector<double> tolerances(spectra.lanes(), 1e-2);
        const auto alone = spectra.MaxSpectralNorms(accuracy, kNever);
        const auto with_tolerances =
            spectra.Compute({.tolerances = tolerances, .max_norm_accuracy = accuracy}, kNever);
        const auto from_forms =
            spectra.Compute({.entropies = true, .max_norm_accuracy = accuracy}, kNever);

        ASSERT_THAT(alone, IsOk());
        ASSERT_THAT(with_tolerances, IsOk());
        ASSERT_THAT(from_forms, IsOk());
        for (int64_t d = 0; d < spectra.lanes(); ++d) {
          const double norm = reference.norms[d];
          EXPECT_NEAR((*alone)[d], norm, accuracy * norm);
          EXPECT_NEAR(with_tolerances->max_spectral_norms[d], norm, accuracy * norm);
          EXPECT_NEAR(from_forms->max_spectral_norms[d], norm, accuracy * norm);
        }
      }
    }
  }
}

TEST(ChannelMeasuresTest, FrobeniusNormsEqualTheReference) {
  ChannelSpectra spectra;
  for (const HostileScan& scan : AllScans(72, 16, 3)) {
    SCOPED_TRACE(scan.name);
    const ChannelReference reference = ReferenceOf(scan.channels);
    ASSERT_THAT(spectra.Load(scan.channels, 0, kNever), IsOk());

    const auto norms = spectra.FrobeniusNorms(kNever);

    ASSERT_THAT(norms, IsOk());
    for (int64_t d = 0; d < std::min<int64_t>(3, spectra.lanes()); ++d) {
      for (int64_t i = 0; i < 72; ++i) {
        double sum = 0;
        for (const double s : reference.sigma[d][i]) {
          sum += s / reference.norms[d] * (s / reference.norms[d]);
        }
        const double expected = reference.norms[d] > 0 ? std::sqrt(sum) * reference.norms[d] : 0;
        EXPECT_NEAR((*norms)[i * spectra.lanes() + d], expected,
                    1e-12 * expected + 1e-15 * reference.norms[d]);
      }
    }
  }
}

TEST(ChannelMeasuresTest, SingularValuesEqualTheReference) {
  ChannelSpectra spectra;
  for (const HostileScan& scan : AllScans(50, 12, 3)) {
    SCOPED_TRACE(scan.name);
    const ChannelReference reference = ReferenceOf(scan.channels);
    ASSERT_THAT(spectra.Load(scan.channels, 0, kNever), IsOk());
    for (int64_t d = 0; d < std::min<int64_t>(3, spectra.lanes()); ++d) {
      for (const int64_t i : {0, 1, 2, 7, 8, 9, 23, 40, 48, 49}) {
        const auto sigma = spectra.SingularValues(d, i, kNever);

        ASSERT_THAT(sigma, IsOk());
        ASSERT_EQ(static_cast<int64_t>(sigma->size()), std::min<int64_t>({12, i, 50 - i}));
        for (size_t k = 0; k < sigma->size(); ++k) {
          EXPECT_NEAR((*sigma)[k], reference.sigma[d][i][k], 1e-14 * reference.norms[d])
              << "position " << i;
        }
      }
    }
  }
}

// Singular values of [A_{i-1} ... A_1 b_0, ..., b_{i-1}] of a channel.
std::vector<double> PastSingularValues(StoredChannels& channels, int64_t channel,
                                       int64_t position) {
  const int64_t states = channels.states();
  // The factor is the block at `position` of an operator of this length.
  const int64_t length = position + states;
  std::vector<double> matrix(length * length, 0.0);
  for (int64_t j = 0; j < position; ++j) {
    for (int64_t s = 0; s < states; ++s) {
      double entry = channels.b(j, s, channel);
      for (int64_t t = j + 1; t < position; ++t) entry *= channels.a(t, s, channel);
      matrix[(position + s) * length + j] = entry;
    }
  }
  return *BlockSingularValues(matrix, length, position);
}

TEST(ChannelMeasuresTest, CausalRanksEqualTheReference) {
  constexpr int64_t kStates = 16;
  ChannelSpectra spectra;
  for (HostileScan& scan : AllScans(60, kStates, 2)) {
    SCOPED_TRACE(scan.name);
    ASSERT_THAT(spectra.Load(scan.channels, 0, kNever), IsOk());

    const auto ranks = spectra.CausalRanks(kNever);

    ASSERT_THAT(ranks, IsOk());
    for (int64_t d = 0; d < std::min<int64_t>(2, spectra.lanes()); ++d) {
      EXPECT_EQ((*ranks)[d], 0);
      for (int64_t i = 1; i < 60; ++i) {
        const std::vector<double> sigma = PastSingularValues(scan.channels, d, i);
        const double threshold = static_cast<double>(std::max(kStates, i)) * 0x1p-52 * sigma[0];
        const int64_t rank = (*ranks)[i * spectra.lanes() + d];
        // The threshold is as small as the rounding errors of either side.
        EXPECT_GE(rank, CountOf(sigma, 3 * threshold)) << "channel " << d << " position " << i;
        EXPECT_LE(rank, CountOf(sigma, threshold / 3)) << "channel " << d << " position " << i;
      }
    }
  }
}

ChannelRequest Everything(int64_t lanes) {
  ChannelRequest request;
  for (const double tau : {1e-1, 1e-3, 1e-5})
    request.tolerances.resize(request.tolerances.size() + lanes, tau);
  request.fractions = {0.1, 1e-3};
  request.spectral_norms = request.entropies = true;
  request.max_norm_accuracy = kExactNorm;
  return request;
}

// One channel's part of [.., lanes].
template <typename T>
std::vector<T> LaneOf(const std::vector<T>& values, int64_t lane, int64_t lanes) {
  std::vector<T> result;
  for (size_t k = lane; k < values.size(); k += lanes) result.push_back(values[k]);
  return result;
}

void ExpectTheSameBits(const ChannelAnswers& a, int64_t lane_a, const ChannelAnswers& b,
                       int64_t lane_b, int64_t lanes) {
  EXPECT_EQ(LaneOf(a.tolerance_counts, lane_a, lanes), LaneOf(b.tolerance_counts, lane_b, lanes));
  EXPECT_EQ(LaneOf(a.fraction_counts, lane_a, lanes), LaneOf(b.fraction_counts, lane_b, lanes));
  EXPECT_EQ(LaneOf(a.spectral_norms, lane_a, lanes), LaneOf(b.spectral_norms, lane_b, lanes));
  EXPECT_EQ(LaneOf(a.entropies, lane_a, lanes), LaneOf(b.entropies, lane_b, lanes));
  EXPECT_EQ(LaneOf(a.entropy_errors, lane_a, lanes), LaneOf(b.entropy_errors, lane_b, lanes));
  EXPECT_EQ(LaneOf(a.max_spectral_norms, lane_a, lanes),
            LaneOf(b.max_spectral_norms, lane_b, lanes));
}

TEST(ChannelMeasuresTest, AChannelsAnswersDoNotDependOnItsNeighbours) {
  for (const HostileScan& scan : AllScans(50, 10, 11)) {
    SCOPED_TRACE(scan.name);
    ChannelSpectra spectra;
    const int64_t lanes = spectra.lanes();
    for (const bool forms : {false, true}) {
      ChannelRequest request = Everything(lanes);
      if (!forms) {
        request.fractions.clear();
        request.spectral_norms = request.entropies = false;
      }
      ChannelSpectra other;
      for (int64_t channel = 0; channel < 11; ++channel) {
        // Alone in the first lane of its group, and where its regular group has it.
        ASSERT_THAT(other.Load(scan.channels, channel, kNever), IsOk());
        ASSERT_THAT(spectra.Load(scan.channels, channel / lanes * lanes, kNever), IsOk());
        const auto first = other.Compute(request, kNever);
        const auto regular = spectra.Compute(request, kNever);
        ASSERT_THAT(first, IsOk());
        ASSERT_THAT(regular, IsOk());
        ExpectTheSameBits(*first, 0, *regular, channel % lanes, lanes);
      }
    }
  }
}

TEST(ChannelMeasuresTest, EarlierCallsAndLittleMemoryChangeNothing) {
  const StoredChannels channels = MakeScan("mixed", 200, 16, 8, 3);
  ChannelSpectra fresh;
  ChannelSpectra used;
  ChannelSpectra segmented(3 * 2 * 10240);  // Three windows or so at a time.
  const int64_t lanes = fresh.lanes();
  const StoredChannels others = MakeScan("fast", 90, 7, 3, 1, true);
  ASSERT_THAT(used.Load(others, 0, kNever), IsOk());
  ASSERT_THAT(used.Compute(Everything(lanes), kNever), IsOk());
  for (ChannelSpectra* spectra : {&fresh, &used, &segmented}) {
    ASSERT_THAT(spectra->Load(channels, 0, kNever), IsOk());
  }
  ASSERT_THAT(used.CausalRanks(kNever), IsOk());
  ASSERT_THAT(used.MaxSpectralNorms(kExactNorm, kNever), IsOk());

  const auto expected = fresh.Compute(Everything(lanes), kNever);
  for (ChannelSpectra* spectra : {&fresh, &used, &segmented}) {
    const auto answers = spectra->Compute(Everything(lanes), kNever);
    ASSERT_THAT(answers, IsOk());
    for (int64_t lane = 0; lane < lanes; ++lane) {
      ExpectTheSameBits(*expected, lane, *answers, lane, lanes);
    }
    EXPECT_EQ(*spectra->MaxSpectralNorms(kExactNorm, kNever),
              *fresh.MaxSpectralNorms(kExactNorm, kNever));
    EXPECT_EQ(*spectra->FrobeniusNorms(kNever), *fresh.FrobeniusNorms(kNever));
    EXPECT_EQ(*spectra->CausalRanks(kNever), *fresh.CausalRanks(kNever));
    for (const int64_t i : {199, 3, 100}) {
      EXPECT_EQ(*spectra->SingularValues(1 % lanes, i, kNever),
                *fresh.SingularValues(1 % lanes, i, kNever));
    }
  }
}

TEST(ChannelMeasuresTest, MemoryStaysWithinWhatWasGrantedAndALittleMore) {
  constexpr int64_t kMebibyte = int64_t{1} << 20;
  for (const int64_t granted : {kMebibyte, ChannelSpectra::kScratchBytes}) {
    ChannelSpectra spectra(granted);
    EXPECT_EQ(spectra.memory_bytes(), 0);
    const StoredChannels channels = MakeScan("trained", 3000, 16, 1, 3);
    ASSERT_THAT(spectra.Load(channels, 0, kNever), IsOk());
    ASSERT_THAT(spectra.Compute(Everything(spectra.lanes()), kNever), IsOk());
    ASSERT_THAT(spectra.CausalRanks(kNever), IsOk());
    EXPECT_GT(spectra.memory_bytes(), 0);
    EXPECT_LT(spectra.memory_bytes(), granted + 6 * kMebibyte);
  }
}

TEST(ChannelMeasuresTest, EveryInstructionSetOfThisMachineAgrees) {
  const StoredChannels channels = MakeScan("init", 60, 16, 1, 21);
  std::vector<ChannelAnswers> all;
  std::vector<int64_t> lanes;
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    ChannelSpectra spectra;
    ASSERT_THAT(spectra.Load(channels, 0, kNever), IsOk());
    auto answers = spectra.Compute(Everything(spectra.lanes()), kNever);
    ASSERT_THAT(answers, IsOk());
    all.push_back(*std::move(answers));
    lanes.push_back(spectra.lanes());
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  ASSERT_GE(all.size(), 2u);
  for (size_t k = 1; k < all.size(); ++k) {
    EXPECT_EQ(LaneOf(all[k].fraction_counts, 0, lanes[k]),
              LaneOf(all[0].fraction_counts, 0, lanes[0]));
    for (int64_t i = 0; i < 60; ++i) {
      const auto near = [&](const std::vector<double>& a, const std::vector<double>& b) {
        const double expected = b[i * lanes[0]];
        EXPECT_NEAR(a[i * lanes[k]], expected, 1e-10 * expected) << i;
      };
      near(all[k].entropies, all[0].entropies);
      near(all[k].spectral_norms, all[0].spectral_norms);
    }
  }
}

}  // namespace
}  // namespace ess::linalg
