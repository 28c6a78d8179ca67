// The inertia tree against the SVD of every block: awkward lengths, ties, degenerate operators,
// and every instruction set of this machine.
#include "server/linalg/inertia_tree.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <set>

#include "gtest/gtest.h"
#include "hwy/targets.h"
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

const CancellationToken kNever;

std::vector<TestOperator> AllTestOperators() {
  std::vector<TestOperator> all = RealisticOperators();
  for (TestOperator& op : DegenerateOperators()) all.push_back(std::move(op));
  return all;
}

// A matrix scaled as the tree wants it, with the singular values of its blocks.
struct Spectra {
  std::vector<double> matrix;
  int64_t length = 0;
  std::vector<int64_t> positions;
  std::vector<std::vector<double>> sigma;  // Of each of `positions`.
  double spectral_norm = 0;                // Largest of them.
};

Spectra SpectraOf(std::vector<double> matrix, int64_t length, int64_t stride = 1) {
  Spectra spectra;
  spectra.matrix = std::move(matrix);
  spectra.length = length;
  double largest = 0;
  for (const double entry : spectra.matrix) largest = std::max(largest, std::abs(entry));
  int exponent = 0;
  std::frexp(largest, &exponent);
  for (double& entry : spectra.matrix) entry = std::ldexp(entry, -exponent);
  for (int64_t i = 1; i < length; i += stride) {
    auto sigma = BlockSingularValues(spectra.matrix, length, i);
    EXPECT_THAT(sigma, IsOk());
    spectra.positions.push_back(i);
    spectra.spectral_norm = std::max(spectra.spectral_norm, sigma->front());
    spectra.sigma.push_back(*std::move(sigma));
  }
  return spectra;
}

int64_t CountOf(const std::vector<double>& sigma, double threshold) {
  return std::count_if(sigma.begin(), sigma.end(), [&](double s) { return s > threshold; });
}

// Counts must be the reference's; a singular value within `guard` of the tolerance, other than a
// tie, may go either way. The guard is the promise of docs/ess.md, or what the tree says itself.
void ExpectEqualCounts(const Spectra& spectra, double tau, InertiaTree& tree) {
  const double norm = spectra.spectral_norm > 0 ? spectra.spectral_norm : 1;
  const auto result = tree.CountAbove(tau, norm, kNever);
  ASSERT_THAT(result, IsOk());
  const std::vector<int32_t>& counts = result->counts;
  ASSERT_EQ(static_cast<int64_t>(counts.size()), spectra.length);
  EXPECT_EQ(counts.front(), 0);
  const double guard = std::max({1e-9, 1e-16 * (norm / tau) * (norm / tau), result->uncertainty});
  for (size_t p = 0; p < spectra.positions.size(); ++p) {
    const int64_t i = spectra.positions[p];
    const std::vector<double>& sigma = spectra.sigma[p];
    const int64_t expected = CountOf(sigma, tau * (1 + 1e-11));
    if (expected == counts[i]) continue;
    EXPECT_GE(counts[i], CountOf(sigma, tau * (1 + guard))) << "position " << i;
    EXPECT_LE(counts[i], CountOf(sigma, tau * (1 - guard))) << "position " << i;
  }
}

void ExpectEqualCountsAtManyTolerances(const Spectra& spectra) {
  InertiaTree tree;
  ASSERT_THAT(tree.Load(spectra.matrix, spectra.length, kNever), IsOk());
  const double norm = spectra.spectral_norm > 0 ? spectra.spectral_norm : 1;
  for (const double share : {1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6}) {
    SCOPED_TRACE(::testing::Message() << "tolerance " << share << " of sigma_1");
    ExpectEqualCounts(spectra, share * norm, tree);
  }
}

TEST(InertiaTreeTest, CountsEqualTheReferenceAtAwkwardLengths) {
  for (const TestOperator& op : AllTestOperators()) {
    for (const int64_t length : {1, 2, 3, 7, 8, 9, 31, 32, 33, 63, 64, 100}) {
      SCOPED_TRACE(::testing::Message() << op.name << " of length " << length);
      ExpectEqualCountsAtManyTolerances(SpectraOf(op.make(length), length));
    }
  }
}

TEST(InertiaTreeTest, CountsEqualTheReferenceAtLongerLengths) {
  for (const TestOperator& op : AllTestOperators()) {
    SCOPED_TRACE(op.name);
    ExpectEqualCountsAtManyTolerances(SpectraOf(op.make(255), 255, 3));
    ExpectEqualCountsAtManyTolerances(SpectraOf(op.make(512), 512, 73));
  }
}

