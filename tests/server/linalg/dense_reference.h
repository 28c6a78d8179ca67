// Answers about a matrix checked against the SVD of its blocks.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "server/linalg/block_spectra.h"
#include "server/linalg/reference_linalg.h"
#include "tests/support/status_matchers.h"

namespace ess::linalg {

// The promise of entropy_rule.h, with its error at scales of up to four times ||H||_F.
inline constexpr double kEntropyError = 4e-5;

// A matrix with the singular values of some of its blocks.
struct DenseReference {
  std::vector<double> matrix;
  int64_t length = 0;
  std::vector<int64_t> positions;
  std::vector<std::vector<double>> sigma;  // Of each of `positions`.
  double norm = 0;                         // The largest of them.
};

// The blocks at every stride-th position, and the one in the middle.
inline DenseReference ReferenceOf(std::vector<double> matrix, int64_t length, int64_t stride = 1) {
  DenseReference reference{.matrix = std::move(matrix), .length = length};
  for (int64_t i = 0; i < length; ++i) {
    if (i % stride != 0 && i != length / 2) continue;
    auto sigma = BlockSingularValues(reference.matrix, length, i);
    EXPECT_THAT(sigma, ::ess::testing::IsOk());
    reference.positions.push_back(i);
    if (!sigma->empty()) reference.norm = std::max(reference.norm, sigma->front());
    reference.sigma.push_back(*std::move(sigma));
  }
  return reference;
}

inline int64_t CountOf(const std::vector<double>& sigma, double tau) {
  return std::count_if(sigma.begin(), sigma.end(), [tau](double s) { return s > tau; });
}

inline double EntropyOf(const std::vector<double>& sigma) {
  double sum = 0;
  for (const double s : sigma) sum += s;
  double entropy = 0;
  for (const double s : sigma) entropy -= s > 0 ? s / sum * std::log(s / sum) : 0;
  return sum > 0 ? std::exp(entropy) : 0;
}

// A count may differ from the reference only by singular values within max(1e-9, 1e-16 (norm /
// tau)^2) of tau, or by the rounding of the SVD itself. A tie is not counted.
inline void ExpectEqualCount(int64_t count, const std::vector<double>& sigma, double norm,
                             double tau) {
  if (!(tau > 0)) {
    EXPECT_EQ(count, 0);
    return;
  }
  const double ratio = norm / tau;
  const double guard = std::max({1e-9, 1e-16 * ratio * ratio, 1e-14 * ratio});
  const bool tie = std::any_of(sigma.begin(), sigma.end(),
                               [tau](double s) { return std::abs(s / tau - 1) < 1e-12; });
  EXPECT_GE(count, CountOf(sigma, tau * (1 + guard))) << "above " << tau;
  EXPECT_LE(count, CountOf(sigma, tau * (tie ? 1 + 1e-12 : 1 - guard))) << "above " << tau;
}

// Every answer of `spectrum`, which is for `request`, but counts that are marked as doubtful.
// Returns how many of those there are at the reference's positions.
inline int64_t ExpectEqualSpectrum(const DenseReference& reference, const SpectrumRequest& request,
                                   const Spectrum& spectrum) {
  int64_t doubtful = 0;
  const auto count_at = [&](const PositionCounts& counts, size_t p, double tau) {
    const int64_t i = reference.positions[p];
    ASSERT_EQ(std::ssize(counts.counts), reference.length);
    if (!counts.doubtful.empty() && counts.doubtful[i] != 0) {
      ++doubtful;
    } else {
      ExpectEqualCount(counts.counts[i], reference.sigma[p], reference.norm, tau);
    }
  };
  EXPECT_EQ(spectrum.tolerance_counts.size(), request.tolerances.size());
  EXPECT_EQ(spectrum.fraction_counts.size(), request.fractions.size());
  for (size_t p = 0; p < reference.positions.size(); ++p) {
    const int64_t i = reference.positions[p];
    const std::vector<double>& sigma = reference.sigma[p];
    SCOPED_TRACE(::testing::Message() << "position " << i);
    const double largest = sigma.empty() ? 0 : sigma.front();
    for (size_t t = 0; t < request.tolerances.size(); ++t) {
      count_at(spectrum.tolerance_counts[t], p, request.tolerances[t]);
    }
    for (size_t f = 0; f < request.fractions.size(); ++f) {
      count_at(spectrum.fraction_counts[f], p, request.fractions[f] * largest);
    }
    if (request.spectral_norms) {
      EXPECT_NEAR(spectrum.spectral_norms[i], largest, 1e-11 * largest);
    }
    if (request.entropies) {
      const double expected = EntropyOf(sigma);
      const double error = std::abs(spectrum.entropies[i] - expected);
      EXPECT_LE(error, kEntropyError * expected) << expected;
      EXPECT_LE(error, (spectrum.entropy_errors[i] + 1e-9) * expected);
    }
  }
  return doubtful;
}

}  // namespace ess::linalg
