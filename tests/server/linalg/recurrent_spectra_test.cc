// The recurrent route against the SVD of every block of the same operator's dense matrix.
#include "server/linalg/recurrent_spectra.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <set>

#include "gtest/gtest.h"
#include "hwy/targets.h"
#include "server/linalg/reference_linalg.h"
#include "tests/support/status_matchers.h"
#include "tests/support/test_recurrences.h"

namespace ess::linalg {
namespace {

using ::ess::testing::Flavour;
using ::ess::testing::FlavourName;
using ::ess::testing::IsOk;
using ::ess::testing::kAllFlavours;
using ::ess::testing::kAllRecurrenceKinds;
using ::ess::testing::MakeTestRecurrence;
using ::ess::testing::RecurrenceKind;
using ::ess::testing::RecurrenceKindName;
using ::ess::testing::StatusIs;
using ::ess::testing::TestRecurrence;

const CancellationToken kNever;

// The singular values of every block, by the definition.
struct Reference {
  explicit Reference(const TestRecurrence& op) : length(op.length), sigma(op.length) {
    const std::vector<double> matrix = op.Dense();
    for (int64_t i = 1; i < length; ++i) {
      auto values = BlockSingularValues(matrix, length, i);
      EXPECT_THAT(values, IsOk());
      sigma[i] = *std::move(values);
      largest = std::max(largest, sigma[i].front());
    }
  }

  int64_t Count(int64_t position, double threshold) const {
    return std::count_if(sigma[position].begin(), sigma[position].end(),
                         [&](double s) { return s > threshold; });
  }

  double Entropy(int64_t position) const {
    double sum = 0;
    for (const double s : sigma[position]) sum += s;
    if (!(sum > 0)) return 0;
    double entropy = 0;
    for (const double s : sigma[position]) entropy -= s > 0 ? s / sum * std::log(s / sum) : 0;
    return std::exp(entropy);
  }

