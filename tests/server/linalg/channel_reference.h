// The truth about channels, by SVD of their dense operators, and how far counts may be from it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "gtest/gtest.h"
#include "server/linalg/channel_spectra.h"
#include "server/linalg/reference_linalg.h"
#include "tests/support/status_matchers.h"
#include "tests/support/test_channels.h"

namespace ess::linalg {

// Singular values of every block of every channel.
struct ChannelReference {
  std::vector<std::vector<std::vector<double>>> sigma;  // [D][L]: descending; none if left out.
  std::vector<double> norms;                            // [D]: the largest of all positions.
};

// Every `stride`-th position.
inline ChannelReference ReferenceOf(const testing::StoredChannels& channels, int64_t stride = 1) {
  ChannelReference reference;
  for (int64_t d = 0; d < channels.channels(); ++d) {
    const std::vector<double> dense = channels.Dense(d);
    std::vector<std::vector<double>> sigma(channels.length());
    double norm = 0;
    for (int64_t i = 1; i < channels.length(); i += stride) {
      auto values = BlockSingularValues(dense, channels.length(), i);
      EXPECT_THAT(values, testing::IsOk());
      norm = std::max(norm, values->front());
      sigma[i] = *std::move(values);
    }
    reference.sigma.push_back(std::move(sigma));
    reference.norms.push_back(norm);
  }
  return reference;
}

inline int64_t CountOf(const std::vector<double>& sigma, double threshold) {
  return std::count_if(sigma.begin(), sigma.end(), [&](double s) { return s > threshold; });
}

// How close to tau, relative, a singular value may be on the wrong side.
inline double GuardOf(double norm, double tau) {
  const double ratio = norm / tau;
  return std::max(1e-9, std::min(1e-16 * ratio * ratio, 1e-14 * ratio));
}

inline void ExpectCount(int64_t count, const std::vector<double>& sigma, double norm, double tau) {
  if (count == CountOf(sigma, tau * (1 + 1e-11))) return;
  const double guard = GuardOf(norm, tau);
  EXPECT_GE(count, CountOf(sigma, tau * (1 + guard)));
  EXPECT_LE(count, CountOf(sigma, tau * (1 - guard)));
}

// One row of a request: the same share of each channel's largest singular value.
inline void AddShare(double share, const ChannelReference& reference, int64_t first, int64_t lanes,
                     ChannelRequest& request) {
  for (int64_t lane = 0; lane < lanes; ++lane) {
    const size_t channel = first + lane;
    const double norm = channel < reference.norms.size() ? reference.norms[channel] : 0;
    request.tolerances.push_back(share * (norm > 0 ? norm : 1));
  }
}

// Counts of a loaded group against the reference, at every position.
inline void ExpectEqualCounts(const ChannelReference& reference, int64_t first,
                              const ChannelRequest& request, ChannelSpectra& spectra) {
  const CancellationToken never;
  const int64_t lanes = spectra.lanes();
  const auto answers = spectra.Compute(request, never);
  ASSERT_THAT(answers, testing::IsOk());
  const auto channels = static_cast<int64_t>(reference.norms.size());
  const auto tolerances = static_cast<int64_t>(request.tolerances.size()) / lanes;
  const auto length = static_cast<int64_t>(reference.sigma.front().size());
  ASSERT_EQ(static_cast<int64_t>(answers->tolerance_counts.size()), tolerances * length * lanes);
  for (int64_t k = 0; k < tolerances; ++k) {
    for (int64_t lane = 0; lane < lanes; ++lane) {
      const double tau = request.tolerances[k * lanes + lane];
      SCOPED_TRACE(::testing::Message() << "channel " << first + lane << ", tolerance " << tau);
      for (int64_t i = 0; i < length; ++i) {
        const int64_t count = answers->tolerance_counts[(k * length + i) * lanes + lane];
        if (first + lane >= channels || i == 0) {
          EXPECT_EQ(count, 0);
        } else if (!reference.sigma[first + lane][i].empty()) {
          SCOPED_TRACE(::testing::Message() << "position " << i);
          ExpectCount(count, reference.sigma[first + lane][i], reference.norms[first + lane], tau);
        }
      }
    }
  }
}

// The same for all channels at some shares, by elimination and from bidiagonal forms.
inline void ExpectEqualCounts(const testing::StoredChannels& channels,
                              const ChannelReference& reference, const std::vector<double>& shares,
                              ChannelSpectra& spectra) {
  const CancellationToken never;
  for (int64_t first = 0; first < channels.channels(); first += spectra.lanes()) {
    ASSERT_THAT(spectra.Load(channels, first, never), testing::IsOk());
    ChannelRequest request;
    for (const double share : shares) {
      AddShare(share, reference, first, spectra.lanes(), request);
    }
    for (const bool forms : {false, true}) {
      SCOPED_TRACE(forms ? "from forms" : "by elimination");
      request.spectral_norms = forms;
      ExpectEqualCounts(reference, first, request, spectra);
    }
  }
}

}  // namespace ess::linalg
