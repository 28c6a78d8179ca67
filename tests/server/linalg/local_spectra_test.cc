// The routes of windows against the SVD of every block of the dense operator: sliding-window
// attention with and without sinks, degenerate bands, thousands of small random ones, every
// instruction set of this machine.
#include "server/linalg/local_spectra.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "hwy/targets.h"
#include "server/linalg/reference_linalg.h"
#include "tests/support/status_matchers.h"

namespace ess::linalg {
namespace {

using ::ess::testing::IsOk;
using ::ess::testing::StatusIs;

const CancellationToken kNever;

// An operator as a caller brings it, and as a dense matrix.
struct Banded {
  std::string name;
  int64_t length;
  int64_t window;
  int64_t sinks;
  std::vector<double> band;          // [length, window]
  std::vector<double> sink_columns;  // [length, sinks]

  LocalSpectra Spectra() const { return LocalSpectra(band, length, window, sink_columns, sinks); }
  std::vector<double> Dense() const {
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
};

Banded Empty(std::string name, int64_t length, int64_t window, int64_t sinks) {
  // What must not be read is not a number.
  const double kNaN = std::numeric_limits<double>::quiet_NaN();
  Banded op{std::move(name), length, window, sinks, {}, {}};
  for (int64_t i = 0; i < length; ++i) {
    for (int64_t d = 0; d < window; ++d) op.band.push_back(d == 0 || d > i ? kNaN : 0.0);
    for (int64_t j = 0; j < sinks; ++j) op.sink_columns.push_back(i - j < window ? kNaN : 0.0);
  }
  return op;
}

// `entry(i, j)` for each entry that an operator of this shape has.
template <typename Entry>
Banded Filled(std::string name, int64_t length, int64_t window, int64_t sinks, Entry entry) {
  Banded op = Empty(std::move(name), length, window, sinks);
  for (int64_t i = 0; i < length; ++i) {
    for (int64_t d = 1; d < window && d <= i; ++d) op.band[i * window + d] = entry(i, i - d);
    for (int64_t j = 0; j < sinks; ++j) {
      if (i - j >= window) op.sink_columns[i * sinks + j] = entry(i, j);
    }
  }
  return op;
}

// Softmax over the window and the sinks of 2 q k / sqrt(16); sinks have their logit raised by 2.
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
  return Filled("attention", length, window, sinks,
                [&](int64_t i, int64_t j) { return weight(i, j) / sums[i]; });
}

std::vector<Banded> DegenerateBands(int64_t length, int64_t window, int64_t sinks) {
  std::mt19937_64 generator(length * 131 + window * 17 + sinks);
  std::normal_distribution<double> normal;
  const auto make = [&](std::string name, auto entry) {
    return Filled(std::move(name), length, window, sinks, entry);
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

struct Reference {
  std::vector<std::vector<double>> sigma;  // [L]; of each position.
  double largest = 0;                      // Of all.
};

Reference ReferenceOf(const Banded& op) {
  Reference reference;
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

// `taus` [L]. The promise of block_spectra.h, with the position's own sigma_1, which is sharper.
void ExpectCounts(const PositionCounts& counts, const Reference& reference,
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

int64_t Doubts(const PositionCounts& counts) {
  return std::count(counts.doubtful.begin(), counts.doubtful.end(), 1);
}

double Entropy(const std::vector<double>& sigma) {
  double sum = 0;
  for (const double s : sigma) sum += s;
  if (sum == 0) return 0;
  double entropy = 0;
  for (const double s : sigma) {
    if (s > 0) entropy -= s / sum * std::log(s / sum);
  }
  return std::exp(entropy);
}

constexpr double kShares[] = {1, 0.3, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6};

// Everything at once; returns how many counts were doubtful.
int64_t ExpectEqualToReference(const Banded& op) {
  const std::string what = op.name + " L=" + std::to_string(op.length) +
                           " W=" + std::to_string(op.window) + " S=" + std::to_string(op.sinks);
  SCOPED_TRACE(what);
  const Reference reference = ReferenceOf(op);
  const double unit = reference.largest > 0 ? reference.largest : 1;
  SpectrumRequest request{
      .fractions = {0.5, 1e-2, 1e-4, 1e-6}, .spectral_norms = true, .entropies = true};
  for (const double share : kShares) request.tolerances.push_back(share * unit);
  LocalSpectra spectra = op.Spectra();

  const auto spectrum = spectra.Compute(request, kNever);

  EXPECT_THAT(spectrum, IsOk());
  if (!spectrum.ok()) return 0;
  int64_t doubts = 0;
  for (size_t k = 0; k < request.tolerances.size(); ++k) {
    ExpectCounts(spectrum->tolerance_counts[k], reference,
                 std::vector<double>(op.length, request.tolerances[k]),
                 what + " share " + std::to_string(kShares[k]));
    doubts += Doubts(spectrum->tolerance_counts[k]);
  }
  for (size_t k = 0; k < request.fractions.size(); ++k) {
    // Relative to each position's own sigma_1, whatever that of others.
    for (int64_t i = 1; i < op.length; ++i) {
      Reference one{.sigma = {reference.sigma[i]}, .largest = reference.sigma[i].front()};
      const auto& all = spectrum->fraction_counts[k];
      PositionCounts count{.counts = {all.counts[i]}, .doubtful = {}};
      if (!all.doubtful.empty()) count.doubtful = {all.doubtful[i]};
      const double tau = request.fractions[k] * one.largest;
      ExpectCounts(
          count, one, {tau > 0 ? tau : 1},
          what + " fraction " + std::to_string(request.fractions[k]) + " at " + std::to_string(i));
    }
    doubts += Doubts(spectrum->fraction_counts[k]);
  }
  const std::vector<double> frobenius = spectra.FrobeniusNorms();
  for (int64_t i = 0; i < op.length; ++i) {
    const std::vector<double>& sigma = reference.sigma[i];
    const double top = sigma.empty() ? 0 : sigma.front();
    EXPECT_NEAR(spectrum->spectral_norms[i], top, 1e-11 * top) << what << " position " << i;
    const double entropy = Entropy(sigma);
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
  const auto largest = spectra.MaxSpectralNorm(kNever);
  EXPECT_THAT(largest, IsOk());
  EXPECT_NEAR(*largest, reference.largest, 1e-10 * reference.largest) << what;
  return doubts;
}

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
        Filled("random " + std::to_string(trial), length, window, sinks, [&](int64_t, int64_t) {
          if (draw(4) < zeros) return 0.0;
          return normal(generator) * std::pow(10.0, spread * std::abs(normal(generator)) / -3);
        }));
  }
  EXPECT_LE(doubts, 3);
}

}  // namespace
}  // namespace ess::linalg
