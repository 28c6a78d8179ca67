#include "server/operators/head_array.h"

#include "gtest/gtest.h"
#include "tests/support/operator_forms.h"

namespace ess::operators {
namespace {

using ::ess::testing::RandomTensor;
using Shape = std::vector<int64_t>;

TEST(BroadcastShapesTest, FollowsTheRulesOfNumpy) {
  EXPECT_EQ(BroadcastShapes(Shape{}, Shape{}), Shape{});
  EXPECT_EQ(BroadcastShapes(Shape{3}, Shape{}), Shape{3});
  EXPECT_EQ(BroadcastShapes(Shape{}, Shape{2, 3}), (Shape{2, 3}));
  EXPECT_EQ(BroadcastShapes(Shape{2, 1}, Shape{3}), (Shape{2, 3}));
  EXPECT_EQ(BroadcastShapes(Shape{1}, Shape{4, 1, 5}), (Shape{4, 1, 5}));
  EXPECT_EQ(BroadcastShapes(Shape{2}, Shape{3}), std::nullopt);
  EXPECT_EQ(BroadcastShapes(Shape{2, 3}, Shape{3, 1}), std::nullopt);
}

TEST(HeadArrayTest, HeadsAreTheBatchInRowMajorOrder) {
  const at::Tensor values = RandomTensor({2, 1, 4, 5}, 1);
  const HeadArray array({values, 2}, {2, 3});

  ASSERT_EQ(array.head_count(), 6);
  EXPECT_EQ(array.size(0), 4);
  EXPECT_EQ(array.size(1), 5);
  for (int64_t head = 0; head < 6; ++head) {
    EXPECT_EQ(array.Real(head)[7], (values[head / 3][0][1][2].item<double>())) << head;
    EXPECT_TRUE(array.AllHeads()[head].equal(values[head / 3][0])) << head;
    EXPECT_TRUE(array.At(3)[head].equal(values[head / 3][0][3])) << head;
  }
}

TEST(HeadArrayTest, WhatHeadsShareIsKeptOnce) {
  const at::Tensor one = RandomTensor({1, 4}, 2);
  for (const at::Tensor& argument : {one, one[0], one.expand({1000, 4})}) {
    const HeadArray array({argument, 1}, {1000});

    ASSERT_EQ(array.head_count(), 1000);
    EXPECT_EQ(array.Real(0).data(), array.Real(999).data());
    EXPECT_EQ(array.Real(999)[2], one[0][2].item<double>());
  }
}

TEST(HeadArrayTest, AnyStridesAndDtypesBecomeContiguousFloat64) {
  const at::Tensor values = RandomTensor({3, 5, 4}, 3).to(at::kFloat).transpose(1, 2);
  const HeadArray array({values, 2}, {3});

  // Own axes are [4, 5] now.
  EXPECT_EQ(array.Real(2)[5 * 1 + 3], values[2][1][3].item<double>());
  EXPECT_EQ(array.feature_epsilon(), 0x1p-23);
}

TEST(HeadArrayTest, ComplexValuesKeepBothParts) {
  const at::Tensor values = at::complex(RandomTensor({2, 3}, 4), RandomTensor({2, 3}, 5));
  const HeadArray array({values.conj(), 1}, {2}, at::kComplexDouble);
  const HeadArray of_real({at::real(values), 1}, {2}, at::kComplexDouble);

  const std::complex<double> entry = array.Complex(1)[2];
  EXPECT_EQ(entry.real(), at::real(values)[1][2].item<double>());
  EXPECT_EQ(entry.imag(), -at::imag(values)[1][2].item<double>());
  EXPECT_EQ(of_real.Complex(1)[2], entry.real());
  EXPECT_EQ(array.feature_epsilon(), 0x1p-52);
}

}  // namespace
}  // namespace ess::operators
