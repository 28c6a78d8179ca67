// The recursion itself: log-determinants, roots whose A and C are matrices, and every instruction
// set of this machine, against a plain elimination at each position.
#include "server/linalg/inertia_tree_run.h"

#include <cmath>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "hwy/targets.h"
#include "tests/support/status_matchers.h"

namespace ess::linalg {
namespace {

using ::ess::testing::IsOk;

const CancellationToken kNever;

// A symmetric matrix A, a strictly lower triangle B, a symmetric C, of one width.
struct Root {
  int64_t width;
  std::vector<double> a, b, c;
};

// `c_sign`: A is positive definite, C is c_sign times a positive definite matrix.
Root RandomRoot(int64_t width, double c_sign, uint64_t seed) {
  std::mt19937_64 generator(seed);
  std::uniform_real_distribution<double> uniform(-1, 1);
  const auto definite = [&](double sign) {
    std::vector<double> factor(width * width);
    for (double& x : factor) x = uniform(generator);
    std::vector<double> m(width * width);
    for (int64_t i = 0; i < width; ++i) {
      for (int64_t j = 0; j < width; ++j) {
        double sum = i == j ? 1 : 0;
        for (int64_t k = 0; k < width; ++k) {
          sum += factor[i * width + k] * factor[j * width + k] / static_cast<double>(width);
        }
        m[i * width + j] = sign * sum;
      }
    }
    return m;
  };
  Root root{width, definite(1), std::vector<double>(width * width, 0.0), definite(c_sign)};
  for (int64_t i = 0; i < width; ++i) {
    for (int64_t j = 0; j < i; ++j) root.b[i * width + j] = 2 * uniform(generator);
  }
  return root;
}

// Pivots of the rows [i, width) and columns [0, i) of [A B; B^T C], eliminated one by one.
std::vector<double> PivotsAt(const Root& root, int64_t i) {
  const int64_t w = root.width;
  std::vector<double> m(w * w);
  const auto entry = [&](int64_t x, int64_t y) {
    const bool x_is_row = x >= i;
    const bool y_is_row = y >= i;
    if (x_is_row && y_is_row) return root.a[x * w + y];
    if (!x_is_row && !y_is_row) return root.c[x * w + y];
    return x_is_row ? root.b[x * w + y] : root.b[y * w + x];
  };
  for (int64_t x = 0; x < w; ++x) {
    for (int64_t y = 0; y < w; ++y) m[x * w + y] = entry(x, y);
  }
  std::vector<double> pivots;
  for (int64_t k = 0; k < w; ++k) {
    pivots.push_back(m[k * w + k]);
    for (int64_t x = k + 1; x < w; ++x) {
      const double factor = m[x * w + k] / m[k * w + k];
      for (int64_t y = k; y < w; ++y) m[x * w + y] -= factor * m[k * w + y];
    }
  }
  return pivots;
}

std::vector<double> SumsOf(const Root& root, PivotSum sum, double start) {
  const MatrixView a{root.a.data(), root.width};
  const MatrixView b{root.b.data(), root.width};
  const MatrixView c{root.c.data(), root.width};
  TreeProblem problem{.root = {.width = root.width, .a = a, .b = b, .c = c, .pivot_sum = start},
                      .sum = sum};
  Arena arena;
  arena.Reserve(TreeScratch(root.width));
  std::vector<double> sums(root.width, NAN);
  EXPECT_THAT(RunTree(problem, sums, arena, kNever), IsOk());
  return sums;
}

class InertiaTreeRunTest : public ::testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override { hwy::SetSupportedTargetsForTest(GetParam()); }
  void TearDown() override { hwy::SetSupportedTargetsForTest(0); }
};

TEST_P(InertiaTreeRunTest, AddsTheLogarithmsOfThePivotsOfAQuasidefiniteRoot) {
  for (const int64_t width : {8, 16, 24, 40, 64, 104}) {
    const Root root = RandomRoot(width, -1, width);

    const std::vector<double> sums = SumsOf(root, PivotSum::kLogAbs, 3.5);

    for (int64_t i = 0; i < width; ++i) {
      double expected = 3.5;
      for (const double pivot : PivotsAt(root, i)) expected += std::log(std::abs(pivot));
      EXPECT_NEAR(sums[i], expected, 1e-10 * static_cast<double>(width)) << width << " " << i;
    }
  }
}

TEST_P(InertiaTreeRunTest, CountsTheNegativePivotsOfAnIndefiniteRoot) {
  for (const int64_t width : {8, 16, 24, 40, 64, 104}) {
    const Root root = RandomRoot(width, 1, 7 * width);

    const std::vector<double> sums = SumsOf(root, PivotSum::kNegative, 2);

    for (int64_t i = 0; i < width; ++i) {
      double expected = 2;
      for (const double pivot : PivotsAt(root, i)) expected += pivot < 0;
      EXPECT_EQ(sums[i], expected) << width << " " << i;
    }
  }
}

TEST_P(InertiaTreeRunTest, TakesMultiplesOfTheIdentityForAandC) {
  for (const PivotSum sum : {PivotSum::kLogAbs, PivotSum::kNegative}) {
    for (const int64_t width : {8, 16, 40, 72}) {
      Root root = RandomRoot(width, -1, 5 * width);
      const double c_value = sum == PivotSum::kLogAbs ? -0.25 : 0.25;
      for (int64_t i = 0; i < width; ++i) {
        for (int64_t j = 0; j < width; ++j) {
          root.a[i * width + j] = i == j ? 1.5 : 0;
          root.c[i * width + j] = i == j ? c_value : 0;
        }
      }
      const std::vector<double> expected = SumsOf(root, sum, 0);

      TreeProblem problem{.root = {.width = width, .b = {root.b.data(), width}},
                          .a_identity = 1.5,
                          .c_identity = c_value,
                          .sum = sum};
      Arena arena;
      arena.Reserve(TreeScratch(width));
      std::vector<double> sums(width, NAN);
      ASSERT_THAT(RunTree(problem, sums, arena, kNever), IsOk());

      for (int64_t i = 0; i < width; ++i) EXPECT_NEAR(sums[i], expected[i], 1e-9) << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(AllTargets, InertiaTreeRunTest,
                         ::testing::ValuesIn(hwy::SupportedAndGeneratedTargets()),
                         [](const auto& info) { return hwy::TargetName(info.param); });

}  // namespace
}  // namespace ess::linalg
