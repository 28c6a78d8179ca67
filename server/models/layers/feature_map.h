// Feature maps of linear attention: what makes of a query or key a vector whose products imitate
// softmax.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "server/models/layers/linear.h"
#include "server/models/tensor_source.h"

namespace ess::models {

// Immutable after loading.
struct FeatureMap {
  enum class Kind {
    kElementwiseProduct,  // (W1 x + b1) * (W2 x + b2)
    kHedgehog,            // softmax([2 (W x + b), -2 (W x + b)]), arXiv:2402.04347
    kT2r,                 // relu(W x), arXiv:2103.13076
    kDpfp,                // x' * x' rolled by 1 to 4, x' = relu([x, -x]), arXiv:2102.11174
    kElu,                 // elu(x) + 1
    kRelu,
    kIdentity,
  };
  Kind kind = Kind::kIdentity;
  Linear first, second;  // Where the kind has them.

  // x [L, H, d] => [L, H, features(d)]
  at::Tensor operator()(const at::Tensor& x) const;
};

// The names that flash-linear-attention gives them.
std::vector<std::string> FeatureMapNames();
// REQUIRES: one of FeatureMapNames().
FeatureMap::Kind FindFeatureMap(std::string_view name);

// Dimensions that it makes of `head_dim`.
int64_t FeatureCount(FeatureMap::Kind kind, int64_t head_dim);

// Takes "NAME.layer.weight", "NAME.layer1.weight", ... where the kind has weights.
// Errors: those of TensorSource::Take.
absl::StatusOr<FeatureMap> TakeFeatureMap(TensorSource& source, const std::string& name,
                                          FeatureMap::Kind kind, int64_t head_dim);

}  // namespace ess::models
