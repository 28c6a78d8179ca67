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

// The same shifts for rows and columns of each head [heads], or columns of the other sign.
TensorShifts Shifts(const std::vector<double>& shifts, int64_t heads = 1, double sign = 1) {
  const at::Tensor rows = at::tensor(shifts, at::kDouble).expand({heads, -1});
  return {.rows = rows, .columns = sign * rows};
}

TEST(TensorTreeTest, NegativePivotsAreSingularValuesAboveTheShift) {
  for (const int64_t length : {1, 2, 3, 7, 31, 32, 33, 64, 65, 100, 130, 257}) {
    for (const char* name : {"attention_g1", "gla_64"}) {
      SCOPED_TRACE(::testing::Message() << name << " of length " << length);
      const at::Tensor matrix = Strict(name, length);
      const std::vector<double> taus = {1e-1, 1e-2, 1e-3, 1e-5};
      TensorTreeSums result;

      ASSERT_THAT(TensorTree(matrix).Run(Shifts(taus), PivotSum::kNegative, kNever, result),
                  IsOk());

      ASSERT_EQ(result.sums.sizes(), at::IntArrayRef({1, 4, length}));
      for (int64_t i = 0; i < length; ++i) {
        const std::vector<double> sigma = SigmaAt(matrix, i);
        for (int64_t t = 0; t < 4; ++t) {
          EXPECT_EQ(
              result.sums[0][t][i].item<double>(),
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

    ASSERT_THAT(TensorTree(matrix).Run(Shifts(t, 1, -1), PivotSum::kLogAbs, kNever, result),
                IsOk());

    for (int64_t i = 0; i < length; ++i) {
      const std::vector<double> sigma = SigmaAt(matrix, i);
      for (int64_t k = 0; k < 3; ++k) {
        double expected = static_cast<double>(result.pivots) * std::log(t[k]);
        for (const double s : sigma) expected += std::log1p(s * s / (t[k] * t[k]));
        EXPECT_NEAR(result.sums[0][k][i].item<double>(), expected, 1e-9)
            << t[k] << " position " << i;
      }
    }
  }
}

TEST(TensorTreeTest, APairGivesTheSameAloneAndAmongOthers) {
  constexpr int64_t kLength = 150;
  const at::Tensor matrices =
      at::cat({Strict("attention_g8", kLength), Strict("hyena", kLength), Strict("s6", kLength)});
  const std::vector<double> taus = {1e-3, 1e-2, 1e-4, 1e-5};
  for (const PivotSum sum : {PivotSum::kNegative, PivotSum::kLogAbs}) {
    const double sign = sum == PivotSum::kNegative ? 1 : -1;
    TensorTreeSums together;
    ASSERT_THAT(TensorTree(matrices).Run(Shifts(taus, 3, sign), sum, kNever, together), IsOk());

    for (int64_t head = 0; head < 3; ++head) {
      const TensorTree tree(matrices.slice(0, head, head + 1));
      for (size_t k = 0; k < taus.size(); ++k) {
        TensorTreeSums alone;
        ASSERT_THAT(tree.Run(Shifts({taus[k]}, 1, sign), sum, kNever, alone), IsOk());

        // Libraries round products differently for other alignments and batches.
        const double allowed = sum == PivotSum::kNegative ? 0 : 1e-7;
        const at::Tensor difference = alone.sums[0][0] - together.sums[head][k];
        EXPECT_LE(difference.abs().amax().item<double>(), allowed) << head << " at " << taus[k];
      }
    }
  }
}

TEST(TensorTreeTest, ASingularPivotShowsInTheGrowth) {
  // A shift operator with tau = its singular values, unmoved.
  const at::Tensor matrix = Strict("shift", 128);
  const double tau = 1.0 / 16;
  TensorTreeSums result;

  ASSERT_THAT(
      TensorTree(matrix).Run(Shifts({tau, tau * (1 + 1e-11)}), PivotSum::kNegative, kNever, result),
      IsOk());

  EXPECT_FALSE(std::isfinite(result.growth[0][0].item<double>()));
  EXPECT_TRUE(std::isfinite(result.growth[0][1].item<double>()));
}

TEST(TensorTreeTest, ACancelledRunStops) {
  const TensorTree tree(Strict("uniform", 128));
  CancellationToken token;
  token.Cancel();
  TensorTreeSums result;

  EXPECT_THAT(tree.Run(Shifts({1e-3}), PivotSum::kNegative, token, result),
              StatusIs(absl::StatusCode::kCancelled, ::testing::_));
}

}  // namespace
}  // namespace ess::linalg
