// The memory of the test accelerator.
#pragma once

#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/Device.h>

#include <mutex>

#include "tests/support/test_accelerator/test_accelerator.h"

namespace ess::testing {

inline c10::Device AcceleratorDevice() { return {c10::kPrivateUse1, 0}; }

// Where the bytes behind a device pointer are. Device pointers are addresses that no process has.
void* HostAddress(const void* device_pointer);

// Caches nothing: what is freed can be had again at once. Thread-safe.
class AcceleratorAllocator final : public c10::DeviceAllocator {
 public:
  // `state` outlives the allocator.
  explicit AcceleratorAllocator(AcceleratorState& state) : state_(state) {}

  AcceleratorState& state() { return state_; }

  // Throws c10::OutOfMemoryError, with the bytes that are asked for and free; a broken device
  // c10::AcceleratorError.
  c10::DataPtr allocate(size_t bytes) override;
  void copy_data(void* to, const void* from, size_t bytes) const override;

  bool initialized() override { return true; }
  void emptyCache(c10::MempoolId_t pool) override {}
  void recordStream(const c10::DataPtr& pointer, c10::Stream stream) override {}
  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(c10::DeviceIndex device) override;
  void resetAccumulatedStats(c10::DeviceIndex device) override;
  void resetPeakStats(c10::DeviceIndex device) override;
  // Free and total bytes.
  std::pair<size_t, size_t> getMemoryInfo(c10::DeviceIndex device) override;

 private:
  struct Block;
  static void Free(void* block);

  std::mutex mutex_;
  bool broken_ = false;
  AcceleratorState& state_;  // Written under the mutex, here; other processes look on.
};

// The one of this process.
AcceleratorAllocator& TestAcceleratorAllocator();

}  // namespace ess::testing
