// The recurrent route against the SVD of every block of the same operator's dense matrix.
#include "server/linalg/recurrent_spectra.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <vector>

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
  for (const double accuracy : {kNormMagnitude, kExactNorm}) {
    const auto largest = spectra.MaxSpectralNorm(accuracy, kNever);
    ASSERT_THAT(largest, IsOk());
    EXPECT_NEAR(*largest, reference.largest, accuracy * reference.largest);
  }
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

std::string Describe(const TestRecurrence& op, Flavour flavour) {
  return RecurrenceKindName(op.kind) + " " + FlavourName(flavour) + " L " +
         std::to_string(op.length) + " N " + std::to_string(op.states) + " pre-read " +
         std::to_string(op.reads_before);
}

TEST(RecurrentSpectraTest, EqualsTheReferenceForEveryKindFlavourAndAwkwardLength) {
  for (const RecurrenceKind kind : kAllRecurrenceKinds) {
    for (const Flavour flavour : kAllFlavours) {
      for (const int64_t length : {1, 2, 3, 7, 8, 9, 31, 33, 63, 64, 100}) {
        for (const int64_t states : {1, 5, 16}) {
          for (const bool reads_before : {false, true}) {
            TestRecurrence op = MakeTestRecurrence(kind, flavour, length, states, length + states);
            op.reads_before = reads_before;
            SCOPED_TRACE(Describe(op, flavour));
            ExpectSpectrum(op, length % 2 == 0 ? 0 : 24);
          }
        }
      }
    }
  }
}

TEST(RecurrentSpectraTest, EqualsTheReferenceForThousandsOfRandomSmallOperators) {
  std::mt19937_64 generator(5);
  for (int trial = 0; trial < 3000; ++trial) {
    const RecurrenceKind kind = kAllRecurrenceKinds[generator() % std::size(kAllRecurrenceKinds)];
    const Flavour flavour = kAllFlavours[generator() % std::size(kAllFlavours)];
    const int64_t length = 1 + generator() % 24;
    TestRecurrence op = MakeTestRecurrence(kind, flavour, length, 1 + generator() % 6, trial);
    op.reads_before = generator() % 2 == 1;
    SCOPED_TRACE(Describe(op, flavour));
    ExpectSpectrum(op, 8 * (generator() % 4));
  }
}

TEST(RecurrentSpectraTest, EqualsTheReferenceOverManyWindowsOfManyStates) {
  for (const RecurrenceKind kind : kAllRecurrenceKinds) {
    const bool dense = kind == RecurrenceKind::kGeneral;
    TestRecurrence op = MakeTestRecurrence(kind, Flavour::kResets, 255, dense ? 10 : 34, 3);
    op.reads_before = dense;
    SCOPED_TRACE(Describe(op, Flavour::kResets));
    ExpectSpectrum(op, 0);
  }
}

// SVD at a few positions only.
TEST(RecurrentSpectraTest, CountsOfALongRecurrenceEqualTheReference) {
  for (const RecurrenceKind kind : {RecurrenceKind::kVectorGate, RecurrenceKind::kComplex,
                                    RecurrenceKind::kDelta, RecurrenceKind::kRankOne}) {
    const TestRecurrence op = MakeTestRecurrence(kind, Flavour::kSlow, 1000, 20, 4);
    SCOPED_TRACE(Describe(op, Flavour::kSlow));
    const std::vector<double> matrix = op.Dense();
    RecurrentSpectra spectra(op.Space());
    const auto largest = spectra.MaxSpectralNorm(kExactNorm, kNever);
    ASSERT_THAT(largest, IsOk());
    const SpectrumRequest request{.tolerances = {1e-1 * *largest, 1e-3 * *largest},
                                  .fractions = {1e-2},
                                  .spectral_norms = true};

    const auto spectrum = spectra.Compute(request, kNever);

    ASSERT_THAT(spectrum, IsOk());
    for (const int64_t i : {1, 19, 64, 333, 500, 777, 999}) {
      const auto sigma = BlockSingularValues(matrix, op.length, i);
      ASSERT_THAT(sigma, IsOk());
      const auto above = [&](double tau) {
        return std::count_if(sigma->begin(), sigma->end(), [tau](double s) { return s > tau; });
      };
      for (size_t t = 0; t < request.tolerances.size(); ++t) {
        EXPECT_EQ(spectrum->tolerance_counts[t].counts[i], above(request.tolerances[t])) << i;
      }
      EXPECT_EQ(spectrum->fraction_counts[0].counts[i], above(1e-2 * sigma->front())) << i;
      EXPECT_NEAR(spectrum->spectral_norms[i], sigma->front(), 1e-11 * sigma->front()) << i;
    }
  }
}

class RecurrentSpectraTargetTest : public ::testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override { hwy::SetSupportedTargetsForTest(GetParam()); }
  void TearDown() override { hwy::SetSupportedTargetsForTest(0); }
};

TEST_P(RecurrentSpectraTargetTest, EqualsTheReference) {
  for (const RecurrenceKind kind : kAllRecurrenceKinds) {
    for (const Flavour flavour : {Flavour::kSlow, Flavour::kResets, Flavour::kUnderflow,
                                  Flavour::kRankDeficient, Flavour::kCopies}) {
      for (const int64_t length : {9, 100}) {
        TestRecurrence op = MakeTestRecurrence(kind, flavour, length, 9, length);
        op.reads_before = length == 9;
        SCOPED_TRACE(Describe(op, flavour));
        ExpectSpectrum(op, 0);
      }
    }
  }
}

TEST_P(RecurrentSpectraTargetTest, RepeatsAreBitIdentical) {
  for (const RecurrenceKind kind : kAllRecurrenceKinds) {
    const TestRecurrence op = MakeTestRecurrence(kind, Flavour::kSlow, 100, 40, 1);
    const SpectrumRequest request{.tolerances = {1e-2, 1},
                                  .fractions = {1e-1, 1e-3},
                                  .spectral_norms = true,
                                  .entropies = true};
    RecurrentSpectra once(op.Space());
    const auto first = once.Compute(request, kNever);
    RecurrentSpectra other(op.Space());
    const auto largest =
        other.MaxSpectralNorm(kExactNorm, kNever);  // What was asked before changes nothing.

    const auto second = other.Compute(request, kNever);
    const auto third = other.Compute(request, kNever);

    ASSERT_THAT(first, IsOk());
    for (const auto* again : {&second, &third}) {
      ASSERT_THAT(*again, IsOk());
      for (size_t t = 0; t < 2; ++t) {
        EXPECT_EQ((*again)->tolerance_counts[t].counts, first->tolerance_counts[t].counts);
        EXPECT_EQ((*again)->fraction_counts[t].counts, first->fraction_counts[t].counts);
      }
      EXPECT_EQ((*again)->entropies, first->entropies) << RecurrenceKindName(kind);
      EXPECT_EQ((*again)->entropy_errors, first->entropy_errors) << RecurrenceKindName(kind);
      EXPECT_EQ((*again)->spectral_norms, first->spectral_norms) << RecurrenceKindName(kind);
    }
    const auto largest_again = once.MaxSpectralNorm(kExactNorm, kNever);
    ASSERT_THAT(largest_again, IsOk());
    EXPECT_EQ(*largest, *largest_again) << RecurrenceKindName(kind);
  }
}

INSTANTIATE_TEST_SUITE_P(AllTargets, RecurrentSpectraTargetTest,
                         ::testing::ValuesIn(hwy::SupportedAndGeneratedTargets()),
                         [](const auto& info) { return hwy::TargetName(info.param); });

}  // namespace
}  // namespace ess::linalg
