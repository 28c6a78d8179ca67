#include "server/pipeline/operators_job.h"

#include <functional>
#include <numeric>

namespace ess {
namespace {

int64_t Product(const std::vector<int64_t>& sizes) {
  return std::accumulate(sizes.begin(), sizes.end(), int64_t{1}, std::multiplies<>());
}

}  // namespace

std::vector<int64_t> OperatorArgument::FullShape() const {
  std::vector<int64_t> full = batch_shape;
  full.insert(full.end(), shape.begin(), shape.end());
  return full;
}

int64_t OperatorArgument::BatchCount() const { return Product(batch_shape); }

int64_t OperatorArgument::ElementCount() const { return BatchCount() * Product(shape); }

int64_t OperatorArgument::ByteCount() const {
  return ElementCount() * static_cast<int64_t>(c10::elementSize(dtype));
}

}  // namespace ess
