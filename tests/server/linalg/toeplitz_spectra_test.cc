// Half the positions of a Toeplitz matrix: the same answers as for all of them, and the SVD's.
#include <algorithm>
#include <cmath>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "server/linalg/dense_spectra.h"
#include "tests/server/linalg/dense_reference.h"
#include "tests/support/status_matchers.h"

namespace ess::linalg {
namespace {

using ::ess::testing::IsOk;

const CancellationToken kNever;
constexpr int64_t kLengths[] = {1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 100};

struct Filter {
  std::string name;
  std::function<double(int64_t lag)> tap;
};

std::vector<Filter> Filters() {
  return {
      {"damped waves",
       [](int64_t lag) {
         const double t = static_cast<double>(lag);
         return std::exp(-0.01 * t) * std::cos(1.3 * t) + 0.5 * std::exp(-0.2 * t) * std::sin(t);
       }},
      {"power law", [](int64_t lag) { return 1 / std::sqrt(1.0 + static_cast<double>(lag)); }},
      {"random", [](int64_t lag) { return static_cast<double>(std::mt19937(lag)()) / 4e9 - 0.5; }},
      {"few taps", [](int64_t lag) { return lag < 20 ? std::cos(static_cast<double>(lag)) : 0; }},
      {"ties: one tap", [](int64_t lag) { return lag == 3 ? 1.0 : 0.0; }},
      {"rank one", [](int64_t lag) { return std::pow(0.9, static_cast<double>(lag)); }},
      {"fast decay", [](int64_t lag) { return std::exp(-3 * static_cast<double>(lag)); }},
      {"tiny", [](int64_t lag) { return 1e-150 * std::cos(0.7 * static_cast<double>(lag * lag)); }},
      {"huge", [](int64_t lag) { return 1e150 * std::cos(0.7 * static_cast<double>(lag * lag)); }},
      {"zero", [](int64_t) { return 0.0; }},
  };
}

std::vector<double> Matrix(const Filter& filter, int64_t length) {
  std::vector<double> matrix(length * length, 0.0);
  for (int64_t i = 0; i < length; ++i) {
    for (int64_t j = 0; j <= i; ++j) matrix[i * length + j] = filter.tap(i - j);
  }
  return matrix;
}

// Tolerances in units of the largest sigma_1.
SpectrumRequest RequestFor(double norm) {
  SpectrumRequest request{
      .tolerances = {}, .fractions = {0.3, 1e-2, 1e-4}, .spectral_norms = true, .entropies = true};
  if (norm == 0) norm = 1;
  for (const double share : {1.0, 0.5, 1e-2, 1e-4, 1e-6}) {
    request.tolerances.push_back(share * norm);
  }
  return request;
}

void ExpectSameCounts(const PositionCounts& half, const PositionCounts& full,
                      const std::string& what) {
  ASSERT_EQ(half.counts.size(), full.counts.size());
  const auto doubtful = [](const PositionCounts& counts, size_t i) {
    return !counts.doubtful.empty() && counts.doubtful[i] != 0;
  };
  for (size_t i = 0; i < half.counts.size(); ++i) {
    if (doubtful(half, i) || doubtful(full, i)) continue;
    EXPECT_EQ(half.counts[i], full.counts[i]) << what << ", position " << i;
  }
}

// What is asked of a matrix with its symmetry and without.
struct BothWays {
  DenseSpectra half;
  DenseSpectra full;
  std::vector<double> half_matrix;
  std::vector<double> full_matrix;

