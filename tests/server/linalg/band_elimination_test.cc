// Counts and log-determinants of single windows against the SVD of every block, for every range of
// positions, rank-deficient common parts and every instruction set of this machine.
#include "server/linalg/band_elimination.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "hwy/targets.h"
#include "server/linalg/band_window.h"
#include "server/linalg/reference_linalg.h"
#include "tests/support/status_matchers.h"
#include "tests/support/test_operators.h"

namespace ess::linalg {
namespace {

using ::ess::testing::IsOk;
using ::ess::testing::MakeTestOperator;
using ::ess::testing::StatusIs;

const CancellationToken kNever;

// A window of a matrix, reduced, and what it was made from.
class ReducedWindow {
 public:
  ReducedWindow(std::vector<double> matrix, int64_t length, int64_t first, int64_t width,
                double unit = 1)
      : matrix_(std::move(matrix)), length_(length), unit_(unit) {
    const int64_t end = first + width;
    arena_.Reserve(ReduceWindowScratch(end, width) + WindowEliminationScratch(end, width) +
                   StripCount(end) * kStrip * length);
    gram_.assign(end * StrideFor(end), 0.0);
    const MatrixView view{matrix_.data(), length};
    EXPECT_THAT(AccumulateGram(view.Block(end, 0), length - end, end, false, gram_.data(),
                               StrideFor(end), arena_, kNever),
                IsOk());
    auto window = ReduceWindow(
        {.matrix = view, .gram = {gram_.data(), StrideFor(end)}, .unit = unit, .floor_norm = 1e-3},
        first, width, arena_, kNever);
    EXPECT_THAT(window, IsOk());
    window_ = *window;
  }

  const BandWindow& window() const { return window_; }
  Arena& arena() { return arena_; }
  // Singular values of the block at a row of the window, in the window's units.
  std::vector<double> Sigma(int64_t row) const {
    auto sigma = BlockSingularValues(matrix_, length_, window_.first + row);
    EXPECT_THAT(sigma, IsOk());
    for (double& value : *sigma) value *= unit_;
    return *std::move(sigma);
  }

