#include "server/inference/tensor_contract.h"

#include <algorithm>

namespace ess::inference {

std::span<const TensorContract> InputTensors() {
  static const std::vector<TensorContract> tensors = {
      {kTokens, "INT64", {-1, -1}, /*has_batch=*/true, /*optional=*/true},
      {kText, "BYTES", {-1}, /*has_batch=*/true, /*optional=*/true},
      {kLengths, "INT32", {-1}, /*has_batch=*/true, /*optional=*/true},
  };
  return tensors;
}

std::span<const TensorContract> OutputTensors() {
  static const std::vector<TensorContract> tensors = {
      {kEss, "FP32", {-1, -1, -1, -1, -1}, /*has_batch=*/true},
      {kMeasure, "BYTES", {-1}},
      {kLayer, "BYTES", {-1}},
      {kLayerIndex, "INT32", {-1}},
      {kHeadIndex, "INT32", {-1}},
      {kPositionIndex, "INT32", {-1}},
      {kTokensUsed, "INT32", {-1}, /*has_batch=*/true},
      {kCertain, "BOOL", {-1, -1, -1, -1, -1}, /*has_batch=*/true, /*optional=*/true},
  };
  return tensors;
}

const TensorContract* FindTensor(std::span<const TensorContract> tensors, std::string_view name) {
  const auto found =
      std::find_if(tensors.begin(), tensors.end(),
                   [name](const TensorContract& tensor) { return tensor.name == name; });
  return found == tensors.end() ? nullptr : &*found;
}

}  // namespace ess::inference
