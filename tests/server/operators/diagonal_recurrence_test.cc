#include "server/operators/diagonal_recurrence.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <cmath>

#include "gtest/gtest.h"

namespace ess::operators {
namespace {

constexpr int64_t kLength = 12;
constexpr int64_t kState = 4;

std::vector<double> Head(const SequenceOperator& op, int64_t head) {
  std::vector<double> out(op.length() * op.length(), -1);
  op.DenseHead(head, out);
  return out;
}

at::Tensor Random(int64_t state, uint64_t seed) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  return at::randn({1, kLength, state}, generator, at::kDouble);
}

TEST(DiagonalRecurrenceTest, EntriesAreProductsOfTheGatesBetween) {
  const at::Tensor a = at::sigmoid(Random(kState, 1));
  const at::Tensor b = Random(kState, 2);
  const at::Tensor c = Random(kState, 3);

  const std::vector<double> head = Head(DiagonalRecurrence(a, b, c), 0);

  for (int64_t i = 0; i < kLength; ++i) {
    for (int64_t j = 0; j <= i; ++j) {
      const at::Tensor gates = a[0].slice(0, j + 1, i + 1).prod(0);  // Ones for i = j.
      EXPECT_NEAR(head[i * kLength + j], (c[0][i] * gates * b[0][j]).sum().item<double>(), 1e-14)
          << i << ", " << j;
    }
  }
}

TEST(DiagonalRecurrenceTest, OneGateForAllStatesIsTheSameAsEqualGates) {
  const at::Tensor gate = at::sigmoid(Random(1, 1));
  const at::Tensor b = Random(kState, 2);
  const at::Tensor c = Random(kState, 3);

  const std::vector<double> scalar = Head(DiagonalRecurrence(gate, b, c), 0);
  const std::vector<double> expanded =
      Head(DiagonalRecurrence(gate.expand({1, kLength, kState}), b, c), 0);

  for (size_t x = 0; x < scalar.size(); ++x) EXPECT_NEAR(scalar[x], expanded[x], 1e-14);
}

TEST(DiagonalRecurrenceTest, GatesThatUnderflowForgetAndWhatFollowsIsExact) {
  at::Tensor a = at::full({1, kLength, kState}, 0.5, at::kDouble);
  a.select(1, 4).zero_();
  a.select(1, 5).fill_(1e-200);
  a.select(1, 6).fill_(1e-200);
  const at::Tensor ones = at::ones({1, kLength, kState}, at::kDouble);

  const std::vector<double> head = Head(DiagonalRecurrence(a, ones, ones), 0);

  for (int64_t i = 0; i < kLength; ++i) {
    for (int64_t j = 0; j <= i; ++j) {
      const bool crosses_zero = j < 4 && i >= 4;
      const bool crosses_underflow = j < 5 && i >= 6;
      const double lag = std::pow(0.5, i - j);
      if (crosses_zero || crosses_underflow) {
        EXPECT_EQ(head[i * kLength + j], 0) << i << ", " << j;
      } else if (j >= 6 || i < 4) {
        EXPECT_EQ(head[i * kLength + j], kState * lag) << i << ", " << j;
      }
    }
  }
}

TEST(DiagonalRecurrenceTest, TheStateSizeIsTheNumberOfStates) {
  const DiagonalRecurrence op(Random(1, 1), Random(kState, 2), Random(kState, 3));

  EXPECT_EQ(op.state_size(), StateSize::Constant(kState));
}

TEST(DiagonalRecurrenceTest, TheCoarsestDtypeSetsTheRounding) {
  const DiagonalRecurrence op(Random(1, 1), Random(kState, 2).to(at::kBFloat16),
                              Random(kState, 3).to(at::kFloat));

  EXPECT_EQ(op.feature_epsilon(), 0x1p-7);
}

}  // namespace
}  // namespace ess::operators
