#include "tests/support/test_accelerator/test_accelerator.h"

#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <c10/core/DeviceType.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/util/Exception.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "tests/support/test_accelerator/accelerator_allocator.h"
#include "tests/support/test_accelerator/accelerator_kernels.h"

namespace ess::testing {
namespace {

constexpr char kStateVariable[] = "TEST_ACCELERATOR_STATE";

// Of a device that does everything at once, in order.
class Guard final : public c10::impl::DeviceGuardImplInterface {
 public:
  c10::DeviceType type() const override { return c10::kPrivateUse1; }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
  c10::Device getDevice() const override { return AcceleratorDevice(); }
  c10::Device exchangeDevice(c10::Device device) const override {
    setDevice(device);
    return AcceleratorDevice();
  }
  void setDevice(c10::Device device) const override {
    TORCH_CHECK(device == AcceleratorDevice(), device, " is not there; the one device is ",
                AcceleratorDevice());
  }
  void uncheckedSetDevice(c10::Device device) const noexcept override {}
  c10::Stream getStream(c10::Device device) const override {
    return c10::Stream(c10::Stream::DEFAULT, AcceleratorDevice());
  }
  c10::Stream getDefaultStream(c10::Device device) const override { return getStream(device); }
  c10::Stream exchangeStream(c10::Stream stream) const override {
    return getStream(AcceleratorDevice());
  }
  bool queryStream(const c10::Stream& stream) const override { return true; }
  void synchronizeStream(const c10::Stream& stream) const override {}
  void synchronizeDevice(c10::DeviceIndex device) const override {}
};

class Hooks final : public at::PrivateUse1HooksInterface {
 public:
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex device) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
};

// In the file that the environment names, or of this process alone.
AcceleratorState& MakeState() {
  const char* const path = std::getenv(kStateVariable);
  if (path == nullptr) return *new AcceleratorState;
  const int file = open(path, O_RDWR | O_CLOEXEC);
  void* const memory =
      mmap(nullptr, sizeof(AcceleratorState), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  TORCH_CHECK(file >= 0 && memory != MAP_FAILED, kStateVariable, ": cannot map ", path);
  close(file);
  return *static_cast<AcceleratorState*>(memory);
}

[[maybe_unused]] const bool loaded_for_a_process_that_knows_nothing_of_it = [] {
  if (std::getenv(kStateVariable) == nullptr) return false;
  RegisterTestAccelerator();
  return true;
}();

}  // namespace

AcceleratorAllocator& TestAcceleratorAllocator() {
  static AcceleratorAllocator& allocator = *new AcceleratorAllocator(MakeState());
  return allocator;
}

AcceleratorState& TestAcceleratorState() { return TestAcceleratorAllocator().state(); }

void RegisterTestAccelerator() {
  [[maybe_unused]] static const bool registered = [] {
    const std::string name(kTestAccelerator);
    c10::register_privateuse1_backend(name.substr(0, name.find(':')));
    c10::SetAllocator(c10::kPrivateUse1, &TestAcceleratorAllocator());
    static const c10::impl::DeviceGuardImplRegistrar guard(c10::kPrivateUse1, new Guard);
    at::RegisterPrivateUse1HooksInterface(new Hooks);
    RegisterAcceleratorKernels();
    return true;
  }();
}

void FailAllocation(int64_t n) { TestAcceleratorState().allocations_to_failure = n; }

void ResetTestAccelerator() {
  AcceleratorState& state = TestAcceleratorState();
  state.byte_budget = kTestAcceleratorBytes;
  state.allocations_to_failure = 0;
  state.allocations = 0;
  state.failures = 0;
  state.peak_bytes = state.live_bytes.load();
}

}  // namespace ess::testing
