#include "server/models/host_weights.h"

#include <ATen/ATen.h>

#include "fmt/format.h"
#include "fmt/ranges.h"
#include "server/base/status_macros.h"
#include "server/base/torch_status.h"

namespace ess::models {
namespace {

absl::StatusOr<at::Tensor> OnDevice(std::string_view name, const at::Tensor& tensor,
                                    const std::string& device) {
  at::Tensor moved;
  ESS_RETURN_IF_ERROR(CatchTorch(fmt::format("tensor '{}'", name), [&] {
    moved = tensor.to(c10::Device(device));
    return absl::OkStatus();
  }));
  return moved;
}

}  // namespace

bool KeepingTensors::Has(std::string_view name) const {
  const bool has = inner_.Has(name);
  kept_.asked[std::string(name)] = has;
  return has;
}

absl::StatusOr<at::Tensor> KeepingTensors::Take(std::string_view name, at::IntArrayRef shape) {
  ESS_ASSIGN_OR_RETURN(const at::Tensor tensor, inner_.Take(name, shape));
  kept_.tensors[std::string(name)] = tensor;
  return OnDevice(name, tensor, device_);
}

bool KeptTensors::Has(std::string_view name) const {
  const auto asked = kept_.asked.find(name);
  return asked != kept_.asked.end() ? asked->second : kept_.tensors.contains(name);
}

absl::StatusOr<at::Tensor> KeptTensors::Take(std::string_view name, at::IntArrayRef shape) {
  const auto found = kept_.tensors.find(name);
  if (found == kept_.tensors.end() || found->second.sizes() != shape) {
    return absl::DataLossError(
        fmt::format("tensor '{}' [{}] is not in host memory: config.json has changed; reload the "
                    "model",
                    name, fmt::join(shape, ", ")));
  }
  return OnDevice(name, found->second, device_);
}

}  // namespace ess::models
