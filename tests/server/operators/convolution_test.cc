#include "server/operators/convolution.h"

#include "gtest/gtest.h"
#include "tests/support/operator_forms.h"

namespace ess::operators {
namespace {

using ::ess::testing::DenseForm;
using ::ess::testing::RandomTensor;

constexpr int64_t kLength = 9;

double At(const at::Tensor& tensor, int64_t head, int64_t index) {
  return tensor[head][index].item<double>();
}

TEST(ConvolutionTest, EntriesAreTapsBetweenTheGates) {
  const at::Tensor h = RandomTensor({2, kLength}, 1);
  const at::Tensor gate_out = RandomTensor({2, kLength}, 2);
  const at::Tensor gate_in = RandomTensor({2, kLength}, 3);
  const Convolution plain(h);
  const Convolution gated(h, gate_out, gate_in);
  const Convolution gated_in(h, std::nullopt, gate_in);

  for (int64_t i = 0; i < kLength; ++i) {
    for (int64_t j = 0; j < kLength; ++j) {
      const double tap = j <= i ? At(h, 1, i - j) : 0;
      EXPECT_EQ(DenseForm(plain, 1)[i * kLength + j], tap);
      EXPECT_EQ(DenseForm(gated, 1)[i * kLength + j], At(gate_out, 1, i) * tap * At(gate_in, 1, j));
      EXPECT_EQ(DenseForm(gated_in, 1)[i * kLength + j], tap * At(gate_in, 1, j));
    }
  }
  EXPECT_TRUE(plain.toeplitz());
  EXPECT_FALSE(gated_in.toeplitz());
}

TEST(ConvolutionTest, TheStateOfAFilterOverTheWholeLengthGrows) {
  EXPECT_EQ(Convolution(RandomTensor({2, kLength}, 1)).state_size(), StateSize::Growing());
}

TEST(ConvolutionTest, AFilterThatEndsNeedsItsTapsButOne) {
  at::Tensor h = RandomTensor({2, kLength}, 1);
  h.slice(1, 4).zero_();
  h[0].slice(0, 2).zero_();
  const Convolution op(h);

  EXPECT_EQ(op.taps(), 4);  // Of the head with the longer filter.
  EXPECT_EQ(op.state_size(), StateSize::GrowingUpTo(3));
}

TEST(ConvolutionTest, FewerTapsThanPositionsAreAFilterThatEnds) {
  const at::Tensor h = RandomTensor({1, 3}, 1);
  const at::Tensor gate = at::ones({2, kLength}, at::kDouble);
  const Convolution op(h, gate);

  EXPECT_EQ(op.head_count(), 2);
  EXPECT_EQ(op.length(), kLength);
  EXPECT_EQ(op.state_size(), StateSize::GrowingUpTo(2));
  EXPECT_EQ(DenseForm(op, 0)[5 * kLength + 3], At(h, 0, 2));
  EXPECT_EQ(DenseForm(op, 0)[5 * kLength + 2], 0);
}

TEST(ConvolutionTest, AFilterOfZerosNeedsNoState) {
  const Convolution op(at::zeros({1, kLength}, at::kDouble));

  EXPECT_EQ(op.taps(), 0);
  EXPECT_EQ(op.state_size(), StateSize::GrowingUpTo(0));
}

TEST(ConvolutionTest, TheCoarsestDtypeSetsTheRounding) {
  const at::Tensor h = RandomTensor({1, kLength}, 1);

  EXPECT_EQ(Convolution(h).feature_epsilon(), 0x1p-52);
  EXPECT_EQ(Convolution(h, std::nullopt, h.to(at::kFloat)).feature_epsilon(), 0x1p-23);
}

}  // namespace
}  // namespace ess::operators
