#include "server/operators/banded_operator.h"

#include "gtest/gtest.h"
#include "tests/support/operator_forms.h"

namespace ess::operators {
namespace {

using ::ess::testing::DenseForm;
using ::ess::testing::RandomTensor;

double At(const at::Tensor& tensor, int64_t row, int64_t column) {
  return tensor[0][row][column].item<double>();
}

// Of every width, also wider than the matrix, with and without sinks.
TEST(BandedOperatorTest, TheBandWinsOverTheSinks) {
  for (const int64_t L : {1, 2, 7, 12}) {
    for (const int64_t W : {1, 3, 12, 15}) {
      for (const int64_t S : {0, 1, 4, 14}) {
        const at::Tensor band = RandomTensor({1, L, W}, 1);
        const at::Tensor sinks = RandomTensor({1, L, std::max<int64_t>(S, 1)}, 2);
        const BandedOperator op = S == 0 ? BandedOperator(band) : BandedOperator(band, sinks);
        const std::vector<double> T = DenseForm(op, 0);
        for (int64_t i = 0; i < L; ++i) {
          for (int64_t j = 0; j < L; ++j) {
            double expected = 0;
            if (j <= i && i - j < W) {
              expected = At(band, i, i - j);
            } else if (j < i && j < S) {
              expected = At(sinks, i, j);
            }
            EXPECT_EQ(T[i * L + j], expected)
                << "L " << L << " W " << W << " S " << S << " at " << i << ", " << j;
          }
        }
      }
    }
  }
}

TEST(BandedOperatorTest, TheStateIsTheWindowAndTheSinks) {
  const at::Tensor band = RandomTensor({1, 9, 4}, 1);
  const at::Tensor sinks = RandomTensor({1, 9, 2}, 2);

  EXPECT_EQ(BandedOperator(band).state_size(), StateSize::GrowingUpTo(3));
  EXPECT_EQ(BandedOperator(band, sinks).state_size(), StateSize::GrowingUpTo(5));
}

TEST(BandedOperatorTest, HeadsMayShareTheirSinks) {
  const at::Tensor band = RandomTensor({2, 9, 3}, 1);
  const at::Tensor sinks = RandomTensor({9, 2}, 2);
  const BandedOperator op(band, sinks);

  ASSERT_EQ(op.head_count(), 2);
  EXPECT_EQ(op.sinks()->Real(0).data(), op.sinks()->Real(1).data());
  EXPECT_EQ(DenseForm(op, 0)[8 * 9 + 1], DenseForm(op, 1)[8 * 9 + 1]);
  EXPECT_EQ(op.feature_epsilon(), 0x1p-52);
}

}  // namespace
}  // namespace ess::operators
