#include "server/models/layers/feature_map.h"

#include <ATen/ATen.h>

#include "server/base/log.h"
#include "server/base/status_macros.h"

namespace ess::models {
namespace {

using Kind = FeatureMap::Kind;

constexpr int64_t kRolls = 4;

struct NamedKind {
  std::string_view name;
  Kind kind;
};

constexpr NamedKind kKinds[] = {
    {"elementwise_product", Kind::kElementwiseProduct},
    {"hedgehog", Kind::kHedgehog},
    {"t2r", Kind::kT2r},
    {"dpfp", Kind::kDpfp},
    {"elu", Kind::kElu},
    {"relu", Kind::kRelu},
    {"identity", Kind::kIdentity},
};

at::Tensor Dpfp(const at::Tensor& x) {
  const at::Tensor both = at::cat({at::relu(x), at::relu(x.neg())}, -1);
  std::vector<at::Tensor> products;
  for (int64_t roll = 1; roll <= kRolls; ++roll) {
    products.push_back(both.mul(at::roll(both, roll, -1)));
  }
  return at::cat(products, -1);
}

}  // namespace

at::Tensor FeatureMap::operator()(const at::Tensor& x) const {
  switch (kind) {
    case Kind::kElementwiseProduct:
      return first(x).mul(second(x));
    case Kind::kHedgehog: {
      const at::Tensor y = first(x).mul(2);
      return at::softmax(at::cat({y, y.neg()}, -1), -1, at::kFloat).to(x.scalar_type());
    }
    case Kind::kT2r:
      return at::relu(first(x));
    case Kind::kDpfp:
      return Dpfp(x);
    case Kind::kElu:
      return at::elu(x).add_(1);
    case Kind::kRelu:
      return at::relu(x);
    case Kind::kIdentity:
      return x;
  }
  return x;
}

std::vector<std::string> FeatureMapNames() {
  std::vector<std::string> names;
  for (const NamedKind& named : kKinds) names.emplace_back(named.name);
  return names;
}

Kind FindFeatureMap(std::string_view name) {
  for (const NamedKind& named : kKinds) {
    if (named.name == name) return named.kind;
  }
  ESS_CHECK(false && "the config reader let an unknown feature map through");
  return Kind::kIdentity;
}

int64_t FeatureCount(Kind kind, int64_t head_dim) {
  if (kind == Kind::kHedgehog) return 2 * head_dim;
  return kind == Kind::kDpfp ? 2 * kRolls * head_dim : head_dim;
}

absl::StatusOr<FeatureMap> TakeFeatureMap(TensorSource& source, const std::string& name, Kind kind,
                                          int64_t head_dim) {
  FeatureMap map{.kind = kind, .first = {}, .second = {}};
  const auto take = [&](const std::string& layer, bool bias) {
    return TakeLinear(source, name + layer, head_dim, head_dim, bias);
  };
  if (kind == Kind::kElementwiseProduct) {
    ESS_ASSIGN_OR_RETURN(map.first, take(".layer1", true));
    ESS_ASSIGN_OR_RETURN(map.second, take(".layer2", true));
  } else if (kind == Kind::kHedgehog || kind == Kind::kT2r) {
    ESS_ASSIGN_OR_RETURN(map.first, take(".layer", kind == Kind::kHedgehog));
  }
  return map;
}

}  // namespace ess::models
