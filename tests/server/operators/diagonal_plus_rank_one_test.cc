#include "server/operators/diagonal_plus_rank_one.h"

#include "gtest/gtest.h"
#include "server/operators/delta_recurrence.h"
#include "tests/support/naive_recurrence.h"
#include "tests/support/operator_forms.h"

namespace ess::operators {
namespace {

using ::ess::testing::DenseForm;
using ::ess::testing::LargestError;
using ::ess::testing::NaiveRecurrence;
using ::ess::testing::RandomTensor;

constexpr int64_t kState = 4;

TEST(DiagonalPlusRankOneTest, TransitionsAreADiagonalAndAnOuterProduct) {
  for (const int64_t length : {1, 2, 7, 8, 9, 21}) {
    const auto random = [&](uint64_t seed) { return RandomTensor({1, length, kState}, seed); };
    const at::Tensor w = at::sigmoid(random(1));
    const at::Tensor p = random(2) * 0.3;
    const at::Tensor q = random(3) * 0.3;
    const at::Tensor k = random(4);
    const at::Tensor c = random(5);
    const at::Tensor A = at::diag_embed(w[0]) + p[0].unsqueeze(2) * q[0].unsqueeze(1);
    for (const bool read_before : {false, true}) {
      const DiagonalPlusRankOne op(w, p, q, k, c, read_before);

      EXPECT_LE(LargestError(DenseForm(op, 0), NaiveRecurrence(A, k[0], c[0], read_before)), 1e-14)
          << "length " << length << " read_before " << read_before;
    }
  }
}

TEST(DiagonalPlusRankOneTest, HoldsTheDeltaRule) {
  constexpr int64_t kLength = 30;
  const at::Tensor alpha = at::sigmoid(RandomTensor({1, kLength}, 1) + 2);
  const at::Tensor beta = at::sigmoid(RandomTensor({1, kLength}, 2));
  const at::Tensor k = RandomTensor({1, kLength, kState}, 3) / 2;
  const at::Tensor c = RandomTensor({1, kLength, kState}, 4);
  const at::Tensor w = alpha.unsqueeze(2).expand({1, kLength, kState});
  const at::Tensor p = -(alpha * beta).unsqueeze(2) * k;

  const DiagonalPlusRankOne op(w, p, k, beta.unsqueeze(2) * k, c);

  EXPECT_LE(LargestError(DenseForm(op, 0), DenseForm(DeltaRecurrence(alpha, beta, k, c), 0)),
            1e-14);
}

TEST(DiagonalPlusRankOneTest, TheStateSizeIsTheNumberOfStates) {
  const at::Tensor x = RandomTensor({1, 9, kState}, 1);
  const DiagonalPlusRankOne op(x, x, x.to(at::kBFloat16), x, x);

  EXPECT_EQ(op.state_size(), StateSize::Constant(kState));
  EXPECT_EQ(op.feature_epsilon(), 0x1p-7);
}

}  // namespace
}  // namespace ess::operators
