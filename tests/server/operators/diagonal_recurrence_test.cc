#include "server/operators/diagonal_recurrence.h"

#include <ATen/ATen.h>
#include <cmath>

#include "gtest/gtest.h"
#include "tests/support/naive_recurrence.h"
#include "tests/support/operator_forms.h"

namespace ess::operators {
namespace {

using ::ess::testing::DenseForm;
using ::ess::testing::LargestError;
using ::ess::testing::NaiveRecurrence;
using ::ess::testing::RandomTensor;

constexpr int64_t kLength = 12;
constexpr int64_t kState = 4;

at::Tensor Random(int64_t state, uint64_t seed) { return RandomTensor({1, kLength, state}, seed); }

TEST(DiagonalRecurrenceTest, EntriesAreProductsOfTheGatesBetween) {
  const at::Tensor a = at::sigmoid(Random(kState, 1));
  const at::Tensor b = Random(kState, 2);
  const at::Tensor c = Random(kState, 3);
  for (const bool read_before : {false, true}) {
    const std::vector<double> expected =
        NaiveRecurrence(at::diag_embed(a[0]), b[0], c[0], read_before);

    const std::vector<double> found = DenseForm(DiagonalRecurrence(a, b, c, read_before), 0);

    EXPECT_LE(LargestError(found, expected), 1e-14) << "read_before " << read_before;
  }
}

TEST(DiagonalRecurrenceTest, OfComplexArgumentsTheRealPartOfTheOutputIsTaken) {
  // Every choice of which arguments are complex.
  for (int choice = 1; choice < 8; ++choice) {
    const auto argument = [choice](int bit, uint64_t seed) {
      const at::Tensor real = Random(kState, seed) * 0.6;
      return choice & bit ? at::complex(real, Random(kState, seed + 10) * 0.6) : real;
    };
    const at::Tensor a = argument(1, 1);
    const at::Tensor b = argument(2, 2);
    const at::Tensor c = argument(4, 3);
    const auto complex = [](const at::Tensor& x) { return x[0].to(at::kComplexDouble); };
    for (const bool read_before : {false, true}) {
      const std::vector<double> expected =
          NaiveRecurrence(at::diag_embed(complex(a)), complex(b), complex(c), read_before);
      const DiagonalRecurrence op(a, b, c, read_before);

      EXPECT_LE(LargestError(DenseForm(op, 0), expected), 1e-14) << choice;
      EXPECT_EQ(op.state_size(), StateSize::Constant(2 * kState));
      EXPECT_EQ(op.channel_recurrence(), nullptr);
    }
  }
}

TEST(DiagonalRecurrenceTest, OneGateForAllStatesIsTheSameAsEqualGates) {
  const at::Tensor gate = at::sigmoid(Random(1, 1));
  const at::Tensor b = Random(kState, 2);
  const at::Tensor c = Random(kState, 3);

  const std::vector<double> scalar = DenseForm(DiagonalRecurrence(gate, b, c), 0);
  const std::vector<double> expanded =
      DenseForm(DiagonalRecurrence(gate.expand({1, kLength, kState}), b, c), 0);

  for (size_t x = 0; x < scalar.size(); ++x) EXPECT_NEAR(scalar[x], expanded[x], 1e-14);
}

TEST(DiagonalRecurrenceTest, GatesThatUnderflowForgetAndWhatFollowsIsExact) {
  at::Tensor a = at::full({1, kLength, kState}, 0.5, at::kDouble);
  a.select(1, 4).zero_();
  a.select(1, 5).fill_(1e-200);
  a.select(1, 6).fill_(1e-200);
  const at::Tensor ones = at::ones({1, kLength, kState}, at::kDouble);

  const std::vector<double> head = DenseForm(DiagonalRecurrence(a, ones, ones), 0);

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

TEST(DiagonalRecurrenceTest, HeadsOfSmallStatesAreChannels) {
  const auto of_states = [](int64_t states) {
    return DiagonalRecurrence(Random(1, 1), Random(states, 2), Random(states, 3));
  };

  const DiagonalRecurrence small = of_states(DiagonalRecurrence::kMaxChannelStates);
  const DiagonalRecurrence large = of_states(DiagonalRecurrence::kMaxChannelStates + 1);

  EXPECT_EQ(small.channel_recurrence(), &small);
  EXPECT_EQ(large.channel_recurrence(), nullptr);
}

TEST(DiagonalRecurrenceTest, TheCoarsestDtypeSetsTheRounding) {
  const DiagonalRecurrence op(Random(1, 1), Random(kState, 2).to(at::kBFloat16),
                              Random(kState, 3).to(at::kFloat));

  EXPECT_EQ(op.feature_epsilon(), 0x1p-7);
}

}  // namespace
}  // namespace ess::operators
