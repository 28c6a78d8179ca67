// The dense routes against the SVD of every block: awkward lengths, degenerate operators, fast
// decay, extreme scales, and every instruction set of this machine.
#include "server/linalg/dense_spectra.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "hwy/targets.h"
#include "tests/server/linalg/dense_reference.h"
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

const CancellationToken kNever;

std::vector<TestOperator> AllTestOperators() {
  std::vector<TestOperator> all = RealisticOperators();
  for (TestOperator& op : DegenerateOperators()) all.push_back(std::move(op));
  return all;
}

// Everything there is; tolerances are shares of the largest sigma_1.
SpectrumRequest Everything(double norm) {
  SpectrumRequest request{.tolerances = {},
                          .fractions = {0.9, 0.3, 0.03, 1e-3, 1e-4, 1e-6},
                          .spectral_norms = true,
                          .entropies = true};
  for (const double share : {0.7, 0.1, 1e-3, 1e-6}) {
    request.tolerances.push_back(share * (norm > 0 ? norm : 1));
  }
  return request;
}

// Returns how many counts are doubtful.
int64_t ExpectEqualSpectra(const DenseReference& reference, DenseSpectra& dense) {
  std::vector<double> matrix = reference.matrix;  // Scaled in place.
  EXPECT_THAT(dense.Load(matrix, reference.length, Symmetry::kNone, kNever), IsOk());
  const SpectrumRequest request = Everything(reference.norm);
  const auto spectrum = dense.Compute(request, kNever);
  EXPECT_THAT(spectrum, IsOk());
  return spectrum.ok() ? ExpectEqualSpectrum(reference, request, *spectrum) : 0;
}

int64_t ExpectEqualSpectra(const DenseReference& reference) {
  DenseSpectra dense;
  return ExpectEqualSpectra(reference, dense);
}

TEST(DenseSpectraTest, EqualsTheReferenceAtAwkwardLengths) {
  for (const TestOperator& op : AllTestOperators()) {
    for (const int64_t length : {1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 100}) {
      SCOPED_TRACE(::testing::Message() << op.name << " of length " << length);
      ExpectEqualSpectra(ReferenceOf(op.make(length), length));
    }
  }
}

TEST(DenseSpectraTest, LeavesNoCountOfARealisticOperatorInDoubt) {
  DenseSpectra dense;
  for (const TestOperator& op : RealisticOperators()) {
    for (const int64_t length : {100, 255}) {
      SCOPED_TRACE(::testing::Message() << op.name << " of length " << length);
      EXPECT_EQ(ExpectEqualSpectra(ReferenceOf(op.make(length), length, length / 50), dense), 0);
    }
  }
}

TEST(DenseSpectraTest, ScalesFarFromOneChangeNothingButTheUnit) {
  constexpr int64_t kLength = 72;
  for (const std::string name : {"attention_topic", "gla_64", "zero_row_and_column", "hard"}) {
    for (const double scale : {1e-150, 1e150}) {
      SCOPED_TRACE(::testing::Message() << name << " times " << scale);
      std::vector<double> matrix = MakeTestOperator(name, kLength);
      for (double& entry : matrix) entry *= scale;
      ExpectEqualSpectra(ReferenceOf(std::move(matrix), kLength));
    }
  }
}

TEST(DenseSpectraTest, ExactTiesAreNotCounted) {
  constexpr int64_t kLength = 64;
  std::vector<double> matrix(kLength * kLength, 0.0);
  for (int64_t i = 8; i < kLength; ++i) matrix[i * kLength + i - 8] = i % 2 == 0 ? 1 : 0.25;
  DenseSpectra dense;
  ASSERT_THAT(dense.Load(matrix, kLength, Symmetry::kNone, kNever), IsOk());

  const auto spectrum =
      dense.Compute({.tolerances = {1, 0.25}, .fractions = {0.25}, .spectral_norms = true}, kNever);

  ASSERT_THAT(spectrum, IsOk());
  for (int64_t i = 1; i < kLength; ++i) {
    int64_t ones = 0;
    for (int64_t row = i; row < std::min(kLength, i + 8); ++row) ones += row >= 8 && row % 2 == 0;
    EXPECT_EQ(spectrum->tolerance_counts[0].counts[i], 0) << i;
    EXPECT_EQ(spectrum->tolerance_counts[1].counts[i], ones) << i;
    const PositionCounts& fraction = spectrum->fraction_counts[0];
    const bool doubtful = !fraction.doubtful.empty() && fraction.doubtful[i] != 0;
    if (ones > 0 && !doubtful) {
      EXPECT_EQ(fraction.counts[i], ones) << i;
    }
  }
}

