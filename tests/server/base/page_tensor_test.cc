#include "server/base/page_tensor.h"

#include <ATen/ATen.h>

#include "gtest/gtest.h"

namespace ess {
namespace {

TEST(PageTensorTest, ALargeTensorHasPagesOfItsOwnUntilItGoes) {
  const int64_t before = BytesInPages();
  at::Tensor tensor = EmptyInPages({512, 1024}, at::kFloat);
  EXPECT_EQ(tensor.sizes(), at::IntArrayRef({512, 1024}));
  EXPECT_EQ(BytesInPages() - before, 512 * 1024 * 4);
  tensor.fill_(1);
  EXPECT_EQ(tensor.sum().item<float>(), 512 * 1024);

  const at::Tensor view = tensor[3];
  tensor = at::Tensor();
  EXPECT_EQ(view.sum().item<float>(), 1024);
  EXPECT_GT(BytesInPages(), before);
}

TEST(PageTensorTest, ASmallTensorIsMallocs) {
  const int64_t before = BytesInPages();
  const at::Tensor tensor = EmptyInPages({3}, at::kBFloat16);
  EXPECT_EQ(tensor.scalar_type(), at::kBFloat16);
  EXPECT_EQ(BytesInPages(), before);
}

}  // namespace
}  // namespace ess
