// From a spectrum to the values of the measures, with SVD where the spectrum has no answer.
#include "server/ess/head_measures.h"

#include <cmath>
#include <numeric>

#include "gtest/gtest.h"
#include "server/ess/reference_ess.h"
#include "tests/support/reference_spectra.h"
#include "tests/support/status_matchers.h"
#include "tests/support/test_operators.h"

namespace ess {
namespace {

using ::ess::testing::IsOk;
using ::ess::testing::MakeTestOperator;
using ::ess::testing::ReferenceSpectra;
using Kind = Measure::Kind;

constexpr int64_t kLength = 40;
const CancellationToken kNever;

std::vector<int64_t> Range(int64_t count) {
  std::vector<int64_t> range(count);
  std::iota(range.begin(), range.end(), 0);
  return range;
}

// Asks `spectra` as the engine would, with the inertia tree as main route.
HeadEss Evaluate(ReferenceSpectra& spectra, const std::vector<Measure>& measures,
                 const EssOptions& options, const std::vector<int64_t>& positions) {
  const double norm = *spectra.MaxSpectralNorm(linalg::kExactNorm, kNever);
  const HeadMeasures head(measures, options, positions, norm, Route::kInertiaTree);
  const auto spectrum = spectra.Compute(head.request(), kNever);
  const auto sigma = [&](int64_t position) { return spectra.SingularValues(position); };
  const auto frobenius = [&] { return spectra.FrobeniusNorms(); };
  const auto causal = [&] { return spectra.CausalRanks(kNever); };
  const auto ess = head.Evaluate(&*spectrum, {sigma, frobenius, causal}, kNever);
  EXPECT_THAT(ess, IsOk());
  return *ess;
}

const std::vector<Measure> kEverything = {{.kind = Kind::kTolerance, .value = 1e-2},
                                          {.kind = Kind::kRelative, .value = 1e-2},
                                          {.kind = Kind::kHeadRelative, .value = 1e-2},
                                          {.kind = Kind::kEntropy},
                                          {.kind = Kind::kSpectralNorm},
                                          {.kind = Kind::kFrobeniusNorm},
                                          {.kind = Kind::kSingularValues, .count = 3}};

void ExpectReference(const HeadEss& ess, const std::vector<double>& matrix,
                     const std::vector<int64_t>& positions) {
  const auto expected = ReferenceEss(matrix, kLength, positions, kEverything, kNever);
  ASSERT_THAT(expected, IsOk());
  for (size_t m = 0; m < kEverything.size(); ++m) {
    ASSERT_EQ(ess.values[m].size(), (*expected)[m].size());
    for (size_t x = 0; x < ess.values[m].size(); ++x) {
      EXPECT_NEAR(ess.values[m][x], (*expected)[m][x], 1e-6 * (1e-6 + (*expected)[m][x]))
          << FormatMeasure(kEverything[m]) << " at " << x;
    }
  }
}

TEST(HeadMeasuresTest, EveryMeasureComesFromTheSpectrumAtTheSelectedPositions) {
  const std::vector<double> matrix = MakeTestOperator("attention_sink", kLength);
  const std::vector<int64_t> positions = {0, 3, 20, 39};
  ReferenceSpectra spectra(matrix, kLength);

  ExpectReference(Evaluate(spectra, kEverything, {}, positions), matrix, positions);

  EXPECT_EQ(spectra.svd_count(), 3);  // singular_values, at positions other than 0.
}

TEST(HeadMeasuresTest, DoubtfulPositionsAreCountedBySvd) {
  const std::vector<double> matrix = MakeTestOperator("attention_sink", kLength);
  std::vector<uint8_t> doubtful(kLength, 0);
  doubtful[7] = doubtful[30] = 1;
  ReferenceSpectra spectra(matrix, kLength, doubtful);

  const HeadEss ess = Evaluate(spectra, kEverything, {}, Range(kLength));

  ExpectReference(ess, matrix, Range(kLength));
  EXPECT_EQ(ess.routes[0].Name(), "inertia_tree+reference_svd");
  EXPECT_EQ(ess.routes[1].Name(), "band_windows+reference_svd");
  EXPECT_EQ(ess.routes[3].Name(), "band_windows");
  EXPECT_EQ(ess.routes[5].Name(), "prefix_sums");
  EXPECT_EQ(ess.routes[6].Name(), "reference_svd");
}

TEST(HeadMeasuresTest, TolerancesBelowTheFastRoutesGoBySvd) {
  const std::vector<double> matrix = MakeTestOperator("hyena", kLength);
  ReferenceSpectra spectra(matrix, kLength);

  const HeadEss ess =
      Evaluate(spectra, {{.kind = Kind::kTolerance, .value = 1e-10}}, {}, Range(kLength));

  EXPECT_EQ(ess.routes[0].Name(), "reference_svd");
  EXPECT_EQ(spectra.svd_count(), kLength - 1);
}

TEST(HeadMeasuresTest, CertifyRecountsOnlyWhereASingularValueIsAtTheTolerance) {
  const std::vector<double> matrix = MakeTestOperator("attention_g1", kLength);
  const auto sigma = linalg::BlockSingularValues(matrix, kLength, 17);
  ASSERT_THAT(sigma, IsOk());
  ReferenceSpectra spectra(matrix, kLength);
  const std::vector<Measure> measures = {{.kind = Kind::kTolerance, .value = (*sigma)[4]},
                                         {.kind = Kind::kTolerance, .value = (*sigma)[4] * 0.999}};

  const HeadEss ess = Evaluate(spectra, measures, {.certify = true}, Range(kLength));

  EXPECT_EQ(spectra.svd_count(), 1);
  for (int64_t i = 0; i < kLength; ++i) {
    EXPECT_EQ(ess.certain[0][i], i != 17) << i;
    EXPECT_EQ(ess.certain[1][i], 1) << i;
  }
  EXPECT_EQ(ess.values[0][17], 4);  // A tie is not counted.
  EXPECT_EQ(ess.values[1][17], 5);
}

TEST(HeadMeasuresTest, ACountThatSvdSettlesIsCertain) {
  // Doubtful for the fast route, but far from every singular value.
  const std::vector<double> matrix = MakeTestOperator("attention_g1", kLength);
  const auto sigma = linalg::BlockSingularValues(matrix, kLength, 17);
  ASSERT_THAT(sigma, IsOk());
  const double between = std::sqrt((*sigma)[4] * (*sigma)[5]);
  std::vector<uint8_t> doubtful(kLength, 0);
  doubtful[17] = 1;
  ReferenceSpectra spectra(matrix, kLength, doubtful);

  const HeadEss ess =
      Evaluate(spectra, {{.kind = Kind::kTolerance, .value = between}}, {.certify = true}, {17});

  EXPECT_EQ(ess.values[0], std::vector<float>{5});
  EXPECT_EQ(ess.certain[0], std::vector<uint8_t>{1});
}

TEST(HeadMeasuresTest, AZeroOperatorNeedsNothing) {
  ReferenceSpectra spectra(std::vector<double>(kLength * kLength, 0.0), kLength);

  const HeadEss ess = Evaluate(spectra, kEverything, {.certify = true}, Range(kLength));

  for (size_t m = 0; m < kEverything.size(); ++m) {
    for (const float value : ess.values[m]) EXPECT_EQ(value, 0);
    for (const uint8_t certain : ess.certain[m]) EXPECT_EQ(certain, 1);
  }
  EXPECT_EQ(spectra.svd_count(), 0);
}

TEST(HeadMeasuresTest, WithAHorizonEveryMeasureGoesBySvd) {
  const std::vector<int64_t> positions = Range(kLength);
  const EssOptions options{.horizon = 5};
  const HeadMeasures head(kEverything, options, positions, 1, Route::kStateWindows);

  EXPECT_TRUE(head.Empty());
}

}  // namespace
}  // namespace ess