TEST(DenseSpectraTest, TheSameInputGivesTheSameBitsAfterOtherWork) {
  for (const int64_t length : {15, 96, 101}) {
    std::vector<double> matrix = MakeTestOperator("attention_sink", length);
    std::vector<double> other = MakeTestOperator("gla_64", 200);
    std::vector<double> copy = matrix;
    const SpectrumRequest request = Everything(1);
    DenseSpectra fresh;
    ASSERT_THAT(fresh.Load(matrix, length, Symmetry::kNone, kNever), IsOk());
    const std::vector<double> scaled = matrix;
    const auto expected = fresh.Compute(request, kNever);
    DenseSpectra used;
    ASSERT_THAT(used.Load(other, 200, Symmetry::kNone, kNever), IsOk());
    ASSERT_THAT(used.Compute(request, kNever), IsOk());
    ASSERT_THAT(used.Load(copy, length, Symmetry::kNone, kNever), IsOk());

    const auto again = used.Compute(request, kNever);
    const auto once_more = used.Compute(request, kNever);

    ASSERT_THAT(expected, IsOk());
    EXPECT_EQ(matrix, scaled);  // Turned, and turned back.
    for (const auto* spectrum : {&again, &once_more}) {
      ASSERT_THAT(*spectrum, IsOk());
      EXPECT_EQ((*spectrum)->spectral_norms, expected->spectral_norms);
      EXPECT_EQ((*spectrum)->entropies, expected->entropies);
      EXPECT_EQ((*spectrum)->entropy_errors, expected->entropy_errors);
      for (size_t t = 0; t < request.tolerances.size(); ++t) {
        EXPECT_EQ((*spectrum)->tolerance_counts[t].counts, expected->tolerance_counts[t].counts);
      }
      for (size_t f = 0; f < request.fractions.size(); ++f) {
        EXPECT_EQ((*spectrum)->fraction_counts[f].counts, expected->fraction_counts[f].counts);
      }
    }
  }
}

TEST(DenseSpectraTest, RandomSmallMatrices) {
  std::mt19937_64 generator(3);
  std::normal_distribution<double> normal;
  DenseSpectra dense;
  for (int draw = 0; draw < 400; ++draw) {
    const int64_t length = 1 + static_cast<int64_t>(generator() % 40);
    const double decay = std::uniform_real_distribution<double>(0, 0.5)(generator);
    std::vector<double> matrix(length * length, 0.0);
    for (int64_t i = 0; i < length; ++i) {
      const bool empty = generator() % 10 == 0;
      for (int64_t j = 0; j < i && !empty; ++j) {
        matrix[i * length + j] = normal(generator) * std::exp(-decay * static_cast<double>(i - j));
      }
    }
    SCOPED_TRACE(::testing::Message() << "draw " << draw << " of length " << length);
    ExpectEqualSpectra(ReferenceOf(std::move(matrix), length), dense);
  }
}

TEST(DenseSpectraTest, ACancelledComputationStopsAndLeavesTheMatrix) {
  std::vector<double> matrix = MakeTestOperator("attention_g1", 256);
  DenseSpectra dense;
  ASSERT_THAT(dense.Load(matrix, 256, Symmetry::kNone, kNever), IsOk());
  const std::vector<double> scaled = matrix;
  CancellationToken token;
  token.Cancel();

  EXPECT_THAT(dense.Compute({.entropies = true}, token),
              StatusIs(absl::StatusCode::kCancelled, ::testing::_));
  EXPECT_EQ(matrix, scaled);
}

// Long enough for several windows of each half, on each instruction set.
class LongDenseSpectraTest : public ::testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override { hwy::SetSupportedTargetsForTest(GetParam()); }
  void TearDown() override { hwy::SetSupportedTargetsForTest(0); }

  static const std::vector<DenseReference>& References() {
    static const auto* const references = [] {
      auto* all = new std::vector<DenseReference>;
      for (const auto& [name, length, stride] :
           {std::tuple<std::string, int64_t, int64_t>{"attention_sink", 255, 12},
            {"attention_topic", 512, 57},
            {"s6", 512, 57},
            {"gla_64", 512, 57},
            {"attention_g8", 1000, 245}}) {
        all->push_back(ReferenceOf(MakeTestOperator(name, length), length, stride));
      }
      return all;
    }();
    return *references;
  }
};

TEST_P(LongDenseSpectraTest, EqualsTheReference) {
  DenseSpectra dense;
  for (size_t k = 0; k < References().size(); ++k) {
    SCOPED_TRACE(::testing::Message() << "operator " << k);
    EXPECT_EQ(ExpectEqualSpectra(References()[k], dense), 0);
  }
}

INSTANTIATE_TEST_SUITE_P(AllTargets, LongDenseSpectraTest,
                         ::testing::ValuesIn(hwy::SupportedAndGeneratedTargets()),
                         [](const auto& info) { return hwy::TargetName(info.param); });

}  // namespace
}  // namespace ess::linalg
