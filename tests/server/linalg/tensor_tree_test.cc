// The tensor tree against SVD: counts, logarithms of determinants, and several heads and shifts in
// one batch.
#include "server/linalg/tensor_tree.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "gtest/gtest.h"
#include "server/linalg/reference_linalg.h"
#include "tests/support/status_matchers.h"
#include "tests/support/test_operators.h"

namespace ess::linalg {
namespace {

using ::ess::testing::IsOk;
using ::ess::testing::MakeTestOperator;
using ::ess::testing::StatusIs;

const CancellationToken kNever;

// [1, L, L], divided by 16: entries of at most 1.
at::Tensor Strict(const std::string& name, int64_t length) {
  std::vector<double> matrix = MakeTestOperator(name, length);
  return at::from_blob(matrix.data(), {1, length, length}, at::kDouble).tril(-1).div(16);
}

std::vector<double> SigmaAt(const at::Tensor& matrix, int64_t position) {
  const int64_t length = matrix.size(-1);
  const at::Tensor rows = matrix.contiguous();
  const std::span<const double> entries(rows.const_data_ptr<double>(), length * length);
  return *BlockSingularValues(entries, length, position);
}

TensorShifts Shifts(const std::vector<int64_t>& heads, const std::vector<double>& rows,
                    const std::vector<double>& columns) {
  return {.heads = at::tensor(heads, at::kLong),
          .rows = at::tensor(rows, at::kDouble),
          .columns = at::tensor(columns, at::kDouble)};
}

TEST(TensorTreeTest, NegativePivotsAreSingularValuesAboveTheShift) {
  for (const int64_t length : {1, 2, 3, 7, 31, 32, 33, 64, 65, 100, 130, 257}) {
    for (const char* name : {"attention_g1", "gla_64"}) {
      SCOPED_TRACE(::testing::Message() << name << " of length " << length);
      const at::Tensor matrix = Strict(name, length);
      const std::vector<double> taus = {1e-1, 1e-2, 1e-3, 1e-5};
      TensorTreeSums result;

      ASSERT_THAT(TensorTree(matrix).Run(Shifts({0, 0, 0, 0}, taus, taus), PivotSum::kNegative,
                                         kNever, result),
                  IsOk());

      ASSERT_EQ(result.sums.sizes(), at::IntArrayRef({4, length}));
      for (int64_t i = 0; i < length; ++i) {
        const std::vector<double> sigma = SigmaAt(matrix, i);
        for (int64_t t = 0; t < 4; ++t) {
          EXPECT_EQ(
              result.sums[t][i].item<double>(),
              std::count_if(sigma.begin(), sigma.end(), [&](double s) { return s > taus[t]; }))
              << "tolerance " << taus[t] << " position " << i;
        }
      }
    }
  }
}

TEST(TensorTreeTest, LogarithmsOfPivotsAreTheDeterminant) {
  for (const int64_t length : {1, 2, 9, 33, 100, 200}) {
    SCOPED_TRACE(length);
    const at::Tensor matrix = Strict("attention_sink", length);
    const std::vector<double> t = {1.0, 0.1, 1e-3};
    TensorTreeSums result;

    ASSERT_THAT(TensorTree(matrix).Run(Shifts({0, 0, 0}, t, {-1.0, -0.1, -1e-3}), PivotSum::kLogAbs,
                                       kNever, result),
                IsOk());

    for (int64_t i = 0; i < length; ++i) {
      const std::vector<double> sigma = SigmaAt(matrix, i);
      for (int64_t k = 0; k < 3; ++k) {
        double expected = static_cast<double>(result.pivots) * std::log(t[k]);
        for (const double s : sigma) expected += std::log1p(s * s / (t[k] * t[k]));
        EXPECT_NEAR(result.sums[k][i].item<double>(), expected, 1e-9) << t[k] << " position " << i;
      }
    }
  }
}

TEST(TensorTreeTest, APairGivesTheSameAloneAndAmongOthers) {
  constexpr int64_t kLength = 150;
  const at::Tensor matrices =
      at::cat({Strict("attention_g8", kLength), Strict("hyena", kLength), Strict("s6", kLength)});
  const std::vector<double> taus = {1e-3, 1e-2, 1e-4, 1e-3, 1e-5};
  const std::vector<int64_t> heads = {2, 0, 1, 0, 2};
  const TensorTree tree(matrices);
  TensorTreeSums together;
  ASSERT_THAT(tree.Run(Shifts(heads, taus, taus), PivotSum::kNegative, kNever, together), IsOk());

  for (size_t p = 0; p < heads.size(); ++p) {
    TensorTreeSums alone;
    ASSERT_THAT(TensorTree(matrices.slice(0, heads[p], heads[p] + 1))
                    .Run(Shifts({0}, {taus[p]}, {taus[p]}), PivotSum::kNegative, kNever, alone),
                IsOk());

    EXPECT_TRUE(at::equal(alone.sums[0], together.sums[p])) << "pair " << p;
  }
}

TEST(TensorTreeTest, ASingularPivotShowsInTheGrowth) {
  // A shift operator with tau = its singular values, unmoved.
  const at::Tensor matrix = Strict("shift", 128);
  const double tau = 1.0 / 16;
  TensorTreeSums result;

  ASSERT_THAT(
      TensorTree(matrix).Run(Shifts({0, 0}, {tau, tau * (1 + 1e-11)}, {tau, tau * (1 + 1e-11)}),
                             PivotSum::kNegative, kNever, result),
      IsOk());

  EXPECT_FALSE(std::isfinite(result.growth[0].item<double>()));
  EXPECT_TRUE(std::isfinite(result.growth[1].item<double>()));
}

TEST(TensorTreeTest, ACancelledRunStops) {
  const TensorTree tree(Strict("uniform", 128));
  CancellationToken token;
  token.Cancel();
  TensorTreeSums result;

  EXPECT_THAT(tree.Run(Shifts({0}, {1e-3}, {1e-3}), PivotSum::kNegative, token, result),
              StatusIs(absl::StatusCode::kCancelled, ::testing::_));
}

}  // namespace
}  // namespace ess::linalg
