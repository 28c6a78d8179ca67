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
#include "server/linalg/short_convolution_spectra.h"
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
int64_t ExpectEqualToReference(const Banded& op, BlockSpectra& spectra) {
  const std::string what = op.name + " L=" + std::to_string(op.length) +
                           " W=" + std::to_string(op.window) + " S=" + std::to_string(op.sinks);
  SCOPED_TRACE(what);
  const Reference reference = ReferenceOf(op);
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

int64_t ExpectEqualToReference(const Banded& op) {
  LocalSpectra spectra = op.Spectra();
  return ExpectEqualToReference(op, spectra);
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

TEST(LocalSpectraTest, CountsEqualTheReferenceAtRandomTolerances) {
  int64_t doubts = 0;
  std::mt19937_64 generator(3);
  std::uniform_real_distribution<double> exponent(-6, 0);
  for (const auto& [length, window, sinks] :
       {std::tuple{150, 17, 0}, {150, 40, 0}, {120, 24, 3}, {90, 90, 0}}) {
    const Banded op = SlidingAttention(length, window, sinks, 5);
    const Reference reference = ReferenceOf(op);
    SpectrumRequest request;
    for (int draw = 0; draw < 200; ++draw) {
      request.tolerances.push_back(reference.largest * std::pow(10, exponent(generator)));
    }

    const auto spectrum = op.Spectra().Compute(request, kNever);

    ASSERT_THAT(spectrum, IsOk());
    for (size_t k = 0; k < request.tolerances.size(); ++k) {
      ExpectCounts(spectrum->tolerance_counts[k], reference,
                   std::vector<double>(length, request.tolerances[k]), op.name);
      doubts += Doubts(spectrum->tolerance_counts[k]);
    }
  }
  EXPECT_LE(doubts, 100);  // Of 90,000.
}

TEST(LocalSpectraTest, ToleranceMayBeASingularValueOfABlockThatAWindowShares) {
  const Banded op = SlidingAttention(100, 17, 3, 8);
  const Reference reference = ReferenceOf(op);
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

TEST(LocalSpectraTest, ExactTiesAreNotCounted) {
  constexpr int64_t kLength = 70;
  for (const int64_t distance : {1, 5, 16, 31}) {
    const Banded op = Filled("shift", kLength, distance + 1, 0,
                             [&](int64_t i, int64_t j) { return i - j == distance ? 1.0 : 0.0; });

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

TEST(LocalSpectraTest, ScaleDoesNotMatter) {
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
    EXPECT_EQ(*scaled.Spectra().MaxSpectralNorm(kNever),
              std::ldexp(*op.Spectra().MaxSpectralNorm(kNever), exponent));
  }
}

TEST(LocalSpectraTest, PositionsOfVeryDifferentScaleDoNotDisturbEachOther) {
  // Each position, from 1 down to 1e-240, against the same operator cut off before it.
  constexpr int64_t kLength = 48;
  const auto fading = [](int64_t i, int64_t j) {
    return std::pow(10.0, -5.0 * static_cast<double>(i)) *
           (1 + static_cast<double>((3 * i + 5 * j * j) % 7));
  };
  for (const int64_t sinks : {0, 3}) {
    const Banded op = Filled("fading", kLength, 6, sinks, fading);
    const SpectrumRequest request{.fractions = {1e-6}, .spectral_norms = true, .entropies = true};
    const auto spectrum = op.Spectra().Compute(request, kNever);
    ASSERT_THAT(spectrum, IsOk());
    for (int64_t i = 1; i < kLength; ++i) {
      const double unit = std::pow(10.0, 5.0 * static_cast<double>(i));
      const Banded alone = Filled("alone", kLength, 6, sinks, [&](int64_t row, int64_t column) {
        return row >= i && column < i ? unit * fading(row, column) : 0.0;
      });
      const auto sigma = BlockSingularValues(alone.Dense(), kLength, i);
      ASSERT_THAT(sigma, IsOk());
      EXPECT_NEAR(spectrum->spectral_norms[i] * unit, sigma->front(), 1e-10 * sigma->front());
      EXPECT_NEAR(spectrum->entropies[i], Entropy(*sigma), 1e-4 * Entropy(*sigma)) << i;
      EXPECT_EQ(spectrum->fraction_counts[0].counts[i], CountOf(*sigma, 1e-6 * sigma->front()));
    }
  }
}

TEST(LocalSpectraTest, TooSmallTolerancesAreDoubtful) {
  const Banded op = SlidingAttention(60, 17, 0, 4);

  const auto spectrum =
      op.Spectra().Compute({.tolerances = {1e-12, 1e-300, 1e300}, .fractions = {1e-9}}, kNever);

  ASSERT_THAT(spectrum, IsOk());
  EXPECT_EQ(Doubts(spectrum->tolerance_counts[0]), 59);
  EXPECT_EQ(Doubts(spectrum->tolerance_counts[1]), 59);
  EXPECT_EQ(Doubts(spectrum->tolerance_counts[2]), 0);
  EXPECT_EQ(spectrum->tolerance_counts[2].counts, std::vector<int32_t>(60, 0));
  EXPECT_EQ(Doubts(spectrum->fraction_counts[0]), 59);
}

TEST(LocalSpectraTest, RepeatsGiveTheSameBits) {
  const Banded op = SlidingAttention(130, 25, 3, 6);
  const SpectrumRequest request{
      .tolerances = {1e-1, 1e-3}, .fractions = {1e-2}, .spectral_norms = true, .entropies = true};
  LocalSpectra used = op.Spectra();
  ASSERT_THAT(used.Compute({.tolerances = {1e-5}, .entropies = true}, kNever), IsOk());
  ASSERT_THAT(used.MaxSpectralNorm(kNever), IsOk());

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
    const Reference reference = ReferenceOf(op);

    const auto spectrum = op.Spectra().Compute({.entropies = true}, kNever);

    ASSERT_THAT(spectrum, IsOk());
    for (int64_t i = 1; i < op.length; ++i) {
      const double error = std::abs(spectrum->entropies[i] / Entropy(reference.sigma[i]) - 1);
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
  EXPECT_THAT(spectra.MaxSpectralNorm(token), is_cancelled);
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

TEST(ShortConvolutionSpectraTest, EveryPositionEqualsTheReference) {
  std::mt19937_64 generator(5);
  std::normal_distribution<double> normal;
  for (const int64_t taps : {1, 2, 3, 4, 9, 30}) {
    std::vector<double> filter(taps);
    for (double& tap : filter) tap = normal(generator);
    for (const int64_t length : {1, 2, 3, 8, 31, 57, 58, 90}) {
      const Banded op = Filled("convolution", length, taps, 0,
                               [&](int64_t i, int64_t j) { return filter[i - j]; });
      ShortConvolutionSpectra spectra(filter, length);
      EXPECT_EQ(ExpectEqualToReference(op, spectra), 0);
    }
  }
}

TEST(ShortConvolutionSpectraTest, GatesMakeABand) {
  constexpr int64_t kLength = 50;
  std::mt19937_64 generator(6);
  std::normal_distribution<double> normal;
  std::vector<double> taps(7), gate_in(kLength), gate_out(kLength);
  for (std::vector<double>* values : {&taps, &gate_in, &gate_out}) {
    for (double& value : *values) value = normal(generator);
  }
  const Banded op = Filled("gated convolution", kLength, 7, 0, [&](int64_t i, int64_t j) {
    return gate_out[i] * taps[i - j] * gate_in[j];
  });
  LocalSpectra spectra(GatedConvolutionBand(taps, kLength, gate_out, gate_in), kLength, 7);

  EXPECT_EQ(ExpectEqualToReference(op, spectra), 0);
}

}  // namespace
}  // namespace ess::linalg