 private:
  const std::vector<double> matrix_;
  const int64_t length_;
  const double unit_;
  std::vector<double> gram_;
  Arena arena_;
  BandWindow window_;
};

void ExpectEqualLogDeterminants(ReducedWindow& reduced, double t) {
  const int64_t width = reduced.window().width;
  std::vector<double> log_dets(width, NAN);
  ASSERT_THAT(WindowLogDeterminants(reduced.window(), t, log_dets, reduced.arena(), kNever),
              IsOk());
  for (int64_t row = 0; row < width; ++row) {
    double expected = 0;
    for (const double sigma : reduced.Sigma(row)) expected += std::log1p(sigma / t * sigma / t);
    EXPECT_NEAR(log_dets[row], expected, 1e-9 * (1 + expected)) << "row " << row;
  }
}

void ExpectEqualCounts(ReducedWindow& reduced, double tau) {
  const int64_t width = reduced.window().width;
  std::vector<int64_t> expected;
  for (int64_t row = 0; row < width; ++row) {
    const std::vector<double> sigma = reduced.Sigma(row);
    expected.push_back(
        std::count_if(sigma.begin(), sigma.end(), [tau](double s) { return s > tau; }));
  }
  for (int64_t begin = 0; begin < width; begin += kBlock) {
    for (int64_t end = begin + kBlock; end <= width; end += kBlock) {
      std::vector<double> counts(width, -1);
      const auto result =
          CountWindow(reduced.window(), tau, begin, end, counts, reduced.arena(), kNever);
      ASSERT_THAT(result, IsOk());
      EXPECT_FALSE(result->singular_pivot);
      for (int64_t row = 0; row < width; ++row) {
        EXPECT_EQ(counts[row], row >= begin && row < end ? expected[row] : -1)
            << "row " << row << " of [" << begin << ", " << end << ")";
      }
    }
  }
}

void ExpectEqualCountAtEachPosition(ReducedWindow& reduced, double tau) {
  for (int64_t row = 0; row < reduced.window().width; ++row) {
    const std::vector<double> sigma = reduced.Sigma(row);
    double count = -1;
    const auto result = CountPosition(reduced.window(), tau, row, count, reduced.arena(), kNever);
    ASSERT_THAT(result, IsOk());
    EXPECT_FALSE(result->singular_pivot);
    EXPECT_EQ(count, std::count_if(sigma.begin(), sigma.end(), [tau](double s) { return s > tau; }))
        << "row " << row;
  }
}

class BandEliminationTest : public ::testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override { hwy::SetSupportedTargetsForTest(GetParam()); }
  void TearDown() override { hwy::SetSupportedTargetsForTest(0); }
};

TEST_P(BandEliminationTest, AgreesWithSvdInWindowsOfAllShapes) {
  for (const std::string name : {"attention_g8", "attention_sink", "gla_64"}) {
    for (const auto& [length, first, width] : {std::tuple<int64_t, int64_t, int64_t>{40, 0, 8},
                                               {40, 0, 24},
                                               {41, 8, 8},
                                               {90, 40, 16},
                                               {90, 24, 40},
                                               {150, 72, 32},
                                               {151, 104, 24},
                                               {200, 104, 16}}) {
      SCOPED_TRACE(::testing::Message() << name << " " << length << " " << first << " " << width);
      ReducedWindow reduced(MakeTestOperator(name, length), length, first, width);

      for (const double t : {1.0, 1e-2, 1e-4}) ExpectEqualLogDeterminants(reduced, t);
      for (const double tau : {0.3, 1e-2, 1e-3}) {
        ExpectEqualCounts(reduced, tau);
        ExpectEqualCountAtEachPosition(reduced, tau);
      }
    }
  }
}

TEST_P(BandEliminationTest, StopsTheReductionWhereTheCommonPartHasALowRank) {
  ReducedWindow low_rank(MakeTestOperator("s6", 200), 200, 80, 24);  // 16 states.
  ReducedWindow nothing_common(MakeTestOperator("reset", 100), 100, 24, 32);

  EXPECT_LE(low_rank.window().band, 48);
  EXPECT_EQ(low_rank.window().common, 80);
  EXPECT_EQ(nothing_common.window().band, 8);
  for (ReducedWindow* reduced : {&low_rank, &nothing_common}) {
    for (const double t : {1.0, 1e-2}) ExpectEqualLogDeterminants(*reduced, t);
    for (const double tau : {0.3, 1e-2, 1e-3}) ExpectEqualCounts(*reduced, tau);
  }
}

TEST_P(BandEliminationTest, ScalesByTheUnit) {
  const double unit = 0x1p200;
  std::vector<double> matrix = MakeTestOperator("attention_g1", 96);
  for (double& entry : matrix) entry /= unit;
  ReducedWindow reduced(std::move(matrix), 96, 32, 24, unit);

  ExpectEqualLogDeterminants(reduced, 1e-2);
  ExpectEqualCounts(reduced, 1e-2);
}

TEST_P(BandEliminationTest, LogDeterminantsSurviveNumbersWhoseProductsOverflow) {
  ReducedWindow reduced(MakeTestOperator("attention_g1", 96), 96, 32, 16);

  for (const double t : {1e60, 1e-12}) {
    std::vector<double> log_dets(16, NAN);
    ASSERT_THAT(WindowLogDeterminants(reduced.window(), t, log_dets, reduced.arena(), kNever),
                IsOk());
    for (const double value : log_dets) EXPECT_TRUE(std::isfinite(value)) << t;
  }
}

TEST_P(BandEliminationTest, RandomMatricesOfAllRanks) {
  std::mt19937_64 generator(1);
  const auto pick = [&](int64_t low, int64_t high) {
    return low + static_cast<int64_t>(generator() % (high - low + 1));
  };
  const auto uniform = [&] { return static_cast<double>(generator() >> 11) * 0x1p-52 - 1; };
  for (int draw = 0; draw < 100; ++draw) {
    const int64_t first = 8 * pick(0, 4);
    const int64_t width = 8 * pick(1, 3);
    const int64_t length = first + width + pick(0, 30);
    const int64_t rank = pick(1, 12);
    SCOPED_TRACE(::testing::Message()
                 << draw << ": " << length << " " << first << " " << width << ", rank " << rank);
    std::vector<double> left(length * rank);
    std::vector<double> right(length * rank);
    for (double& entry : left) entry = uniform();
    for (double& entry : right) entry = uniform();
    std::vector<double> matrix(length * length, 0.0);
    for (int64_t i = 0; i < length; ++i) {
      for (int64_t j = 0; j < i; ++j) {
        for (int64_t r = 0; r < rank; ++r) {
          matrix[i * length + j] += left[i * rank + r] * right[j * rank + r];
        }
      }
    }
    ReducedWindow reduced(std::move(matrix), length, first, width);

    ExpectEqualLogDeterminants(reduced, 0.1);
    ExpectEqualCounts(reduced, 0.5);
    ExpectEqualCountAtEachPosition(reduced, 0.5);
  }
}

TEST_P(BandEliminationTest, ACancelledReductionStops) {
  constexpr int64_t kLength = 512;
  const std::vector<double> matrix = MakeTestOperator("uniform", kLength);
  std::vector<double> gram(264 * StrideFor(264), 1.0);
  Arena arena;
  arena.Reserve(ReduceWindowScratch(264, 32));
  CancellationToken token;
  token.Cancel();

  EXPECT_THAT(ReduceWindow({.matrix = {matrix.data(), kLength}, .gram = {gram.data(), 272}}, 232,
                           32, arena, token),
              StatusIs(absl::StatusCode::kCancelled, ::testing::_));
}

INSTANTIATE_TEST_SUITE_P(AllTargets, BandEliminationTest,
                         ::testing::ValuesIn(hwy::SupportedAndGeneratedTargets()),
                         [](const auto& info) { return hwy::TargetName(info.param); });

}  // namespace
}  // namespace ess::linalg
