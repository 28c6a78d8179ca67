#include "server/operators/selective_scan.h"

#include "gtest/gtest.h"
#include "tests/support/naive_recurrence.h"
#include "tests/support/operator_forms.h"

namespace ess::operators {
namespace {

using ::ess::testing::DenseForm;
using ::ess::testing::LargestError;
using ::ess::testing::NaiveRecurrence;
using ::ess::testing::RandomTensor;

constexpr int64_t kChannels = 3;
constexpr int64_t kLength = 21;
constexpr int64_t kState = 4;

struct Arguments {
  at::Tensor delta = at::softplus(RandomTensor({kChannels, kLength}, 1) - 1);
  at::Tensor A = -at::exp(RandomTensor({kChannels, kState}, 2));
  at::Tensor B = RandomTensor({kLength, kState}, 3);
  at::Tensor C = RandomTensor({kLength, kState}, 4);
};

TEST(SelectiveScanTest, EachChannelIsItsOwnRecurrence) {
  const Arguments x;
  for (const bool read_before : {false, true}) {
    const SelectiveScan op(x.delta, x.A, x.B, x.C, read_before);
    ASSERT_EQ(op.head_count(), kChannels);
    for (int64_t channel = 0; channel < kChannels; ++channel) {
      const at::Tensor step = x.delta[channel].unsqueeze(1);  // [L, 1]
      const at::Tensor gates = at::diag_embed(at::exp(step * x.A[channel]));
      const std::vector<double> expected = NaiveRecurrence(gates, step * x.B, x.C, read_before);

      EXPECT_LE(LargestError(DenseForm(op, channel), expected), 1e-14) << "channel " << channel;
    }
  }
}

TEST(SelectiveScanTest, ABatchOfLayersSharesAAcrossItsPrompts) {
  constexpr int64_t kPrompts = 2;
  const Arguments x;
  const at::Tensor delta = at::softplus(RandomTensor({kPrompts, kChannels, kLength}, 5));
  const at::Tensor B = RandomTensor({kPrompts, 1, kLength, kState}, 6);
  const SelectiveScan all(delta, x.A, B, x.C);

  ASSERT_EQ(all.head_count(), kPrompts * kChannels);
  for (int64_t prompt = 0; prompt < kPrompts; ++prompt) {
    const SelectiveScan one(delta[prompt], x.A, B[prompt], x.C);
    for (int64_t channel = 0; channel < kChannels; ++channel) {
      EXPECT_EQ(DenseForm(all, prompt * kChannels + channel), DenseForm(one, channel));
    }
  }
}

TEST(SelectiveScanTest, LongStepsForgetEverything) {
  Arguments x;
  x.delta.select(1, 8).fill_(1e6);
  const std::vector<double> T = DenseForm(SelectiveScan(x.delta, x.A, x.B, x.C), 1);

  for (int64_t i = 8; i < kLength; ++i) {
    for (int64_t j = 0; j < 8; ++j) EXPECT_EQ(T[i * kLength + j], 0) << i << ", " << j;
  }
  EXPECT_NE(T[9 * kLength + 8], 0);
}

TEST(SelectiveScanTest, TheStateSizeIsThatOfOneChannel) {
  const Arguments x;
  const SelectiveScan op(x.delta, x.A, x.B.to(at::kFloat), x.C);

  EXPECT_EQ(op.state_size(), StateSize::Constant(kState));
  EXPECT_EQ(op.feature_epsilon(), 0x1p-23);
  EXPECT_EQ(op.channel_recurrence(), &op);
}

}  // namespace
}  // namespace ess::operators