TEST(InertiaTreeTest, CountsEqualTheReferenceAtLengthOneThousand) {
  for (const std::string name : {"attention_sink", "gla_64", "hyena"}) {
    SCOPED_TRACE(name);
    ExpectEqualCountsAtManyTolerances(SpectraOf(MakeTestOperator(name, 1000), 1000, 333));
  }
}

TEST(InertiaTreeTest, CountsEqualTheReferenceAtRandomTolerances) {
  std::mt19937_64 generator(1);
  std::uniform_real_distribution<double> exponent(-6, 0);
  for (const TestOperator& op : RealisticOperators()) {
    SCOPED_TRACE(op.name);
    const Spectra spectra = SpectraOf(op.make(150), 150);
    InertiaTree tree;
    ASSERT_THAT(tree.Load(spectra.matrix, spectra.length, kNever), IsOk());
    for (int draw = 0; draw < 200; ++draw) {
      ExpectEqualCounts(spectra, spectra.spectral_norm * std::pow(10, exponent(generator)), tree);
    }
  }
}

TEST(InertiaTreeTest, ExactTiesAreNotCounted) {
  constexpr int64_t kLength = 64;
  for (const std::string name : {"shift", "hard"}) {
    const Spectra spectra = SpectraOf(MakeTestOperator(name, kLength), kLength);
    InertiaTree tree;
    ASSERT_THAT(tree.Load(spectra.matrix, kLength, kNever), IsOk());

    const auto counts = tree.CountAbove(0.5, spectra.spectral_norm, kNever);  // 1 became 0.5.

    ASSERT_THAT(counts, IsOk());
    for (int64_t i = 1; i < kLength; ++i) {
      EXPECT_EQ(counts->counts[i], CountOf(spectra.sigma[i - 1], 0.5 + 1e-9)) << name << " " << i;
    }
  }
}

TEST(InertiaTreeTest, SurvivesToleranceEqualToASingularValueOfASharedBlock) {
  // Rows [last, L) and columns [0, first) are what the positions of a node [first, last) share;
  // such a tolerance makes a whole pivot block singular.
  constexpr int64_t kLength = 128;
  for (const TestOperator& op : RealisticOperators()) {
    SCOPED_TRACE(op.name);
    const Spectra spectra = SpectraOf(op.make(kLength), kLength, 5);
    InertiaTree tree;
    ASSERT_THAT(tree.Load(spectra.matrix, kLength, kNever), IsOk());
    for (const auto& [first, last] : {std::pair{32, 64}, {64, 96}, {64, 80}, {40, 48}}) {
      std::vector<double> shared(kLength * kLength, 0.0);
      for (int64_t row = last; row < kLength; ++row) {
        std::copy_n(&spectra.matrix[row * kLength], first, &shared[row * kLength]);
      }
      const auto sigma = BlockSingularValues(shared, kLength, last);
      ASSERT_THAT(sigma, IsOk());
      for (const size_t index : {0, 1, 3, 7}) {
        const double tau = (*sigma)[index];
        if (tau > 1e-6 * spectra.spectral_norm) ExpectEqualCounts(spectra, tau, tree);
      }
    }
  }
}

TEST(InertiaTreeTest, NeighbouringPositionsDifferByAtMostOne) {
  constexpr int64_t kLength = 600;
  const std::vector<double> matrix = MakeTestOperator("attention_topic", kLength);
  InertiaTree tree;
  ASSERT_THAT(tree.Load(matrix, kLength, kNever), IsOk());

  const auto counts = tree.CountAbove(1e-3, 10, kNever);

  ASSERT_THAT(counts, IsOk());
  for (int64_t i = 0; i + 1 < kLength; ++i) {
    EXPECT_LE(std::abs(counts->counts[i + 1] - counts->counts[i]), 1) << "position " << i;
  }
}

TEST(InertiaTreeTest, EveryInstructionSetOfThisMachineCountsTheSame) {
  const Spectra attention = SpectraOf(MakeTestOperator("attention_g8", 100), 100);
  const Spectra recurrence = SpectraOf(MakeTestOperator("gla_64", 203), 203, 7);
  std::set<int64_t> tested;
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    SCOPED_TRACE(hwy::TargetName(target));
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    ExpectEqualCountsAtManyTolerances(attention);
    ExpectEqualCountsAtManyTolerances(recurrence);
    tested.insert(target);
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  EXPECT_GE(tested.size(), 2u);
}

