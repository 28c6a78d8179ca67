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

std::optional<c10::DeviceType> Accelerator() {
  LoadCuda();
  const auto type = at::getAccelerator(/*checked=*/false);
  if (!type.has_value() || at::accelerator::deviceCount() == 0) return std::nullopt;
  return type;
}

}  // namespace

absl::StatusOr<std::string> ResolveDevice(const std::string& device) {
  std::string resolved;
  const absl::Status status = CatchTorch("device", [&]() -> absl::Status {
    const std::optional<c10::DeviceType> accelerator =
        device == "cpu" ? std::nullopt : Accelerator();
    if (device == "auto" || device.empty()) {
      resolved = accelerator ? fmt::format("{}:0", c10::DeviceTypeName(*accelerator, true)) : "cpu";
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
    const bool present = accelerator.has_value() && *accelerator == parsed->type();
    const int count = present ? at::accelerator::deviceCount() : 0;
    if (index >= count) {
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