  BothWays(const std::vector<double>& matrix, int64_t length)
      : half_matrix(matrix), full_matrix(matrix) {
    EXPECT_THAT(half.Load(half_matrix, length, Symmetry::kToeplitz, kNever), IsOk());
    EXPECT_THAT(full.Load(full_matrix, length, Symmetry::kNone, kNever), IsOk());
  }
};

void ExpectMirrored(const Spectrum& spectrum, int64_t length) {
  for (int64_t i = 1; i < length; ++i) {
    EXPECT_EQ(spectrum.spectral_norms[i], spectrum.spectral_norms[length - i]);
    EXPECT_EQ(spectrum.entropies[i], spectrum.entropies[length - i]);
    EXPECT_EQ(spectrum.entropy_errors[i], spectrum.entropy_errors[length - i]);
    for (const auto* all : {&spectrum.tolerance_counts, &spectrum.fraction_counts}) {
      for (const PositionCounts& counts : *all) {
        EXPECT_EQ(counts.counts[i], counts.counts[length - i]) << "position " << i;
      }
    }
  }
}

TEST(ToeplitzSpectraTest, HalfThePositionsGiveTheAnswersOfAll) {
  for (const Filter& filter : Filters()) {
    for (const int64_t length : kLengths) {
      SCOPED_TRACE(::testing::Message() << filter.name << " of length " << length);
      const DenseReference reference = ReferenceOf(Matrix(filter, length), length);
      BothWays both(reference.matrix, length);
      const SpectrumRequest request = RequestFor(reference.norm);

      const auto half_norm = both.half.MaxSpectralNorm(kExactNorm, kNever);
      const auto half = both.half.Compute(request, kNever);
      const auto full = both.full.Compute(request, kNever);

      ASSERT_THAT(half_norm, IsOk());
      ASSERT_THAT(half, IsOk());
      ASSERT_THAT(full, IsOk());
      EXPECT_NEAR(*half_norm, reference.norm, 1e-10 * reference.norm);
      ExpectEqualSpectrum(reference, request, *half);
      ExpectMirrored(*half, length);
      for (size_t t = 0; t < request.tolerances.size(); ++t) {
        ExpectSameCounts(half->tolerance_counts[t], full->tolerance_counts[t], "tolerance");
      }
    }
  }
}

TEST(ToeplitzSpectraTest, HalfThePositionsGiveTheAnswersOfAllAtLongerLengths) {
  for (const Filter& filter : Filters()) {
    for (const int64_t length : {255, 256, 260, 512}) {
      SCOPED_TRACE(::testing::Message() << filter.name << " of length " << length);
      const DenseReference reference =
          ReferenceOf(Matrix(filter, length), length, length < 300 ? 37 : 127);
      BothWays both(reference.matrix, length);
      const SpectrumRequest request = RequestFor(reference.norm);

      const auto half = both.half.Compute(request, kNever);

      ASSERT_THAT(half, IsOk());
      ExpectEqualSpectrum(reference, request, *half);
      ExpectMirrored(*half, length);
    }
  }
}

TEST(ToeplitzSpectraTest, NormsAndSingularValuesAreThoseOfAll) {
  for (const Filter& filter : Filters()) {
    for (const int64_t length : {1, 2, 9, 40, 41}) {
      SCOPED_TRACE(::testing::Message() << filter.name << " of length " << length);
      BothWays both(Matrix(filter, length), length);

      const std::vector<double> half = both.half.FrobeniusNorms();
      const std::vector<double> full = both.full.FrobeniusNorms();

      for (int64_t i = 0; i < length; ++i) {
        EXPECT_NEAR(half[i], full[i], 1e-14 * full[i]) << "position " << i;
        const auto half_sigma = both.half.SingularValues(i);
        const auto full_sigma = both.full.SingularValues(i);
        ASSERT_THAT(half_sigma, IsOk());
        ASSERT_THAT(full_sigma, IsOk());
        ASSERT_EQ(half_sigma->size(), full_sigma->size());
        for (size_t k = 0; k < full_sigma->size(); ++k) {
          EXPECT_NEAR((*half_sigma)[k], (*full_sigma)[k], 1e-14 * full_sigma->front());
        }
      }
    }
  }
}

TEST(ToeplitzSpectraTest, AMatrixWithoutSymmetryAfterOneIsAskedEverywhere) {
  constexpr int64_t kLength = 48;
  std::vector<double> toeplitz = Matrix(Filters()[1], kLength);
  std::vector<double> other(kLength * kLength, 0.0);
  other[40 * kLength + 39] = 1;  // Only positions after the middle have it.
  DenseSpectra dense;
  ASSERT_THAT(dense.Load(toeplitz, kLength, Symmetry::kToeplitz, kNever), IsOk());
  ASSERT_THAT(dense.Compute(RequestFor(1), kNever), IsOk());
  ASSERT_THAT(dense.SingularValues(8), IsOk());

  ASSERT_THAT(dense.Load(other, kLength, Symmetry::kNone, kNever), IsOk());
  const auto spectrum = dense.Compute(RequestFor(1), kNever);

  ASSERT_THAT(spectrum, IsOk());
  EXPECT_EQ(*dense.MaxSpectralNorm(kExactNorm, kNever), 1);
  for (int64_t i = 1; i < kLength; ++i) {
    EXPECT_EQ(spectrum->tolerance_counts[1].counts[i], i == 40) << i;
    EXPECT_EQ(spectrum->spectral_norms[i], i == 40) << i;
  }
  EXPECT_EQ((*dense.SingularValues(8))[0], 0);
}

}  // namespace
}  // namespace ess::linalg
