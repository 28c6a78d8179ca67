#include "tests/support/test_accelerator/accelerator_allocator.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>

namespace ess::testing {
namespace {

constexpr size_t kAlignment = 64;
constexpr int32_t kIllegalAddress = 700;  // As CUDA counts.
constexpr int kFilling = 0xff;            // NaN in every float type, -1 in every integer.

// Addresses of processes have this bit clear, on x86-64 and on AArch64.
constexpr uintptr_t kDeviceBit = uintptr_t{1} << 54;

void* DeviceAddress(const void* host_pointer) {
  return reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(host_pointer) | kDeviceBit);
}

}  // namespace

void* HostAddress(const void* device_pointer) {
  return reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(device_pointer) & ~kDeviceBit);
}

struct AcceleratorAllocator::Block {
  AcceleratorAllocator& allocator;
  std::unique_ptr<void, decltype(&std::free)> host_pointer;
  int64_t bytes;
};

c10::DataPtr AcceleratorAllocator::allocate(size_t bytes) {
  if (bytes == 0) return {nullptr, AcceleratorDevice()};
  const int64_t wanted = static_cast<int64_t>(bytes);
  {
    const std::lock_guard lock(mutex_);
    broken_ |= state_.allocations_to_break > 0 && --state_.allocations_to_break == 0;
    if (broken_) {
      throw c10::AcceleratorError(
          {__func__, __FILE__, __LINE__}, kIllegalAddress,
          "Test accelerator error: an illegal memory access was encountered");
    }
    const int64_t budget = state_.byte_budget;
    const int64_t free = std::max<int64_t>(budget - state_.live_bytes, 0);
    const bool planned = state_.allocations_to_failure > 0 && --state_.allocations_to_failure == 0;
    if (planned || wanted > free) {
      ++state_.failures;
      TORCH_CHECK_WITH(OutOfMemoryError, false,
                       "Test accelerator out of memory. Tried to allocate ", wanted,
                       " bytes. Device 0 has a total capacity of ", budget, " bytes of which ",
                       free, " bytes are free.", planned ? " This failure was planned." : "");
    }
    ++state_.allocations;
    state_.live_bytes += wanted;
    state_.peak_bytes = std::max<int64_t>(state_.peak_bytes, state_.live_bytes);
  }
  const size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  void* const host = std::aligned_alloc(kAlignment, rounded);
  TORCH_CHECK(host != nullptr, "the test accelerator's host is out of memory");
  std::memset(host, kFilling, rounded);
  return {DeviceAddress(host), new Block{*this, {host, &std::free}, wanted}, &Free,
          AcceleratorDevice()};
}

void AcceleratorAllocator::Free(void* block) {
  const std::unique_ptr<Block> freed(static_cast<Block*>(block));
  const std::lock_guard lock(freed->allocator.mutex_);
  freed->allocator.state_.live_bytes -= freed->bytes;
}

void AcceleratorAllocator::copy_data(void* to, const void* from, size_t bytes) const {
  std::memcpy(HostAddress(to), HostAddress(from), bytes);
}

c10::CachingDeviceAllocator::DeviceStats AcceleratorAllocator::getDeviceStats(
    c10::DeviceIndex device) {
  constexpr auto kAll = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  const std::lock_guard lock(mutex_);
  c10::CachingDeviceAllocator::DeviceStats stats;
  stats.allocation[kAll].allocated = state_.allocations;
  stats.allocated_bytes[kAll].current = state_.live_bytes;
  stats.allocated_bytes[kAll].peak = state_.peak_bytes;
  stats.reserved_bytes[kAll] = stats.allocated_bytes[kAll];
  stats.num_device_alloc = state_.allocations;
  stats.num_ooms = state_.failures;
  return stats;
}

void AcceleratorAllocator::resetAccumulatedStats(c10::DeviceIndex device) {
  const std::lock_guard lock(mutex_);
  state_.allocations = 0;
  state_.failures = 0;
}

void AcceleratorAllocator::resetPeakStats(c10::DeviceIndex device) {
  const std::lock_guard lock(mutex_);
  state_.peak_bytes = state_.live_bytes.load();
}

std::pair<size_t, size_t> AcceleratorAllocator::getMemoryInfo(c10::DeviceIndex device) {
  const std::lock_guard lock(mutex_);
  const int64_t budget = state_.byte_budget;
  return {std::max<int64_t>(budget - state_.live_bytes, 0), budget};
}

}  // namespace ess::testing