TEST(InertiaTreeTest, TheSameInputGivesTheSameCountsAfterOtherWork) {
  constexpr int64_t kLength = 90;
  const std::vector<double> matrix = MakeTestOperator("attention_g1", kLength);
  const std::vector<double> other = MakeTestOperator("gla_64", 300);
  InertiaTree fresh;
  ASSERT_THAT(fresh.Load(matrix, kLength, kNever), IsOk());
  InertiaTree used;
  ASSERT_THAT(used.Load(other, 300, kNever), IsOk());
  ASSERT_THAT(used.CountAbove(1e-2, 1, kNever), IsOk());
  ASSERT_THAT(used.Load(matrix, kLength, kNever), IsOk());

  EXPECT_EQ(fresh.CountAbove(1e-3, 1, kNever)->counts, used.CountAbove(1e-3, 1, kNever)->counts);
}

TEST(InertiaTreeTest, ARangeOfPositionsGetsTheCountsOfAllAndTheRestZero) {
  for (const int64_t length : {1, 8, 9, 40, 64, 100, 128}) {
    const std::vector<double> matrix = MakeTestOperator("attention_topic", length);
    InertiaTree all;
    ASSERT_THAT(all.Load(matrix, length, kNever), IsOk());
    const auto expected = all.CountAbove(1e-3, 3, kNever);
    ASSERT_THAT(expected, IsOk());
    InertiaTree part;
    for (int64_t begin = 0; begin < length; begin += 7) {
      for (int64_t end = begin + 1; end <= length; end += 1 + length / 9) {
        SCOPED_TRACE(::testing::Message() << length << ": [" << begin << ", " << end << ")");
        ASSERT_THAT(part.Load(matrix, length, kNever, {begin, end}), IsOk());

        const auto asked = all.CountAbove(1e-3, 3, kNever, {begin, end});
        const auto loaded = part.CountAbove(1e-3, 3, kNever);

        ASSERT_THAT(asked, IsOk());
        ASSERT_THAT(loaded, IsOk());
        for (int64_t i = 0; i < length; ++i) {
          const int32_t count = i >= begin && i < end ? expected->counts[i] : 0;
          EXPECT_EQ(asked->counts[i], count) << i;
          EXPECT_EQ(loaded->counts[i], count) << i;
        }
      }
    }
  }
}

TEST(InertiaTreeTest, ReadsAMatrixInPlaceAndNothingBesideItsDiagonalBlocks) {
  constexpr int64_t kLength = 72;  // A multiple of 8: no padded copy.
  const std::vector<double> clean = MakeTestOperator("attention_g8", kLength);
  std::vector<double> matrix = clean;
  for (int64_t i = 0; i < kLength; ++i) {
    for (int64_t j = i / 8 * 8 + 8; j < kLength; ++j) matrix[i * kLength + j] = NAN;
  }
  // The same with an empty position behind, which makes a padded copy.
  std::vector<double> longer((kLength + 1) * (kLength + 1), 0.0);
  for (int64_t i = 0; i < kLength; ++i) {
    std::copy_n(&clean[i * kLength], kLength, &longer[i * (kLength + 1)]);
  }
  InertiaTree in_place;
  InertiaTree padded;
  ASSERT_THAT(in_place.Load(matrix, kLength, kNever), IsOk());
  ASSERT_THAT(padded.Load(longer, kLength + 1, kNever), IsOk());

  for (const double tau : {0.5, 1e-2, 1e-4}) {
    const auto counts = in_place.CountAbove(tau, 3, kNever);
    const auto expected = padded.CountAbove(tau, 3, kNever);
    ASSERT_THAT(counts, IsOk());
    ASSERT_THAT(expected, IsOk());
    EXPECT_TRUE(std::equal(counts->counts.begin(), counts->counts.end(), expected->counts.begin()));
  }
}

TEST(InertiaTreeTest, AHugeToleranceCountsNothing) {
  const std::vector<double> matrix = MakeTestOperator("uniform", 20);
  InertiaTree tree;
  ASSERT_THAT(tree.Load(matrix, 20, kNever), IsOk());

  for (const double tau : {1e3, 1e200, std::numeric_limits<double>::infinity()}) {
    EXPECT_EQ(tree.CountAbove(tau, 1, kNever)->counts, std::vector<int32_t>(20, 0));
  }
}

TEST(InertiaTreeTest, ACancelledRunStops) {
  constexpr int64_t kLength = 512;
  const std::vector<double> matrix = MakeTestOperator("uniform", kLength);
  InertiaTree tree;
  ASSERT_THAT(tree.Load(matrix, kLength, kNever), IsOk());
  CancellationToken token;
  token.Cancel();

  EXPECT_THAT(tree.CountAbove(1e-3, 1, token),
              StatusIs(absl::StatusCode::kCancelled, ::testing::_));
}

}  // namespace
}  // namespace ess::linalg
