#include "tests/support/banded_cases.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "gtest/gtest.h"
#include "server/linalg/reference_linalg.h"
#include "tests/support/status_matchers.h"

namespace ess::testing {
namespace {

using linalg::BlockSingularValues;
using linalg::BlockSpectra;
using linalg::PositionCounts;
using linalg::SpectrumRequest;

const CancellationToken kNever;
constexpr double kShares[] = {1, 0.3, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6};

}  // namespace

std::vector<double> Banded::Dense() const {
  std::vector<double> matrix(length * length, 0.0);
  for (int64_t i = 0; i < length; ++i) {
    for (int64_t j = 0; j < i; ++j) {
      if (i - j < window) {
        matrix[i * length + j] = band[i * window + i - j];
      } else if (j < sinks) {
        matrix[i * length + j] = sink_columns[i * sinks + j];
      }
    }
  }
  return matrix;
}

Banded EmptyBand(std::string name, int64_t length, int64_t window, int64_t sinks) {
  // What must not be read is not a number.
  const double kNaN = std::numeric_limits<double>::quiet_NaN();
  Banded op{std::move(name), length, window, sinks, {}, {}};
  for (int64_t i = 0; i < length; ++i) {
    for (int64_t d = 0; d < window; ++d) op.band.push_back(d == 0 || d > i ? kNaN : 0.0);
    for (int64_t j = 0; j < sinks; ++j) op.sink_columns.push_back(i - j < window ? kNaN : 0.0);
  }
  return op;
}

Banded SlidingAttention(int64_t length, int64_t window, int64_t sinks, uint64_t seed) {
  constexpr int64_t kDim = 16;
  std::mt19937_64 generator(seed);
  std::normal_distribution<double> normal;
  std::vector<double> q(length * kDim), k(length * kDim);
  for (double& x : q) x = normal(generator);
  for (double& x : k) x = normal(generator);
  std::vector<double> sums(length, 0.0);
  const auto weight = [&](int64_t i, int64_t j) {
    double logit = j < sinks ? 2 : 0;
    for (int64_t n = 0; n < kDim; ++n) logit += 0.5 * q[i * kDim + n] * k[j * kDim + n];
    return std::exp(logit);
  };
  for (int64_t i = 0; i < length; ++i) {
    for (int64_t j = 0; j <= i; ++j) {
      if (i - j < window || j < sinks) sums[i] += weight(i, j);
    }
  }
  return FilledBand("attention", length, window, sinks,
                    [&](int64_t i, int64_t j) { return weight(i, j) / sums[i]; });
}

std::vector<Banded> DegenerateBands(int64_t length, int64_t window, int64_t sinks) {
  std::mt19937_64 generator(length * 131 + window * 17 + sinks);
  std::normal_distribution<double> normal;
  const auto make = [&](std::string name, auto entry) {
    return FilledBand(std::move(name), length, window, sinks, entry);
  };
  const int64_t reach = std::max<int64_t>(window - 1, 1);
  return {
      make("zero", [](int64_t, int64_t) { return 0.0; }),
      make("shift by one", [](int64_t i, int64_t j) { return i - j == 1 ? 1.0 : 0.0; }),
      make("shift by the window", [&](int64_t i, int64_t j) { return i - j == reach ? 1.0 : 0.0; }),
      make("uniform", [&](int64_t, int64_t) { return 1.0 / static_cast<double>(window + sinks); }),
      make("hard attention", [](int64_t i, int64_t j) { return j == i / 3 * 3 - 1 ? 1.0 : 0.0; }),
      make(
          "zero rows and columns",
          [&](int64_t i, int64_t j) { return i % 5 == 2 || j % 7 == 3 ? 0.0 : normal(generator); }),
      make("reset",
           [&](int64_t i, int64_t j) { return i >= 20 && j < 20 ? 0.0 : normal(generator); }),
      make("fading",
           [&](int64_t i, int64_t) {
             return normal(generator) * std::pow(10.0, -0.5 * static_cast<double>(i));
           }),
      make("last position only",
           [&](int64_t i, int64_t) { return i == length - 1 ? normal(generator) : 0.0; }),
  };
}

BandReference ReferenceOf(const Banded& op) {
  BandReference reference;
  // LAPACK loses tiny entries of a matrix with large ones, but not of one of their own size.
  std::vector<double> matrix = op.Dense();
  for (int64_t i = 0; i < op.length; ++i) {
    reference.sigma.emplace_back();
    if (i == 0) continue;
    double top = 0;
    for (int64_t row = i; row < op.length; ++row) {
      for (int64_t c = 0; c < i; ++c) top = std::max(top, std::abs(matrix[row * op.length + c]));
    }
    std::vector<double> scaled = matrix;
    if (top > 0) {
      for (double& entry : scaled) entry /= top;
    }
    auto sigma = BlockSingularValues(scaled, op.length, i);
    EXPECT_THAT(sigma, IsOk());
    for (double& value : *sigma) value *= top;
    reference.largest = std::max(reference.largest, sigma->front());
    reference.sigma.back() = *std::move(sigma);
  }
  return reference;
}

int64_t CountOf(const std::vector<double>& sigma, double threshold) {
  return std::count_if(sigma.begin(), sigma.end(), [&](double s) { return s > threshold; });
}

void ExpectCounts(const PositionCounts& counts, const BandReference& reference,
                  const std::vector<double>& taus, const std::string& what) {
  const int64_t length = static_cast<int64_t>(reference.sigma.size());
  ASSERT_EQ(static_cast<int64_t>(counts.counts.size()), length);
  for (int64_t i = 0; i < length; ++i) {
    const std::vector<double>& sigma = reference.sigma[i];
    const double tau = taus[i];
    if (counts.counts[i] == CountOf(sigma, tau * (1 + 1e-11))) continue;
    if (!counts.doubtful.empty() && counts.doubtful[i]) continue;
    const double ratio = reference.largest / tau;
    const double guard = std::max(1e-9, 1e-16 * ratio * ratio);
    EXPECT_GE(counts.counts[i], CountOf(sigma, tau * (1 + guard))) << what << " position " << i;
    EXPECT_LE(counts.counts[i], CountOf(sigma, tau * (1 - guard))) << what << " position " << i;
  }
}

int64_t DoubtsOf(const PositionCounts& counts) {
  return std::count(counts.doubtful.begin(), counts.doubtful.end(), 1);
}

double EntropyOf(const std::vector<double>& sigma) {
  double sum = 0;
  for (const double s : sigma) sum += s;
  if (sum == 0) return 0;
  double entropy = 0;
  for (const double s : sigma) {
    if (s > 0) entropy -= s / sum * std::log(s / sum);
  }
  return std::exp(entropy);
}

int64_t ExpectEqualToReference(const Banded& op, BlockSpectra& spectra) {
  const std::string what = op.name + " L=" + std::to_string(op.length) +
                           " W=" + std::to_string(op.window) + " S=" + std::to_string(op.sinks);
  SCOPED_TRACE(what);
  const BandReference reference = ReferenceOf(op);
  const double unit = reference.largest > 0 ? reference.largest : 1;
  SpectrumRequest request{
      .fractions = {0.5, 1e-2, 1e-4, 1e-6}, .spectral_norms = true, .entropies = true};
  for (const double share : kShares) request.tolerances.push_back(share * unit);

  const auto spectrum = spectra.Compute(request, kNever);

  EXPECT_THAT(spectrum, IsOk());
  if (!spectrum.ok()) return 0;
  int64_t doubts = 0;
  for (size_t k = 0; k < request.tolerances.size(); ++k) {
    ExpectCounts(spectrum->tolerance_counts[k], reference,
                 std::vector<double>(op.length, request.tolerances[k]),
                 what + " share " + std::to_string(kShares[k]));
    doubts += DoubtsOf(spectrum->tolerance_counts[k]);
  }
  for (size_t k = 0; k < request.fractions.size(); ++k) {
    // Relative to each position's own sigma_1, whatever that of others.
    for (int64_t i = 1; i < op.length; ++i) {
      BandReference one{.sigma = {reference.sigma[i]}, .largest = reference.sigma[i].front()};
      const auto& all = spectrum->fraction_counts[k];
      PositionCounts count{.counts = {all.counts[i]}, .doubtful = {}};
      if (!all.doubtful.empty()) count.doubtful = {all.doubtful[i]};
      const double tau = request.fractions[k] * one.largest;
      ExpectCounts(
          count, one, {tau > 0 ? tau : 1},
          what + " fraction " + std::to_string(request.fractions[k]) + " at " + std::to_string(i));
    }
    doubts += DoubtsOf(spectrum->fraction_counts[k]);
  }
  const std::vector<double> frobenius = spectra.FrobeniusNorms();
  for (int64_t i = 0; i < op.length; ++i) {
    const std::vector<double>& sigma = reference.sigma[i];
    const double top = sigma.empty() ? 0 : sigma.front();
    EXPECT_NEAR(spectrum->spectral_norms[i], top, 1e-11 * top) << what << " position " << i;
    const double entropy = EntropyOf(sigma);
    EXPECT_NEAR(spectrum->entropies[i], entropy, 1e-4 * entropy) << what << " position " << i;
    double norm = 0;
    for (const double s : sigma) norm = std::hypot(norm, s);
    EXPECT_NEAR(frobenius[i], norm, 1e-12 * norm) << what << " position " << i;
    const auto values = spectra.SingularValues(i);
    EXPECT_THAT(values, IsOk());
    EXPECT_LE(values->size(), sigma.size());
    for (size_t k = 0; k < sigma.size(); ++k) {
      const double value = k < values->size() ? (*values)[k] : 0;
      EXPECT_NEAR(value, sigma[k], 3e-14 * top) << what << " position " << i << " value " << k;
    }
  }
  for (const double accuracy : {linalg::kExactNorm, linalg::kNormMagnitude}) {
    const auto largest = spectra.MaxSpectralNorm(accuracy, kNever);
    EXPECT_THAT(largest, IsOk());
    EXPECT_NEAR(*largest, reference.largest, accuracy * reference.largest) << what;
  }
  return doubts;
}

int64_t ExpectEqualToReference(const Banded& op) {
  linalg::LocalSpectra spectra = op.Spectra();
  return ExpectEqualToReference(op, spectra);
}

}  // namespace ess::testing
