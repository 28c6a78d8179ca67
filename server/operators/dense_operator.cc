#include "server/operators/dense_operator.h"

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>

#include <algorithm>
#include <utility>

#include "server/base/log.h"
#include "server/operators/feature_dtype.h"

namespace ess::operators {
namespace {

// Plain loops: the engine calls this from many threads at once, where LibTorch's own parallel copy
// would only add threads.
template <typename Scalar>
void CopyLowerTriangle(const at::Tensor& map, std::span<double> out) {
  const int64_t length = map.size(0);
  const int64_t row_stride = map.stride(0);
  const int64_t column_stride = map.stride(1);
  const Scalar* source = map.const_data_ptr<Scalar>();
  for (int64_t row = 0; row < length; ++row) {
    double* target = out.data() + row * length;
    for (int64_t column = 0; column <= row; ++column) {
      target[column] = static_cast<double>(source[row * row_stride + column * column_stride]);
    }
    std::fill(target + row + 1, target + length, 0.0);
  }
}

}  // namespace

DenseOperator::DenseOperator(at::Tensor maps, StateSize state_size)
    : maps_(std::move(maps)), state_size_(state_size) {
  ESS_CHECK(maps_.dim() == 3 && maps_.size(1) == maps_.size(2));
  ESS_CHECK(maps_.is_floating_point());
}

double DenseOperator::feature_epsilon() const { return FeatureEpsilon(maps_.scalar_type()); }

void DenseOperator::DenseHead(int64_t head, std::span<double> out) const {
  ESS_CHECK(head >= 0 && head < head_count());
  ESS_CHECK(static_cast<int64_t>(out.size()) == length() * length());
  const at::Tensor map = maps_.select(0, head).to(at::kCPU);  // [L, L]
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, map.scalar_type(), "DenseHead",
                                  [&] { CopyLowerTriangle<scalar_t>(map, out); });
}

at::Tensor DenseOperator::Apply(const at::Tensor& u) const {
  // [H, L, L] @ [H, L, C] => [H, L, C]
  return at::matmul(maps_.to(at::kCPU, at::kDouble).tril(), u);
}

}  // namespace ess::operators
