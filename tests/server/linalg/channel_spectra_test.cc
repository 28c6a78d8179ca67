// Every answer of ChannelSpectra against the SVD of the dense operator of every channel.
#include "server/linalg/channel_spectra.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <set>

#include "gtest/gtest.h"
#include "hwy/targets.h"
#include "server/linalg/reference_linalg.h"
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

// Singular values of every block of every channel.
struct Reference {
  int64_t length = 0;
  std::vector<std::vector<std::vector<double>>> sigma;  // [D][L]: descending.
  std::vector<double> norms;                            // [D]: the largest of all positions.
};

Reference ReferenceOf(const StoredChannels& channels, int64_t stride = 1) {
  Reference reference{.length = channels.length(), .sigma = {}, .norms = {}};
  for (int64_t d = 0; d < channels.channels(); ++d) {
    const std::vector<double> dense = channels.Dense(d);
    std::vector<std::vector<double>> sigma(channels.length());
    double norm = 0;
    for (int64_t i = 1; i < channels.length(); i += stride) {
      auto values = BlockSingularValues(dense, channels.length(), i);
      EXPECT_THAT(values, IsOk());
      norm = std::max(norm, values->front());
      sigma[i] = *std::move(values);
    }
    reference.sigma.push_back(std::move(sigma));
    reference.norms.push_back(norm);
  }
  return reference;
}

int64_t CountOf(const std::vector<double>& sigma, double threshold) {
  return std::count_if(sigma.begin(), sigma.end(), [&](double s) { return s > threshold; });
}

// A count may differ from the reference only by singular values as close to tau as promised.
void ExpectCount(int64_t count, const std::vector<double>& sigma, double norm, double tau) {
  if (count == CountOf(sigma, tau * (1 + 1e-11))) return;
  const double ratio = norm / tau;
  const double guard = std::max(1e-9, std::min(1e-16 * ratio * ratio, 1e-14 * ratio));
  EXPECT_GE(count, CountOf(sigma, tau * (1 + guard)));
  EXPECT_LE(count, CountOf(sigma, tau * (1 - guard)));
}

// Counts of all channels at shares of each channel's own largest singular value.
void ExpectEqualCounts(const StoredChannels& channels, const Reference& reference,
                       const std::vector<double>& shares, ChannelSpectra& spectra,
                       bool entropies = false) {
  const int64_t lanes = spectra.lanes();
  const int64_t length = channels.length();
  for (int64_t first = 0; first < channels.channels(); first += lanes) {
    ASSERT_THAT(spectra.Load(channels, first, kNever), IsOk());
    const int64_t present = std::min(lanes, channels.channels() - first);
    ChannelRequest request{.entropies = entropies};
    for (const double share : shares) {
      for (int64_t lane = 0; lane < lanes; ++lane) {
        const double norm = lane < present ? reference.norms[first + lane] : 1;
        request.tolerances.push_back(share * (norm > 0 ? norm : 1));
      }
    }
    const auto answers = spectra.Compute(request, kNever);
    ASSERT_THAT(answers, IsOk());
    for (size_t k = 0; k < shares.size(); ++k) {
      for (int64_t lane = 0; lane < lanes; ++lane) {
        SCOPED_TRACE(::testing::Message() << "channel " << first + lane << " share " << shares[k]);
        const double tau = request.tolerances[k * lanes + lane];
        for (int64_t i = 0; i < length; ++i) {
          const int64_t count =
              answers->tolerance_counts[(static_cast<int64_t>(k) * length + i) * lanes + lane];
          if (lane >= present || i == 0) {
            EXPECT_EQ(count, 0);
          } else if (!reference.sigma[first + lane][i].empty()) {
            SCOPED_TRACE(::testing::Message() << "position " << i);
            ExpectCount(count, reference.sigma[first + lane][i], reference.norms[first + lane],
                        tau);
          }
        }
      }
    }
  }
}

const std::vector<double> kShares = {0.9999, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6};

TEST(ChannelSpectraTest, CountsEqualTheReferenceForAllKindsOfScans) {
  ChannelSpectra spectra;
  for (const std::string& kind : ScanKinds()) {
    for (const bool reads_before : {false, true}) {
      SCOPED_TRACE(::testing::Message() << kind << (reads_before ? ", pre-read" : ", post-read"));
      const StoredChannels channels = MakeScan(kind, 100, 16, 9, 7, reads_before);
      const Reference reference = ReferenceOf(channels);
      ExpectEqualCounts(channels, reference, kShares, spectra);
      ExpectEqualCounts(channels, reference, kShares, spectra, true);
    }
  }
}

TEST(ChannelSpectraTest, CountsEqualTheReferenceForHostileScans) {
  ChannelSpectra spectra;
  for (const bool reads_before : {false, true}) {
    for (const HostileScan& scan : HostileScans(72, 16, 8, reads_before)) {
      SCOPED_TRACE(scan.name);
      const Reference reference = ReferenceOf(scan.channels);
      ExpectEqualCounts(scan.channels, reference, kShares, spectra);
      ExpectEqualCounts(scan.channels, reference, kShares, spectra, true);
    }
  }
}

}  // namespace
}  // namespace ess::linalg
