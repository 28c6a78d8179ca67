// The tensor route against the SVD of every block, many operators in one batch.
#include "server/linalg/tensor_spectra.h"

#include <random>

#include "gtest/gtest.h"
#include "tests/support/tensor_cases.h"

namespace ess::linalg {
namespace {

TEST(TensorSpectraTest, CountsEqualTheReferenceAtAwkwardLengths) {
  for (const int64_t length : {1, 2, 3, 7, 8, 9, 31, 32, 33, 63, 64, 65, 100}) {
    SCOPED_TRACE(length);
    const Batch batch = BatchOf(AllTestOperators(), length);
    const TensorSpectraRequest request =
        RelativeTolerances(batch, {1, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6});

    const auto spectra = SpectraOf(batch.maps).Compute(request, kNever);

    ASSERT_THAT(spectra, IsOk());
    EXPECT_LE(ExpectEqualCounts(batch, request, *spectra), length / 20);
  }
}

TEST(TensorSpectraTest, CountsEqualTheReferenceAtLongerLengths) {
  for (const auto& [length, stride] : {std::pair{255, 7}, {300, 37}, {512, 73}}) {
    SCOPED_TRACE(length);
    const Batch batch = BatchOf(AllTestOperators(), length, stride);
    const TensorSpectraRequest request =
        RelativeTolerances(batch, {1, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6});

    const auto spectra = SpectraOf(batch.maps).Compute(request, kNever);

    ASSERT_THAT(spectra, IsOk());
    EXPECT_LE(ExpectEqualCounts(batch, request, *spectra), 20);
  }
}

TEST(TensorSpectraTest, CountsEqualTheReferenceAtRandomTolerances) {
  const Batch batch = BatchOf(RealisticOperators(), 90);
  std::mt19937_64 generator(1);
  std::uniform_real_distribution<double> exponent(-6, 0);
  std::vector<double> shares(60);
  for (double& share : shares) share = std::pow(10, exponent(generator));
  const TensorSpectraRequest request = RelativeTolerances(batch, shares);

  const auto spectra = SpectraOf(batch.maps).Compute(request, kNever);

  ASSERT_THAT(spectra, IsOk());
  EXPECT_EQ(ExpectEqualCounts(batch, request, *spectra), 0);
}

TEST(TensorSpectraTest, CountsOfRandomSmallOperatorsEqualTheReference) {
  std::mt19937_64 generator(2);
  std::normal_distribution<double> normal;
  for (const int64_t length : {2, 3, 4, 5, 6, 11, 17, 35}) {
    std::vector<TestOperator> ops(length > 20 ? 20 : 150);
    for (TestOperator& op : ops) {
      op.name = "random";
      const double spread = std::abs(normal(generator)) * 4;
      op.make = [&generator, &normal, spread](int64_t L) {
        std::vector<double> matrix(L * L);
        for (double& x : matrix) x = normal(generator) * std::exp(spread * normal(generator));
        return matrix;
      };
    }
    const Batch batch = BatchOf(ops, length);
    const TensorSpectraRequest request =
        RelativeTolerances(batch, {1, 0.5, 0.2, 3e-2, 4e-3, 5e-4, 1e-5});

    const auto spectra = SpectraOf(batch.maps).Compute(request, kNever);

    ASSERT_THAT(spectra, IsOk());
    EXPECT_LE(ExpectEqualCounts(batch, request, *spectra), 5) << length;
  }
}

TEST(TensorSpectraTest, SurvivesToleranceEqualToASingularValueOfASharedBlock) {
  constexpr int64_t kLength = 128;
  const Batch batch = BatchOf(RealisticOperators(), kLength, 5);
  TensorSpectraRequest request;
  for (const auto& [first, last] : {std::pair{32, 64}, {64, 96}, {64, 80}, {40, 48}}) {
    for (const int64_t index : {0, 1, 3, 7}) {
      auto& of_heads = request.tolerances.emplace_back();
      for (int64_t head = 0; head < batch.heads(); ++head) {
        const at::Tensor shared = batch.maps[head].slice(0, last).slice(1, 0, first);
        const double sigma = at::linalg_svdvals(shared)[index].item<double>();
        of_heads.push_back(std::max(sigma, 1e-6 * batch.norms[head]));
      }
    }
  }

  const auto spectra = SpectraOf(batch.maps).Compute(request, kNever);

  ASSERT_THAT(spectra, IsOk());
  EXPECT_LE(ExpectEqualCounts(batch, request, *spectra), 60);
}

TEST(TensorSpectraTest, TiesAreNotCounted) {
  constexpr int64_t kLength = 70;
  const Batch batch = BatchOf(DegenerateOperators(), kLength);
  const TensorSpectraRequest request{.tolerances = {std::vector<double>(batch.heads(), 1.0)},
                                     .fractions = {}};

  const auto spectra = SpectraOf(batch.maps).Compute(request, kNever);

  ASSERT_THAT(spectra, IsOk());
  for (const std::string name : {"shift", "zero"}) {
    const int64_t head =
        std::find(batch.names.begin(), batch.names.end(), name) - batch.names.begin();
    EXPECT_EQ((*spectra)[head].tolerance_counts[0].counts, std::vector<int32_t>(kLength, 0));
  }
}

TEST(TensorSpectraTest, TheBudgetChangesNoCount) {
  constexpr int64_t kLength = 150;
  const Batch batch = BatchOf(AllTestOperators(), kLength, 1000);
  TensorSpectraRequest request = RelativeTolerances(batch, {1e-1, 1e-3, 1e-5});
  request.entropies = true;
  request.spectral_norms = true;
  const int64_t smallest = TensorSpectra::BytesNeeded(kLength);

  const auto expected = SpectraOf(batch.maps).Compute(request, kNever);
  ASSERT_THAT(expected, IsOk());

  for (const int64_t budget : {smallest, 3 * smallest, 40 * smallest}) {
    const auto spectra = SpectraOf(batch.maps, budget).Compute(request, kNever);
    ASSERT_THAT(spectra, IsOk());
    for (int64_t head = 0; head < batch.heads(); ++head) {
      const Spectrum& one = (*spectra)[head];
      const Spectrum& other = (*expected)[head];
      for (size_t t = 0; t < 3; ++t) {
        EXPECT_EQ(one.tolerance_counts[t].counts, other.tolerance_counts[t].counts);
        EXPECT_EQ(one.tolerance_counts[t].doubtful, other.tolerance_counts[t].doubtful);
      }
      for (int64_t i = 0; i < kLength; ++i) {
        if (std::isnan(other.entropies[i])) continue;
        EXPECT_NEAR(one.entropies[i], other.entropies[i], 1e-7 * other.entropies[i]);
        EXPECT_NEAR(one.spectral_norms[i], other.spectral_norms[i],
                    1e-11 * other.spectral_norms[i]);
      }
    }
  }
}

TEST(TensorSpectraTest, EntropiesAreNearTheReference) {
  for (const auto& [length, stride] : {std::pair{1, 1}, {2, 1}, {9, 1}, {40, 1}, {200, 3}}) {
    SCOPED_TRACE(length);
    const Batch batch = BatchOf(AllTestOperators(), length, stride);
    const TensorSpectraRequest request{.entropies = true};

    const auto spectra = SpectraOf(batch.maps).Compute(request, kNever);

    ASSERT_THAT(spectra, IsOk());
    int64_t left = 0;
    for (int64_t head = 0; head < batch.heads(); ++head) {
      for (size_t p = 0; p < batch.positions.size(); ++p) {
        const std::vector<double>& sigma = batch.sigma[head][p];
        const double entropy = (*spectra)[head].entropies[batch.positions[p]];
        double sum = 0;
        for (const double s : sigma) sum += s;
        double expected = 0;
        for (const double s : sigma) expected -= s > 0 ? s / sum * std::log(s / sum) : 0;
        expected = sum > 0 ? std::exp(expected) : 0;
        left += std::isnan(entropy);
        if (!std::isnan(entropy)) {
          EXPECT_NEAR(entropy, expected, 1e-4 * expected)
              << batch.names[head] << " position " << batch.positions[p];
        }
      }
    }
    EXPECT_LE(left, batch.heads() * batch.length() / 50);
  }
}

TEST(TensorSpectraTest, NormsEqualTheReference) {
  for (const auto& [length, stride] : {std::pair{1, 1}, {2, 1}, {17, 1}, {64, 1}, {150, 1}}) {
    SCOPED_TRACE(length);
    const Batch batch = BatchOf(AllTestOperators(), length, stride);
    TensorSpectra spectra = SpectraOf(batch.maps);

    const auto magnitudes = spectra.MaxSpectralNorms(kNormMagnitude, kNever);
    const auto largest = spectra.MaxSpectralNorms(kExactNorm, kNever);
    const auto frobenius = spectra.FrobeniusNorms(kNever);
    const auto everywhere = spectra.Compute({.spectral_norms = true}, kNever);

    ASSERT_THAT(magnitudes, IsOk());
    ASSERT_THAT(largest, IsOk());
    ASSERT_THAT(frobenius, IsOk());
    ASSERT_THAT(everywhere, IsOk());
    for (int64_t head = 0; head < batch.heads(); ++head) {
      SCOPED_TRACE(batch.names[head]);
      EXPECT_NEAR((*magnitudes)[head], batch.norms[head], 1e-3 * batch.norms[head]);
      EXPECT_NEAR((*largest)[head], batch.norms[head], 1e-10 * batch.norms[head]);
      for (size_t p = 0; p < batch.positions.size(); ++p) {
        const int64_t i = batch.positions[p];
        const std::vector<double>& sigma = batch.sigma[head][p];
        EXPECT_NEAR((*everywhere)[head].spectral_norms[i], sigma[0], 1e-11 * sigma[0]) << i;
        double squares = 0;
        for (const double s : sigma) squares += s * s;
        EXPECT_NEAR((*frobenius)[head][i], std::sqrt(squares), 1e-13 * std::sqrt(squares)) << i;
      }
    }
  }
}

TEST(TensorSpectraTest, TheLargestNormIsFoundAwayFromTheLargestFrobeniusNorm) {
  // A diagonal band late in the prompt has the larger Frobenius norm, a single strong entry early
  // in it the larger sigma_1.
  constexpr int64_t kLength = 80;
  const at::Tensor maps = at::zeros({2, kLength, kLength}, at::kDouble);
  maps[1][4][2] = 0.9;
  for (int64_t row = 56; row < kLength; ++row) maps[1][row][row - 16] = 0.5;

  const auto norms = SpectraOf(maps).MaxSpectralNorms(kExactNorm, kNever);

  ASSERT_THAT(norms, IsOk());
  EXPECT_EQ((*norms)[0], 0);
  EXPECT_NEAR((*norms)[1], 0.9, 1e-10);
}

TEST(TensorSpectraTest, CountsAboveFractionsEqualTheReference) {
  for (const auto& [length, stride] :
       {std::pair{1, 1}, {2, 1}, {3, 1}, {20, 1}, {67, 1}, {130, 3}}) {
    SCOPED_TRACE(length);
    const Batch batch = BatchOf(AllTestOperators(), length, stride);
    const TensorSpectraRequest request{.fractions = {0.3, 1e-2, 1e-4}};
    for (const int64_t budget : {kLargeBudget, 2 * TensorSpectra::BytesNeeded(length)}) {
      const auto spectra = SpectraOf(batch.maps, budget).Compute(request, kNever);

      ASSERT_THAT(spectra, IsOk());
      int64_t doubtful = 0;
      for (int64_t head = 0; head < batch.heads(); ++head) {
        for (size_t p = 0; p < batch.positions.size(); ++p) {
          const int64_t i = batch.positions[p];
          const std::vector<double>& sigma = batch.sigma[head][p];
          for (size_t f = 0; f < request.fractions.size(); ++f) {
            const double tau = request.fractions[f] * sigma[0];
            const double guard = std::max(1e-9, 1e-16 / std::pow(request.fractions[f], 2));
            const PositionCounts& counts = (*spectra)[head].fraction_counts[f];
            if (counts.doubtful[i]) {
              ++doubtful;
            } else {
              EXPECT_GE(counts.counts[i], CountOf(sigma, tau * (1 + guard)))
                  << batch.names[head] << " fraction " << request.fractions[f] << " at " << i;
              EXPECT_LE(counts.counts[i], CountOf(sigma, tau * (1 - guard)))
                  << batch.names[head] << " fraction " << request.fractions[f] << " at " << i;
            }
          }
        }
      }
      EXPECT_LE(doubtful, batch.heads() * batch.length() / 50);
    }
  }
}

TEST(TensorSpectraTest, NarrowTypesAreTakenAsTheyAre) {
  constexpr int64_t kLength = 70;
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kHalf}) {
    const at::Tensor maps = BatchOf(RealisticOperators(), kLength, 1000).maps.to(type);
    const TensorSpectraRequest request{.tolerances = {std::vector<double>(maps.size(0), 1e-3)},
                                       .entropies = true};

    const auto narrow = SpectraOf(maps).Compute(request, kNever);
    const auto wide = SpectraOf(maps.to(at::kDouble)).Compute(request, kNever);

    ASSERT_THAT(narrow, IsOk());
    ASSERT_THAT(wide, IsOk());
    for (int64_t head = 0; head < maps.size(0); ++head) {
      EXPECT_EQ((*narrow)[head].tolerance_counts[0].counts,
                (*wide)[head].tolerance_counts[0].counts);
      EXPECT_EQ((*narrow)[head].entropies, (*wide)[head].entropies);
    }
  }
}

}  // namespace
}  // namespace ess::linalg
