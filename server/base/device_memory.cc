#include "server/base/device_memory.h"

#include <ATen/DeviceAccelerator.h>
#include <malloc.h>

#include "c10/core/Device.h"
#include "server/base/available_memory.h"
#include "server/base/page_tensor.h"
#include "server/base/torch_status.h"

namespace ess {
namespace {

DeviceMemory HostMemory() {
  const struct mallinfo2 blocks = mallinfo2();
  const int64_t available = AvailableMemoryBytes();
  const int64_t mapped = static_cast<int64_t>(blocks.hblkhd) + BytesInPages();
  return {.allocated_bytes = static_cast<int64_t>(blocks.uordblks) + mapped,
          .reserved_bytes = static_cast<int64_t>(blocks.arena) + mapped,
          .free_bytes = available,
          .total_bytes = available};
}

}  // namespace

absl::StatusOr<DeviceMemory> ReadDeviceMemory(const std::string& device) {
  DeviceMemory memory;
  const absl::Status status = CatchTorch("device memory", [&] {
    const c10::Device parsed(device);
    if (parsed.is_cpu()) {
      memory = HostMemory();
      return absl::OkStatus();
    }
    constexpr auto kAll = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    const auto stats = at::accelerator::getDeviceStats(parsed.index());
    const auto [free, total] = at::accelerator::getMemoryInfo(parsed.index());
    memory = {.allocated_bytes = stats.allocated_bytes[kAll].current,
              .reserved_bytes = stats.reserved_bytes[kAll].current,
              .free_bytes = static_cast<int64_t>(free),
              .total_bytes = static_cast<int64_t>(total)};
    return absl::OkStatus();
  });
  if (!status.ok()) return status;
  return memory;
}

absl::Status ReleaseUnusedMemory(const std::string& device) {
  const absl::Status status = CatchTorch("device memory", [&] {
    const c10::Device parsed(device);
    if (!parsed.is_cpu()) {
      at::accelerator::synchronizeDevice(parsed.index());
      at::accelerator::emptyCache();
    }
    return absl::OkStatus();
  });
  malloc_trim(0);
  return status;
}

}  // namespace ess
