#include "server/operators/delta_recurrence.h"

#include "gtest/gtest.h"
#include "tests/support/naive_recurrence.h"
#include "tests/support/operator_forms.h"

namespace ess::operators {
namespace {

using ::ess::testing::DenseForm;
using ::ess::testing::LargestError;
using ::ess::testing::NaiveRecurrence;
using ::ess::testing::RandomTensor;

constexpr int64_t kState = 4;

struct Arguments {
  at::Tensor alpha, beta, k, c;
};

Arguments Random(int64_t length) {
  const at::Tensor k = RandomTensor({1, length, kState}, 3);
  return {.alpha = at::sigmoid(RandomTensor({1, length}, 1) + 2),
          .beta = at::sigmoid(RandomTensor({1, length}, 2)),
          .k = k / k.norm(2, {-1}, true),
          .c = RandomTensor({1, length, kState}, 4)};
}

TEST(DeltaRecurrenceTest, TransitionsForgetAlongTheKey) {
  for (const int64_t length : {1, 2, 7, 8, 9, 21}) {
    const Arguments x = Random(length);
    const at::Tensor outer = x.k[0].unsqueeze(2) * x.k[0].unsqueeze(1);  // [L, N, N]
    const at::Tensor A = x.alpha[0].view({-1, 1, 1}) *
                         (at::eye(kState, at::kDouble) - x.beta[0].view({-1, 1, 1}) * outer);
    const at::Tensor b = x.beta[0].unsqueeze(1) * x.k[0];
    for (const bool read_before : {false, true}) {
      const DeltaRecurrence op(x.alpha, x.beta, x.k, x.c, read_before);

      EXPECT_LE(LargestError(DenseForm(op, 0), NaiveRecurrence(A, b, x.c[0], read_before)), 1e-14)
          << "length " << length << " read_before " << read_before;
    }
  }
}

// T = tril(D * C K^T) (I + diag(beta) stril(D * K K^T))^-1 diag(beta), D the products of alpha.
// Source: Yang et al. 2024 (arXiv:2412.06464).
TEST(DeltaRecurrenceTest, EqualsTheClosedFormOfTheGatedDeltaRule) {
  constexpr int64_t kLength = 40;
  const Arguments x = Random(kLength);
  const at::Tensor summed = x.alpha[0].log().cumsum(0);
  const at::Tensor decay = at::exp(summed.unsqueeze(1) - summed.unsqueeze(0));
  const at::Tensor scores = (decay * x.c[0].matmul(x.k[0].t())).tril();
  const at::Tensor overlaps = (decay * x.k[0].matmul(x.k[0].t())).tril(-1);
  const at::Tensor system = at::eye(kLength, at::kDouble) + x.beta[0].unsqueeze(1) * overlaps;
  const at::Tensor T = scores.matmul(at::linalg_inv(system)).matmul(at::diag(x.beta[0]));

  const std::vector<double> found = DenseForm(DeltaRecurrence(x.alpha, x.beta, x.k, x.c), 0);

  const double* expected = T.const_data_ptr<double>();
  EXPECT_LE(LargestError(found, std::vector<double>(expected, expected + T.numel())), 1e-12);
}

TEST(DeltaRecurrenceTest, AWholeOverwriteForgetsWhatTheKeyHeld) {
  const at::Tensor ones = at::ones({1, 6}, at::kDouble);
  const at::Tensor key = at::zeros({1, 6, 2}, at::kDouble);
  key.select(2, 0).fill_(1);

  const std::vector<double> T = DenseForm(DeltaRecurrence(ones, ones, key, key), 0);

  for (int64_t i = 0; i < 6; ++i) {
    for (int64_t j = 0; j < 6; ++j) EXPECT_EQ(T[i * 6 + j], i == j ? 1 : 0) << i << ", " << j;
  }
}

TEST(DeltaRecurrenceTest, TheStateSizeIsTheLengthOfAKey) {
  const Arguments x = Random(9);
  const DeltaRecurrence op(x.alpha.to(at::kFloat), x.beta, x.k, x.c);

  EXPECT_EQ(op.state_size(), StateSize::Constant(kState));
  EXPECT_EQ(op.feature_epsilon(), 0x1p-23);
}

}  // namespace
}  // namespace ess::operators
