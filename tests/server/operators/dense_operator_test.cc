#include "server/operators/dense_operator.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include "gtest/gtest.h"

namespace ess::operators {
namespace {

constexpr int64_t kHeads = 2;
constexpr int64_t kLength = 5;

at::Tensor RandomMaps(at::ScalarType dtype) {
  at::Generator generator = at::detail::createCPUGenerator(7);
  return at::randn({kHeads, kLength, kLength}, generator, at::kDouble).to(dtype);
}

std::vector<double> Head(const SequenceOperator& op, int64_t head) {
  std::vector<double> out(op.length() * op.length(), -1);
  op.DenseHead(head, out);
  return out;
}

TEST(DenseOperatorTest, GivesTheLowerTriangleAndZerosAboveIt) {
  for (const at::ScalarType dtype : {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16}) {
    const at::Tensor maps = RandomMaps(dtype);
    const DenseOperator op(maps, StateSize::Growing());

    const std::vector<double> head = Head(op, 1);

    for (int64_t i = 0; i < kLength; ++i) {
      for (int64_t j = 0; j < kLength; ++j) {
        EXPECT_EQ(head[i * kLength + j], j <= i ? maps[1][i][j].item<double>() : 0)
            << dtype << " entry " << i << ", " << j;
      }
    }
  }
}

TEST(DenseOperatorTest, ReadsViewsWithAnyStrides) {
  const at::Tensor maps = RandomMaps(at::kFloat);
  const DenseOperator transposed(maps.transpose(1, 2), StateSize::Growing());
  const DenseOperator copied(maps.transpose(1, 2).contiguous(), StateSize::Growing());

  EXPECT_EQ(Head(transposed, 0), Head(copied, 0));
}

TEST(DenseOperatorTest, NamesTheRoundingOfItsDtype) {
  const auto epsilon = [](at::ScalarType dtype) {
    return DenseOperator(RandomMaps(dtype), StateSize::Growing()).feature_epsilon();
  };

  EXPECT_EQ(epsilon(at::kDouble), 0x1p-52);
  EXPECT_EQ(epsilon(at::kFloat), 0x1p-23);
  EXPECT_EQ(epsilon(at::kHalf), 0x1p-10);
  EXPECT_EQ(epsilon(at::kBFloat16), 0x1p-7);
}

TEST(DenseOperatorTest, KeepsTheStateSizeOfItsLayer) {
  const DenseOperator windowed(RandomMaps(at::kFloat), StateSize::GrowingUpTo(3));

  EXPECT_EQ(windowed.state_size().At(0), 0);
  EXPECT_EQ(windowed.state_size().At(2), 2);
  EXPECT_EQ(windowed.state_size().At(4), 3);
}

}  // namespace
}  // namespace ess::operators
