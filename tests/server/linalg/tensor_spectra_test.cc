// The tensor route against the SVD of every block, many operators in one batch.
#include "server/linalg/tensor_spectra.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <thread>

#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "server/linalg/reference_linalg.h"
#include "tests/support/status_matchers.h"
#include "tests/support/test_operators.h"

namespace ess::linalg {
namespace {

using ::ess::testing::DegenerateOperators;
using ::ess::testing::IsOk;
using ::ess::testing::MakeTestOperator;
using ::ess::testing::RealisticOperators;
using ::ess::testing::StatusIs;
using ::ess::testing::TestOperator;
using ::testing::HasSubstr;

const CancellationToken kNever;
constexpr int64_t kLargeBudget = int64_t{1} << 30;

// Operators of one length with the singular values of some of their blocks.
struct Batch {
  at::Tensor maps;  // [H, L, L]
  std::vector<std::string> names;
  std::vector<int64_t> positions;
  std::vector<std::vector<std::vector<double>>> sigma;  // [H][positions]
  std::vector<double> norms;                            // [H]: the largest of them.

  int64_t heads() const { return maps.size(0); }
  int64_t length() const { return maps.size(1); }
};

std::vector<double> SigmaOf(const at::Tensor& map, int64_t position) {
  const at::Tensor matrix = map.to(at::kDouble).contiguous();
  const std::span<const double> entries(matrix.const_data_ptr<double>(), matrix.numel());
  return *BlockSingularValues(entries, map.size(0), position);
}

Batch BatchOf(const std::vector<TestOperator>& ops, int64_t length, int64_t stride = 1) {
  Batch batch;
  std::vector<at::Tensor> maps;
  for (const TestOperator& op : ops) {
    maps.push_back(at::tensor(op.make(length), at::kDouble).view({length, length}));
    batch.names.push_back(op.name);
  }
  batch.maps = at::stack(maps);
  for (int64_t i = 1; i < length; i += stride) batch.positions.push_back(i);
  for (const at::Tensor& map : maps) {
    auto& of_head = batch.sigma.emplace_back();
    double norm = 0;
    for (const int64_t i : batch.positions) {
      norm = std::max(norm, of_head.emplace_back(SigmaOf(map, i)).front());
    }
    batch.norms.push_back(norm);
  }
  return batch;
}

std::vector<TestOperator> AllTestOperators() {
  std::vector<TestOperator> all = RealisticOperators();
  for (TestOperator& op : DegenerateOperators()) all.push_back(std::move(op));
  return all;
}

TensorSpectra SpectraOf(const at::Tensor& maps, int64_t budget = kLargeBudget) {
  absl::StatusOr<TensorSpectra> spectra = TensorSpectra::Create(maps, budget, kNever);
  EXPECT_THAT(spectra, IsOk());
  return *std::move(spectra);
}

int64_t CountOf(const std::vector<double>& sigma, double threshold) {
  return std::count_if(sigma.begin(), sigma.end(), [&](double s) { return s > threshold; });
}

// Counts must be the reference's; a singular value within the promised guard of the tolerance,
// other than a tie, may go either way. Returns how many were doubtful.
int64_t ExpectEqualCounts(const Batch& batch, int64_t head, double tau,
                          const PositionCounts& counts) {
  EXPECT_EQ(static_cast<int64_t>(counts.counts.size()), batch.length());
  EXPECT_EQ(counts.counts.front(), 0);
  const double ratio = batch.norms[head] / tau;
  const double guard = std::max(1e-9, 1e-16 * ratio * ratio);
  int64_t doubtful = 0;
  for (size_t p = 0; p < batch.positions.size(); ++p) {
    const int64_t i = batch.positions[p];
    const std::vector<double>& sigma = batch.sigma[head][p];
    if (!counts.doubtful.empty() && counts.doubtful[i]) {
      ++doubtful;
    } else if (CountOf(sigma, tau * (1 + 1e-11)) != counts.counts[i]) {
      EXPECT_GE(counts.counts[i], CountOf(sigma, tau * (1 + guard)))
          << batch.names[head] << " at tolerance " << tau << " position " << i;
      EXPECT_LE(counts.counts[i], CountOf(sigma, tau * (1 - guard)))
          << batch.names[head] << " at tolerance " << tau << " position " << i;
    }
  }
  return doubtful;
}

int64_t ExpectEqualCounts(const Batch& batch, const TensorSpectraRequest& request,
                          const std::vector<Spectrum>& spectra) {
  int64_t doubtful = 0;
  for (size_t t = 0; t < request.tolerances.size(); ++t) {
    for (int64_t head = 0; head < batch.heads(); ++head) {
      doubtful += ExpectEqualCounts(batch, head, request.tolerances[t][head],
                                    spectra[head].tolerance_counts[t]);
    }
  }
  return doubtful;
}

// Shares of each head's norm; 1 for zero operators.
TensorSpectraRequest RelativeTolerances(const Batch& batch, const std::vector<double>& shares) {
  TensorSpectraRequest request;
  for (const double share : shares) {
    auto& of_heads = request.tolerances.emplace_back();
    for (const double norm : batch.norms) of_heads.push_back(norm > 0 ? share * norm : 1);
  }
  return request;
}

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

