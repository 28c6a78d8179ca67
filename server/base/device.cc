#include "server/base/device.h"

#include <ATen/ATen.h>
#include <ATen/DeviceAccelerator.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <dlfcn.h>
#include <torch/headeronly/version.h>

#include <filesystem>
#include <optional>

#include "c10/core/Device.h"
#include "fmt/format.h"
#include "server/base/log.h"
#include "server/base/torch_status.h"

namespace ess {
namespace {

// Loads the CUDA part of LibTorch, once, when there is a driver to talk to. Returns whether it is
// in the process.
bool LoadCuda() {
  static const bool loaded = [] {
    if (!std::filesystem::exists("/proc/driver/nvidia/version")) return false;
    if (dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) != nullptr) return true;
    ESS_LOG(warn, "a GPU driver is present but libtorch_cuda.so cannot be loaded: {}", dlerror());
    return false;
  }();
  return loaded;
}

// The accelerator's type; kCPU when there is none.
c10::DeviceType Accelerator() {
  LoadCuda();
  const bool present = at::getAccelerator().has_value() && at::accelerator::deviceCount() > 0;
  return present ? at::getAccelerator(/*checked=*/true).value() : c10::kCPU;
}

}  // namespace

absl::StatusOr<std::string> ResolveDevice(const std::string& device) {
  std::string resolved;
  const absl::Status status = CatchTorch("device", [&]() -> absl::Status {
    const c10::DeviceType accelerator = device == "cpu" ? c10::kCPU : Accelerator();
    if (device == "auto" || device.empty()) {
      resolved = accelerator == c10::kCPU
                     ? "cpu"
                     : fmt::format("{}:0", c10::DeviceTypeName(accelerator, true));
      return absl::OkStatus();
    }
    std::optional<c10::Device> parsed;
    try {
      parsed.emplace(device);
    } catch (const c10::Error&) {
      return absl::InvalidArgumentError(
          fmt::format("device: '{}' is not a device; say auto, cpu, cuda or cuda:INDEX", device));
    }
    if (parsed->is_cpu()) {
      resolved = "cpu";
      return absl::OkStatus();
    }
    const int index = parsed->has_index() ? parsed->index() : 0;
    const int count = accelerator == parsed->type() ? at::accelerator::deviceCount() : 0;
    if (index < 0 || index >= count) {  // c10 lets 128 be -128.
      return absl::FailedPreconditionError(fmt::format(
          "device: '{}' is not on this machine, which has {} of that type", device, count));
    }
    resolved = fmt::format("{}:{}", c10::DeviceTypeName(parsed->type(), true), index);
    return absl::OkStatus();
  });
  if (!status.ok()) return status;
  return resolved;
}

std::string TorchVersion() { return TORCH_VERSION; }

void SetTorchThreads(int threads) { at::set_num_threads(threads); }

}  // namespace ess