  int64_t length;
  std::vector<std::vector<double>> sigma;
  double largest = 0;
};

// A count may differ only where a singular value is within the documented distance of the
// tolerance, or where it says so.
void ExpectCounts(const Reference& reference, double tau, const PositionCounts& result) {
  ASSERT_EQ(static_cast<int64_t>(result.counts.size()), reference.length);
  EXPECT_EQ(result.counts[0], 0);
  const double ratio = reference.largest / tau;
  const double guard = std::max(1e-9, 1e-16 * ratio * ratio);
  for (int64_t i = 1; i < reference.length; ++i) {
    if (!result.doubtful.empty() && result.doubtful[i]) continue;
    const int64_t count = result.counts[i];
    if (reference.Count(i, tau * (1 + 1e-11)) == count) continue;
    EXPECT_GE(count, reference.Count(i, tau * (1 + guard))) << "position " << i;
    EXPECT_LE(count, reference.Count(i, tau * (1 - guard))) << "position " << i;
  }
}

int64_t DoubtfulCount(const std::vector<PositionCounts>& all) {
  int64_t doubtful = 0;
  for (const PositionCounts& one : all) {
    doubtful += std::count(one.doubtful.begin(), one.doubtful.end(), 1);
  }
  return doubtful;
}

// Squares below this share of the largest may have vanished.
constexpr double kVanishing = 1e-140;

void ExpectNorms(const Reference& reference, RecurrentSpectra& spectra, const Spectrum& spectrum) {
  const double scale = reference.largest > 0 ? reference.largest : 1;
  const std::vector<double> norms = spectra.FrobeniusNorms();
  for (int64_t i = 0; i < reference.length; ++i) {
    double squares = 0;
    for (const double s : reference.sigma[i]) squares += s / scale * (s / scale);
    const double norm = scale * std::sqrt(squares);
    EXPECT_NEAR(norms[i], norm, 1e-12 * norm + kVanishing * scale) << "position " << i;
    const double largest = i == 0 ? 0 : reference.sigma[i].front();
    EXPECT_NEAR(spectrum.spectral_norms[i], largest, 1e-11 * largest) << "position " << i;
    const double entropy = reference.Entropy(i);
    EXPECT_NEAR(spectrum.entropies[i], entropy, 1e-4 * entropy) << "position " << i;
    EXPECT_GE(spectrum.entropy_errors[i], 0) << "position " << i;
  }
  const auto largest = spectra.MaxSpectralNorm(kNever);
  ASSERT_THAT(largest, IsOk());
  EXPECT_NEAR(*largest, reference.largest, 1e-10 * reference.largest);
}

void ExpectFractions(const Reference& reference, double fraction, const PositionCounts& result) {
  for (int64_t i = 1; i < reference.length; ++i) {
    if (!result.doubtful.empty() && result.doubtful[i]) continue;
    const double tau = fraction * reference.sigma[i].front();
    const double guard = std::max(1e-9, 1e-16 / (fraction * fraction));
    const int64_t count = result.counts[i];
    if (reference.Count(i, tau * (1 + 1e-11)) == count) continue;
    EXPECT_GE(count, reference.Count(i, tau * (1 + guard))) << "position " << i;
    EXPECT_LE(count, reference.Count(i, tau * (1 - guard))) << "position " << i;
  }
}

void ExpectSingularValues(const Reference& reference, int64_t states, RecurrentSpectra& spectra) {
  for (int64_t i = 0; i < reference.length; i += 1 + reference.length / 7) {
    const auto sigma = spectra.SingularValues(i);
    ASSERT_THAT(sigma, IsOk());
    const std::vector<double>& expected = reference.sigma[i];
    EXPECT_LE(static_cast<int64_t>(sigma->size()), std::min({i, reference.length - i, states}));
    for (size_t k = 0; k < expected.size(); ++k) {
      EXPECT_NEAR(k < sigma->size() ? (*sigma)[k] : 0, expected[k], 2e-14 * expected[0])
          << "position " << i << " value " << k;
    }
  }
}

void ExpectSpectrum(const TestRecurrence& op, int64_t window) {
  const Reference reference(op);
  const double scale = reference.largest > 0 ? reference.largest : 1;
  SpectrumRequest request{.tolerances = {},
                          .fractions = {0.9, 1e-1, 1e-2, 1e-4, 1e-6},
                          .spectral_norms = true,
                          .entropies = true};
  for (const double share : {1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6}) {
    request.tolerances.push_back(share * scale);
  }
  RecurrentSpectra spectra(op.Space(), window);

  const auto spectrum = spectra.Compute(request, kNever);

  ASSERT_THAT(spectrum, IsOk());
  for (size_t t = 0; t < request.tolerances.size(); ++t) {
    SCOPED_TRACE(::testing::Message() << "tolerance " << request.tolerances[t] / scale);
    ExpectCounts(reference, request.tolerances[t], spectrum->tolerance_counts[t]);
  }
  for (size_t f = 0; f < request.fractions.size(); ++f) {
    SCOPED_TRACE(::testing::Message() << "fraction " << request.fractions[f]);
    ExpectFractions(reference, request.fractions[f], spectrum->fraction_counts[f]);
  }
  EXPECT_EQ(DoubtfulCount(spectrum->tolerance_counts), 0);
  EXPECT_EQ(DoubtfulCount(spectrum->fraction_counts), 0);
  ExpectNorms(reference, spectra, *spectrum);
  ExpectSingularValues(reference, op.real_states(), spectra);
}

TEST(RecurrentSpectraTest, EqualsTheReferenceForEveryKindFlavourAndAwkwardLength) {
  for (const RecurrenceKind kind : kAllRecurrenceKinds) {
    for (const Flavour flavour : kAllFlavours) {
      for (const int64_t length : {1, 2, 3, 7, 8, 9, 31, 33, 64, 100}) {
        for (const int64_t states : {1, 5, 16}) {
          for (const bool reads_before : {false, true}) {
            SCOPED_TRACE(::testing::Message()
                         << RecurrenceKindName(kind) << " " << FlavourName(flavour) << " L "
                         << length << " N " << states << " pre-read " << reads_before);
            TestRecurrence op = MakeTestRecurrence(kind, flavour, length, states, length + states);
            op.reads_before = reads_before;
            ExpectSpectrum(op, length % 2 == 0 ? 0 : 16);
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace ess::linalg