    const auto largest = spectra.MaxSpectralNorms(kNever);
    const auto frobenius = spectra.FrobeniusNorms(kNever);
    const auto everywhere = spectra.Compute({.spectral_norms = true}, kNever);

    ASSERT_THAT(largest, IsOk());
    ASSERT_THAT(frobenius, IsOk());
    ASSERT_THAT(everywhere, IsOk());
    for (int64_t head = 0; head < batch.heads(); ++head) {
      SCOPED_TRACE(batch.names[head]);
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

  const auto norms = SpectraOf(maps).MaxSpectralNorms(kNever);

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

TEST(TensorSpectraTest, ScaleChangesNothing) {
  constexpr int64_t kLength = 60;
  const Batch batch = BatchOf(RealisticOperators(), kLength, 1000);
  TensorSpectraRequest request = RelativeTolerances(batch, {1e-2, 1e-4});
  request.entropies = true;
  const auto expected = SpectraOf(batch.maps).Compute(request, kNever);
  ASSERT_THAT(expected, IsOk());
  for (const int exponent : {-500, 500}) {
    const double scale = std::ldexp(1, exponent);
    TensorSpectraRequest scaled = request;
    for (auto& of_heads : scaled.tolerances) {
      for (double& tau : of_heads) tau *= scale;
    }

    TensorSpectra spectra = SpectraOf(batch.maps * scale);
    const auto result = spectra.Compute(scaled, kNever);

    ASSERT_THAT(result, IsOk());
    const auto norms = spectra.MaxSpectralNorms(kNever);
    const auto unscaled = SpectraOf(batch.maps).MaxSpectralNorms(kNever);
    for (int64_t head = 0; head < batch.heads(); ++head) {
      for (size_t t = 0; t < 2; ++t) {
        EXPECT_EQ((*result)[head].tolerance_counts[t].counts,
                  (*expected)[head].tolerance_counts[t].counts);
      }
      EXPECT_EQ((*result)[head].entropies, (*expected)[head].entropies);
      EXPECT_EQ((*norms)[head], (*unscaled)[head] * scale);
    }
  }
}

TEST(TensorSpectraTest, ToleranceBelowTheAccuracyIsDoubtful) {
  constexpr int64_t kLength = 40;
  const Batch batch = BatchOf({RealisticOperators().front()}, kLength);
  TensorSpectra spectra = SpectraOf(batch.maps);
  ASSERT_THAT(spectra.MaxSpectralNorms(kNever), IsOk());

  const auto result = spectra.Compute(RelativeTolerances(batch, {1e-8, 1e-2}), kNever);

  ASSERT_THAT(result, IsOk());
  const PositionCounts& below = (*result)[0].tolerance_counts[0];
  EXPECT_EQ(std::count(below.doubtful.begin(), below.doubtful.end(), 1), kLength - 1);
  EXPECT_TRUE((*result)[0].tolerance_counts[1].doubtful.empty());
}

TEST(TensorSpectraTest, SingularValuesOfOneBlock) {
  const at::Tensor maps = BatchOf(RealisticOperators(), 50, 1000).maps;
  const TensorSpectra spectra = SpectraOf(maps);

  const auto sigma = spectra.SingularValues(2, 20);

  ASSERT_THAT(sigma, IsOk());
  const std::vector<double> expected = SigmaOf(maps[2], 20);
  ASSERT_EQ(sigma->size(), expected.size());
  for (size_t k = 0; k < expected.size(); ++k) EXPECT_NEAR((*sigma)[k], expected[k], 1e-13);
}

TEST(TensorSpectraTest, WhatIsAboveTheDiagonalIsNotRead) {
  constexpr int64_t kLength = 40;
  const at::Tensor maps = BatchOf(RealisticOperators(), kLength, 1000).maps;
  const at::Tensor dirty = maps.clone();
  dirty.masked_fill_(at::ones({kLength, kLength}, at::kBool).triu(1), NAN);
  const TensorSpectraRequest request{.tolerances = {std::vector<double>(maps.size(0), 1e-3)},
                                     .entropies = true};

  const auto result = SpectraOf(dirty).Compute(request, kNever);
  const auto expected = SpectraOf(maps).Compute(request, kNever);

  ASSERT_THAT(result, IsOk());
  for (int64_t head = 0; head < maps.size(0); ++head) {
    EXPECT_EQ((*result)[head].tolerance_counts[0].counts,
              (*expected)[head].tolerance_counts[0].counts);
    EXPECT_EQ((*result)[head].entropies, (*expected)[head].entropies);
  }
}

TEST(TensorSpectraTest, AnEntryThatIsNotFiniteIsNamed) {
  const at::Tensor maps = at::zeros({5, 9, 9}, at::kFloat);
  maps[3][7][2] = std::numeric_limits<float>::infinity();

  EXPECT_THAT(TensorSpectra::Create(maps, kLargeBudget, kNever),
              StatusIs(absl::StatusCode::kInternal, HasSubstr("head 3: entry [7, 2] is inf")));
}

TEST(TensorSpectraTest, ABudgetTooSmallForOneHeadIsNamed) {
  EXPECT_THAT(TensorSpectra::Create(at::zeros({1, 100, 100}), 1000, kNever),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr(std::to_string(TensorSpectra::BytesNeeded(100)) +
                                 " bytes; the budget is 1000")));
}

TEST(TensorSpectraTest, ACancelledCallStopsWithin200Milliseconds) {
  const at::Tensor maps = at::tensor(MakeTestOperator("attention_g1", 1024), at::kDouble)
                              .view({1, 1024, 1024})
                              .expand({8, 1024, 1024});
  TensorSpectra spectra = SpectraOf(maps, 128 << 20);
  for (const bool entropies : {false, true}) {
    CancellationToken token;
    absl::Time cancelled;
    std::thread canceller([&] {
      absl::SleepFor(absl::Milliseconds(100));
      cancelled = absl::Now();
      token.Cancel();
    });

    const auto result = spectra.Compute(
        {.fractions = {}, .spectral_norms = !entropies, .entropies = entropies}, token);

    canceller.join();
    EXPECT_THAT(result, StatusIs(absl::StatusCode::kCancelled, ::testing::_));
    EXPECT_LT(absl::Now() - cancelled, absl::Milliseconds(200));
  }
}

}  // namespace
}  // namespace ess::linalg
